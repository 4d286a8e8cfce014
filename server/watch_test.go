//go:build unix

package server

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/allexgo/machine-agent/agent"
	"github.com/allexgo/machine-agent/agent/process"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// short is an answer of a watch of processes in short.
func short(r *pb.WatchProcessesResponse) string {
	switch u := r.Update.(type) {
	case *pb.WatchProcessesResponse_Process:
		return fmt.Sprintf("%d:%s %s", r.Revision, u.Process.Instance, strings.TrimPrefix(u.Process.State.String(), "PROCESS_STATE_"))
	case *pb.WatchProcessesResponse_Gone:
		return fmt.Sprintf("%d:%s gone", r.Revision, u.Gone)
	case *pb.WatchProcessesResponse_InitialEnd:
		return fmt.Sprintf("%d:that is all", r.Revision)
	default:
		return fmt.Sprintf("%d:bookmark", r.Revision)
	}
}

// hears makes sure that a watch tells that, and nothing before it.
func hears(t *testing.T, watch grpc.ServerStreamingClient[pb.WatchProcessesResponse], want ...string) {
	t.Helper()
	for _, want := range want {
		r, err := watch.Recv()
		if err != nil {
			t.Fatalf("%v instead of %q", err, want)
		}
		if got := short(r); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func infoOf(err error) *errdetails.ErrorInfo {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	return &errdetails.ErrorInfo{}
}

func TestWatch(t *testing.T) {
	m := newMemory() // revisions 1 and 4 are processes, of 6
	c := pb.NewProcessServiceClient(dial(t, serve(t, m, os.Getuid()).socket))
	open := func(r *pb.WatchProcessesRequest) grpc.ServerStreamingClient[pb.WatchProcessesResponse] {
		t.Helper()
		w, err := c.WatchProcesses(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	set := func(instance string, s process.State) {
		m.watchedProcesses.Set(instance, agent.Process{Instance: instance, State: s})
	}

	all := open(&pb.WatchProcessesRequest{})
	hears(t, all, "1:mine READY", "4:other READY", "6:that is all")
	mine := open(&pb.WatchProcessesRequest{Instance: "mine"})
	hears(t, mine, "1:mine READY", "6:that is all")
	coming := open(&pb.WatchProcessesRequest{Start: &pb.WatchStart{SkipInitial: true}})
	hears(t, coming, "6:bookmark")

	set("mine", process.Stopping)
	hears(t, all, "7:mine STOPPING")
	m.watchedProcesses.Delete("other")
	hears(t, all, "8:other gone")
	hears(t, mine, "7:mine STOPPING")
	hears(t, coming, "7:mine STOPPING", "8:other gone")

	list, err := c.ListProcesses(t.Context(), &pb.ListProcessesRequest{})
	if err != nil || list.Revision != 8 {
		t.Fatalf("list %v, %v", list, err)
	}
	behind := open(&pb.WatchProcessesRequest{Start: &pb.WatchStart{Epoch: list.Epoch, StartRevision: list.Revision + 1}})
	hears(t, behind, "8:bookmark")
	set("third", process.Ready)
	hears(t, behind, "9:third READY")
	hears(t, open(&pb.WatchProcessesRequest{Start: &pb.WatchStart{Epoch: list.Epoch, StartRevision: 8}}), "7:bookmark", "8:other gone", "9:third READY")
}

func TestWatchThatCanNotBegin(t *testing.T) {
	m := newMemory()
	c := pb.NewProcessServiceClient(dial(t, serve(t, m, os.Getuid()).socket))
	epoch := m.journal.Position().Epoch
	for what, test := range map[string]struct {
		start  *pb.WatchStart
		code   codes.Code
		reason string
	}{
		"another epoch":           {&pb.WatchStart{Epoch: "x", StartRevision: 3}, codes.OutOfRange, "REVISION_COMPACTED"},
		"the future":              {&pb.WatchStart{Epoch: epoch, StartRevision: 9}, codes.InvalidArgument, ""},
		"no epoch":                {&pb.WatchStart{StartRevision: 3}, codes.InvalidArgument, ""},
		"no revision":             {&pb.WatchStart{Epoch: epoch}, codes.InvalidArgument, ""},
		"a revision and the rest": {&pb.WatchStart{Epoch: epoch, StartRevision: 3, SkipInitial: true}, codes.InvalidArgument, ""},
	} {
		w, err := c.WatchProcesses(t.Context(), &pb.WatchProcessesRequest{Start: test.start})
		if err == nil {
			_, err = w.Recv()
		}
		info := infoOf(err)
		if status.Code(err) != test.code || info.Reason != test.reason {
			t.Errorf("%s: %v, %v", what, err, info)
		}
		if info.Reason != "" && (info.Metadata["epoch"] != epoch || info.Metadata["oldest_revision"] != "1") {
			t.Errorf("%s: metadata %v", what, info.Metadata)
		}
	}
}

// Silence is said to be silence.
func TestBookmarks(t *testing.T) {
	m := newMemory()
	s := serve(t, m, os.Getuid())
	s.silence = time.Millisecond
	w, err := pb.NewProcessServiceClient(dial(t, s.socket)).WatchProcesses(t.Context(), &pb.WatchProcessesRequest{Instance: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	hears(t, w, "1:mine READY", "6:that is all", "6:bookmark", "6:bookmark")
	m.watchedProcesses.Delete("other")
	for r := (&pb.WatchProcessesResponse{}); r.Revision != 7; {
		if r, err = w.Recv(); err != nil {
			t.Fatal(err)
		}
	}
}

// What not everybody may see is in no watch of his.
func TestWatchLeavesOutWhatIsPrivate(t *testing.T) {
	for uid, private := range map[int]bool{os.Getuid(): true, os.Getuid() + 1: os.Getuid() == 0} {
		c := dial(t, serve(t, newMemory(), uid).socket)
		needs, err := pb.NewNeedServiceClient(c).WatchNeeds(t.Context(), &pb.WatchNeedsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		services, err := pb.NewDirectoryServiceClient(c).WatchServices(t.Context(), &pb.WatchServicesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		n, err := needs.Recv()
		if err != nil || n.GetNeed().GetNeed().GetInstance() != "mine" || (n.GetNeed().GetNeed().GetPropertyHash() != nil) != private {
			t.Errorf("uid %d: %v, %v", uid, n, err)
		}
		v, err := services.Recv()
		if err != nil || v.GetService().GetInstance() != "mine" || (v.GetService().GetPropertyHash() != nil) != private {
			t.Errorf("uid %d: %v, %v", uid, v, err)
		}
	}
}

// watching is how many watches there are.
func (r *running) watching() int {
	r.watches.mu.Lock()
	defer r.watches.mu.Unlock()
	return r.watches.all
}

// Who stops reading while a thousand events a second flow is cut off when it has
// fallen behind by more than is kept, is told up to where it was told, and can
// read that; nobody else notices.
func TestReaderThatStopsReading(t *testing.T) {
	m := newMemory()
	s := serve(t, m, os.Getuid())
	watch := func() grpc.ServerStreamingClient[pb.WatchEventsResponse] {
		t.Helper()
		w, err := pb.NewAgentServiceClient(dial(t, s.socket)).WatchEvents(t.Context(), &pb.WatchEventsRequest{Start: &pb.WatchStart{SkipInitial: true}})
		if err == nil {
			_, err = w.Recv() // the bookmark
		}
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	stalled, reading := watch(), watch()
	last := make(chan uint64)
	go func() {
		defer close(last)
		for r, err := reading.Recv(); err == nil; r, err = reading.Recv() {
			last <- r.Revision
		}
	}()

	before := m.journal.Position().Revision
	at := before
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s.watching() > 1 {
		<-tick.C
		m.events.Add("mine", agent.Event{Kind: agent.ProcessReady, Instance: "mine", Detail: strings.Repeat("x", 200)})
		at++
		if got := <-last; got != at {
			t.Fatalf("the reader that reads was told of %d, want %d", got, at)
		}
	}
	if n := at - before; n < eventsKept {
		t.Errorf("cut off after %d events, although %d are kept", n, eventsKept)
	}

	told := before
	r, err := stalled.Recv()
	for ; err == nil; r, err = stalled.Recv() {
		if told++; r.Revision != told {
			t.Fatalf("the stalled reader was told of %d, want %d", r.Revision, told)
		}
	}
	info := infoOf(err)
	if status.Code(err) != codes.Aborted || info.Reason != "SLOW_CONSUMER" || info.Metadata["last_revision"] != strconv.FormatUint(told, 10) {
		t.Errorf("the stalled reader, told up to %d, ends with %v, %v", told, err, info)
	}
	t.Logf("cut off after %d events, told %d of them", at-before, told-before)
}

// A watch of states throws nothing away, so that its reader is cut off when it
// has taken nothing for a while.
func TestReaderOfStatesThatStopsReading(t *testing.T) {
	m := newMemory()
	s := serve(t, m, os.Getuid())
	s.patience = 50 * time.Millisecond
	w, err := pb.NewProcessServiceClient(dial(t, s.socket)).WatchProcesses(t.Context(), &pb.WatchProcessesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	hears(t, w, "1:mine READY", "4:other READY", "6:that is all")
	for n := 0; s.watching() > 0; n++ {
		m.watchedProcesses.Set("mine", agent.Process{Instance: "mine", StatusText: strconv.Itoa(n) + strings.Repeat("x", 1000)})
	}
	for err == nil {
		_, err = w.Recv()
	}
	if info := infoOf(err); status.Code(err) != codes.Aborted || info.Reason != "SLOW_CONSUMER" {
		t.Errorf("it ends with %v, %v", err, info)
	}
}

// A watch tells what there is before the server leaves, and does not keep it.
func TestWatchEndsWithTheServer(t *testing.T) {
	m := newMemory()
	s := serve(t, m, os.Getuid())
	w, err := pb.NewProcessServiceClient(dial(t, s.socket)).WatchProcesses(t.Context(), &pb.WatchProcessesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	hears(t, w, "1:mine READY", "4:other READY", "6:that is all")
	m.watchedProcesses.Delete("mine")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	hears(t, w, "7:mine gone")
	if _, err := w.Recv(); status.Code(err) != codes.Unavailable || infoOf(err).Reason != "SHUTTING_DOWN" {
		t.Errorf("the watch ended with %v", err)
	}
	if strings.Contains(s.log.String(), "did not finish in time") {
		t.Errorf("the watch was cut off:\n%s", s.log)
	}
}

func TestWatchesAreBounded(t *testing.T) {
	m := newMemory()
	s := serve(t, m, os.Getuid())
	c := pb.NewAgentServiceClient(dial(t, s.socket))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for n := range watchesOfOne + 1 {
		w, err := c.WatchEvents(ctx, &pb.WatchEventsRequest{})
		if err == nil {
			_, err = w.Recv()
		}
		if n < watchesOfOne && err != nil {
			t.Fatal(err)
		}
		if n == watchesOfOne && (status.Code(err) != codes.ResourceExhausted || infoOf(err).Reason != "TOO_MANY_WATCHES") {
			t.Errorf("watch %d of one process: %v", n+1, err)
		}
	}
	stop()
	for {
		w, err := c.WatchEvents(t.Context(), &pb.WatchEventsRequest{})
		if err == nil {
			_, err = w.Recv()
		}
		if err == nil || err == io.EOF {
			break
		}
		if infoOf(err).Reason != "TOO_MANY_WATCHES" {
			t.Fatal(err)
		}
	}
}
