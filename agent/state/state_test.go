package state

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/internal/lockfile"
)

// holdVariable makes the test binary an agent that holds a state directory.
const holdVariable = "STATE_TEST_HOLD"

// writeIn makes it one that writes a record there again and again.
const writeIn = "STATE_TEST_WRITE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdVariable); dir != "" {
		hold(dir)
	}
	if dir := os.Getenv(writeIn); dir != "" {
		keepWriting(dir)
	}
	goleak.VerifyTestMain(m)
}

// hold opens dir, says so and stays until its input ends.
func hold(dir string) {
	s, err := Open(dir)
	fmt.Println(err)
	bufio.NewReader(os.Stdin).ReadString('\n')
	_ = s // the lock is not let go of: the process is killed
	os.Exit(0)
}

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestOpenMakesItsDirectories(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	s := openStore(t, dir)
	for _, d := range []string{dir, filepath.Join(dir, "run"), filepath.Join(dir, "log")} {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", d, info.Mode(), err)
		}
	}
	if got, want := s.LogPath("../x"), filepath.Join(dir, "log", "%2E.%2Fx.log"); got != want {
		t.Errorf("log path %s, want %s", got, want)
	}
	if records, damaged, err := s.Load(); len(records)+len(damaged) != 0 || err != nil {
		t.Errorf("got %v, %v, %v", records, damaged, err)
	}
}

func TestAgentIDStays(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	first := s.AgentID()
	if len(first) != 32 {
		t.Errorf("got %q", first)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if again := openStore(t, dir).AgentID(); again != first {
		t.Errorf("got %q, then %q", first, again)
	}
	if other := openStore(t, t.TempDir()).AgentID(); other == first {
		t.Error("two agents have one id")
	}
}

func TestAgentIDIsMadeAgainIfDamaged(t *testing.T) {
	whole := strings.Repeat("0123456789abcdef", 2)
	for n := range len(whole) {
		dir := t.TempDir()
		path := filepath.Join(dir, "agent.id")
		write(t, path, whole[:n])
		s := openStore(t, dir)
		if id := s.AgentID(); len(id) != 32 || id == whole {
			t.Fatalf("cut at %d: got %q", n, id)
		}
		_, damaged, err := s.Load()
		if err != nil || len(damaged) != 1 || damaged[0].File != path {
			t.Fatalf("cut at %d: got %v, %v", n, damaged, err)
		}
		if got, _ := os.ReadFile(damaged[0].Aside); string(got) != whole[:n] {
			t.Fatalf("cut at %d: set aside %q", n, got)
		}
	}
}

func TestOpenSweeps(t *testing.T) {
	dir := t.TempDir()
	left := []string{filepath.Join(dir, "run", ".x.json.17.tmp"), filepath.Join(dir, ".kept.json.1.tmp")}
	for _, path := range left {
		write(t, path, "half")
	}
	openStore(t, dir)
	for _, path := range left {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}

// The lock of another process is named by its pid, and gone with it.
func TestLockOfALiveAgent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	agent := exec.Command(os.Args[0])
	agent.Env = append(os.Environ(), holdVariable+"="+dir)
	if _, err := agent.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "<nil>\n" {
		t.Errorf("the other agent says %q, %v", line, err)
	}

	_, err = Open(dir)
	want := fmt.Sprintf("another agent (pid %d) holds %s/lock: stop it first, or give this one a statedirectory of its own",
		agent.Process.Pid, dir)
	if locked, ok := errors.AsType[*LockedError](err); !ok || locked.PID != agent.Process.Pid || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if err := agent.Process.Kill(); err != nil {
		t.Error(err)
	}
	agent.Wait()
	openStore(t, dir)
}

// A child between its fork and its exec still has the lock of an agent that was
// killed just then. Who has it for longer has to be reported.
func TestLockOfAKilledAgent(t *testing.T) {
	for _, held := range []time.Duration{100 * time.Millisecond, time.Hour} {
		dir := t.TempDir()
		child, err := lockfile.Take(filepath.Join(dir, "lock"))
		if err != nil {
			t.Fatal(err)
		}
		defer child.Close()
		if err := os.WriteFile(child.Name(), fmt.Appendln(nil, deadPID(t)), 0o600); err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			exec := time.AfterFunc(held, func() { child.Close() })
			defer exec.Stop()
			s, err := Open(dir)
			if locked := (*LockedError)(nil); errors.As(err, &locked) != (held > execWithin) {
				t.Errorf("held for %s: got %v", held, err)
			}
			if err == nil {
				s.Close()
			}
		})
	}
}

// deadPID is that of a process that has ended.
func deadPID(t *testing.T) int {
	t.Helper()
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	return ended.Process.Pid
}

