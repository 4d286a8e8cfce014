package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

func (l *commandLine) logs() *cobra.Command {
	var follow, raw bool
	var lines int32
	var from int64
	cmd := &cobra.Command{
		Use:   "logs INSTANCE",
		Short: "Show what the processes of an instance have written",
		Long: "Show what the processes of an instance have written to their standard output and\n" +
			"error: the last lines, or what begins at a position. With --follow it goes on with\n" +
			"what they write from then on, across their restarts and those of the agent, until\n" +
			"it is interrupted. What is not kept any more is said on standard error.\n\n" +
			"On a terminal it leaves out colours and whatever else a terminal obeys, and writes\n" +
			"control characters out, unless --raw is given. Anywhere else the bytes are those\n" +
			"that were written.",
		GroupID:           looking,
		Args:              instance,
		ValidArgsFunction: l.once(instances),
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			switch f := cmd.Flags(); {
			case f.Changed("lines") && f.Changed("from"):
				return errors.New("--lines and --from both say where to begin; one of them may")
			case lines < 0:
				return fmt.Errorf("--lines %d is less than none", lines)
			case from < 0:
				return fmt.Errorf("--from %d is before the beginning, which is 0", from)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &machineagentv1.TailLogsRequest{Instance: args[0], Follow: follow,
				Begin: &machineagentv1.TailLogsRequest_Lines{Lines: lines}}
			if cmd.Flags().Changed("from") {
				r.Begin = &machineagentv1.TailLogsRequest_Position{Position: from}
			}
			c, err := l.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			l.asking = true
			out := &logWriter{w: l.stdout, plain: !raw && isTerminal(l.stdout)}
			show := l.showPiece(out, cmd.ErrOrStderr())
			err = l.patiently(cmd.Context(), c, func(ctx context.Context, answered func()) error {
				t := tail{client: c, request: r, show: func(p *machineagentv1.TailLogsResponse) error {
					answered()
					return show(p)
				}}
				return t.run(ctx)
			})
			err = errors.Join(err, out.end())
			if follow && cmd.Context().Err() != nil {
				return nil // that is how it ends
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on with what is written from now on")
	f.BoolVar(&raw, "raw", false, "let the terminal obey what was written, too")
	f.Int32VarP(&lines, "lines", "n", 100, "how many of the last lines to begin with")
	f.Int64Var(&from, "from", 0, "the position to begin at; 0 is the very beginning, of which the oldest may not be kept any more")
	cmd.MarkFlagsMutuallyExclusive("lines", "from") // for the completion: it is told before
	return cmd
}

// showPiece shows the pieces of a log: their text, or each as a line of JSON.
func (l *commandLine) showPiece(out *logWriter, problems io.Writer) func(*machineagentv1.TailLogsResponse) error {
	return func(p *machineagentv1.TailLogsResponse) error {
		if l.output == "json" {
			if len(p.Data) == 0 && p.Missing == 0 {
				return nil
			}
			return printJSON(l.stdout, p)
		}
		if p.Missing > 0 {
			if err := out.end(); err != nil {
				return err
			}
			fmt.Fprintf(problems, "agentctl: %d bytes before position %d are not there any more\n", p.Missing, p.Position)
		}
		return out.add(p.Data)
	}
}

// logWriter writes a log as it is or, to a terminal, what can do no harm there.
type logWriter struct {
	w     io.Writer
	plain bool
	lines lineCutter
}

func (o *logWriter) add(piece []byte) error {
	if !o.plain {
		return write(o.w, piece)
	}
	var text strings.Builder
	o.lines.add(piece, func(line string, ended bool) {
		text.WriteString(line)
		if ended {
			text.WriteByte('\n')
		}
	})
	if o.lines.settled() {
		text.WriteString(o.lines.leave())
	}
	return write(o.w, []byte(text.String()))
}

// end writes what there is of a line that nothing continues.
func (o *logWriter) end() error { return write(o.w, []byte(o.lines.leave())) }

// tail reads a log, and goes on where it was when the agent has been away.
type tail struct {
	client  *client.Client
	request *machineagentv1.TailLogsRequest
	show    func(*machineagentv1.TailLogsResponse) error
	begun   bool // the agent has told a position, at which the request goes on
}

// retry is how long a follower waits for an agent to come back before it asks
// again.
const retry = 200 * time.Millisecond

func (t *tail) run(ctx context.Context) error {
	for {
		stream, err := t.client.Processes.TailLogs(ctx, t.request)
		if err == nil {
			err = t.read(stream)
		}
		if !t.request.Follow || !t.begun || !errors.Is(err, client.ErrUnavailable) {
			return err
		}
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *tail) read(stream grpc.ServerStreamingClient[machineagentv1.TailLogsResponse]) error {
	for {
		piece, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.show(piece); err != nil {
			return err
		}
		t.begun = true
		t.request.Begin = &machineagentv1.TailLogsRequest_Position{Position: piece.Position + int64(len(piece.Data))}
	}
}
