//go:build !windows

package main

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// Of a need whose name there is already, only the same is added again.
func TestAddNeedOfAName(t *testing.T) {
	for _, test := range []struct{ args, refusal string }{
		{"bid --module allex_bid", ""},
		{"cidr --module m --ip 10.9.0.0/16 --properties {\"rooms\":3}", ""},
		{"fixed --module m --http 80", ""},
		{"here --module allex_here --http 80", ""}, // who serves it does not know
		{"held --module new", ""},                  // which is only held
		{"bid --module ws", "the LAN has another need bid already: module allex_bid; nothing has changed\n" +
			"  what to do: choose another name, or `agentctl needs remove bid` first"},
		{"cidr --module m --ip 10.9.0.0/16", "the LAN has another need cidr already: module m, for a machine at 10.9.0.0/16, with properties of its own; nothing has changed\n" +
			"  what to do: choose another name, or `agentctl needs remove cidr` first"},
		{"fixed --module m --http 81", "the LAN has another need fixed already: module m, http:80; nothing has changed\n" +
			"  what to do: choose another name, or `agentctl needs remove fixed` first"},
		{"elsewhere --module ws", "the LAN has another need elsewhere already: module allex_elsewhere, served at 10.0.0.8; nothing has changed\n" +
			"  what to do: choose another name, or `agentctl needs remove elsewhere` first and, on that machine, `agentctl report-down elsewhere`"},
	} {
		f := &fake{}
		args := append([]string{"needs", "add", "--address", serve(t, f)}, strings.Fields(test.args)...)
		if test.refusal != "" {
			check(t, exitFailed, "agentctl: "+test.refusal+"\n", args...)
		} else if code, _, stderr := agentctl(t, args...); code != exitDone || stderr != "" {
			t.Errorf("%s: exit code %d, stderr %q", test.args, code, stderr)
		}
		if added := f.asked != nil; added != (test.refusal == "") {
			t.Errorf("%s: added %v", test.args, added)
		}
	}
}

// A name that is a slip of the finger is told from one that is not.
func TestNamesOfNothing(t *testing.T) {
	for args, want := range map[string]string{
		"needs remove Nonsense":  "the LAN had no need Nonsense; `agentctl needs` shows those that there are",
		"needs remove held":      "the LAN had no need held; `agentctl needs` shows those that there are",
		"needs remove bid":       "the LAN manager has forgotten the need bid",
		"needs remove here":      "the LAN manager has forgotten the need here; its process here runs on: `agentctl report-down here` ends it",
		"needs remove elsewhere": "the LAN manager has forgotten the need elsewhere; its process at 10.0.0.8 runs on: `agentctl report-down elsewhere` on that machine ends it",
		"stop Noree":             "there is no process and no need of the name Noree here; it is held all the same: `agentctl start Noree` lifts that",
		"stop full":              "full has no process; held here until `agentctl start full`",
		"start full":             "full may run here again; `agentctl needs` shows what becomes of it",
		"start Noree":            "Noree may run here again; nothing starts, since the LAN does not need it",
	} {
		code, stdout, stderr := agentctl(t, append(strings.Fields(args), "--address", serve(t, &gone{}))...)
		if code != exitDone || stdout != want+"\n" || stderr != "" {
			t.Errorf("%s: exit code %d, stderr %q\n got %swant %s", args, code, stderr, stdout, want)
		}
	}
}

// gone is an agent whose processes are.
type gone struct{ fake }

func (f *gone) StopProcess(_ context.Context, r *pb.StopProcessRequest) (*pb.StopProcessResponse, error) {
	return &pb.StopProcessResponse{Process: &pb.Process{Instance: r.Instance, State: pb.ProcessState_PROCESS_STATE_ENDED, Held: true}}, nil
}

// severed is an agent without a session, which knows nothing, or what there was.
type severed struct {
	fake
	nothing bool
}

func (f *severed) ListNeeds(ctx context.Context, r *pb.ListNeedsRequest) (*pb.ListNeedsResponse, error) {
	if f.nothing {
		return &pb.ListNeedsResponse{}, nil
	}
	return f.fake.ListNeeds(ctx, r)
}

func (f *severed) ListServices(ctx context.Context, r *pb.ListServicesRequest) (*pb.ListServicesResponse, error) {
	if f.nothing {
		return &pb.ListServicesResponse{}, nil
	}
	return f.fake.ListServices(ctx, r)
}

func (f *severed) FindService(ctx context.Context, r *pb.FindServiceRequest) (*pb.FindServiceResponse, error) {
	if f.nothing {
		return nil, refuse(codes.NotFound, "the LAN has no service of instance \"echo\" now; look", "SERVICE_NOT_FOUND", nil)
	}
	return f.fake.FindService(ctx, r)
}

// What an agent without a LAN manager tells of the LAN is not taken for what is there.
func TestWithoutSession(t *testing.T) {
	for _, test := range []struct {
		link    *pb.Link
		nothing bool
		want    string
	}{
		{&pb.Link{LanManager: "10.0.0.1:23552", Problem: "dial tcp 10.0.0.1:23552: connection refused"}, false, " (dial tcp 10.0.0.1:23552: connection refused); what is shown is what it knew last"},
		{&pb.Link{LanManager: "10.0.0.1:23552", Problem: "it answers nothing"}, false, " (10.0.0.1:23552: it answers nothing); what is shown is what it knew last"},
		{&pb.Link{LanManager: "10.0.0.1:23552"}, true, " (10.0.0.1:23552); it knows of none"},
		{nil, true, "; it knows of none"},
	} {
		address := serve(t, &severed{fake: fake{status: &pb.GetStatusResponse{Link: test.link}}, nothing: test.nothing})
		for _, command := range []string{"needs", "services", "find echo"} {
			args := append(strings.Fields(command), "--address", address)
			if _, _, stderr := agentctl(t, args...); !strings.HasPrefix(stderr, "agentctl: the agent has no session with a LAN manager"+test.want+"\n") {
				t.Errorf("%s says %q, want %q", command, stderr, test.want)
			}
			if _, _, stderr := agentctl(t, append(args, "-o", "json")...); strings.Contains(stderr, "session") {
				t.Errorf("%s says %q to a program", command, stderr)
			}
		}
	}
}
