//go:build !windows

package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/allexgo/machine-agent/client"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// using is a process that has used something.
func using(instance string, pid int32, cpu time.Duration, memory int64, files, threads, processes int32) *pb.Process {
	x := echo(pb.ProcessState_PROCESS_STATE_READY, instance)
	x.Pid = pid
	x.Usage = &pb.ProcessUsage{CpuTime: durationpb.New(cpu), MemoryBytes: memory, Descriptors: files, Threads: threads, Processes: processes}
	return x
}

// first and second are two samples of a machine, one second after the other.
func first() []*pb.Process {
	return []*pb.Process{
		using("alpha", 1, 10*time.Second, 1<<20, 30, 2, 1),
		using("beta", 2, 20*time.Second, 3<<20, 20, 9, 1),
		using("gamma", 3, 30*time.Second, 2<<20, 10, 5, 4),
		using("replaced", 4, 40*time.Second, 4<<20, 5, 1, 1),
	}
}

func second() []*pb.Process {
	loop := &pb.Process{Instance: "crashes\x1b[2J", Module: "allex_crashes", State: pb.ProcessState_PROCESS_STATE_ENDED,
		Failures: 7, CrashLoop: true, LastReason: "it ended by itself (exit code 3)"}
	return []*pb.Process{
		using("alpha", 1, 10*time.Second+15*time.Millisecond, 1<<20, 30, 2, 1),
		using("beta", 2, 20*time.Second, 3<<20, 20, 9, 1),
		loop,
		using("gamma", 3, 31500*time.Millisecond, 2<<20, 10, 5, 4),
		using("replaced", 5, 40*time.Millisecond, 4<<20, 5, 1, 1),
	}
}

// topOf is a table of an agent on a terminal of a size, with two samples.
func topOf(t *testing.T, f served, width, height int) *top {
	t.Helper()
	c, err := client.Dial("unix:" + serve(t, f))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	x := newTop(t.Context(), c, time.Second, 10*time.Second)
	x.order.by = slices.IndexFunc(columns, func(c column) bool { return c.name == "cpu" })
	x.Update(tea.WindowSizeMsg{Width: width, Height: height})
	x.Update(sample{at: moment.Add(-time.Second), processes: first()})
	x.Update(sample{at: moment, processes: second()})
	return x
}

// press presses keys and does what they lead to, up to the end of that.
func press(x *top, keys ...string) {
	for _, key := range keys {
		k := tea.KeyPressMsg{Text: key}
		switch key {
		case "enter":
			k = tea.KeyPressMsg{Code: tea.KeyEnter}
		case "esc":
			k = tea.KeyPressMsg{Code: tea.KeyEscape}
		case "backspace":
			k = tea.KeyPressMsg{Code: tea.KeyBackspace}
		case "down":
			k = tea.KeyPressMsg{Code: tea.KeyDown}
		case "end":
			k = tea.KeyPressMsg{Code: tea.KeyEnd}
		}
		if _, next := x.Update(k); next != nil {
			if m := next(); m != nil {
				x.Update(m)
			}
		}
	}
}

// seen is the screen without colours.
func seen(x *top) string { return ansi.Strip(x.View().Content) + "\n" }

// names of the rows, in their order.
func names(x *top) (all []string) {
	for _, u := range x.shown {
		all = append(all, strings.TrimSuffix(u.Instance, "\x1b[2J"))
	}
	return all
}

func TestTopScreens(t *testing.T) {
	for name, size := range map[string][2]int{"wide": {160, 14}, "usual": {80, 12}, "narrow": {40, 10}, "tiny": {10, 5}} {
		x := topOf(t, &fake{}, size[0], size[1])
		got := seen(x)
		checkGolden(t, "top-"+name, got)
		lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
		if len(lines) != size[1] {
			t.Errorf("%s: %d lines, want %d", name, len(lines), size[1])
		}
		for _, line := range lines {
			if ansi.StringWidth(line) > size[0] {
				t.Errorf("%s: wider than the terminal: %q", name, line)
			}
		}
	}
}

