package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// As the first process of a pid namespace we get the orphans of all others: they are
// reaped, and the ends of our own children are known all the same.
func TestReapStrangers(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	file, err := os.OpenFile(out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleKey+"=first")
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
	}
	err = cmd.Run()
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs the right to make namespaces: ", err)
	}
	text, _ := os.ReadFile(out)
	if err != nil || strings.Count(string(text), "orphan ") < orphans || !strings.HasSuffix(string(text), "all is well\n") {
		t.Errorf("%v\n%s", err, text)
	}
}

const (
	parents = 8  // own children of the first process
	orphans = 40 // that they leave, all of them together
)

// parent leaves orphans, some of which have ended by then.
func parent(args []string) {
	for range number(args[0]) {
		p, err := os.StartProcess("/proc/self/exe", []string{"exit", "0"}, &os.ProcAttr{Env: []string{roleKey + "=exit"}})
		check(err)
		fmt.Println("orphan", p.Pid)
	}
	syscall.Exit(7)
}

// first is the first process of a namespace: it has children of its own, which leave
// orphans, and others that are started aside.
func first([]string) {
	check(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	check(unix.Mount("proc", "/proc", "proc", 0, ""))
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { check(ReapStrangers(ctx)) })
	var ours, aside sync.WaitGroup
	for range parents {
		ours.Go(func() {
			p, err := Start(Spec{
				Argv: []string{"/proc/self/exe", fmt.Sprint(orphans / parents)}, Env: []string{roleKey + "=parent"}, Log: "/proc/self/fd/1",
			})
			check(err)
			check(p.AwaitEnd())
			aside.Wait()
			time.Sleep(4 * strangersPace) // so that it could be taken for a stranger
			if exit := p.Reap(); exit != (Exit{Code: 7}) {
				check(fmt.Errorf("a child ended with %v", exit))
			}
		})
		aside.Go(func() {
			cmd := exec.Command("/proc/self/exe", "3")
			cmd.Env = []string{roleKey + "=exit"}
			err := Aside(cmd.Run)
			if exited := (*exec.ExitError)(nil); !errors.As(err, &exited) || exited.ExitCode() != 3 {
				check(fmt.Errorf("what was started aside ended with %v", err))
			}
		})
	}
	ours.Wait()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		left, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
		check(err)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			check(fmt.Errorf("not reaped: %s", left))
		}
	}
	stop()
	all.Wait()
	fmt.Println("all is well")
}
