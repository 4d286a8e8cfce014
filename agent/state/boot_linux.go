package state

import (
	"fmt"
	"os"
	"strings"
)

// bootID changes with every boot; the same text is in process.Identity. Without
// it every record would look like one of another boot.
func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("can not tell this boot from another, is /proc mounted? %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
