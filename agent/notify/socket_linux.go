package notify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/allexgo/machine-agent/agent/process"
)

// Socket is where processes say how they are.
type Socket struct {
	*office
	path    string
	conn    *net.UnixConn
	raw     syscall.RawConn
	file    fs.FileInfo // the socket's file, to know it again
	reading sync.Mutex  // held from the taking of a message to its delivery
	buf     [maxMessage + 1]byte
	control [2048]byte // more than the kernel lets through at once: 253 descriptors and the sender
	once    sync.Once
	kept    atomic.Bool // Close leaves the socket where it is
}

// Listen takes the datagram socket at path for every local user to send to. It is
// beside the agent's API socket, whose lock keeps other agents from both. What is
// at the path is removed only if it is a socket of our own user that nobody has.
// Serve reads it; Close removes it.
func Listen(path string, log hclog.Logger) (*Socket, error) {
	if err := makeRoom(path); err != nil {
		return nil, fmt.Errorf("notify socket %s: %w", path, err)
	}
	config := net.ListenConfig{Control: beforeBind}
	conn, err := config.ListenPacket(context.Background(), "unixgram", path)
	if err != nil {
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	file, err := openToAll(path)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("notify socket %s can not be opened to senders: %w", path, err)
	}
	return newSocket(path, conn, file, log)
}

func newSocket(path string, conn net.PacketConn, file fs.FileInfo, log hclog.Logger) (*Socket, error) {
	s := &Socket{office: newOffice(log), path: path, conn: conn.(*net.UnixConn), file: file}
	var err error
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("notify socket %s: %w", path, err)
	}
	return s, nil
}

// Conn is what the program that this process is about to become gets to Inherit.
func (s *Socket) Conn() syscall.Conn { return s.conn }

// Keep has Close leave the socket where it is, for the program that has been given
// its Conn. What is sent meanwhile waits.
func (s *Socket) Keep() { s.kept.Store(true) }

// Inherit is Listen with what a program had at path before it became us, or with
// nil. It takes over file, also if it fails.
func Inherit(path string, file *os.File, log hclog.Logger) (*Socket, error) {
	if file == nil {
		return Listen(path, log)
	}
	there, err := os.Lstat(path)
	conn, unusable := net.FilePacketConn(file)
	file.Close()
	if unusable != nil {
		return nil, fmt.Errorf("notify socket %s can not be taken over: %w", path, unusable)
	}
	if err != nil || there.Mode().Type() != fs.ModeSocket { // nobody can reach it any more
		conn.Close()
		return Listen(path, log)
	}
	return newSocket(path, conn, there, log)
}

// Path is what NOTIFY_SOCKET says.
func (s *Socket) Path() string { return s.path }

// makeRoom removes what a dead agent of ours left.
func makeRoom(path string) error {
	file, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	uid := int(file.Sys().(*syscall.Stat_t).Uid)
	if file.Mode().Type() != fs.ModeSocket || uid != os.Geteuid() {
		return fmt.Errorf("something that is not ours is there, of uid %d; move it away, or set \"socket\" in the agent's configuration to another path", uid)
	}
	c, err := net.Dial("unixgram", path)
	if err == nil {
		c.Close()
		return errors.New("some other program reads it; end that one, or set \"socket\" in the agent's configuration to another path")
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// beforeBind lets only us in until the socket is complete, and has the kernel say
// who sends. Without a pidfd (Linux before 6.5) there are pids.
func beforeBind(_, _ string, c syscall.RawConn) (err error) {
	if e := c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSPIDFD, 1)
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err == nil {
			err = unix.Fchmod(int(fd), 0o600)
		}
	}); e != nil {
		return e
	}
	return err
}

// openToAll lets everybody send to the socket at path, and no other file that may
// have taken the path meanwhile.
func openToAll(path string) (fs.FileInfo, error) {
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	file, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if file.Mode().Type() != fs.ModeSocket {
		return nil, errors.New("it is no socket any more")
	}
	return file, os.Chmod(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), 0o666)
}

// Serve delivers messages until Close.
func (s *Socket) Serve() {
	for s.raw.Read(s.receive) == nil {
	}
}

// Catch delivers what has been sent by now, so that nothing is missed that a
// process said before its end.
func (s *Socket) Catch() {
	const queued = 4096 // more than the kernel lets wait
	_ = s.raw.Control(func(fd uintptr) {
		for n := 0; n < queued && s.receive(fd); n++ {
		}
	})
}

// receive takes and delivers one message; false if there is none. A message can
// not be overtaken by one that comes after it.
func (s *Socket) receive(fd uintptr) bool {
	s.reading.Lock()
	defer s.reading.Unlock()
	n, oob, flags, _, err := unix.Recvmsg(int(fd), s.buf[:], s.control[:], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false
	case err != nil:
		return true
	}
	from, fds := s.read(s.control[:oob])
	m := Message{Problems: []string{fmt.Sprintf("a message of more than %d bytes", maxMessage)}}
	if n <= maxMessage && flags&unix.MSG_TRUNC == 0 {
		m = Parse(s.buf[:n])
	}
	if m.Barrier && len(fds) == 1 {
		m.open = []func(){func() { unix.Close(fds[0]) }}
	} else {
		closeAll(fds)
	}
	s.deliver(letter{m, from})
	return true
}

// read reads who sent a message, and with what descriptors.
func (s *Socket) read(control []byte) (from sender, fds []int) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return from, nil
	}
	pidfd := -1
	for _, m := range messages {
		switch {
		case m.Header.Level != unix.SOL_SOCKET:
		case m.Header.Type == unix.SCM_CREDENTIALS:
			if c, err := unix.ParseUnixCredentials(&m); err == nil {
				from.pid, from.uid = int(c.Pid), int(c.Uid)
			}
		case m.Header.Type == unix.SCM_PIDFD:
			m.Header.Type = unix.SCM_RIGHTS // of the same form
			if fd, err := unix.ParseUnixRights(&m); err == nil && len(fd) == 1 {
				pidfd = fd[0]
			}
		case m.Header.Type == unix.SCM_RIGHTS:
			fds, _ = unix.ParseUnixRights(&m)
		}
	}
	if pidfd < 0 {
		if pidfd, err = unix.PidfdOpen(from.pid, 0); err != nil {
			return from, fds
		}
	}
	defer unix.Close(pidfd)
	if from.cgroup = process.CgroupBehind(pidfd); !s.known(from.cgroup) {
		from.lineage, _ = process.LineageBehind(pidfd, from.pid) // it has ended: then its cgroup has to tell
	}
	return from, fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// Close ends Serve and removes the socket if it is still the one that Listen
// made. It may be called twice.
func (s *Socket) Close() error {
	var err error
	s.once.Do(func() {
		if now, e := os.Lstat(s.path); e == nil && os.SameFile(now, s.file) && !s.kept.Load() {
			os.Remove(s.path)
		}
		err = s.conn.Close()
		s.sum()
	})
	return err
}
