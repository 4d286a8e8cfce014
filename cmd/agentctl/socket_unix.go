//go:build !windows

package main

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// owner is the uid of a file; -1 if that is not known.
func owner(file string) int {
	info, err := os.Stat(file)
	if err != nil {
		return -1
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

// noSocket tells whether something else lies at a path.
func noSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Type() != fs.ModeSocket
}

// leftover is what lies at the path of a socket that nobody serves; false if
// nothing does.
func leftover(socket string) (finding, bool) {
	info, err := os.Stat(socket)
	if err != nil {
		return finding{}, false
	}
	f := finding{fail, aboutSocket, socket + " is not a socket", "move it away, or set socket in the agent's configuration to another path"}
	if noSocket(socket) {
		return f, true
	}
	uid := int(info.Sys().(*syscall.Stat_t).Uid)
	f.What = fmt.Sprintf("%s was left behind by an agent of uid %d that is gone", socket, uid)
	if text, err := os.ReadFile(socket + ".lock"); err == nil {
		f.What += ", process " + strings.TrimSpace(string(text))
	}
	f.Cure = fmt.Sprintf("start agentd: it takes the place of what its own user left; one of another user than uid %d needs `rm %s` before", uid, socket)
	return f, true
}
