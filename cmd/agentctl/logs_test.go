//go:build !windows

package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

func TestLogs(t *testing.T) {
	last := func(n int32) *pb.TailLogsRequest_Lines { return &pb.TailLogsRequest_Lines{Lines: n} }
	for _, tt := range []struct {
		args  []string
		asked *pb.TailLogsRequest
	}{
		{nil, &pb.TailLogsRequest{Instance: "echo", Begin: last(100)}},
		{[]string{"-n", "0"}, &pb.TailLogsRequest{Instance: "echo", Begin: last(0)}},
		{[]string{"--from", "0"}, &pb.TailLogsRequest{Instance: "echo", Begin: &pb.TailLogsRequest_Position{}}},
		{[]string{"--from", "4000"}, &pb.TailLogsRequest{Instance: "echo", Begin: &pb.TailLogsRequest_Position{Position: 4000}}},
	} {
		f := &fake{}
		code, stdout, stderr := agentctl(t, append([]string{"logs", "echo", "--address", serve(t, f)}, tt.args...)...)
		if code != exitDone || stdout != "the first line\nthe second\n" || stderr != "agentctl: 96 bytes before position 4096 are not there any more\n" {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", tt.args, code, stdout, stderr)
		}
		if diff := cmp.Diff(tt.asked, f.asked, protocmp.Transform()); diff != "" {
			t.Errorf("%q: what the agent was asked, -want +got:\n%s", tt.args, diff)
		}
	}
	_, stdout, stderr := agentctl(t, "logs", "echo", "-o", "json", "--address", serve(t, &fake{}))
	pieces := json.NewDecoder(strings.NewReader(stdout))
	for _, want := range []string{"4096", "4108"} {
		var piece struct{ Position string }
		if err := pieces.Decode(&piece); err != nil || piece.Position != want || stderr != "" {
			t.Errorf("%+v, %v, want position %s", piece, err, want)
		}
	}
	f := &fake{failure: refuse(codes.ResourceExhausted, "the log has 16 readers; end one of them", "TOO_MANY_READERS", nil)}
	code, _, stderr := agentctl(t, "logs", "echo", "--address", serve(t, f))
	if code != exitFailed || !strings.HasSuffix(stderr, "agentctl: the log has 16 readers\n  what to do: end one of them\n") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	code, _, stderr = agentctl(t, "logs", "echo", "-n", "5", "--from", "7")
	if code != exitUsage || !strings.Contains(stderr, "both say where to begin") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

// leaving is an agent that leaves after each piece of a log, and the second time
// for good: then the caller is interrupted.
type leaving struct {
	fake
	interrupt func()
	asked     []*pb.TailLogsRequest
}

func (f *leaving) TailLogs(r *pb.TailLogsRequest, stream grpc.ServerStreamingServer[pb.TailLogsResponse]) error {
	f.asked = append(f.asked, r)
	if len(f.asked) > 2 {
		f.interrupt()
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	text := []string{"one\n", "two\n"}[len(f.asked)-1]
	if err := stream.Send(&pb.TailLogsResponse{Position: int64(100 * len(f.asked)), Data: []byte(text)}); err != nil {
		return err
	}
	return refuse(codes.Unavailable, "the agent is leaving", "SHUTTING_DOWN", nil)
}

// Who follows a log goes on behind what it has when the agent is back.
func TestFollowGoesOn(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := &leaving{interrupt: cancel}
	var out, problems strings.Builder
	code := run(ctx, moment, []string{"logs", "-f", "echo", "--address", serve(t, f)}, &out, &problems)
	if code != exitDone || out.String() != "one\ntwo\n" || problems.Len() > 0 {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, out.String(), problems.String())
	}
	var positions []int64
	for _, r := range f.asked {
		positions = append(positions, r.GetPosition())
	}
	if diff := cmp.Diff([]int64{0, 104, 204}, positions); diff != "" {
		t.Errorf("it asked for (-want +got)\n%s", diff)
	}
}
