//go:build !windows

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(squatterVariable); path != "" {
		squat(path)
		return
	}
	goleak.VerifyTestMain(m)
}

// check compares exit code and stderr; stdout has to be empty.
func check(t *testing.T, wantCode int, want string, args ...string) {
	t.Helper()
	code, stdout, stderr := agentctl(t, args...)
	if code != wantCode || stderr != want || stdout != "" {
		t.Errorf("agentctl %s\n exit code %d, want %d\n stderr %s\n want   %s\n stdout %s",
			strings.Join(args, " "), code, wantCode, stderr, want, stdout)
	}
}

func TestUsageErrors(t *testing.T) {
	// The address proves that nobody is asked: there would be exit code 3.
	nowhere := filepath.Join(t.TempDir(), "none")
	for _, test := range []struct {
		args          string
		message, cure string
	}{
		{"pss", `there is no command "pss"`, "did you mean `agentctl ps`?"},
		{"help nope", `there is no command "nope"`, "`agentctl help` lists the commands"},
		{"stauts", `there is no command "stauts"`, "did you mean `agentctl status` or `agentctl start`?"},
		{"needs add", "the instance is missing", "write it like `agentctl needs add echo --module allex_echo`; the name may be a new one"},
		{"needs remove", "the instance is missing", "write it like `agentctl needs remove INSTANCE`; `agentctl needs` shows those of the LAN"},
		{"find", "the instance is missing", "write it like `agentctl find INSTANCE`; `agentctl services` shows those of the LAN"},
		{"register", "the instance is missing", "write it like `agentctl register echo --pid 4711 --module allex_echo --http 8080`; the name may be a new one"},
		{"needs add a --module m --http 80000", "--http 80000 is no port; a port is 1 to 65535", "`agentctl needs add --help` tells how it is used"},
		{"logs a -n -1", "--lines -1 is less than none", "`agentctl logs --help` tells how it is used"},
		{"logs a --from -1", "--from -1 is before the beginning, which is 0", "`agentctl logs --help` tells how it is used"},
		{"log-level loud", `the level "loud" is none of trace, debug, info, warn, error`, "`agentctl log-level --help` tells how it is used"},
		{"frobnicate", `there is no command "frobnicate"`, "`agentctl help` lists the commands"},
		{"help frobnicate", `there is no command "frobnicate"`, "`agentctl help` lists the commands"},
		{"help ps now", `there is no command "now"`, "`agentctl help` lists the commands"},
		{"help needs now", `there is no command "now"`, "`agentctl help` lists the commands"},
		{"ps --all", "agentctl ps has no flag --all", "`agentctl ps --help` tells how it is used"},
		{"ps -zx", "agentctl ps has no flag -z", "`agentctl ps --help` tells how it is used"},
		{"ps ---", `"---" is no flag`, "`agentctl ps --help` tells how it is used"},
		{"stop x -o", "--output lacks its value", "`agentctl stop --help` tells how it is used"},
		{"stop x --timeout", "--timeout lacks its value", "`agentctl stop --help` tells how it is used"},
		{"logs x -n 3 --from 3", "--lines and --from both say where to begin; one of them may", "`agentctl logs --help` tells how it is used"},
		{"logs x -n 999999999999", `--lines "999999999999" is not taken; a whole number up to 2147483647 is`, "`agentctl logs --help` tells how it is used"},
		{"logs x --from 1e3", `--from "1e3" is not taken; a whole number up to 9223372036854775807 is`, "`agentctl logs --help` tells how it is used"},
		{"logs x --follow=maybe", `--follow "maybe" is not taken; true and false are`, "`agentctl logs --help` tells how it is used"},
		{"register x --pid abc", `--pid "abc" is not taken; a whole number up to 2147483647 is`, "`agentctl register --help` tells how it is used"},
		{"register x --http eighty", `--http "eighty" is no port; a port is 1 to 65535`, "`agentctl register --help` tells how it is used"},
		{"needs add x --ws 99999999999", `--ws "99999999999" is no port; a port is 1 to 65535`, "`agentctl needs add --help` tells how it is used"},
		{"ps echo", `ps takes no argument, but there is "echo"`, "`agentctl ps --help` tells how it is used"},
		{"ps -o yaml", `--output "yaml" is neither table nor json`, "`agentctl ps --help` tells how it is used"},
		{"ps --timeout 0s", "--timeout 0s is no time to wait", "`agentctl ps --help` tells how it is used"},
		{"ps --timeout soon", `--timeout "soon" is not taken; a time like 10s, 500ms or 1m30s is`, "`agentctl ps --help` tells how it is used"},
		{"ps --agent-user no-such-user", `--agent-user "no-such-user" is no user of this machine`, "`agentctl ps --help` tells how it is used"},
		{"ps --address localhost:80", "the address localhost:80 is not that of a Unix socket", "write it like unix:/tmp/allexmachinemanager"},
		{"stop", "the instance is missing", "write it like `agentctl stop INSTANCE`; `agentctl ps` shows those of this machine"},
		{"restart a b", "one instance at a time, not 2", "`agentctl restart --help` tells how it is used"},
		{"register echo", "--pid is missing", "name the process; only what the agent started may leave it out"},
		{"register echo --pid -1", "--pid -1 is no process", "`agentctl register --help` tells how it is used"},
		{"ports 8080", `ports takes no argument, but there is "8080"`, "`agentctl ports --help` tells how it is used"},
		{"ports reserve", "the protocol is missing", "write it like `agentctl ports reserve http --pid $$`"},
		{"ports reserve 8080 --pid 1", `"8080" is no protocol`, "name tcp, http or ws"},
		{"ports reserve unspecified --pid 1", `"unspecified" is no protocol`, "name tcp, http or ws"},
		{"ports reserve http 70000 --pid 1", `"70000" is no port; a port is 1 to 65535`, "`agentctl ports reserve --help` tells how it is used"},
		{"ports reserve http 1 2 --pid 1", "one protocol and one port at a time, not 3 arguments", "`agentctl ports reserve --help` tells how it is used"},
		{"ports reserve http", "--pid or --instance is missing", "say whose the port is, which comes back when that process ends; only what the agent started may leave it out"},
		{"ports reserve http --pid -1", "--pid -1 is no process", "`agentctl ports reserve --help` tells how it is used"},
		{"ports reserve http --pid 1 --instance x", "--pid and --instance both say who holds the port; one of them may", "`agentctl ports reserve --help` tells how it is used"},
		{"ports release", "the port is missing", "write it like `agentctl ports release PORT`; `agentctl ports` shows those that are held"},
		{"ports release 0", `"0" is no port; a port is 1 to 65535`, "`agentctl ports release --help` tells how it is used"},
		{"ports check http", `"http" is no port; a port is 1 to 65535`, "`agentctl ports check --help` tells how it is used"},
		{"ports check 1 2", "one port at a time, not 2", "`agentctl ports check --help` tells how it is used"},
		{"register echo --pid 1 --http 70000", "--http 70000 is no port; a port is 1 to 65535", "`agentctl register --help` tells how it is used"},
	} {
		args := append([]string{"--address", nowhere}, strings.Fields(test.args)...)
		check(t, exitUsage, "agentctl: "+test.message+"\n  what to do: "+test.cure+"\n", args...)
	}
}

