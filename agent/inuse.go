package agent

import (
	"bytes"
	"os"

	"github.com/allexgo/machine-agent/agent/port"
)

// This file is about programs that set no SO_REUSEADDR and therefore can not have a
// port that the agent holds for them. The kernel tells that only to them.

// inUseHint is for a process that was never ready and says that an address is in
// use, though no other program has its ports.
const inUseHint = `its log says that an address is in use: if that is one of its ports, it sets no SO_REUSEADDR; give its module "portmode": "released"`

// unusable tells whether a process that is not ready seems not to get the ports that
// are held for it.
func (k *keeper) unusable(how asked) bool {
	mode := k.record.PortMode // written before the keeper began, never changed
	return mode == port.Reserved && how.ports.Any() && how.log != "" && saysInUse(how.log, how.logFrom)
}

// inUseTail is how much of the end of a log is looked at.
const inUseTail = 4 << 10

// saysInUse tells whether the end of a log, which is looked at from a position on,
// says in the words of any language that an address is in use.
func saysInUse(log string, from int64) bool {
	f, err := os.Open(log)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false
	}
	from = max(from, info.Size()-inUseTail)
	text := make([]byte, max(info.Size()-from, 0))
	n, _ := f.ReadAt(text, from)
	text = bytes.ToLower(text[:n])
	return bytes.Contains(text, []byte("address already in use")) || bytes.Contains(text, []byte("address in use")) || bytes.Contains(text, []byte("eaddrinuse"))
}
