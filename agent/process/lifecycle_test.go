package process

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The whole table again, written down the other way: every pair that moves.
// All other pairs must not.
func TestNext(t *testing.T) {
	type move struct {
		from State
		by   Event
	}
	moves := map[move]State{
		{Starting, EvReady}:       Ready,
		{Starting, EvStop}:        Stopping,
		{Starting, EvLeaderGone}:  Emptying,
		{Ready, EvWithdraw}:       Withdrawn,
		{Ready, EvStop}:           Stopping,
		{Ready, EvLeaderGone}:     Emptying,
		{Withdrawn, EvReady}:      Ready,
		{Withdrawn, EvStop}:       Stopping,
		{Withdrawn, EvLeaderGone}: Emptying,
		{Stopping, EvLeaderGone}:  Emptying,
		{Emptying, EvEmpty}:       Ended,
	}
	for s := State(-1); s <= Ended+1; s++ {
		for e := Event(-1); e <= EvEmpty+1; e++ {
			got, err := Next(s, e)
			want, moves := moves[move{s, e}]
			switch {
			case moves && (err != nil || got != want):
				t.Errorf("%v, %v: got %v, %v; want %v", s, e, got, err, want)
			case !moves && (!errors.Is(err, ErrNoSuchMove) || got != s):
				t.Errorf("%v, %v: got %v, %v; want it to stay with ErrNoSuchMove", s, e, got, err)
			case !moves && !(strings.Contains(err.Error(), s.String()) && strings.Contains(err.Error(), e.String())):
				t.Errorf("%v, %v: %q does not name both", s, e, err)
			}
		}
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for s := Starting; s <= Ended; s++ {
		seen[s.String()] = true
	}
	for e := EvReady; e <= EvEmpty; e++ {
		seen[e.String()] = true
	}
	if want := int(Ended) + int(EvEmpty); len(seen) != want || seen[""] {
		t.Errorf("got the names %v, want %d different ones", seen, want)
	}
	if got := State(0).String() + " " + Event(9).String(); got != "State(0) Event(9)" {
		t.Errorf("got %q", got)
	}
}

// What holds on every path through a life.
func TestWalk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, leader, stopped := Starting, true, false
		for _, e := range rapid.SliceOf(rapid.SampledFrom([]Event{EvReady, EvWithdraw, EvStop, EvLeaderGone, EvEmpty})).Draw(t, "events") {
			next, err := Next(state, e)
			if err != nil {
				if next != state {
					t.Fatalf("%v moved %v to %v although there is no such move", e, state, next)
				}
				continue
			}
			if e == EvLeaderGone {
				leader = false
			}
			stopped = stopped || next == Stopping
			switch {
			case state == Ended:
				t.Fatalf("%v left ENDED", e)
			case next == Ready && state != Starting && state != Withdrawn:
				t.Fatalf("READY from %v", state)
			case next == Ended && state != Emptying:
				t.Fatalf("ENDED from %v: its tree was never emptied", state)
			case (next == Emptying || next == Ended) == leader:
				t.Fatalf("%v with the leader alive: %v", next, leader)
			case stopped && (next == Ready || next == Withdrawn || next == Starting):
				t.Fatalf("%v after it was told to stop", next)
			}
			state = next
		}
		// From wherever the walk stopped the end can be reached.
		for _, e := range []Event{EvLeaderGone, EvEmpty} {
			state, _ = Next(state, e)
		}
		if state != Ended {
			t.Fatalf("no way from %v to ENDED", state)
		}
	})
}
