package main

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/allexgo/machine-agent/agent/port"
)

// fdStore has the service manager keep sockets of ports (sd_notify(3), FDSTORE=1),
// which gives them to the next agentd that it starts (port.Depot). It speaks with the
// service manager on a goroutine of its own, which is told of the last state of a port
// only; so nobody waits, and there is never more to be said than there are ports.
type fdStore struct {
	at      string // the service manager's socket
	log     hclog.Logger
	changed chan struct{} // has an element if there is something to be said

	mu   sync.Mutex
	todo map[int]int // a descriptor of ours to be kept for the port; -1: none is
}

// newFDStore is nil without a service manager.
func newFDStore(log hclog.Logger) *fdStore {
	at := os.Getenv("NOTIFY_SOCKET")
	if at == "" {
		return nil
	}
	return &fdStore{at: at, log: log, changed: make(chan struct{}, 1), todo: make(map[int]int)}
}

// depot is s for the agent, nil if there is none.
func (s *fdStore) depot() port.Depot {
	if s == nil {
		return nil
	}
	return s
}

// Put implements port.Depot.
func (s *fdStore) Put(port, fd int) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		s.log.Warn("the socket of a port can not be kept for the next agent", "port", port, "error", err)
		dup = -1
	}
	s.set(port, dup)
}

// Drop implements port.Depot.
func (s *fdStore) Drop(port int) { s.set(port, -1) }

func (s *fdStore) set(port, fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.todo[port]; ok && old >= 0 {
		unix.Close(old)
	}
	s.todo[port] = fd
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// run speaks with the service manager until ctx ends, and then says what is left.
func (s *fdStore) run(ctx context.Context) {
	if s == nil {
		return
	}
	for more := true; more; {
		select {
		case <-s.changed:
		case <-ctx.Done():
			more = false
		}
		s.mu.Lock()
		todo := s.todo
		s.todo = make(map[int]int)
		s.mu.Unlock()
		for port, fd := range todo {
			if err := s.say(port, fd); err != nil {
				s.log.Warn("the service manager does not keep the socket of a port", "port", port, "error", err)
			}
		}
	}
}

// storedPrefix and a number are the name of a socket in the store.
const storedPrefix = "port-"

// say has one socket kept, and closes our descriptor of it, in place of the one before.
func (s *fdStore) say(port, fd int) error {
	if fd >= 0 {
		defer unix.Close(fd)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.at, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	name := "FDNAME=" + storedPrefix + strconv.Itoa(port)
	if err := send(conn, "FDSTOREREMOVE=1\n"+name); err != nil || fd < 0 {
		return err
	}
	return send(conn, "FDSTORE=1\n"+name, fd)
}

// send sends a message with descriptors, which net does not do on a connected datagram
// socket.
func send(conn *net.UnixConn, text string, fds ...int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = raw.Write(func(fd uintptr) bool {
		failure = unix.Sendmsg(int(fd), []byte(text), unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
		return failure != unix.EAGAIN
	})
	return errors.Join(err, failure)
}

// stored are the sockets that the service manager has kept, by port.
func stored() map[int]*os.File {
	all := make(map[int]*os.File)
	for name, files := range activation.FilesWithNames() {
		number, ours := strings.CutPrefix(name, storedPrefix)
		port, err := strconv.Atoi(number)
		for n, file := range files {
			if n == 0 && ours && err == nil {
				all[port] = file
			} else {
				file.Close()
			}
		}
	}
	return all
}
