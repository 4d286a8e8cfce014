//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// A second agent takes nothing from the first, whichever it wants of it.
func TestTaken(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(1, "hello")...)
	o := s.observe(manager)
	first := s.agent("first", lab.AgentFiles{LANManager: manager.Address})
	s.served(o, 1)
	child := s.child("hello-0")
	before := s.tree(first.Directory)

	lock := filepath.Join(first.Directory, ".allexmaster", "lock")
	locked := fmt.Sprintf("agentd: another agent (pid %d) holds %s: stop it first, or give this one a statedirectory of its own\n", first.PID(), lock)
	const elsewhere = `set "socket" in the agent's configuration to another path` + "\n"
	second := func(name, socket string) string {
		return s.write(name, map[string]string{configFile: fmt.Sprintf(`{"socket": %q}`, socket)})
	}
	stranger := filepath.Join(s.lab.Dir, "stranger")
	l, err := net.Listen("unix", stranger)
	s.must(err)
	defer l.Close()
	plain := filepath.Join(s.lab.Dir, "plain")
	s.must(os.WriteFile(plain, []byte("precious"), 0o644))

	for _, test := range []struct{ name, dir, want string }{
		{"state directory", first.Directory, locked},
		{"socket", second("second", first.Socket),
			fmt.Sprintf("agentd: socket %s: process %d of uid %d serves it; end that process, or %s", first.Socket, first.PID(), os.Geteuid(), elsewhere)},
		{"socket of another program", second("third", stranger),
			fmt.Sprintf("agentd: socket %s: process %d of uid %d serves it; end that process, or %s", stranger, os.Getpid(), os.Geteuid(), elsewhere)},
		{"file in place of a socket", second("fourth", plain),
			fmt.Sprintf("agentd: socket %s: is a regular file, not a socket; move it away, or %s", plain, elsewhere)},
	} {
		want := end{code: refused, problems: test.want}
		if diff := cmp.Diff(want, s.agentd(test.dir), cmp.AllowUnexported(end{})); diff != "" {
			t.Errorf("%s: -want +got:\n%s", test.name, diff)
		}
	}
	s.sameTree(first.Directory, before)
	if text, err := os.ReadFile(plain); string(text) != "precious" {
		t.Errorf("%s holds %q, %v", plain, text, err)
	}
	if now := s.child("hello-0"); now != child || s.process(first, "hello-0").GetPlace() != pb.ProcessPlace_PROCESS_PLACE_SERVED {
		t.Errorf("the child of the first agent was %v, is %v", child, now)
	}
}

// humble is a user who may not write everywhere: who runs the tests, or nobody
// if that is root.
func (s *stage) humble() (uid int) {
	s.t.Helper()
	if os.Geteuid() != 0 {
		return os.Geteuid()
	}
	for _, dir := range []string{os.TempDir(), s.lab.Dir} { // on the way to the programs and the files
		s.must(os.Chmod(dir, 0o711))
	}
	return 65534
}