func TestLockWithoutPID(t *testing.T) {
	dir := t.TempDir()
	openStore(t, dir)
	write(t, filepath.Join(dir, "lock"), "rubbish")
	_, err := Open(dir)
	want := "another agent holds " + dir + "/lock: stop it first, or give this one a statedirectory of its own"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestDirectoryThatCanNotBeUsed(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "plain"), "")
	write(t, filepath.Join(dir, "noid", "agent.id", "x"), "")
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	foreign, owner := "/", 0
	if os.Geteuid() == 0 {
		foreign, owner = filepath.Join(dir, "foreign"), 12345
		if err := errors.Join(os.Mkdir(foreign, 0o700), os.Chown(foreign, owner, -1)); err != nil {
			t.Fatal(err)
		}
	}
	const cure = "; make the directory writable for the user that agentd runs as, or name another one"
	for _, tt := range []struct{ dir, want string }{
		{dir + "/plain", "mkdir " + dir + "/plain: not a directory" + cure},
		{dir + "/plain/state", "mkdir " + dir + "/plain: not a directory" + cure},
		{"/proc/state", "mkdir /proc/state: no such file or directory" + cure},
		{dir + "/noid", "read " + dir + "/noid/agent.id: is a directory" + cure},
		{open, "everybody may write into " + open + "; name another directory, or take the right away with chmod o-w"},
		{foreign, fmt.Sprintf("%s belongs to the user with uid %d, agentd runs as uid %d; name another directory, or give it away with chown",
			foreign, owner, os.Geteuid())},
	} {
		s, err := Open(tt.dir)
		if err == nil || err.Error() != "statedirectory: "+tt.want {
			t.Errorf("got  %v, %v\nwant statedirectory: %s", s, err, tt.want)
		}
	}
}

// A flipped bit may make another id of one, and costs no more than that.
func TestAgentIDWithFlippedBits(t *testing.T) {
	whole := strings.Repeat("0123456789abcdef", 2)
	path := filepath.Join(t.TempDir(), "agent.id")
	for _, broken := range damages(whole + "\n") {
		write(t, path, broken)
		s := openStore(t, filepath.Dir(path))
		id, err := hex.DecodeString(s.AgentID())
		if err != nil || len(id) != agentIDBytes {
			t.Fatalf("%q: got %q", broken, s.AgentID())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKept(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	if k, err := s.Kept(); err != nil || k.Holds != nil {
		t.Errorf("at first: %v, %v", k, err)
	}
	for _, holds := range [][]string{{"a", "../ä\x00"}, {}} {
		want := Kept{Holds: holds, Drained: len(holds) == 0}
		if err := s.Keep(want); err != nil {
			t.Fatal(err)
		}
		if k, err := s.Kept(); err != nil || cmp.Diff(want, k) != "" {
			t.Errorf("got %v, %v, want %v", k, err, want)
		}
	}
}

func TestKeptLoops(t *testing.T) {
	s := openStore(t, t.TempDir())
	at := time.Date(2026, 11, 29, 1, 2, 3, 4, time.UTC)
	loops := []Loop{
		{Instance: "ä", Module: "m", Failures: 7, Since: at, Until: at.Add(time.Minute), Reason: "it ended", Exit: &process.Exit{Code: 3}},
		{Instance: "b", Failures: 5, Since: at},
	}
	if err := s.Keep(Kept{Holds: []string{"a"}, Loops: loops}); err != nil {
		t.Fatal(err)
	}
	if k, err := s.Kept(); err != nil || cmp.Diff(Kept{Holds: []string{"a"}, Loops: loops}, k) != "" {
		t.Errorf("got %v, %v, want %v", k, err, loops)
	}

	// So many that they would not fit into a file that can be read.
	many := make([]Loop, 10000)
	for n := range many {
		many[n] = Loop{Instance: strconv.Itoa(n), Reason: strings.Repeat("\x00", 200), Failures: 5}
	}
	if err := s.Keep(Kept{Holds: []string{"a"}, Loops: many}); err != nil {
		t.Fatal(err)
	}
	k, err := s.Kept()
	if err != nil || len(k.Holds) != 1 || len(k.Loops) < 300 || cmp.Diff(many[:len(k.Loops)], k.Loops) != "" {
		t.Errorf("of many: %d loops and %d holds, %v", len(k.Loops), len(k.Holds), err)
	}
}

func TestKeptThatIsDamaged(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	path := filepath.Join(dir, "kept.json")
	if err := s.Keep(Kept{Holds: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, broken := range damages(string(whole)) {
		write(t, path, broken)
		k, err := s.Kept()
		d, ok := errors.AsType[*Damaged](err)
		if !ok || k.Holds != nil || d.Aside != path+".damaged" {
			t.Fatalf("%q: got %v, %v", broken, k, err)
		}
		if want := path + " is damaged: its checksum does not fit its content; it is set aside as kept.json.damaged"; err.Error() != want {
			t.Fatalf("got %v, want %s", err, want)
		}
		if k, err := s.Kept(); err != nil || k.Holds != nil {
			t.Fatalf("%q, second time: got %v, %v", broken, k, err)
		}
	}
}

// damages are all the texts that are cut, and all in which one bit of a byte is
// flipped.
func damages(whole string) (texts []string) {
	for n := range len(whole) {
		texts = append(texts, whole[:n])
		flipped := []byte(whole)
		flipped[n] ^= 1 << (n % 8)
		texts = append(texts, string(flipped))
	}
	return texts
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// As many holds as there is room for are read again, beside as many loops as are
// written.
func TestKeptHasRoom(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	k := Kept{Drained: true}
	for RoomFor(append(k.Holds, strings.Repeat("\x01", 255))) {
		k.Holds = append(k.Holds, strings.Repeat("\x01", 255))
	}
	for len(fitting(k.Loops)) == len(k.Loops) {
		k.Loops = append(k.Loops, Loop{Instance: strings.Repeat("x", 255), Reason: strings.Repeat("y", 20000)})
	}
	if err := s.Keep(k); err != nil {
		t.Fatal(err)
	}
	got, err := s.Kept()
	if err != nil || len(got.Holds) != len(k.Holds) || !got.Drained || len(got.Loops) != len(k.Loops)-1 {
		t.Errorf("got %d of %d holds, drained %v, %d loops, %v", len(got.Holds), len(k.Holds), got.Drained, len(got.Loops), err)
	}
}