func TestNoAgent(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "none")
	want := "agentctl: there is no agent at " + nowhere + ": there is no such socket\n" +
		"  what to do: start one with `agentd`, or name the address of yours with --address or MACHINEAGENT_ADDRESS\n"
	for _, command := range []string{"status", "ps", "ports", "needs", "shutdown", "upgrade", "stop x", "start x", "restart x", "report-down x", "register x --pid 1",
		"ports reserve http --pid 1", "ports release 1", "ports check 1"} {
		check(t, exitNoAgent, want, append(strings.Fields(command), "--address", "unix:"+nowhere)...)
	}
}

// Where something else lies than a socket, no agent could start.
func TestNoSocket(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{writeFile(t, "", dir, "file"), dir} {
		for _, command := range []string{"ps", "logs x", "stop x", "watch"} {
			check(t, exitNoAgent, "agentctl: there is no agent at "+path+": that is not a socket\n"+
				"  what to do: move it away, where agentd is to listen, or name the address of your agent with --address or MACHINEAGENT_ADDRESS\n",
				append(strings.Fields(command), "--address", "unix:"+path)...)
		}
	}
}

// What the agent refuses, with its words and the cure in those of the command
// line.
func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		failure       error
		message, cure string
	}{
		{
			refuse(codes.NotFound, `there is no instance "x" on this machine`, "INSTANCE_NOT_FOUND", map[string]string{"instance": "x"}),
			`there is no instance "x" on this machine`, "`agentctl ps` shows the instances of this machine",
		},
		{
			refuse(codes.FailedPrecondition, "instance \"x\" has no process on this machine now; `agentctl needs` says why", "NOT_RUNNING", nil),
			`instance "x" has no process on this machine now`, "`agentctl needs` says why",
		},
		{
			refuse(codes.PermissionDenied, "uid 7 may not call StopProcess", "CALLER_NOT_ALLOWED", map[string]string{"uid": "7"}),
			"uid 7 may not call StopProcess", "ask as root or as the agent's user",
		},
		{
			status.Error(codes.Internal, "internal error 4711; the agent's log has its cause under this id"),
			"internal error 4711", "the agent's log has its cause under this id",
		},
		{status.Error(codes.FailedPrecondition, "no\x1b[2J\tway"), `no\x1b[2J\tway`, ""},
		{
			refuse(codes.FailedPrecondition, "nothing was changed: a.json:1:2: x: odd\x1b[2J; even is allowed\r\n\nb.json: y: gone; correct the files and reload again", "FILES_INVALID", nil),
			"nothing was changed: a.json:1:2: x: odd\\x1b[2J; even is allowed\nb.json: y: gone", "correct the files and reload again",
		},
		{
			refuse(codes.FailedPrecondition, "its --check ended: agentctl: unknown flag\n  what to do: ask for help\n; name another program", "UPGRADE_REFUSED", nil),
			"its --check ended: agentctl: unknown flag", "name another program",
		},
	} {
		address := serve(t, &fake{failure: test.failure})
		want := "agentctl: " + test.message + "\n"
		if test.cure != "" {
			want += "  what to do: " + test.cure + "\n"
		}
		for _, command := range []string{"stop x", "ps", "needs -o json"} {
			check(t, exitFailed, want, append(strings.Fields(command), "--address", address)...)
		}
	}
}

