//go:build !windows

package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// mute is an agent that takes a call and does not answer.
type mute struct{ fake }

func (*mute) ListProcesses(ctx context.Context, _ *pb.ListProcessesRequest) (*pb.ListProcessesResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A name that a shell would not leave as it is, is one that nobody can type.
func TestCompletion(t *testing.T) {
	const noFiles = ":4\n"
	named := func(names ...string) *fake {
		f := &fake{left: [][]*pb.Process{nil}}
		for _, name := range names {
			f.left[0] = append(f.left[0], echo(pb.ProcessState_PROCESS_STATE_READY, name))
		}
		return f
	}
	f := &fake{}
	all, none := serve(t, f), filepath.Join(t.TempDir(), "none")
	const instances = "adopted\tREADY, OPEN\nby-hand\tREADY, UNNEEDED\ncrashes\tENDED\necho-1\tREADY, SERVED\n" +
		"held\tSTOPPING, ELSEWHERE, held\nkilled\tEMPTYING\nmissed\tSTARTING, OPEN\nwithdrawn\tWITHDRAWN, 77\n"
	for _, test := range []struct {
		address string
		line    string // its last word is what is completed
		want    string
	}{
		{all, "stop ", instances},
		{all, "start e", "echo-1\tREADY, SERVED\n"},
		{all, "restart wi", "withdrawn\tWITHDRAWN, 77\n"},
		{all, "report-down --reason r m", "missed\tSTARTING, OPEN\n"},
		{all, "logs -f ", instances},
		{all, "logs echo-1 ", ""},
		{all, "watch --instance e", "echo-1\tREADY, SERVED\n"},
		{all, "events --instance e", "echo-1\tREADY, SERVED\n"},
		{all, "watch s", "services\n"},
		{all, "find e", "echo-1\t10.0.0.7\nelsewhere\t10.0.0.8\n"},
		{all, "needs remove h", "here\tSERVED_HERE\nheld\tHELD\n"},
		{all, "log-level w", "warn\n"},
		{all, "ports reserve ", "tcp\nhttp\nws\n"},
		{all, "ports reserve tcp ", ""},
		{all, "ports reserve tcp --instance e", "echo-1\tREADY, SERVED\n"},
		{all, "ports release ", "15001\tstarting\n"},
		{all, "ps ", ""},
		{all, "ps -o ", "table\njson\n"},
		{all, "completion ", "bash\nzsh\nfish\n"},
		{none, "stop ", ""},
		{serve(t, &mute{}), "stop ", ""},
		{serve(t, &fake{failure: refuse(codes.Internal, "no; it is broken", "BROKEN", nil)}), "stop ", ""},
		{serve(t, named("a b", "$(reboot)", "a;b", "`x`", "x\x1b[2J", "a'b", "dotnet:Foo", "Räume_1.2-@a+b%/c")), "stop ", "dotnet:Foo\tREADY, SERVED\nRäume_1.2-@a+b%/c\tREADY, SERVED\n"},
	} {
		t.Run(test.line, func(t *testing.T) {
			args := append([]string{"__complete", "--address", test.address}, strings.Split(test.line, " ")...)
			code, stdout, _ := agentctl(t, args...)
			if want := test.want + noFiles; code != exitDone || stdout != want {
				t.Errorf("exit code %d, got\n%swant\n%s", code, stdout, want)
			}
		})
	}
	if _, stdout, _ := agentctl(t, "__complete", "upgrade", "--binary", ""); stdout != ":0\n" {
		t.Errorf("a program is no file: %s", stdout)
	}
}

// What is printed for a shell is right, as far as the shells are here to say so.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		code, stdout, stderr := agentctl(t, "completion", shell)
		if code != exitDone || stderr != "" || !strings.Contains(stdout, "agentctl") || !strings.Contains(stdout, "__complete") {
			t.Errorf("%s: exit code %d, stderr %q", shell, code, stderr)
		}
		if path, err := exec.LookPath(shell); err == nil {
			cmd := exec.Command(path, "-n")
			cmd.Stdin = strings.NewReader(stdout)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", shell, err, out)
			}
		}
	}
	for _, args := range [][]string{{}, {"bash", "zsh"}, {"csh"}} {
		if code, stdout, _ := agentctl(t, append([]string{"completion"}, args...)...); code != exitUsage || stdout != "" {
			t.Errorf("%q: exit code %d, %q", args, code, stdout)
		}
	}
}