func TestTopSorts(t *testing.T) {
	x := topOf(t, &fake{}, 100, 20)
	for _, test := range []struct{ key, want string }{
		{"", "gamma alpha beta crashes replaced"}, // of which the last two are not known
		{"c", "crashes replaced beta alpha gamma"},
		{"m", "replaced beta gamma alpha crashes"},
		{"m", "crashes alpha gamma beta replaced"},
		{"f", "alpha beta gamma replaced crashes"},
		{"t", "beta gamma alpha replaced crashes"},
		{"p", "gamma alpha beta replaced crashes"},
		{"n", "alpha beta crashes gamma replaced"},
		{"n", "replaced gamma crashes beta alpha"},
		{"a", "alpha beta gamma replaced crashes"},
	} {
		if test.key != "" {
			press(x, test.key)
		}
		if got := strings.Join(names(x), " "); got != test.want {
			t.Errorf("%q: got %s, want %s", test.key, got, test.want)
		}
	}
}

// What looks the same is in the order of names, whatever the figures behind it are.
func TestTopSortsWhatIsShown(t *testing.T) {
	x := topOf(t, &fake{}, 100, 20)
	at := func(after, alpha, beta time.Duration) {
		x.Update(sample{at: moment.Add(after), processes: []*pb.Process{
			using("alpha", 1, alpha, 1<<20+int64(alpha/time.Microsecond), 30, 2, 1), using("beta", 2, beta, 1<<20+int64(beta/time.Microsecond), 20, 9, 1)}})
	}
	for _, key := range []string{"", "m"} {
		if key != "" {
			press(x, key)
		}
		at(1*time.Second, 20000*time.Millisecond, 20000*time.Millisecond)
		at(2*time.Second, 20000*time.Millisecond+100*time.Microsecond, 20000*time.Millisecond+200*time.Microsecond)
		if got := names(x); !slices.Equal(got, []string{"alpha", "beta"}) {
			t.Errorf("%q: %q of the same figures:\n%s", key, got, seen(x))
		}
	}
}

// What the table is sorted by is to be seen on the narrowest of terminals.
func TestTopShowsWhatItSortsBy(t *testing.T) {
	for width := 16; width < 160; width++ {
		x := topOf(t, &fake{}, width, 12)
		for i, c := range columns {
			if c.key == "" {
				continue
			}
			x.order = order{by: i}
			if head := strings.Split(seen(x), "\n")[1]; !strings.Contains(head, c.heading(x.order, i)) && (c.name != "name" || !strings.Contains(head, "INS")) {
				t.Fatalf("at %d columns sorted by %s:\n%s", width, c.name, seen(x))
			}
		}
	}
}

// The mark stays with its instance, and in sight.
func TestTopMoves(t *testing.T) {
	x := topOf(t, &fake{}, 80, 6)
	press(x, "n", "g", "j", "j")
	if x.selected != "crashes\x1b[2J" || !strings.Contains(seen(x), `crashes\x1b`) {
		t.Errorf("%q is marked:\n%s", x.selected, seen(x))
	}
	press(x, "m")
	if x.selected != "crashes\x1b[2J" || !strings.Contains(seen(x), `crashes\x1b`) {
		t.Errorf("%q is marked after another order:\n%s", x.selected, seen(x))
	}
	press(x, "k", "down", "end", "j", "j")
	if x.at != 4 {
		t.Errorf("the mark is at %d, want the last row", x.at)
	}
	x.Update(sample{at: moment.Add(time.Second)})
	press(x, "j", "x")
	if x.selected != "" || x.question != nil {
		t.Errorf("%q is marked where nothing is", x.selected)
	}
}

