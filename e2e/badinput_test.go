//go:build linux

package e2e

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// end is what there is to see of a program that has ended.
type end struct {
	code          int
	out, problems string
}

// Exit codes of agentd.
const (
	done    = 0
	refused = 1 // by the machine
	wrong   = 2 // what the user wrote
)

// agentd runs agentd in a directory to its end, which must come by itself.
func (s *stage) agentd(dir string, args ...string) end {
	s.t.Helper()
	return s.end(exec.CommandContext(s.ctx, filepath.Join(s.lab.Bin, "agentd"), append([]string{"--directory", dir}, args...)...))
}

func (s *stage) end(cmd *exec.Cmd) end {
	s.t.Helper()
	var out, problems strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problems
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("%v: %v", cmd, err)
	}
	if s.ctx.Err() != nil {
		s.t.Fatalf("%v did not end:\n%s%s", cmd, &out, &problems)
	}
	return end{cmd.ProcessState.ExitCode(), out.String(), problems.String()}
}

// write makes a directory of a lab with those files.
func (s *stage) write(name string, files map[string]string) (dir string) {
	s.t.Helper()
	dir = filepath.Join(s.lab.Dir, name)
	s.must(os.MkdirAll(filepath.Join(dir, "modules"), 0o755))
	for file, text := range files {
		s.must(os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755))
		s.must(os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644))
	}
	return dir
}

// tree is all that there is below a directory, in a form in which every change
// shows, also one that was undone.
func (s *stage) tree(dir string) map[string]string {
	s.t.Helper()
	all := map[string]string{}
	s.must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			all[strings.TrimPrefix(path, dir)] = err.Error()
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		look := fmt.Sprint(info.Mode(), " ", info.ModTime().Format(time.StampNano))
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			look += fmt.Sprintf("\n%s%v", text, err)
		}
		all[strings.TrimPrefix(path, dir)] = look
		return nil
	}))
	return all
}

// sameTree makes sure that nothing has changed below a directory.
func (s *stage) sameTree(dir string, before map[string]string) {
	s.t.Helper()
	if diff := cmp.Diff(before, s.tree(dir)); diff != "" {
		s.t.Errorf("%s has changed (-before +after):\n%s", dir, diff)
	}
}

const (
	configFile = "allexmasterconfig.json"
	configKeys = "lanmanageraddress, lanmanagerport, lanmanagerprotocol, lanmanagerportcorrection, address, portrangestart, portrangesize, " +
		"portquarantine, runtimedirectory, socket, statedirectory, moduledirectory, name, maxprocesses, orphangrace, stopunneeded, endstrays, log, tls, tokenfile, metricsaddress, tracing"
)

// longSocket is a path of 120 characters.
var longSocket = "/tmp/" + strings.Repeat("s", 115)

