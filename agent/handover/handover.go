// Package handover is how an agentd becomes another one without ending: the new
// program is executed in the same process, so that the children stay children and
// what is open stays open. What the new one must know travels in a sealed memfd,
// whose number it finds in its environment; it says which descriptors are what.
//
// The old program travels along. If the new one fails before it is ready, or is not
// ready in time, it executes the old one back, with the reason. A program that
// never comes so far as Take can not do that; Check, which is asked before, is
// there to find those.
//
// Linux is where this works; elsewhere it is refused with errors.ErrUnsupported.
// cmd/agentd alone imports this package.
package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/allexgo/machine-agent/agent/process"
)

// Version is that of what is handed over. A program that knows another one refuses
// it in Check, before anything has happened.
const Version = 1

// variable is the environment variable with the number of the memfd.
const variable = "MACHINEAGENT_HANDOVER"

// Note is what is handed over beside descriptors.
type Note struct {
	ID      string        // of the upgrade, for who has asked for it
	From    string        // the version that handed over
	Within  time.Duration // in which the new program has to be ready
	Problem string        // why the new program is not there; empty on the way to it
}

// note is a Note in version 1 of the format.
type note struct {
	Version int            `json:"version"`
	ID      string         `json:"id"`
	From    string         `json:"from"`
	Within  time.Duration  `json:"within"`
	Problem string         `json:"problem,omitempty"`
	Args    []string       `json:"args"` // of the old program
	Files   map[string]int `json:"files"`
}

// RefusedError says that a program can not take over, before anything has happened.
type RefusedError struct {
	Binary string
	Reason string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s can not take over, and nothing has changed: %s; mend what it complains about, or name another program", e.Binary, e.Reason)
}

// Says is what a program prints that was started with CheckArgs and is able to
// take over.
var Says = fmt.Sprintf("takes over, format %d", Version)

// CheckFlag is the flag beside --check that asks for Says; its value is the
// version of the one who asks.
const CheckFlag = "take-over"

// Check has a program say whether it would take over from us with the same
// arguments, which are without the program's name. It knows its configuration and
// the state on the disk by then. The error is a *RefusedError.
func Check(ctx context.Context, binary string, args []string) error {
	cmd := exec.CommandContext(ctx, binary, append(slices.Clone(args), "--check", "--"+CheckFlag, strconv.Itoa(Version))...)
	cmd.WaitDelay = time.Second // for what it has started itself and did not end
	var out []byte
	err := process.Aside(func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	})
	said := strings.TrimSpace(string(out))
	refused := &RefusedError{Binary: binary}
	switch exited := (*exec.ExitError)(nil); {
	case ctx.Err() != nil:
		refused.Reason = "its --check did not end in time"
	case errors.As(err, &exited):
		refused.Reason = fmt.Sprintf("its --check ended with %s: %s", exited, last(said))
	case err != nil:
		refused.Reason = err.Error()
	case !strings.Contains(said, Says):
		refused.Reason = fmt.Sprintf("it does not say that it %s, and may be no agentd: %s", Says, last(said))
	default:
		return nil
	}
	return refused
}

// last is the end of what a program said.
func last(said string) string {
	const most = 2000
	if said == "" {
		return "it said nothing"
	}
	return said[max(0, len(said)-most):]
}

// environment is ours with the number of the memfd.
func environment(fd int) []string {
	all := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, variable+"=") })
	return append(all, variable+"="+strconv.Itoa(fd))
}
