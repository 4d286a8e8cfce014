// Command agentexec is started by agentd in front of a child that has limits or
// gets sockets: it sets the ones, announces the others, and becomes the child. It is
// of no use by hand.
package main

import (
	"fmt"
	"os"

	"github.com/allexgo/machine-agent/agent/process/launch"
)

func main() {
	fmt.Fprintln(os.Stderr, "agentexec:", launch.Main(os.Args)) // it has not become the child
	os.Exit(126)
}
