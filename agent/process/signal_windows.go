package process

import "syscall"

// ParseSignal returns the signal of a name such as "SIGTERM". Windows can only
// end a process, so that all of them do the same there.
func ParseSignal(name string) (syscall.Signal, error) {
	signals := map[string]syscall.Signal{"SIGHUP": syscall.SIGHUP, "SIGINT": syscall.SIGINT,
		"SIGQUIT": syscall.SIGQUIT, "SIGTERM": syscall.SIGTERM, "SIGKILL": syscall.SIGKILL}
	if sig, ok := signals[name]; ok {
		return sig, nil
	}
	return 0, unknownSignal(name, func(s string) bool { return signals[s] != 0 })
}

// signalName has nothing to name: no process ends by a signal there.
func signalName(syscall.Signal) string { return "" }