// mistakes are what people write, and what agentd says to it behind the name of
// the file.
var mistakes = []struct{ name, file, text, want string }{
	{"unknown key", configFile, `{"lanmanageradress": "127.0.0.1"}`,
		`:1:2: lanmanageradress: unknown key; did you mean "lanmanageraddress"? Allowed: ` + configKeys},
	{"wrong type", configFile, "{\n  \"name\": \"m\",\n  \"lanmanagerport\": \"23552\"\n}",
		`:3:21: lanmanagerport: found the string "23552", wanted a whole number`},
	{"port 70000", configFile, `{"portrangestart": {"tcp": 70000, "http": 16000, "ws": 17000}}`,
		`:1:28: portrangestart.tcp: found 70000, allowed are 1 to 65535`},
	{"overlapping ranges", configFile, `{"portrangestart": {"tcp": 15000, "http": 15500, "ws": 17000}}`,
		`:1:43: portrangestart.http: http 15500-16499 overlaps tcp 15000-15999; move one of them, or make portrangesize smaller`},
	{"broken JSON", configFile, "{\n  \"name\": \"m\"\n  \"socket\": \"s\"\n}",
		`:3:3: broken JSON: invalid character '"' after object key:value pair`},
	{"socket path", configFile, `{"socket": "` + longSocket + `"}`,
		`:1:12: socket: the path has 120 bytes, a Unix socket can have 107; choose a shorter one, such as /tmp/allexmachinemanager: ` + longSocket},
	{"runtime directory", configFile, `{"runtimedirectory": "/nowhere/at/all"}`,
		`:1:22: runtimedirectory: stat /nowhere/at/all: no such file or directory; make it, or name another directory`},
	{"module directory", configFile, `{"moduledirectory": "."}`,
		`:1:21: moduledirectory: this file lies there, and every .json file there is a module; name another directory, such as "modules"`},
	{"command that does not exist", "modules/m.json", `{"modulename": "m", "command": ["/nowhere/prog"]}`,
		`:1:33: command[0]: /nowhere/prog does not exist; put the program there, or correct the path`},
	{"command in no directory of PATH", "modules/m.json", `{"modulename": "m", "command": ["no-such-program"]}`,
		`:1:33: command[0]: "no-such-program" is in no directory of PATH (` + os.Getenv("PATH") + `); install it, or name it with its path`},
	{"substitution in a script", "modules/m.json", `{"modulename": "m", "command": ["sh", "-c", "echo ${propertyhash}"]}`,
		`:1:45: command[2]: ${propertyhash} behind -c of a shell, where its value would run as a program; ` +
			`use the environment variable: set "environment": {"PROPERTYHASH": "${propertyhash}"} and write "$PROPERTYHASH" with the quotes`},
	{"broken JSON in a module", "modules/m.json", "{\n  \"modulename\": m\n}",
		`:2:17: broken JSON: invalid character 'm' looking for beginning of value`},
}

// What a user wrote wrong is told exactly, with 2 as the exit code, with and
// without --check; nothing is started and nothing is written.
func TestMistakes(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			s := *s
			s.t = t
			dir := s.write(strings.ReplaceAll(m.name, " ", "-"), map[string]string{configFile: `{"socket": "sock"}`, m.file: m.text})
			want := end{code: wrong, problems: "agentd: " + filepath.Join(dir, m.file) + m.want + "\n"}
			s.refuses(dir, want)
		})
	}
}

// refuses makes sure that agentd ends so, with and without --check, and leaves
// its directory as it was.
func (s *stage) refuses(dir string, want end) {
	s.t.Helper()
	before := s.tree(dir)
	for _, args := range [][]string{nil, {"--check"}} {
		if diff := cmp.Diff(want, s.agentd(dir, args...), cmp.AllowUnexported(end{})); diff != "" {
			s.t.Errorf("agentd %v (-want +got):\n%s", args, diff)
		}
	}
	s.sameTree(dir, before)
}

// All mistakes of all files come at once, those of the configuration first.
func TestAllMistakesAtOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	dir := s.write("machine", map[string]string{
		configFile: `{
  "portrangestart": {"tcp": 0},
  "maxproceses": 5,
  "moduledirectory": "catalogue",
  "name": 7
}`,
		"catalogue/a.json":     `{"command": []}`,
		"catalogue/b.json":     "{",
		"catalogue/c.json":     `{"modulename": "c", "command": ["true"]}`,
		"catalogue/d.json":     `{"modulename": "c", "command": ["true"]}`,
		"catalogue/.e.json":    "hidden, and so no module",
		"catalogue/f.txt":      "no module either",
		"modules/another.json": "of nobody's concern",
	})
	in := func(file, problem string) string { return filepath.Join(dir, file) + problem + "\n" }
	s.refuses(dir, end{code: wrong, problems: "agentd: " +
		in(configFile, `:2:29: portrangestart.tcp: found 0, allowed are 1 to 65535`) +
		in(configFile, `:3:3: maxproceses: unknown key; did you mean "maxprocesses"? Allowed: `+configKeys) +
		in(configFile, `:5:11: name: found the number 7, wanted a string`) +
		in("catalogue/a.json", `:1:1: modulename: missing; it is the name by which needs ask for the module`) +
		in("catalogue/a.json", `:1:13: command: missing or empty; it is the executable and its arguments, as in ["./echo", "--http", "${httpport}"]`) +
		in("catalogue/b.json", `:1:1: broken JSON: unexpected end of JSON input`) +
		in("catalogue/d.json", `:1:16: modulename: "c" is also in `+filepath.Join(dir, "catalogue/c.json")+`; remove one of the two`)})
}