// What the agent finds wrong with a value is the user's mistake if he wrote it, and if
// it is wrong on every machine.
func TestRefusedValues(t *testing.T) {
	for _, test := range []struct {
		args, field   string
		code          int
		message, cure string
	}{
		{"register x --pid 1 --http 8080", "ports.http", exitUsage, "--http: is odd", "correct --http"},
		{"needs add x --module m --ip foo", "need.ip_address", exitUsage, "--ip: is odd", "correct --ip"},
		{"upgrade --ready-within 11m", "ready_within", exitUsage, "--ready-within: is odd", "correct --ready-within"},
		{"logs x --from 7", "position", exitFailed, "--from: is odd", "correct --from"},
		{"stop x", "instance", exitUsage, "INSTANCE: is odd", "correct INSTANCE"},
		{"ps", "page_token", exitFailed, "page_token: is odd", "`agentctl version` shows whether it is of another version than its agent"},
	} {
		wrong, err := status.New(codes.InvalidArgument, test.field+": is odd").WithDetails(
			&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: test.field, Description: "is odd"}}})
		if err != nil {
			t.Fatal(err)
		}
		check(t, test.code, "agentctl: "+test.message+"\n  what to do: "+test.cure+"\n",
			append(strings.Fields(test.args), "--address", serve(t, &refusing{fake{failure: wrong.Err()}}))...)
	}
}

// refusing is an agent that says nothing before it refuses.
type refusing struct{ fake }

func (f *refusing) ListNeeds(context.Context, *pb.ListNeedsRequest) (*pb.ListNeedsResponse, error) {
	return &pb.ListNeedsResponse{}, nil
}

func (f *refusing) TailLogs(*pb.TailLogsRequest, grpc.ServerStreamingServer[pb.TailLogsResponse]) error {
	return f.failure
}

// A name without a letter is none.
func TestNoInstance(t *testing.T) {
	check(t, exitUsage, "agentctl: the instance is missing\n  what to do: write it like `agentctl logs INSTANCE`; `agentctl ps` shows those of this machine\n", "logs", "")
	if code, _, stderr := agentctl(t, "needs", "add", "", "--module", "m"); code != exitUsage || !strings.HasPrefix(stderr, "agentctl: the instance is missing\n") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

func TestArgumentsOfFields(t *testing.T) {
	for field, want := range map[string]string{
		"instance": "INSTANCE", "status_text": "--status", "ports.ws": "--ws", "pid": "--pid", "port": "PORT", "position": "--from", "need.property_hash": "--properties", "protocol": "PROTOCOL", "module": "--module", "reason": "--reason",
	} {
		if got := argument(field); got != want {
			t.Errorf("argument(%q) = %q, want %q", field, got, want)
		}
	}
}

func TestHangingAgent(t *testing.T) {
	address := serve(t, &fake{hang: func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}})
	check(t, exitFailed, "agentctl: the agent at "+address+" did not answer in time\n"+
		"  what to do: `agentctl doctor` finds out why, and --timeout allows more time\n",
		"status", "--timeout", "50ms", "--address", address)

	entered := make(chan struct{})
	address = serve(t, &fake{hang: func(ctx context.Context) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}})
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		<-entered
		interrupt()
	}()
	var stdout, stderr bytes.Buffer
	if code := Run(ctx, []string{"status", "--address", address}, &stdout, &stderr); code != exitFailed || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("interrupted: exit code %d, stderr %q", code, stderr.String())
	}
}

