package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/allexgo/machine-agent/internal/fault"
)

// program is the name of the old program's descriptor.
const program = "program"

// Handover is what one program hands to the next. It is safe for concurrent use.
type Handover struct {
	Note

	mu    sync.Mutex
	args  []string       // of the old program
	files map[string]int // ours to close
	timer *time.Timer    // until Ready; nil if there is nobody to go back to
	asked func() bool    // of Unless
}

// New makes a Handover by the running program.
func New(n Note) (*Handover, error) {
	self, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("our own program can not be opened: %w", err)
	}
	return &Handover{Note: n, args: os.Args, files: map[string]int{program: self}, asked: func() bool { return false }}, nil
}

// Unless has Back look at the last moment whether we have been asked to end: then it is
// not gone back. Who asks after that asks the next program, or the system.
func (h *Handover) Unless(asked func() bool) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = asked
}

// Add hands over what f has open, under a name. f stays the caller's.
func (h *Handover) Add(name string, f syscall.Conn) error {
	if err := fault.At(fault.Gathering); err != nil {
		return fmt.Errorf("%s can not be handed over: %w", name, err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var dup int
	if e := raw.Control(func(fd uintptr) { dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return e
	}
	if err != nil {
		return fmt.Errorf("%s can not be handed over: %w", name, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files[name] = dup
	return nil
}

// Exec becomes the program at path, with our own arguments; if that fails, ourselves
// anew, with the reason. It returns only if neither can be executed.
func (h *Handover) Exec(path string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := fault.At(fault.HandingOver)
	if err == nil {
		err = h.exec(path, os.Args)
	}
	return errors.Join(err, h.back(err))
}

// Back becomes the program again that has handed over, and tells it why: if there is
// one, Ready has not been called, and we have not been asked to end. Otherwise, or if
// it fails, it returns.
func (h *Handover) Back(problem error) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil && !h.asked() {
		fmt.Fprintf(os.Stderr, "agentd: going back to %s: %v\n", h.From, problem)
		fmt.Fprintln(os.Stderr, "agentd: it can not be gone back:", h.back(problem))
	}
}

// back executes the program that has handed over, with nothing behind it to go
// back to.
func (h *Handover) back(problem error) error {
	old := h.files[program]
	delete(h.files, program)
	h.Problem = problem.Error()
	return h.exec(fmt.Sprintf("/proc/self/fd/%d", old), h.args)
}

// exec holds the lock under which others fork, so that no child gets what is meant
// for the next program.
func (h *Handover) exec(path string, args []string) error {
	fd, err := h.seal()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	h.inherited(fd, true)
	err = syscall.Exec(path, args, environment(fd))
	h.inherited(fd, false)
	return fmt.Errorf("can not execute %s: %w", path, err)
}

// inherited sets whether the next program gets the descriptors.
func (h *Handover) inherited(memfd int, yes bool) {
	flags := unix.FD_CLOEXEC
	if yes {
		flags = 0
	}
	_, _ = unix.FcntlInt(uintptr(memfd), unix.F_SETFD, flags)
	for _, fd := range h.files {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags)
	}
}

// seals are those of a memfd that nobody changes any more.
const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// seal writes the note.
func (h *Handover) seal() (fd int, err error) {
	text, err := json.Marshal(note{
		Version: Version, ID: h.ID, From: h.From, Within: h.Within, Problem: h.Problem, Args: h.args, Files: h.files,
	})
	if err != nil {
		return -1, err
	}
	fd, err = unix.MemfdCreate("machine-agent", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("what is handed over can not be written: %w", err)
	}
	if _, err = unix.Write(fd, text); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("what is handed over can not be written: %w", err)
	}
	return fd, nil
}

// Take is what the program before us has handed over; nil if there was none. It is
// called first of all. From then on it is gone back to the old program, if this is
// the way to a new one, unless Ready comes in time.
func Take() (*Handover, error) {
	value, ok := os.LookupEnv(variable)
	if !ok {
		return nil, nil
	}
	os.Unsetenv(variable)
	n, err := read(value)
	if err != nil {
		return nil, fmt.Errorf("what was handed over (%s=%s) can not be read: %w", variable, value, err)
	}
	h := &Handover{Note: Note{ID: n.ID, From: n.From, Within: n.Within, Problem: n.Problem}, args: n.Args, files: n.Files,
		asked: func() bool { return false }}
	h.inherited(-1, false)
	if _, ok := h.files[program]; ok {
		h.timer = time.AfterFunc(h.Within, func() { h.Back(fmt.Errorf("the new program was not ready within %s", h.Within)) })
	}
	return h, nil
}

// read reads and closes the memfd. One that is not sealed is not ours.
func read(number string) (note, error) {
	fd, err := strconv.Atoi(number)
	if err != nil {
		return note{}, err
	}
	if is, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err != nil || is != seals {
		return note{}, errors.New("it is no sealed memfd")
	}
	file := os.NewFile(uintptr(fd), "handover")
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return note{}, err
	}
	text := make([]byte, info.Size())
	if _, err := file.ReadAt(text, 0); err != nil {
		return note{}, err
	}
	var n note
	if err := json.Unmarshal(text, &n); err != nil {
		return note{}, err
	}
	if n.Version != Version {
		return note{}, fmt.Errorf("it has version %d of the format, this program knows %d", n.Version, Version)
	}
	return n, nil
}

// File opens once more what was handed over under a name; nil if nothing was.
func (h *Handover) File(name string) *os.File {
	h.mu.Lock()
	defer h.mu.Unlock()
	fd, ok := h.files[name]
	if !ok {
		return nil
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(dup), name)
}

// Names are those under which something was handed over.
func (h *Handover) Names() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for name := range h.files {
		all = append(all, name)
	}
	return all
}

// Ready ends the time in which it can be gone back, and closes what was handed over:
// who needs it has opened it with File. It may be called twice.
func (h *Handover) Ready() {
	if h == nil {
		return
	}
	_ = fault.At(fault.TakenOver)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	for name, fd := range h.files {
		unix.Close(fd)
		delete(h.files, name)
	}
}
