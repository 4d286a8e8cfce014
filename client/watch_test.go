//go:build !windows

package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// script is an agent each watch of which goes as one of its scenes says.
type script struct {
	machineagentv1.UnimplementedProcessServiceServer
	t      *testing.T
	scenes []scene
	next   int // the tests watch once at a time
}

// scene is one watch: what it has to be asked for, what it tells, in short, and
// how it ends.
type scene struct {
	asked string
	tells []string
	end   error
}

func (s *script) WatchProcesses(r *machineagentv1.WatchProcessesRequest, to grpc.ServerStreamingServer[machineagentv1.WatchProcessesResponse]) error {
	if s.next == len(s.scenes) {
		<-to.Context().Done()
		return to.Context().Err()
	}
	now := s.scenes[s.next]
	s.next++
	asked := fmt.Sprintf("%s %d %v %s", r.GetStart().GetEpoch(), r.GetStart().GetStartRevision(), r.GetStart().GetSkipInitial(), r.GetInstance())
	if asked != now.asked {
		s.t.Errorf("watch %d was asked for %q, want %q", s.next, asked, now.asked)
	}
	for _, line := range now.tells {
		if err := to.Send(response(line)); err != nil {
			return err
		}
	}
	return now.end
}

// response makes of "e 3 echo", "e 4 -echo", "e 5 end" and "e 6 mark" what they mean.
func response(line string) *machineagentv1.WatchProcessesResponse {
	r := &machineagentv1.WatchProcessesResponse{}
	var what string
	fmt.Sscan(line, &r.Epoch, &r.Revision, &what)
	switch gone, isGone := strings.CutPrefix(what, "-"); {
	case isGone:
		r.Update = &machineagentv1.WatchProcessesResponse_Gone{Gone: gone}
	case what == "end":
		r.Update = &machineagentv1.WatchProcessesResponse_InitialEnd{InitialEnd: &machineagentv1.InitialEnd{}}
	case what == "mark":
		r.Update = &machineagentv1.WatchProcessesResponse_Bookmark{Bookmark: &machineagentv1.Bookmark{}}
	default:
		r.Update = &machineagentv1.WatchProcessesResponse_Process{Process: &machineagentv1.Process{Instance: what}}
	}
	return r
}

func notKept() error {
	s, err := status.New(codes.OutOfRange, "a watch can not start there; start over").WithDetails(
		&errdetails.ErrorInfo{Domain: "machineagent", Reason: "REVISION_COMPACTED", Metadata: map[string]string{"epoch": "f"}})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

// watchScenes serves the scenes and watches until there are as many updates, or an error.
func watchScenes(t *testing.T, from From, updates int, scenes ...scene) (told []string, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	machineagentv1.RegisterProcessServiceServer(server, &script{t: t, scenes: scenes})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		server.Stop()
		<-served
	}()
	for u, err := range dial(t, path).WatchProcesses(t.Context(), from) {
		if err != nil {
			return told, err
		}
		told = append(told, inShort(u))
		if len(told) == updates {
			break
		}
	}
	return told, nil
}

func inShort(u Update[*machineagentv1.Process]) string {
	switch u.Kind {
	case Changed:
		return fmt.Sprintf("%s %d %s", u.Epoch, u.Revision, u.Value.GetInstance())
	case Gone:
		return fmt.Sprintf("%s %d -%s", u.Epoch, u.Revision, u.Instance)
	case CaughtUp:
		return fmt.Sprintf("%s %d that is all", u.Epoch, u.Revision)
	default:
		return "started over: " + u.Reason.(*Error).Reason
	}
}

func told(t *testing.T, got []string, err error, want ...string) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

var unavailable = status.Error(codes.Unavailable, "the agent is leaving")

// A watch that breaks goes on behind what it was told last, marks included, and
// says once that it has caught up.
func TestWatchGoesOn(t *testing.T) {
	got, err := watchScenes(t, From{Instance: "a"}, 5,
		scene{" 0 false a", []string{"e 3 a"}, unavailable},
		scene{"e 4 false a", []string{"e 5 mark", "e 6 -a"}, status.Error(codes.Aborted, "too slow")},
		scene{"e 7 false a", []string{"e 6 mark", "e 9 mark"}, unavailable},
		scene{"e 10 false a", nil, status.Error(codes.ResourceExhausted, "the old watch is still there")},
		scene{"e 10 false a", []string{"e 9 mark", "e 10 a", "e 11 a"}, unavailable})
	told(t, got, err, "e 3 a", "e 5 that is all", "e 6 -a", "e 10 a", "e 11 a")
}

// Where the watch can not go on it says so, and tells all there is.
func TestWatchStartsOver(t *testing.T) {
	got, err := watchScenes(t, From{}, 7,
		scene{" 0 false ", []string{"e 3 a", "e 7 end", "e 8 b"}, unavailable},
		scene{"e 9 false ", nil, notKept()},
		scene{" 0 false ", []string{"f 2 b", "f 2 end"}, unavailable},
		scene{"f 3 false ", []string{"f 2 mark", "f 3 c"}, unavailable})
	told(t, got, err, "e 3 a", "e 7 that is all", "e 8 b", "started over: REVISION_COMPACTED", "f 2 b", "f 2 that is all", "f 3 c")
}

func TestWatchFrom(t *testing.T) {
	got, err := watchScenes(t, From{Epoch: "e", Revision: 5}, 2,
		scene{"e 6 false ", []string{"e 5 mark", "e 6 a"}, nil})
	told(t, got, err, "e 5 that is all", "e 6 a")
	got, err = watchScenes(t, From{Skip: true}, 2,
		scene{" 0 true ", []string{"e 5 mark"}, unavailable},
		scene{"e 6 false ", []string{"e 5 mark", "e 6 a"}, nil})
	told(t, got, err, "e 5 that is all", "e 6 a")
}

// What does not pass ends the watch, and so does anything before it has begun.
func TestWatchEnds(t *testing.T) {
	for _, test := range []struct {
		scenes []scene
		want   error
	}{
		{[]scene{{" 0 false ", nil, status.Error(codes.PermissionDenied, "no")}}, ErrDenied},
		{[]scene{{" 0 false ", nil, unavailable}}, ErrUnavailable},
		{[]scene{{" 0 false ", []string{"e 1 a"}, unavailable}, {"e 2 false ", nil, status.Error(codes.PermissionDenied, "no")}}, ErrDenied},
	} {
		if _, err := watchScenes(t, From{}, 9, test.scenes...); !errors.Is(err, test.want) {
			t.Errorf("%v, want %v", err, test.want)
		}
	}
	c := dial(t, filepath.Join(t.TempDir(), "none"))
	for _, err := range c.WatchProcesses(t.Context(), From{}) {
		if !errors.Is(err, ErrNoAgent) {
			t.Errorf("%v, want ErrNoAgent", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range c.WatchProcesses(ctx, From{}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want context.Canceled", err)
		}
	}
}
