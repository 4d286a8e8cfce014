//go:build !linux

package port

import (
	"fmt"
	"net"
)

// listenAlone listens like a program that knows nothing of the office.
func listenAlone(number int) (net.Listener, error) {
	return net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", number))
}
