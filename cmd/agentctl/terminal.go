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

// terminalWidth is how many columns the terminal behind w has; 0 if it is none, or
// does not say.
func terminalWidth(w io.Writer) int {
	if !isTerminal(w) {
		return 0
	}
	width, _, err := term.GetSize(w.(*os.File).Fd())
	if err != nil {
		return 0
	}
	return width
}

// live tells whether somebody sees what is shown, and can press keys.
func (l *commandLine) live() bool {
	return isTerminal(l.stdout) && term.IsTerminal(os.Stdin.Fd())
}
