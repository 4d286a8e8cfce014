//go:build unix

package config

import (
	"fmt"
	"syscall"
)

const (
	defaultSocket = "/tmp/allexmachinemanager"
	longestSocket = len(syscall.RawSockaddrUnix{}.Path) - 1 // a NUL follows it
)

// checkSocket tells what is wrong with the path of a socket.
func checkSocket(path string) string {
	if len(path) > longestSocket {
		return fmt.Sprintf("the path has %d bytes, a Unix socket can have %d; choose a shorter one, such as %s: %s",
			len(path), longestSocket, defaultSocket, path)
	}
	return ""
}