// A directory that can not be used is the machine's refusal. The message names
// it and the cure, and nothing is left half done.
func TestForbiddenDirectories(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	uid := s.humble()
	for _, test := range []struct {
		name, config, forbidden string // forbidden is below the agent's directory
		mode                    fs.FileMode
		want                    string // DIR is the agent's directory, UID the user
	}{
		{"for the configuration", "", ".", 0o555,
			"there is no configuration, and the default one can not be made: can not write DIR/allexmasterconfig.json: permission denied; " +
				"make the directory writable for the user that agentd runs as, or write the file yourself"},
		{"configuration", `{"socket": "sock"}`, configFile, 0,
			"can not read the configuration: open DIR/allexmasterconfig.json: permission denied"},
		{"of modules", `{"socket": "sock"}`, "modules", 0,
			"can not read the module directory: open DIR/modules: permission denied"},
		{"for the state", `{"socket": "sock"}`, ".", 0o555,
			"statedirectory: mkdir DIR/.allexmaster: permission denied; make the directory writable for the user that agentd runs as, or name another one"},
		{"for the socket", `{"socket": "modules/sock"}`, "modules", 0o555,
			`socket DIR/modules/sock: its lock DIR/modules/sock.lock can not be made: permission denied; ` +
				`see that DIR/modules is a directory in which uid UID may make files, or set "socket" in the agent's configuration to another path`},
	} {
		dir := s.write(strings.ReplaceAll(test.name, " ", "-"), nil)
		if test.config != "" {
			s.write(filepath.Base(dir), map[string]string{configFile: test.config})
		}
		s.must(filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, uid, -1))
		}))
		forbidden := filepath.Join(dir, test.forbidden)
		s.must(os.Chmod(forbidden, test.mode))
		before := s.tree(forbidden)

		cmd := exec.CommandContext(s.ctx, filepath.Join(s.lab.Bin, "agentd"), "--directory", dir)
		if uid != os.Geteuid() {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		}
		want := end{code: refused, problems: "agentd: " + strings.NewReplacer("DIR", dir, "UID", fmt.Sprint(uid)).Replace(test.want) + "\n"}
		if diff := cmp.Diff(want, s.end(cmd), cmp.AllowUnexported(end{})); diff != "" {
			t.Errorf("%s: -want +got:\n%s", test.name, diff)
		}
		s.sameTree(forbidden, before)
		s.must(os.Chmod(forbidden, 0o755))
	}
	missing := filepath.Join(s.lab.Dir, "nowhere")
	want := end{code: refused, problems: "agentd: there is no directory " + missing + "; make it, or name another one\n"}
	if diff := cmp.Diff(want, s.agentd(missing), cmp.AllowUnexported(end{})); diff != "" {
		t.Errorf("missing directory: -want +got:\n%s", diff)
	}
}

// Where the children run is not where the agent writes: it may be read-only.
func TestReadOnlyRuntimeDirectory(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(1, "hello")...)
	o := s.observe(manager)
	s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Config: map[string]any{"runtimedirectory": "/proc"}})
	s.served(o, 1)
	at, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", s.child("hello-0").PID))
	if at != "/proc" {
		t.Errorf("the child runs in %s, %v", at, err)
	}
}

// The LAN manager is told where its files are, too.
func TestLANManagerRefused(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	run := func(args ...string) end {
		return s.end(exec.CommandContext(s.ctx, filepath.Join(s.lab.Bin, "lanmanager"), args...))
	}
	port, err := s.lab.Ports(1)
	s.must(err)
	missing := filepath.Join(s.lab.Dir, "nowhere")
	want := end{code: refused, problems: "lanmanager: the LAN manager can not have its directory: mkdir " + missing +
		"/.allexlanmanager: no such file or directory; start it in a directory of its own that it may write\n"}
	if diff := cmp.Diff(want, run("--directory", missing, "--listen", fmt.Sprintf("127.0.0.1:%d", port)), cmp.AllowUnexported(end{})); diff != "" {
		t.Errorf("missing directory: -want +got:\n%s", diff)
	}
	s.sameTree(missing, map[string]string{"": "lstat " + missing + ": no such file or directory"})
	for _, args := range [][]string{{"extra-argument"}, {"--log-level", "loud"}, {"--no-such-flag"}} {
		if e := run(args...); e.code != wrong {
			t.Errorf("lanmanager %q ended with %+v", args, e)
		}
	}
	dir := filepath.Join(s.lab.Dir, "lan")
	first := s.lan()
	before := s.tree(dir)
	want = end{code: refused, problems: fmt.Sprintf("lanmanager: the LAN manager can not have its directory: another LAN manager, process %d, has %s; "+
		"start it in a directory of its own that it may write\n", first.PID(), filepath.Join(dir, ".allexlanmanager"))}
	if diff := cmp.Diff(want, run("--directory", dir, "--listen", first.Address, "--log-level", "error"), cmp.AllowUnexported(end{})); diff != "" {
		t.Errorf("taken directory: -want +got:\n%s", diff)
	}
	s.sameTree(dir, before)
	other := s.t.TempDir()
	want = end{code: refused, problems: "lanmanager: the LAN manager can not listen on " + first.Address + " (ws): listen tcp " + first.Address +
		": bind: address already in use; stop what is there, perhaps another LAN manager, or choose another address (portcorrection in boot moves all)\n"}
	if diff := cmp.Diff(want, run("--directory", other, "--listen", first.Address, "--log-level", "error"), cmp.AllowUnexported(end{})); diff != "" {
		t.Errorf("taken address: -want +got:\n%s", diff)
	}
}
