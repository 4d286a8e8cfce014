package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/allexgo/machine-agent/agent/process"
)

// Command asks a program, which says with exit code 0 that all is well. It ends
// with all that it has started when it ends, or when ctx does. Of its output the
// last line is part of an error. The Log of spec is not used; the Cgroup is one
// below that of the process that is asked about.
func Command(spec process.Spec) Question {
	no := filepath.Base(spec.Argv[0]) + " finds that it is not well"
	return Question{no, func(ctx context.Context) error { return run(ctx, spec) }}
}

// emptyWithin is how long killed processes may take to be gone.
const emptyWithin = 5 * time.Second

// heldFor is how long the output of a command that has ended is waited for: whoever
// has got away from its tree may hold the other end for ever.
const heldFor = 200 * time.Millisecond

func run(ctx context.Context, spec process.Spec) error {
	ending, stop := context.WithTimeout(context.WithoutCancel(ctx), emptyWithin)
	defer stop()
	if spec.Cgroup != "" { // what an agent that was killed has left there
		if _, err := process.EmptyCgroup(ending, spec.Cgroup); err != nil {
			return err
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	spec.Log, spec.Output = "", w
	p, err := process.Start(spec)
	w.Close()
	if err != nil {
		return err
	}
	said := make(chan string, 1)
	go func() { said <- lastLine(r) }()
	kill := context.AfterFunc(ctx, func() { _ = p.KillTree() })
	err = p.AwaitEnd()
	inTime := kill()
	_, left := p.Empty(ending)
	exit := p.Reap()
	_ = r.SetReadDeadline(time.Now().Add(heldFor))
	line := <-said
	switch {
	case err != nil || left != nil:
		return errors.Join(err, left)
	case !inTime:
		return explain("it did not end in time", line)
	case exit != process.Exit{}:
		return explain(exit.String(), line)
	}
	return nil
}

func explain(what, line string) error {
	if line == "" {
		return errors.New(what)
	}
	return fmt.Errorf("%s: %q", what, line)
}

// lastLine reads to the end and returns the last line that is not empty.
func lastLine(r io.Reader) (last string) {
	const most = 200 // bytes
	lines := bufio.NewReader(r)
	for {
		line, _, err := lines.ReadLine() // a long one comes in pieces, and its end is as good as all of it
		if err != nil {
			return last
		}
		if text := strings.TrimSpace(string(line)); text != "" {
			last = strings.ToValidUTF8(text[:min(len(text), most)], "")
		}
	}
}
