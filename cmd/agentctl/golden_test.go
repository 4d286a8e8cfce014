//go:build !windows

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/allexgo/machine-agent/client"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

// agentctl runs one command line at the moment, without what the environment
// of the test says.
func agentctl(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	for _, name := range []string{client.AddressVariable, userVariable, instanceVariable} {
		t.Setenv(name, "")
	}
	var out, problems bytes.Buffer
	code = run(t.Context(), moment, args, &out, &problems)
	return code, out.String(), problems.String()
}

func checkGolden(t *testing.T, name, got string) {
	t.Helper()
	// What differs from one Go to the next.
	got = strings.NewReplacer(runtime.Version(), "GO", runtime.GOOS+"/"+runtime.GOARCH, "OS/ARCH").Replace(got)
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s, -want +got (-update writes it anew):\n%s", file, diff)
	}
}

// Every command, as people and as programs see it.
func TestCommands(t *testing.T) {
	for _, test := range []struct {
		args  []string
		asked proto.Message // nil: it only looks
	}{
		{args: []string{"status"}},
		{args: []string{"ps"}},
		{args: []string{"ports"}},
		{[]string{"ports reserve", "http", "--pid", "99"}, &pb.ReservePortRequest{Protocol: pb.Protocol_PROTOCOL_HTTP, Pid: 99}},
		{[]string{"ports release", "16000"}, &pb.ReleasePortRequest{Port: 16000}},
		{[]string{"ports check", "16000"}, &pb.CheckPortRequest{Port: 16000}},
		{args: []string{"needs"}},
		{args: []string{"services"}},
		{args: []string{"modules"}},
		{[]string{"find", "echo"}, &pb.FindServiceRequest{By: &pb.FindServiceRequest_Instance{Instance: "echo"}}},
		{[]string{"find", "--module", "allex_echo"}, &pb.FindServiceRequest{By: &pb.FindServiceRequest_Module{Module: "allex_echo"}}},
		{[]string{"reload", "--restart-outdated"}, &pb.ReloadRequest{RestartOutdated: true}},
		{[]string{"log-level", "debug"}, &pb.SetLogLevelRequest{Level: "debug"}},
		{
			[]string{"needs add", "echo", "--module", "allex_echo", "--http", "8080", "--ip", "10.0.0.0/16", "--properties", `{"rooms": 3}`},
			&pb.AddNeedRequest{Need: &pb.Need{Instance: "echo", Module: "allex_echo", IpAddress: "10.0.0.0/16", FixedPorts: &pb.Ports{Http: 8080},
				PropertyHash: &structpb.Struct{Fields: map[string]*structpb.Value{"rooms": structpb.NewNumberValue(3)}}}},
		},
		{[]string{"needs remove", "bid"}, &pb.RemoveNeedRequest{Instance: "bid"}},
		{args: []string{"version"}},
		{[]string{"stop", "echo"}, &pb.StopProcessRequest{Instance: "echo"}},
		{[]string{"start", "bid"}, &pb.StartProcessRequest{Instance: "bid"}},
		{[]string{"restart", "echo"}, &pb.RestartProcessRequest{Instance: "echo"}},
		{
			[]string{"register", "echo", "--pid", "99", "--module", "allex_echo", "--tcp", "1", "--http", "8080", "--ws", "65535", "--status", "3 rooms"},
			&pb.RegisterProcessRequest{Instance: "echo", Pid: 99, Module: "allex_echo", Ports: &pb.Ports{Tcp: 1, Http: 8080, Ws: 65535}, StatusText: "3 rooms"},
		},
		{[]string{"report-down", "echo", "--reason", "disk full"}, &pb.ReportDownRequest{Instance: "echo", Reason: "disk full"}},
		{[]string{"drain"}, &pb.DrainRequest{}},
		{[]string{"resume"}, &pb.ResumeRequest{}},
		{[]string{"shutdown"}, &pb.ShutdownRequest{}},
		{
			[]string{"upgrade", "--binary", "/opt/agentd", "--ready-within", "3s"},
			&pb.UpgradeRequest{Binary: "/opt/agentd", ReadyWithin: durationpb.New(3 * time.Second)},
		},
	} {
		for _, output := range []string{"table", "json"} {
			t.Run(test.args[0]+"."+output, func(t *testing.T) {
				f := &fake{}
				address := serve(t, f)
				args := append(strings.Fields(test.args[0]), test.args[1:]...)
				code, stdout, stderr := agentctl(t, append(args, "--address", address, "-o", output)...)
				if code != exitDone || stderr != "" {
					t.Errorf("exit code %d, stderr %q", code, stderr)
				}
				if diff := cmp.Diff(test.asked, f.asked, protocmp.Transform()); diff != "" {
					t.Errorf("what the agent was asked, -want +got:\n%s", diff)
				}
				if output == "json" && !json.Valid([]byte(stdout)) {
					t.Error("that is no JSON")
				}
				checkGolden(t, strings.ReplaceAll(test.args[0], " ", "-")+"."+output, stdout)
			})
		}
	}
}

