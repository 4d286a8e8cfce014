package client

import (
	"net"

	"golang.org/x/sys/unix"
)

// peerUID is the uid of the process at the other end of conn, as the kernel
// noted it: at listen(2) if that end listens, at connect(2) if it called.
func peerUID(conn net.Conn) (uid int, known bool, err error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, false, err
	}
	var peer *unix.Ucred
	var sockErr error
	if err := raw.Control(func(fd uintptr) {
		peer, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, false, err
	}
	if sockErr != nil {
		return 0, false, sockErr
	}
	return int(peer.Uid), true, nil
}