// Its own version agentctl knows without the agent.
func TestVersionWithoutAnAnswer(t *testing.T) {
	address := serve(t, &fake{hang: func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}})
	own := fmt.Sprintf("agentctl  %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, test := range []struct{ args, stdout string }{
		{"version --timeout 50ms", own},
		{"version --timeout 50ms -o json", `"agentctl": "` + version},
	} {
		code, stdout, stderr := agentctl(t, append(strings.Fields(test.args), "--address", address)...)
		if code != exitFailed || !strings.Contains(stdout, test.stdout) || strings.Contains(stdout, "agent  ") ||
			!strings.HasPrefix(stderr, "agentctl: the agent at "+address+" did not answer in time\n") {
			t.Errorf("%s: exit code %d, %q, %q", test.args, code, stdout, stderr)
		}
	}
	if code, stdout, stderr := agentctl(t, "--version", "--address", address); code != exitDone || stdout != own || stderr != "" {
		t.Errorf("--version: exit code %d, %q, %q", code, stdout, stderr)
	}
}

// upgrading is an agent of which no other one comes.
type upgrading struct{ fake }

func (f *upgrading) Upgrade(context.Context, *pb.UpgradeRequest) (*pb.UpgradeResponse, error) {
	return &pb.UpgradeResponse{Id: "another"}, nil
}

func TestUpgradeWithoutEnd(t *testing.T) {
	late := func(context.Context) error {
		return status.Error(codes.DeadlineExceeded, "the agent did not answer in time")
	}
	for name, f := range map[string]*upgrading{"as before": {}, "late with each answer": {fake{hang: late}}} {
		t.Run(name, func(t *testing.T) {
			check(t, exitFailed, "agentctl: the upgrade did not come to an end in time\n"+
				"  what to do: `agentctl status` shows whether it has since, and --timeout allows more time\n",
				"upgrade", "--timeout", "1s", "--address", serve(t, f))
		})
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestAnswerIsLost(t *testing.T) {
	address := serve(t, &fake{})
	for _, output := range []string{"table", "json"} {
		var stderr bytes.Buffer
		code := Run(t.Context(), []string{"ps", "-o", output, "--address", address}, fullDisk{}, &stderr)
		want := "agentctl: the agent answered, but the answer can not be written: no space left on device\n"
		if code != exitFailed || stderr.String() != want {
			t.Errorf("-o %s: exit code %d, stderr %q", output, code, stderr.String())
		}
	}
}

// A script that the agent started registers itself without a pid.
func TestRegisterFromAChild(t *testing.T) {
	f := &fake{}
	address := serve(t, f)
	t.Setenv(instanceVariable, "echo")
	var stdout, stderr bytes.Buffer
	if code := Run(t.Context(), []string{"register", "echo", "--address", address}, &stdout, &stderr); code != exitDone {
		t.Fatalf("exit code %d, stderr %q", code, stderr.String())
	}
	if f.asked == nil {
		t.Error("the agent was not asked")
	}
}

// A script that the agent started reserves for its instance without a pid. What
// only thinks that it is one is told so.
func TestReserveFromAChild(t *testing.T) {
	for part, want := range map[bool]struct {
		code           int
		stdout, stderr string
	}{
		true: {exitDone, "http port 16002 is held for echo, pid 4711, until that ends, or until `agentctl ports release 16002`\n", ""},
		false: {exitFailed, "", "agentctl: the agent does not know this as one of its processes, so that the port would come back at once\n" +
			"  what to do: say with --pid or --instance whose it is\n"},
	} {
		address := serve(t, &fake{part: part})
		t.Setenv(instanceVariable, "echo")
		var stdout, stderr bytes.Buffer
		code := Run(t.Context(), []string{"ports", "reserve", "http", "--address", address}, &stdout, &stderr)
		if code != want.code || stdout.String() != want.stdout || stderr.String() != want.stderr {
			t.Errorf("part of it %v: exit code %d, %q, %q", part, code, &stdout, &stderr)
		}
	}
}
