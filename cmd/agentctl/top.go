package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"github.com/allexgo/machine-agent/client"
)

// topKeys tells the keys in the help of the command, and on the screen.
const topKeys = `  c m f t p a n    sort by CPU, memory, files, threads, processes, age, name;
                   the same key again: the other way round
  arrows, j k      go to an instance; also PgUp, PgDn, Home or g, End or G
  l or Enter       follow its log; there arrows, PgUp, PgDn and Home look back,
                   End follows again, and q or Esc leaves it
  x  r  s          stop and hold it, restart it, start it; y confirms
  /                show only what has a text in its name, module, state or note;
                   Enter keeps it so, Esc shows all again
  ? or h           show these keys
  Ctrl-Z           go to the shell; ` + "`fg`" + ` comes back
  q or Ctrl-C      quit
`

// shortestInterval keeps a slip of the finger from being a load.
const shortestInterval = 100 * time.Millisecond

func (l *commandLine) top() *cobra.Command {
	var interval time.Duration
	var once bool
	var sort string
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show what the processes of this machine use, and let you act on them",
		Long: `Show what the processes of this machine use, measured anew every --interval for
as long as it runs. The columns are those of ` + "`agentctl ps --usage`" + `; CPU% is of one
core, since the measurement before.

KEYS
` + topKeys + `
Without a terminal, or with --once, it measures twice, prints one table and ends.`,
		Example: "  agentctl top --sort memory\n  agentctl top --once --interval 5s",
		GroupID: looking,
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			by := slices.IndexFunc(columns, func(c column) bool { return c.key != "" && c.name == sort })
			switch {
			case by < 0:
				return fmt.Errorf("--sort %q is none of %s", sort, strings.Join(sortNames(), ", "))
			case interval < shortestInterval:
				return fmt.Errorf("--interval %s is too short; at least %s", interval, shortestInterval)
			case l.output == "json":
				return &usageError{"top shows a table", "`agentctl ps --usage -o json` has the figures for programs"}
			}
			once = once || !l.live()
			if !once && os.Getenv("TERM") == "dumb" {
				return &usageError{"a terminal of type dumb (TERM) can not show a live table", "set TERM to what the terminal is, or have one table with --once"}
			}
			return l.connected(func(c *client.Client) error {
				t := newTop(cmd.Context(), c, interval, l.timeout)
				t.order = order{by: by}
				if once {
					return l.topOnce(t)
				}
				return t.run()
			})
		},
	}
	f := cmd.Flags()
	f.DurationVar(&interval, "interval", time.Second, "how long from one measurement to the next")
	f.BoolVar(&once, "once", false, "print one table and end")
	f.StringVar(&sort, "sort", "cpu", "what to sort by: "+strings.Join(sortNames(), ", "))
	completeFlag(cmd, "sort", cobra.FixedCompletions(sortNames(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// topOnce measures twice and prints a table.
func (l *commandLine) topOnce(t *top) error {
	for range 2 {
		if !t.last.at.IsZero() {
			select {
			case <-time.After(t.interval):
			case <-t.ctx.Done():
				return context.Cause(t.ctx)
			}
		}
		s := t.measure()
		if s.err != nil {
			return s.err
		}
		t.take(s)
	}
	return l.show(func(p *page) {
		var head []string
		for _, c := range columns {
			head = append(head, c.title)
		}
		p.head(head...)
		for _, u := range t.shown {
			var cells []string
			for _, c := range columns {
				cells = append(cells, c.cell(p, u))
			}
			p.row(cells...)
		}
	})
}

// run shows the table until the user has seen enough or is interrupted. An agent
// that does not answer at all is an error; one that leaves later is waited for.
func (t *top) run() error {
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel() // of what is still asked of the agent
	t.ctx = ctx
	first := t.measure()
	if first.err != nil {
		return first.err
	}
	t.take(first)
	_, err := tea.NewProgram(t, tea.WithContext(ctx), tea.WithoutSignalHandler()).Run()
	if ctx.Err() != nil && errors.Is(err, tea.ErrProgramKilled) {
		return nil // that is how it ends
	}
	return err
}
