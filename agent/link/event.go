package link

import "github.com/allexgo/machine-agent/lan/table"

// Event is something that the owner of a Link must know. The set is closed:
// Up, Recognised, Down, NeedOpened, NeedTaken, NeedGone, ServiceSet, ServiceGone,
// Pending, Challenged and BidEnded.
type Event interface{ event() }

type (
	// Up begins a session: the tables have been read and nothing that was
	// known of them before holds any longer. The owner calls Attend on it. Until the next Down the needs
	// and services events say what changed since.
	Up struct {
		LANManager string // host:port
		SeenAs     string // the address under which the LAN manager sees us
		Needs      []table.Need
		Services   []table.Service

		attend func()
	}
	// Recognised says, after Keep, whose program the LAN manager is.
	Recognised struct {
		LANManager string // host:port
		Ours       bool   // of this project; else as a rule the original
	}
	// Down ends a session, or says that an attempt to begin one failed. Every
	// bid of the session has ended before.
	Down struct {
		LANManager string
		Err        error
	}
	// NeedOpened says that a need waits for somebody to serve it.
	NeedOpened struct{ Need table.Need }
	// NeedTaken says that a bidder has the need and the LAN manager is about
	// to make it a service.
	NeedTaken struct{ Instance string }
	// NeedGone says that a need is not open any more.
	NeedGone struct{ Instance string }
	// ServiceSet is the LAN's record of a service, new or changed. It has an address.
	ServiceSet struct{ Service table.Service }
	// ServiceGone says that the LAN has no such service any more.
	ServiceGone struct{ Instance string }
	// Pending says that a bid has no answer for a while: it waits behind
	// another bidder's.
	Pending struct{ Bid *Bid }
	// Challenged says that the LAN manager wants the need served by us now.
	// The owner must call Respond or Cancel on the bid.
	Challenged struct{ Bid *Bid }
	// BidEnded is the last word of every bid that the owner did not cancel.
	BidEnded struct {
		Bid     *Bid
		Outcome Outcome
		Err     error // what the LAN manager said, or the owner if Withheld; nil if Accepted
	}
)

// Attend has what the owner asks for from now on go to this session. Before, it
// goes to the session before, which is lost: what follows from old tables must
// not be told in a new session.
func (u Up) Attend() {
	if u.attend != nil {
		u.attend()
	}
}

func (Up) event()          {}
func (Recognised) event()  {}
func (Down) event()        {}
func (NeedOpened) event()  {}
func (NeedTaken) event()   {}
func (NeedGone) event()    {}
func (ServiceSet) event()  {}
func (ServiceGone) event() {}
func (Pending) event()     {}
func (Challenged) event()  {}
func (BidEnded) event()    {}

// Outcome is how a bid ended.
type Outcome int

const (
	Accepted    Outcome = iota + 1 // the service is ours
	Rejected                       // our address does not fit the need
	Unreachable                    // the LAN manager could not connect to any port
	Destroyed                      // the need is gone or somebody else's
	TimedOut                       // the LAN manager did not answer
	Lost                           // the session ended
	Withheld                       // the owner does not stand by its answer any more
)

func (o Outcome) String() string {
	switch o {
	case Accepted:
		return "accepted"
	case Rejected:
		return "rejected"
	case Unreachable:
		return "ports unreachable"
	case Destroyed:
		return "need gone"
	case TimedOut:
		return "no answer"
	case Lost:
		return "session lost"
	case Withheld:
		return "withheld"
	}
	return "unknown outcome"
}
