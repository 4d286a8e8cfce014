package state

// checkOwner accepts all: a directory's access list is inherited from the one
// above, which is the administrator's choice.
func checkOwner(string, int) error { return nil }
