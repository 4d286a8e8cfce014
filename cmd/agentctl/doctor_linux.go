package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// descriptorLimit is how many descriptors a process may have. Unlike prlimit(2) this
// file is for everybody.
func descriptorLimit(pid int) (uint64, error) {
	name := fmt.Sprintf("/proc/%d/limits", pid)
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	const row = "Max open files"
	for line := range strings.Lines(string(text)) {
		if soft := strings.Fields(strings.TrimPrefix(line, row)); strings.HasPrefix(line, row) && len(soft) > 0 {
			if soft[0] == "unlimited" {
				return math.MaxUint64, nil
			}
			return strconv.ParseUint(soft[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no row %q", name, row)
}

// peer is who listens on a socket.
func peer(socket string) (server, bool) {
	const soon = time.Second // a connection is the kernel's, whatever who listens is doing
	conn, err := net.DialTimeout("unix", socket, soon)
	if err != nil {
		return server{}, false
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return server{}, false
	}
	var who *unix.Ucred
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		who, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || sockErr != nil || who.Pid == 0 { // 0: in another namespace
		return server{}, false
	}
	return server{int(who.Pid), int(who.Uid)}, true
}

// suspended tells whether a process is stopped by a signal.
func suspended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, found := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ") // the name before may have anything in it
	return found && strings.HasPrefix(state, "T")
}

// clock tells whether somebody keeps the clock right.
func clock() finding {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return timekeeping(state, t.Status, err)
}

// timekeeping judges what the kernel says of its clock.
func timekeeping(state int, status int32, err error) finding {
	switch {
	case err != nil:
		return finding{good, aboutClock, fmt.Sprintf("the system does not tell whether it is right: %v", err), ""}
	case state == unix.TIME_ERROR, status&unix.STA_UNSYNC != 0:
		return finding{warn, aboutClock, "nobody keeps it right: times of different machines can not be compared, and certificates may seem out of their time",
			"run a client of NTP, such as chrony or systemd-timesyncd"}
	}
	return finding{good, aboutClock, "it is kept right", ""}
}

// Below this much room on its disk a state directory is in danger.
const (
	leastBytes = 256 << 20
	leastFiles = 1000
)

// disk tells whether there is room for a directory, which need not be there yet.
func disk(dir string) finding {
	var s unix.Statfs_t
	err := unix.Statfs(dir, &s)
	for at := dir; errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at); {
		at = filepath.Dir(at)
		err = unix.Statfs(at, &s)
	}
	if err != nil {
		return finding{warn, aboutState, fmt.Sprintf("can not look at %s: %v", dir, err), "ask as root or as the agent's user"}
	}
	return room(dir, s.Flags&unix.ST_RDONLY != 0, int64(s.Bavail)*s.Bsize, s.Files > 0, int64(s.Ffree))
}

// room judges what a file system says; some have no bound of files.
func room(dir string, readOnly bool, bytes int64, bounded bool, files int64) finding {
	f := finding{good, aboutState, fmt.Sprintf("%s, with %s free", dir, size(bytes)), ""}
	switch {
	case readOnly:
		return finding{fail, aboutState, dir + " is on a read-only file system: what an operator holds is not kept, and no process is found again after a crash",
			"mount it writable, or set statedirectory to another place"}
	case bytes == 0, bounded && files == 0:
		f.Grade = fail
		f.What = fmt.Sprintf("the disk of %s is full: %s and %d files free", dir, size(bytes), files)
	case bytes < leastBytes, bounded && files < leastFiles:
		f.Grade = warn
		f.What = fmt.Sprintf("the disk of %s is nearly full: %s and %d files free", dir, size(bytes), files)
	default:
		return f
	}
	f.Cure = "make room there, or lower log.maxtotal in the configuration"
	return f
}
