//go:build !linux

package launch

import "errors"

// Main does nothing: these systems have no such limits, and process gives no
// orders there.
func Main([]string) error { return errors.ErrUnsupported }
