package process

import (
	"fmt"
	"strings"
)

// unknownSignal is the error for a name that is none; it proposes the right
// spelling where only the prefix or the case is wrong.
func unknownSignal(name string, known func(string) bool) error {
	guess := strings.ToUpper(name)
	if !strings.HasPrefix(guess, "SIG") {
		guess = "SIG" + guess
	}
	if !known(guess) {
		guess = "SIGTERM"
	}
	return fmt.Errorf("there is no signal %q on this system; write it like %s", name, guess)
}