// Watches, up to where this one is ended.
func TestWatches(t *testing.T) {
	for _, args := range [][]string{{"watch"}, {"watch", "processes"}, {"watch", "needs"}, {"watch", "services"}, {"events", "-f"}, {"events"}} {
		for _, output := range []string{"table", "json"} {
			name := "watch-" + args[len(args)-1]
			switch {
			case args[0] == "events":
				name = "events" + strings.Join(args[1:], "")
			case len(args) == 1:
				name = "watch-processes" // are what is watched if nobody says
			}
			wantCode, wantErr := exitFailed, "agentctl: that is over\n  what to do: go home\n"
			if name == "events" { // it has an end of its own
				wantCode, wantErr = exitDone, ""
			}
			t.Run(name+"."+output, func(t *testing.T) {
				code, stdout, stderr := agentctl(t, append(args, "--address", serve(t, &fake{}), "-o", output)...)
				if code != wantCode || stderr != wantErr {
					t.Errorf("exit code %d, stderr %q", code, stderr)
				}
				for line := range strings.Lines(stdout) {
					if output == "json" && !json.Valid([]byte(line)) {
						t.Errorf("that is no JSON: %s", line)
					}
				}
				checkGolden(t, name+"."+output, stdout)
			})
		}
	}
}

// What processes use is shown if it is asked for.
func TestUsage(t *testing.T) {
	for _, output := range []string{"table", "json"} {
		code, stdout, stderr := agentctl(t, "ps", "--usage", "-o", output, "--address", serve(t, &fake{}))
		if code != exitDone || stderr != "" {
			t.Errorf("exit code %d, stderr %q", code, stderr)
		}
		checkGolden(t, "ps-usage."+output, stdout)
	}
	for d, want := range map[time.Duration]string{0: "0.00s", 59999 * time.Millisecond: "60.00s", time.Minute: "60s", 3 * time.Hour: "3h"} {
		if got := seconds(d); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0B", 1023: "1023B", 1024: "1.0KiB", 1<<20 - 1: "1024.0KiB", 5 << 30: "5.0GiB", 1<<63 - 1: "8.0EiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

// interrupter interrupts when something is written.
type interrupter struct{ interrupt func() }

func (i interrupter) Write(text []byte) (int, error) {
	i.interrupt()
	return len(text), nil
}

// To interrupt a watch is how one ends it, and no failure.
func TestWatchIsInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	var problems bytes.Buffer
	args := []string{"watch", "--address", serve(t, &fake{})}
	if code := run(ctx, moment, args, interrupter{interrupt}, &problems); code != exitDone || problems.Len() > 0 {
		t.Errorf("exit code %d, stderr %q", code, &problems)
	}
}

// What -o json prints is the message itself: it can be read back.
func TestJSONIsTheMessage(t *testing.T) {
	f := &fake{}
	_, stdout, _ := agentctl(t, "needs", "-o", "json", "--address", serve(t, f))
	var got pb.ListNeedsResponse
	if err := protojson.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	var want pb.ListNeedsResponse
	for token := ""; token != "" || len(want.Needs) == 0; {
		page, err := f.ListNeeds(t.Context(), &pb.ListNeedsRequest{PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		want.Needs, token = append(want.Needs, page.Needs...), page.NextPageToken
	}
	if diff := cmp.Diff(&want, &got, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The status of an agent that has its troubles, and of one that says nothing.
func TestStatusInTrouble(t *testing.T) {
	for name, status := range map[string]*pb.GetStatusResponse{
		"trouble": {
			Version: "1.2.3", Name: "alpha", Pid: 811, StartTime: before(100 * time.Second), Processes: 1,
			Link:       &pb.Link{LanManager: "10.0.0.1:23552", SinceTime: before(42 * time.Second), Problem: "dial tcp 10.0.0.1:23552: connection refused"},
			CrashLoops: []string{"crashes", "falls"}, CrashLoopCount: 12,
			Warnings: []string{
				"the port range of tcp overlaps that of the system",
				"children get no cgroup of their own",
			},
		},
		"drained": {Version: "1.2.3", Name: "alpha", Pid: 811, StartTime: before(time.Hour), Drained: true, Cgroups: true,
			Link: &pb.Link{Connected: true, LanManager: "10.0.0.1:23552", SeenAs: "10.0.0.7", SinceTime: before(time.Hour)}},
		"silence": {},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := agentctl(t, "status", "--address", serve(t, &fake{status: status}))
			if code != exitDone || stderr != "" {
				t.Errorf("exit code %d, stderr %q", code, stderr)
			}
			checkGolden(t, "status-"+name, stdout)
		})
	}
}

// What a drain waits for is shown as it goes, and other people's processes are not
// waited for.
func TestDrainWait(t *testing.T) {
	stopping := func(names ...string) []*pb.Process {
		all := []*pb.Process{
			{Instance: "by-hand", State: pb.ProcessState_PROCESS_STATE_WITHDRAWN, Origin: pb.ProcessOrigin_PROCESS_ORIGIN_OUTSIDE, Pid: 99},
			{Instance: "crashed", State: pb.ProcessState_PROCESS_STATE_ENDED},
		}
		for _, name := range names {
			all = append(all, echo(pb.ProcessState_PROCESS_STATE_STOPPING, name))
		}
		return all
	}
	steps := func() [][]*pb.Process {
		return [][]*pb.Process{
			stopping("a", "b", "c", "d", "e", "f", "g", "h", "i", "j"),
			stopping("b", "c"), stopping("b", "c"), stopping("c"), stopping(),
		}
	}
	f := &fake{status: &pb.GetStatusResponse{Drained: true}, left: steps()}
	address := serve(t, f)
	code, stdout, stderr := agentctl(t, "drain", "--wait", "--address", address)
	if code != exitDone || stderr != "" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	checkGolden(t, "drain-wait", stdout)

	f.left = steps()
	code, stdout, stderr = agentctl(t, "drain", "--wait", "-o", "json", "--address", address)
	if code != exitDone || stderr != "" || !json.Valid([]byte(stdout)) || len(f.left) != 0 {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}

	f.status = &pb.GetStatusResponse{}
	if code, _, stderr = agentctl(t, "drain", "--wait", "--address", address); code != exitFailed || !strings.Contains(stderr, "resumed") {
		t.Errorf("resumed meanwhile: exit code %d, stderr %q", code, stderr)
	}
}

// version is an answer without an agent too.
func TestVersionWithoutAgent(t *testing.T) {
	code, stdout, stderr := agentctl(t, "version", "--address", filepath.Join(t.TempDir(), "none"))
	if code != exitDone || stderr != "" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	checkGolden(t, "version-alone", stdout)
}

func TestHelp(t *testing.T) {
	_, alone, _ := agentctl(t)
	for _, test := range []struct {
		name string
		args []string
	}{
		{"help", []string{"help"}},
		{"help", []string{"--help"}},
		{"help-needs", []string{"help", "needs"}},
		{"help-needs", []string{"needs", "-h"}},
		{"help-ports", []string{"help", "ports"}},
		{"help-ports-reserve", []string{"ports", "reserve", "--help"}},
		{"help-register", []string{"help", "register"}},
		{"help-watch", []string{"help", "watch"}},
		{"help-events", []string{"help", "events"}},
	} {
		code, stdout, stderr := agentctl(t, test.args...)
		if code != exitDone || stderr != "" {
			t.Errorf("%q: exit code %d, stderr %q", test.args, code, stderr)
		}
		checkGolden(t, test.name, stdout)
		if test.name == "help" && stdout != alone {
			t.Errorf("%q differs from agentctl alone", test.args)
		}
	}
}

// What is said of a port besides what TestCommands shows.
func TestPorts(t *testing.T) {
	for _, test := range []struct {
		args  string
		asked proto.Message
		said  string
	}{
		{
			"reserve tcp 5432 --instance database",
			&pb.ReservePortRequest{Protocol: pb.Protocol_PROTOCOL_TCP, Port: 5432, Instance: "database"},
			"tcp port 5432 is held for database, pid 4711, until that ends, or until `agentctl ports release 5432`\n",
		},
		{"check 8080", &pb.CheckPortRequest{Port: 8080}, "port 8080 is free\n"},
	} {
		f := &fake{}
		code, stdout, stderr := agentctl(t, append(strings.Fields("ports "+test.args), "--address", serve(t, f))...)
		if code != exitDone || stderr != "" || stdout != test.said {
			t.Errorf("%s: exit code %d, stderr %q, got\n%s", test.args, code, stderr, stdout)
		}
		if diff := cmp.Diff(test.asked, f.asked, protocmp.Transform()); diff != "" {
			t.Errorf("%s: what the agent was asked, -want +got:\n%s", test.args, diff)
		}
	}
}

// An agent that went back is as before, and agentctl says why.
func TestStatusOfAnUpgradeThatFailed(t *testing.T) {
	_, stdout, _ := agentctl(t, "status", "--address", serve(t, &fake{problem: "the other program says:\nconfig.json: name: is empty\n", upgraded: true}))
	if want := ": the other program says:\nUpgrade       config.json: name: is empty\n"; !strings.Contains(stdout, want) {
		t.Errorf("no %q in\n%s", want, stdout)
	}
}

// How long an upgrade is waited for follows from how long it may take.
func TestUpgradeIsWaitedFor(t *testing.T) {
	for args, want := range map[string]time.Duration{
		"upgrade":                                   time.Minute,
		"upgrade --ready-within 1s":                 time.Minute,
		"upgrade --ready-within 5m":                 10*time.Minute + 30*time.Second,
		"upgrade --ready-within 2000000h":           time.Minute, // the agent does not take it
		"upgrade --ready-within 5m --timeout 3m20s": 200 * time.Second,
	} {
		f := &fake{}
		code, _, stderr := agentctl(t, append(strings.Fields(args), "--address", serve(t, f))...)
		if left := time.Until(f.deadline); code != exitDone || left > want || left < want-20*time.Second {
			t.Errorf("%s: exit code %d, %s was left of %s: %s", args, code, left, want, stderr)
		}
	}
}

func TestUpgradeGoesBack(t *testing.T) {
	code, stdout, stderr := agentctl(t, "upgrade", "--address", serve(t, &fake{problem: "it was not ready within 3s"}))
	if code != exitFailed || stdout != "" || !strings.Contains(stderr, "1.2.3 as before: it was not ready within 3s") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
}
