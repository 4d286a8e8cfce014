package page

import (
	"context"
	"time"
)

// Source is the LAN manager, as far as the page sees it. Both methods are called
// by one goroutine of the page, one at a time, and must return when ctx ends.
type Source interface {
	// Snapshot is the state of the LAN now. It is made in the core: that it
	// comes is the proof that the core is at work. Nobody changes it any more.
	Snapshot(ctx context.Context) (*Snapshot, error)
	// Changed blocks until the revision is not since any more, and returns it.
	Changed(ctx context.Context, since uint64) (uint64, error)
}

// Snapshot is the state of the LAN at one revision. It holds no propertyhash.
type Snapshot struct {
	Revision  uint64    `json:"revision"`
	Time      time.Time `json:"time"`
	Started   time.Time `json:"started"` // of the LAN manager
	Version   string    `json:"version"`
	Listeners []string  `json:"listeners"` // such as "ws 127.0.0.1:23552"
	Problems  []Problem `json:"problems"`
	Needs     []Need    `json:"-"` // every need, open or served, in the order of the files
	Services  []Service `json:"-"`
	Machines  []Machine `json:"-"`
	NAT       []NAT     `json:"-"`
	Events    []Event   `json:"-"` // the newest last
}

// Problem is a mistake in a file, as it is now.
type Problem struct {
	File        string `json:"file"`
	Consequence string `json:"consequence"` // how the LAN manager runs because of it
	Text        string `json:"text"`        // with line and column
}

// Need is a service instance that must run.
type Need struct {
	Instance string    `json:"instance"`
	Module   string    `json:"module"`
	Address  string    `json:"address,omitempty"` // that the machine must match
	Ports    string    `json:"ports,omitempty"`   // the fixed ones, such as "tcp 1 http 2"
	Open     bool      `json:"open"`
	Since    time.Time `json:"since,omitzero"` // open or served
	Why      string    `json:"why,omitempty"`  // one sentence: why it is open
	Source   string    `json:"source"`         // needs, needs.overlay, needs.runtime
}

// Service is a need that is served.
type Service struct {
	Instance    string    `json:"instance"`
	Module      string    `json:"module"`
	Address     string    `json:"address"`
	TCP         int       `json:"tcp,omitempty"` // ports; 0: none
	HTTP        int       `json:"http,omitempty"`
	WS          int       `json:"ws,omitempty"`
	Owner       string    `json:"owner"` // the machine's name, or its address
	Since       time.Time `json:"since,omitzero"`
	Unconfirmed bool      `json:"unconfirmed,omitempty"` // its agent has not said yet that it still runs
}

// Machine is a machine with its agent, or with an original master.
type Machine struct {
	Name      string    `json:"name"`
	ID        string    `json:"id,omitempty"` // none of an original
	Address   string    `json:"address"`
	Kind      string    `json:"kind"` // agent, original
	Envelopes []string  `json:"envelopes"`
	Sessions  int       `json:"sessions"`
	Services  int       `json:"services"`
	Since     time.Time `json:"since,omitzero"`
	Connected bool      `json:"connected"`
}

// NAT is a record of the NAT table. A port is a number or a range.
type NAT struct {
	IAddress string `json:"iaddress"`
	IPort    string `json:"iport"`
	EAddress string `json:"eaddress"`
	EPort    string `json:"eport"`
}

// The kinds of events.
const (
	ServiceUp    = "service up"
	ServiceDown  = "service down"
	ServiceFails = "service fails"
	NeedOpen     = "need open"
	NeedClosed   = "need closed"
	SessionBegun = "session begun"
	SessionEnded = "session ended"
	BidTakenBack = "bid taken back"
	Refused      = "refused"
	File         = "file"
)

// Event is what happened on the LAN.
type Event struct {
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`
	Subject string    `json:"subject"` // an instance, a machine, a file
	Text    string    `json:"text"`    // the reason, if there is one
}
