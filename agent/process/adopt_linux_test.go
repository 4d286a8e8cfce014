package process

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// startByOther lets another process start s, as an agent before this one.
// manner is what that one does afterwards: see the role agent.
func startByOther(t *testing.T, s Spec, manner string) (other *Process, id Identity) {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	spec := as(t, "agent", string(text), manner)
	other = start(t, spec)
	if err := json.Unmarshal([]byte(lines(t, spec.Log, 1)[0]), &id); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p, err := Adopt(id); err == nil { // the test failed before it did so
			finish(t, p)
		}
	})
	lines(t, s.Log, 1) // it is ready
	return other, id
}

func adopt(t *testing.T, id Identity) *Process {
	t.Helper()
	p, err := Adopt(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { finish(t, p) })
	if p.Identity() != id {
		t.Errorf("got %+v, want %+v", p.Identity(), id)
	}
	return p
}

// Whoever reaps an adopted process, and whenever, its end is seen at once and
// its status is the true one or unknown.
func TestAdopt(t *testing.T) {
	for _, manner := range []string{"leave", "reap", "sit"} {
		t.Run(manner, func(t *testing.T) {
			trees(t, func(t *testing.T, cgroup string) {
				for _, code := range []string{"0", "7"} {
					s := as(t, "obey", code)
					s.Cgroup = cgroup
					other, id := startByOther(t, s, manner)
					if manner == "leave" {
						takeEnd(t, other)
					}
					p := adopt(t, id)
					if p.Child() {
						t.Error("it is not our child")
					}
					if err := p.Signal(unix.SIGTERM); err != nil {
						t.Fatal(err)
					}
					got := takeEnd(t, p) // though in one manner nobody reaps it
					if want := (Exit{Code: int(code[0] - '0')}); got != want && !got.Unknown {
						t.Errorf("got %v, want %v or unknown", got, want)
					} else if got.Unknown && kernelTells(t) {
						t.Errorf("got %v although the kernel can tell", got)
					}
				}
			})
		})
	}
}

// kernelTells tells whether the kernel has PIDFD_GET_INFO with exit status: it
// shows its own newness by the size of what it copies.
func kernelTells(t *testing.T) bool {
	t.Helper()
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const supported = 1 << 5 // PIDFD_INFO_SUPPORTED_MASK
	info := unix.PidfdInfo{Mask: supported}
	return unix.IoctlPidfdInfo(fd, &info) == nil && info.Mask&supported != 0
}

func TestAdoptKilled(t *testing.T) {
	s := as(t, "wait")
	other, id := startByOther(t, s, "leave")
	takeEnd(t, other)
	if got := finish(t, adopt(t, id)); got != (Exit{Signal: "SIGKILL"}) && !got.Unknown {
		t.Errorf("got %v", got)
	}
	// Until init has looked it is a zombie, which can be adopted once more; it
	// has ended all the same.
	p, err := Adopt(id)
	if err == nil {
		err = p.AwaitEnd()
		p.Close()
	}
	if err != nil && !errors.Is(err, ErrGone) {
		t.Errorf("got %v", err)
	}
}

// The tree of an adopted process is ended like that of a child.
func TestAdoptFamily(t *testing.T) {
	for _, manner := range []string{"leave", "reap"} {
		t.Run(manner, func(t *testing.T) {
			trees(t, func(t *testing.T, cgroup string) {
				s := as(t, "family", "")
				s.Cgroup = cgroup
				other, id := startByOther(t, s, manner)
				all := servers(t, s.Log, 2)
				if manner == "leave" {
					takeEnd(t, other)
				}
				p := adopt(t, id)
				if err := p.Signal(unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				if err := p.AwaitEnd(); err != nil {
					t.Fatal(err)
				}
				if manner == "reap" {
					takeEnd(t, other) // the leader is reaped: only its group pins its id
				}
				takeEnd(t, p)
				for _, server := range all {
					if server.serves() {
						t.Errorf("port %d is still served", server.port)
					}
				}
			})
		})
	}
}

func TestAdoptRefused(t *testing.T) {
	p := start(t, as(t, "wait"))
	dead := start(t, as(t, "exit", "0"))
	dead.Reap()
	tests := map[string]func(*Identity){
		"other start time": func(id *Identity) { id.StartTime++ },
		"other boot":       func(id *Identity) { id.BootID = "00000000-0000-0000-0000-000000000000" },
		"no boot":          func(id *Identity) { id.BootID = "" },
		"no pid":           func(id *Identity) { id.PID = 0 },
		"no such pid":      func(id *Identity) { id.PID = 1 << 30 },
		"reaped":           func(id *Identity) { *id = dead.Identity() },
	}
	before := descriptors(t)
	for name, change := range tests {
		id := p.Identity()
		change(&id)
		if got, err := Adopt(id); !errors.Is(err, ErrGone) {
			t.Errorf("%s: got %v, %v; want ErrGone", name, got, err)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if got := state(p.Identity().PID); got == 0 || got == 'Z' {
		t.Errorf("a refused adoption ended the process: %q", got)
	}
}

// An agent that takes over finds the trees of leaders that are gone by their
// cgroups.
func TestCgroupOutlivesAgent(t *testing.T) {
	root, err := testCgroups(t)
	if err != nil {
		t.Logf("no cgroups here: %v", err)
		return
	}
	s := as(t, "family", "daemon")
	s.Cgroup = filepath.Join(root, "instance")
	other, id := startByOther(t, s, "leave")
	all := servers(t, s.Log, 3)
	takeEnd(t, other)
	p := adopt(t, id)
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitEnd(); err != nil {
		t.Fatal(err)
	}
	if left, err := EmptyCgroup(t.Context(), s.Cgroup); left != nil || err != nil {
		t.Errorf("got %v, %v", left, err)
	}
	for _, server := range all {
		if server.serves() {
			t.Errorf("port %d is still served", server.port)
		}
	}
}
