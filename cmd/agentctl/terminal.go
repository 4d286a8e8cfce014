package main

import (
	"io"
	"os"

	"github.com/charmbracelet/x/term"
)

// isTerminal tells whether somebody sees what is written to w.
func isTerminal(w io.Writer) bool {
	f, is := w.(*os.File)
	return is && term.IsTerminal(f.Fd())
}

// live tells whether somebody sees what is shown, and can press keys.
func (l *commandLine) live() bool {
	return isTerminal(l.stdout) && term.IsTerminal(os.Stdin.Fd())
}