// Each key is told, on every screen.
func TestTopHelps(t *testing.T) {
	x := topOf(t, &fake{}, 80, 24)
	for _, key := range []string{"?", "h"} {
		press(x, key)
		if got := seen(x); !strings.Contains(got, "the other way round") || strings.Count(got, "\n") != 24 {
			t.Errorf("%s shows\n%s", key, got)
		}
		press(x, "q")
		if got := seen(x); !strings.Contains(got, "? keys") || !strings.Contains(got, "gamma") {
			t.Errorf("after the help there is\n%s", got)
		}
	}
	for _, c := range columns {
		if c.key != "" && !strings.Contains(strings.SplitN(topKeys, "sort by", 2)[0], " "+c.key+" ") {
			t.Errorf("the help has no word of %s, which sorts by %s", c.key, c.name)
		}
	}
	for key := range actions {
		if !regexp.MustCompile(`(?m)^  .*\b` + key + `\b.*y confirms$`).MatchString(topKeys) {
			t.Errorf("the help has no word of %s", key)
		}
	}
	x.Update(tea.WindowSizeMsg{Width: 30, Height: 6})
	press(x, "h")
	for range 50 {
		press(x, "down")
	}
	if got := seen(x); !strings.Contains(got, "quit") || !strings.Contains(got, "any key back") {
		t.Errorf("the end of the help is\n%s", got)
	}
	x.Update(tea.WindowSizeMsg{Width: 200, Height: 50})
	if got := seen(x); !strings.Contains(got, "sort by CPU") {
		t.Errorf("on a larger terminal the help is\n%s", got)
	}
}

func TestTopActs(t *testing.T) {
	for _, test := range []struct {
		key, question, said string
		asked               proto.Message
	}{
		{"x", "stop gamma, and hold it on this machine?", "gamma, pid 4711, is STOPPING; held here until it is started", &pb.StopProcessRequest{Instance: "gamma"}},
		{"r", "restart gamma?", "gamma, pid 4711, is STOPPING; this agent bids for its need again at once", &pb.RestartProcessRequest{Instance: "gamma"}},
		{"s", "let gamma run here again?", "gamma: it may run here again", &pb.StartProcessRequest{Instance: "gamma"}},
	} {
		f := &fake{}
		x := topOf(t, f, 100, 12)
		for _, no := range []string{"n", "esc", "q", "x"} {
			press(x, test.key)
			if got := seen(x); !strings.Contains(got, "\n"+test.question) {
				t.Errorf("%s asks nothing:\n%s", test.key, got)
			}
			if press(x, no); f.asked != nil || x.question != nil {
				t.Fatalf("%s is a yes", no)
			}
		}
		press(x, test.key, "y")
		if diff := cmp.Diff(test.asked, f.asked, protocmp.Transform()); diff != "" {
			t.Errorf("what the agent was asked, -want +got:\n%s", diff)
		}
		if got := seen(x); !strings.Contains(got, "\n"+test.said) {
			t.Errorf("%s says nothing of %q:\n%s", test.key, test.said, got)
		}
	}
	x := topOf(t, &fake{failure: refuse(codes.PermissionDenied, "that is not for you; ask the operator", "CALLER_NOT_ALLOWED", nil)}, 100, 12)
	if press(x, "r", "y"); !strings.Contains(seen(x), "\nthat is not for you; ask the operator") {
		t.Errorf("no word of the refusal:\n%s", seen(x))
	}
}

func TestTopFilters(t *testing.T) {
	x := topOf(t, &fake{}, 100, 12)
	press(x, "/", "E", "T", "Q", "backspace")
	if got := names(x); !slices.Equal(got, []string{"beta"}) || !strings.Contains(seen(x), "show only: ET") {
		t.Errorf("%q match:\n%s", got, seen(x))
	}
	press(x, "enter")
	if got := seen(x); !strings.HasPrefix(got, "1 of 5 shown, with \"ET\"   ") || x.selected != "beta" {
		t.Errorf("%q is marked:\n%s", x.selected, got)
	}
	press(x, "esc", "/")
	x.Update(tea.PasteMsg{Content: "crash_loop"})
	if got := names(x); !slices.Equal(got, []string{"crashes"}) {
		t.Errorf("%q have a note of a crash loop", got)
	}
	if press(x, "esc"); len(x.shown) != 5 {
		t.Errorf("%q are all", names(x))
	}
}

