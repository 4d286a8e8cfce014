package wire

import (
	"errors"
	"fmt"
)

// What can become of a call or a session of a Client.
var (
	ErrLost      = errors.New("the connection to the LAN manager is lost")          // with its cause
	ErrForgotten = errors.New("the LAN manager does not know the session any more") // "f"
	ErrEnded     = errors.New("the LAN manager ended the session")                  // "-"
	ErrRefused   = errors.New("the LAN manager refused the introduction")
)

// RejectedError is what the other side answered a call with ("e").
type RejectedError struct {
	Code    string // such as NO_PORTS_REACHABLE; for wrong arguments a whole sentence
	Message string // may be empty
}

func (e *RejectedError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("rejected by the LAN manager: %s", e.Code)
	}
	return fmt.Sprintf("rejected by the LAN manager: %s: %s", e.Code, e.Message)
}
