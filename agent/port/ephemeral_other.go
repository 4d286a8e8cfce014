//go:build !linux

package port

// ephemeral is the range that Windows, macOS and the BSDs use for outgoing
// connections unless told otherwise.
func ephemeral() (first, last int, kept *set) { return 49152, maxPort, new(set) }

// keepCure is how to keep ports from the system's use.
func keepCure(_, _ int) string { return "narrow the system's range" }