// What is good is called good, and nothing is made or started.
func TestCheckOfGoodFiles(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	dir := s.write("machine", map[string]string{
		configFile:       `{"socket": "sock", "portrangestart": {"tcp": 10000, "http": 11000, "ws": 12000}}`,
		"modules/a.json": `{"modulename": "a", "command": ["true"]}`,
	})
	before := s.tree(dir)
	want := end{out: fmt.Sprintf("%[1]s/%[2]s: good\n%[1]s/modules: good, modules: 1\n", dir, configFile)}
	if diff := cmp.Diff(want, s.agentd(dir, "--check"), cmp.AllowUnexported(end{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	s.sameTree(dir, before)

	// A check makes no files where there are none; the start does.
	empty := s.write("empty", map[string]string{"modules/a.json": `{"modulename": "a", "command": ["true"]}`})
	before = s.tree(empty)
	want = end{out: fmt.Sprintf("%[1]s/%[2]s: not there; agentd writes it with the defaults when it starts\n%[1]s/modules: good, modules: 1\n", empty, configFile)}
	if diff := cmp.Diff(want, s.agentd(empty, "--check"), cmp.AllowUnexported(end{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	s.sameTree(empty, before)
}

// A program that is not the one that its module wants is found before it is needed.
func TestCheckOfPrograms(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	hello := filepath.Join(s.lab.Bin, "hello")
	program, err := os.ReadFile(hello)
	s.must(err)
	want, got := strings.Repeat("0", 64), fmt.Sprintf("%x", sha256.Sum256(program))
	module := func(sum string) map[string]string {
		return map[string]string{"modules/a.json": fmt.Sprintf(`{"modulename": "a", "command": [%q], "sha256": %q}`, hello, sum)}
	}
	dir := s.write("other", module(want))
	if diff := cmp.Diff(end{code: wrong, problems: fmt.Sprintf(
		"agentd: %s/modules/a.json: sha256: %s: its checksum is %s and should be %s; install the right one, or correct sha256 in its module\n", dir, hello, got, want)},
		s.agentd(dir, "--check"), cmp.AllowUnexported(end{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if right := s.agentd(s.write("right", module(got)), "--check"); right.code != 0 {
		t.Errorf("%+v", right)
	}
}

// The command line.
func TestAgentdCommandLine(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	dir := s.write("machine", map[string]string{configFile: `{"socket": "sock"}`})
	before := s.tree(dir)
	for _, test := range []struct {
		args []string
		want end
	}{
		{[]string{"extra-argument"}, end{wrong, "", "agentd: unexpected argument \"extra-argument\"; agentd --help tells what there is\n"}},
		{[]string{"--check", "machine"}, end{wrong, "", "agentd: unexpected argument \"machine\"; agentd --help tells what there is\n"}},
		{[]string{"--dev", "machine"}, end{wrong, "", "agentd: unexpected argument \"machine\"; agentd --help tells what there is\n"}},
	} {
		if diff := cmp.Diff(test.want, s.agentd(dir, test.args...), cmp.AllowUnexported(end{})); diff != "" {
			t.Errorf("agentd %q: -want +got:\n%s", test.args, diff)
		}
	}
	if e := s.agentd(dir, "--no-such-flag"); e.code != wrong || !strings.HasPrefix(e.problems, "flag provided but not defined: -no-such-flag\n") {
		t.Errorf("agentd --no-such-flag: %+v", e)
	}
	if e := s.agentd(dir, "--version"); e.code != done || !strings.HasPrefix(e.out, "agentd ") {
		t.Errorf("agentd --version: %+v", e)
	}
	if e := s.agentd(dir, "--help"); e.code != done || !strings.Contains(e.problems, "-directory") {
		t.Errorf("agentd --help: %+v", e)
	}
	s.sameTree(dir, before)
}