// What the agent does not say any more stays to be seen, with when that was and why.
func TestTopWithoutAnswer(t *testing.T) {
	f := &fake{}
	x := topOf(t, f, 80, 14)
	f.failure = refuse(codes.Internal, "it is broken; "+strings.Repeat("mend it, ", 12)+"please", "BROKEN", nil)
	x.Update(x.measure())
	checkGolden(t, "top-silent", seen(x))
	if len(x.shown) != 5 {
		t.Errorf("it shows %q", names(x))
	}
	f.failure = nil
	x.Update(x.measure())
	if got := seen(x); strings.Contains(got, "broken") || strings.Contains(got, "DOES NOT ANSWER") || len(x.shown) != 8 {
		t.Errorf("it says\n%s", got)
	}
}

// That no need can come is told, also where nothing runs.
func TestTopWithoutLANManager(t *testing.T) {
	f := &fake{status: &pb.GetStatusResponse{Link: &pb.Link{Problem: "no LAN manager at 10.0.0.1:23552; start it"}}}
	x := topOf(t, f, 80, 14)
	x.Update(x.measure())
	const told = "LAN manager: NOT CONNECTED: no LAN manager at 10.0.0.1:23552; start it"
	if got := seen(x); !strings.Contains(got, "\n"+told+"\n") {
		t.Errorf("it says\n%s", got)
	}
	f.status.Link.Connected = true
	x.Update(x.measure())
	if got := seen(x); strings.Contains(got, "LAN manager") {
		t.Errorf("it says\n%s", got)
	}
}

// An agent that takes its time is told of long before it is given up.
func TestTopHangs(t *testing.T) {
	x := topOf(t, &fake{}, 120, 12)
	x.Update(due{})
	x.Update(late{x.asked - 1})
	if got := seen(x); strings.Contains(got, "DOES NOT ANSWER") {
		t.Errorf("the one before is late:\n%s", got)
	}
	x.Update(late{x.asked})
	if got := seen(x); !strings.HasPrefix(got, "of 12:00:00: THE AGENT DOES NOT ANSWER   4 processes") || !strings.Contains(got, "has not answered for 2s; see in its log") {
		t.Errorf("it says\n%s", got)
	}
	x.Update(sample{at: moment, processes: second()})
	x.Update(late{x.asked})
	if got := seen(x); strings.Contains(got, "NOT ANSWER") {
		t.Errorf("it has answered, and yet:\n%s", got)
	}
}

// What is shown, and of how many, and why it is not all, is to be seen on every
// terminal.
func TestTopSaysWhere(t *testing.T) {
	for _, width := range []int{30, 80, 160} {
		x := topOf(t, &fake{}, width, 12)
		press(x, "/", "r", "e", "a", "d", "y", "enter", "down")
		for _, want := range []string{"\n4 of 5 shown, with ", "\nrow 2 of 4: alpha\n"} {
			if got := "\n" + seen(x); !strings.Contains(got, want) {
				t.Errorf("%q is not to be seen at %d columns:\n%s", want, width, got)
			}
		}
		press(x, "esc", "/", "s", "h", "e", "s", "enter")
		if got := seen(x); !strings.Contains(got, "\nrow 1 of 1: crashes\\x1b[2J:") || !strings.Contains(got, "CRASH_LOOP") {
			t.Errorf("the note is not to be seen at %d columns:\n%s", width, got)
		}
	}
}

func TestTopLog(t *testing.T) {
	x := topOf(t, &fake{}, 30, 7)
	v := newLogView(t.Context(), x.client, "gamma")
	x.log = v
	write := func(text string) { x.Update(piece{v, &pb.TailLogsResponse{Data: []byte(text)}}) }
	write("the first li")
	write("ne\n\x1b[31mred\x1b[m\tand \x07 bell\r\n" + strings.Repeat("wide ", 10) + "\nnot en")
	checkGolden(t, "top-log", seen(x))
	press(x, "k", "k")
	write("ded\nmore\n")
	checkGolden(t, "top-log-back", seen(x))
	press(x, "end")
	write(strings.Repeat("x\n", 3*logLines) + strings.Repeat("y", 3*lineBytes))
	if len(v.lines) > logLines || len(v.cutter.rest) > lineBytes {
		t.Errorf("it keeps %d lines, and one of %d bytes", len(v.lines), len(v.cutter.rest))
	}
	x.Update(logEnd{v, &client.Error{Message: "there is no log", Cure: "look elsewhere"}})
	if got := seen(x); !strings.Contains(got, "there is no log") {
		t.Errorf("it does not say why it ended:\n%s", got)
	}
	press(x, "q")
	if x.log != nil || v.ctx.Err() == nil {
		t.Error("the log is not left")
	}
	write("late") // of a log that was left
}

