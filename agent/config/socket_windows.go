package config

import (
	"fmt"
	"strings"
)

const (
	pipes         = `\\.\pipe\`
	defaultSocket = pipes + "allexmachinemanager"
)

// checkSocket tells what is wrong with the name of a pipe: they are 1 to 256
// characters, all in one place.
func checkSocket(path string) string {
	name, ok := strings.CutPrefix(path, pipes)
	if !ok || name == "" || len(path) > 256 || strings.Contains(name, `\`) {
		return fmt.Sprintf("found %q, wanted the name of a pipe, such as %s", path, defaultSocket)
	}
	return ""
}
