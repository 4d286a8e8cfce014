package main

// owned tells nothing of a pipe.
func owned(string) string { return "" }

// leftover finds nothing: a pipe ends with who serves it.
func leftover(string) (finding, bool) { return finding{}, false }
