package process

import (
	"errors"
	"fmt"
)

// State is where a process is in its life (design section 4). The zero value
// is no state.
type State int

const (
	Starting  State = iota + 1 // it runs, or is about to, and is not ready
	Ready                      // it can serve
	Withdrawn                  // it runs but is not to be offered
	Stopping                   // it has been told to end
	Emptying                   // the leader is gone, its tree is not
	Ended                      // nothing of it is left
)

// Event is what moves a process from one State to another.
type Event int

const (
	EvReady      Event = iota + 1 // it became ready, or healthy again
	EvWithdraw                    // it is not to be offered any more
	EvStop                        // it is told to end
	EvLeaderGone                  // its leader ended, or never came to be
	EvEmpty                       // its tree is gone and the leader reaped
)

// ErrNoSuchMove: the event can not happen in the state. The error that wraps it
// names both.
var ErrNoSuchMove = errors.New("no such move")

// Next is the state after event e in state s. Its table is the whole life of a
// process: what is not in it does not happen, and nothing leaves Ended. After
// an error the state is still s.
func Next(s State, e Event) (State, error) {
	table := [Ended + 1][EvEmpty + 1]State{
		Starting:  {EvReady: Ready, EvStop: Stopping, EvLeaderGone: Emptying},
		Ready:     {EvWithdraw: Withdrawn, EvStop: Stopping, EvLeaderGone: Emptying},
		Withdrawn: {EvReady: Ready, EvStop: Stopping, EvLeaderGone: Emptying},
		Stopping:  {EvLeaderGone: Emptying},
		Emptying:  {EvEmpty: Ended},
	}
	if s.valid() && e.valid() && table[s][e] != 0 {
		return table[s][e], nil
	}
	return s, fmt.Errorf("%w: event %v in state %v", ErrNoSuchMove, e, s)
}

func (s State) valid() bool { return Starting <= s && s <= Ended }
func (e Event) valid() bool { return EvReady <= e && e <= EvEmpty }

// String is the state's word in the API and the documents, such as "READY".
func (s State) String() string {
	if !s.valid() {
		return fmt.Sprintf("State(%d)", int(s))
	}
	return [...]string{Starting: "STARTING", Ready: "READY", Withdrawn: "WITHDRAWN",
		Stopping: "STOPPING", Emptying: "EMPTYING", Ended: "ENDED"}[s]
}

func (e Event) String() string {
	if !e.valid() {
		return fmt.Sprintf("Event(%d)", int(e))
	}
	return [...]string{EvReady: "ready", EvWithdraw: "withdraw", EvStop: "stop",
		EvLeaderGone: "leader gone", EvEmpty: "empty"}[e]
}
