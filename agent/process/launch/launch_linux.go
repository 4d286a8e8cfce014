package launch

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// Main carries out the order in args, a command line of Order.Args. It returns
// only to say what could not be done; whoever gave the order has been told.
func Main(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("agentexec is started by agentd, with an order and a command")
	}
	var o Order
	if err := json.Unmarshal([]byte(args[1]), &o); err != nil {
		return fmt.Errorf("the order is not understood: %w", err)
	}
	err := o.become(args[2:])
	if o.Status > 0 {
		_, _ = syscall.Write(o.Status, []byte(err.Error()))
	}
	return err
}

// become makes this process the command. What needs rights is done before they
// are given up.
func (o Order) become(argv []string) error {
	runtime.LockOSThread() // the niceness is the thread's that becomes the command
	for _, fd := range []int{o.Status, o.Executable} {
		if fd > 0 {
			syscall.CloseOnExec(fd)
		}
	}
	for _, step := range []func() error{o.limit, o.score, o.renice, o.mask, o.announce, o.identify} {
		if err := step(); err != nil {
			return err
		}
	}
	path := argv[0]
	if o.Executable > 0 {
		path = "/proc/self/fd/" + strconv.Itoa(o.Executable)
	}
	return fmt.Errorf("it can not be executed: %w", syscall.Exec(path, argv, os.Environ()))
}

// numbers are those of Resources on all processors that Go and Linux have but
// MIPS and SPARC.
var numbers = map[string]int{
	"cputime": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "memlock": 8,
	"as": 9, "locks": 10, "sigpending": 11, "msgqueue": 12, "rttime": 15,
}

func (o Order) limit() error {
	for _, name := range Resources() {
		r, ok := o.Resources[name]
		if !ok {
			continue
		}
		if err := syscall.Setrlimit(numbers[name], &syscall.Rlimit{Cur: r.Soft, Max: r.Hard}); err != nil {
			return fmt.Errorf("limit %s can not be set: %w; only root may raise a limit of its own", name, err)
		}
	}
	return nil
}

func (o Order) score() error {
	if o.OOMScore == nil {
		return nil
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(*o.OOMScore)), 0); err != nil {
		return fmt.Errorf("oomscore can not be set: %w; only root may lower it", err)
	}
	return nil
}

func (o Order) renice() error {
	if o.Nice == nil {
		return nil
	}
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, *o.Nice); err != nil {
		return fmt.Errorf("nice can not be set: %w; only root may go below 0", err)
	}
	return nil
}

func (o Order) mask() error {
	if o.Umask != nil {
		syscall.Umask(*o.Umask)
	}
	return nil
}

// announce tells the command of its sockets. Only this process knows the pid by
// which the command sees that they are meant for it.
func (o Order) announce() error {
	if len(o.Sockets) == 0 {
		return nil
	}
	for name, value := range map[string]string{
		"LISTEN_FDS":     strconv.Itoa(len(o.Sockets)),
		"LISTEN_PID":     strconv.Itoa(os.Getpid()),
		"LISTEN_FDNAMES": strings.Join(o.Sockets, ":"),
	} {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("%s can not be set: %w", name, err)
		}
	}
	return nil
}

func (o Order) identify() error {
	if o.User == nil {
		return nil
	}
	err := syscall.Setgroups(o.User.Groups)
	if err == nil {
		err = syscall.Setgid(o.User.GID)
	}
	if err == nil {
		err = syscall.Setuid(o.User.UID)
	}
	if err != nil {
		return fmt.Errorf("it can not become user %d: %w; agentd has to run as root", o.User.UID, err)
	}
	return nil
}
