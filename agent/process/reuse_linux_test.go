package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A pid that now belongs to somebody else is never signalled, nor is anybody of
// a session of that number. It takes a pid namespace to have a pid used again.
func TestPIDOfSomebodyElse(t *testing.T) {
	c := exec.CommandContext(t.Context(), os.Args[0])
	c.Env = append(os.Environ(), roleKey+"=reuse")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		c.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if out, err := c.CombinedOutput(); err != nil || string(out) != "fine\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// reuse is the first process of its pid namespace, with which all others end.
func reuse([]string) {
	err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("proc", "/proc", "proc", 0, ""))
	if err == nil {
		err = errOurs
	}
	for errors.Is(err, errOurs) {
		err = tryReuse()
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("fine")
}

// errOurs is that the pid went to a thread of this program, which keeps it.
var errOurs = errors.New("the pid is ours now")

func tryReuse() error {
	first, err := Start(Spec{Instance: "first", Argv: []string{"/bin/sh", "-c", "exec sleep 1000"}})
	if err != nil {
		return err
	}
	id := first.Identity()
	held, err := Adopt(id) // one more who knows it, and does not reap it
	if err != nil {
		return err
	}
	defer held.Close()
	if err := errors.Join(first.KillTree(), first.AwaitEnd()); err != nil {
		return err
	}
	if exit := first.Reap(); exit.Signal != "SIGKILL" {
		return fmt.Errorf("the first one ended with %v", exit)
	}
	stranger, mate, err := somebodyElse(id)
	if err != nil {
		return err
	}
	if p, err := Adopt(id); !errors.Is(err, ErrGone) {
		return fmt.Errorf("adopted %+v, %v", p, err)
	}
	within, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	for what, err := range map[string]error{"Signal": held.Signal(unix.SIGKILL), "KillTree": held.KillTree()} {
		if err != nil && !errors.Is(err, ErrGone) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if left, err := held.Empty(within); len(left) > 0 || err != nil && !errors.Is(err, ErrGone) {
		return fmt.Errorf("left are %v, %w", left, err)
	}
	held.Reap()
	for _, p := range []*Process{stranger, mate} {
		if p.dead() {
			return fmt.Errorf("process %d was ended, and it was somebody else's", p.Identity().PID)
		}
		p.Close()
	}
	return nil
}

// somebodyElse starts a session whose leader has the pid of id, but not its start
// time, and returns the leader and its child.
func somebodyElse(id Identity) (leader, mate *Process, err error) {
	for {
		if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", id.PID)); err == nil {
			return nil, nil, errOurs
		}
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(id.PID-1)), 0); err != nil {
			return nil, nil, err
		}
		c := exec.Command("/bin/sh", "-c", "sleep 1000 & wait")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			return nil, nil, err
		}
		leader, err = Watch(c.Process.Pid)
		if err != nil {
			return nil, nil, err
		}
		if other := leader.Identity(); other.PID == id.PID && other.StartTime != id.StartTime {
			break
		}
		_ = unix.Kill(-c.Process.Pid, unix.SIGKILL)
		_ = c.Wait()
		leader.Close()
		for pid := 1; pid > 0; { // what it has left is ours to reap
			pid, _ = unix.Wait4(-1, nil, unix.WNOHANG, nil)
		}
	}
	children := filepath.Join("/proc", strconv.Itoa(id.PID), "task", strconv.Itoa(id.PID), "children")
	for {
		text, err := os.ReadFile(children)
		if err != nil {
			return nil, nil, err
		}
		var pid int
		if n, _ := fmt.Sscan(string(text), &pid); n == 1 {
			mate, err = Watch(pid)
			return leader, mate, err
		}
	}
}
