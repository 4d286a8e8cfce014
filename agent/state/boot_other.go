//go:build !linux

package state

// bootID is empty, as in process.Identity: these systems are not asked.
func bootID() (string, error) { return "", nil }