// What the agent sends comes to the log in its order, and its end behind it.
func TestTopFollows(t *testing.T) {
	f := &fake{}
	x := topOf(t, f, 80, 12)
	v := newLogView(t.Context(), x.client, "gamma")
	x.log = v
	ended := make(chan tea.Msg, 1)
	go func() { ended <- v.follow()() }()
	next := v.next()
	for range 2 {
		_, next = x.Update(next())
	}
	x.Update(<-ended)
	if diff := cmp.Diff([]string{"-- 96 bytes before here are not there any more --", "the first line", "the second"}, v.lines); diff != "" || !v.ended {
		t.Errorf("ended %v, -want +got:\n%s", v.ended, diff)
	}
	if r, is := f.asked.(*pb.TailLogsRequest); !is || r.Instance != "gamma" || !r.Follow {
		t.Errorf("it asked for %v", f.asked)
	}
}

// Without a terminal there is one table, of two samples.
func TestTopOnce(t *testing.T) {
	f := &fake{left: [][]*pb.Process{first(), first()}}
	code, stdout, stderr := agentctl(t, "top", "--interval", "100ms", "--sort", "memory", "--address", serve(t, f))
	if code != exitDone || stderr != "" || len(f.left) != 0 {
		t.Errorf("exit code %d, stderr %q, %d samples left", code, stderr, len(f.left))
	}
	checkGolden(t, "top-once", stdout)
	for _, args := range [][]string{{"--interval", "1ms"}, {"--sort", "place"}, {"-o", "json"}, {"more"}} {
		if code, stdout, stderr := agentctl(t, append([]string{"top"}, args...)...); code != exitUsage || stdout != "" || stderr == "" {
			t.Errorf("%q: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
	if code, _, _ := agentctl(t, "top", "--address", t.TempDir()+"/none"); code != exitNoAgent {
		t.Errorf("without an agent: exit code %d", code)
	}
	f = &fake{failure: refuse(codes.Internal, "it is broken; mend it", "BROKEN", nil)}
	if code, _, _ := agentctl(t, "top", "--address", serve(t, f)); code != exitFailed {
		t.Errorf("refused: exit code %d", code)
	}
}

func TestShare(t *testing.T) {
	at := func(pid int32, started, cpu time.Duration) *pb.Process {
		x := using("x", pid, cpu, 0, 0, 0, 0)
		x.StartTime = before(started)
		return x
	}
	long, short := time.Hour, time.Minute
	for _, test := range []struct {
		before, now *pb.Process
		in          time.Duration
		want        float64
	}{
		{at(1, long, time.Second), at(1, long, 2*time.Second), 2 * time.Second, 50},
		{at(1, long, time.Second), at(1, long, 5*time.Second), 2 * time.Second, 200},
		{at(1, long, time.Second), at(1, long, time.Second), time.Second, 0},
		{at(1, long, time.Second), at(2, long, 2*time.Second), time.Second, -1},
		{at(1, long, time.Second), at(1, short, 2*time.Second), time.Second, -1}, // the pid is used again
		{at(1, long, 2*time.Second), at(1, long, time.Second), time.Second, -1},
		{at(1, long, time.Second), at(1, long, 2*time.Second), 0, -1},
		{nil, at(1, long, time.Second), time.Second, -1},
		{at(1, long, time.Second), &pb.Process{Instance: "x"}, time.Second, -1},
	} {
		if got := share(test.before, test.now, test.in); got != test.want {
			t.Errorf("%v then %v in %s: got %v, want %v", test.before, test.now, test.in, got, test.want)
		}
	}
}
