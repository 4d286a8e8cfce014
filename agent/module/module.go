// Package module is the catalogue of what this machine can run: the files
// modules/*.json of design section 7, each of which binds a module's name to a
// command. Only what is catalogued ever runs: the LAN names a module, never a
// command.
//
// A Catalogue never changes after Load and may be used by any goroutine; a new
// one replaces it. agent, its rooms and cmd may import this package.
package module

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"time"

	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
)

// Module is one entry of the catalogue, checked and with its defaults. It is not
// to be changed.
type Module struct {
	Name        string   // or a pattern such as "dotnet:*"
	File        string   // absolute path of the file that has it
	Sum         [32]byte // of what the file says, whatever its white space
	Command     []string // Command[0] is the absolute path of the executable; the rest is not yet substituted
	Environment map[string]string
	Directory   string // working directory, absolute; empty: the runtime directory
	Ready       Ready
	Health      Health
	// Watchdog is how often at least a process that is ready has to say WATCHDOG=1;
	// 0: it need not.
	Watchdog time.Duration
	Stop     Stop
	Ports    []port.Protocol // what it wants, each once; may be empty
	PortMode port.Mode
	// StartTimeout is how long it may take to become ready; 30 s by default.
	StartTimeout time.Duration
	Backoff      Backoff
	Log          Log
	Outside      []string // local users who may register processes of this module
	Operator     bool     // its processes may do what operators may
	User         *User    // nil: as the agent
	Limits       process.Limits
	SHA256       *[32]byte // of the executable; nil: not looked at
}

// Mark tells in few bytes which text of a module something is of. The zero Mark is
// of none.
type Mark [8]byte

// Mark is the head of Sum.
func (m *Module) Mark() Mark { return Mark(m.Sum[:]) }

// MarshalText writes it in hexadecimal digits.
func (m Mark) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, m[:]), nil }

// UnmarshalText is the inverse of MarshalText.
func (m *Mark) UnmarshalText(text []byte) error {
	var read Mark
	if hex.DecodedLen(len(text)) != len(read) {
		return fmt.Errorf("%q is no mark of a module; wanted %d hexadecimal digits", text, hex.EncodedLen(len(read)))
	}
	if _, err := hex.Decode(read[:], text); err != nil {
		return fmt.Errorf("%q is no mark of a module: %w", text, err)
	}
	*m = read
	return nil
}

// Ready says by what a process shows that it is ready (design section 6).
type Ready struct {
	Kind     ReadyKind
	Protocol port.Protocol  // for those that ask a port: whose; 0, for port only: any of its ports
	Path     string         // for http and ws; begins with a slash
	Service  string         // for grpc; empty: the server as a whole
	Pattern  *regexp.Regexp // for log, and for the answer to tcp, where nil wants none
	Delay    time.Duration  // for delay
	Send     string         // for tcp; may be empty
	Command  []string       // for command; as that of a Module
}

// Argv returns the command of the kind command for v.
func (r *Ready) Argv(v Values) []string { return argv(r.Command, v) }

// Notifies tells whether its processes say how they are on the notify socket.
func (m *Module) Notifies() bool { return m.Ready.Kind == ReadyNotify || m.Watchdog != 0 }

// ReadyKind is a kind of readiness.
type ReadyKind string

const (
	ReadyPort     ReadyKind = "port"     // one of its ports accepts; the default
	ReadyRegister ReadyKind = "register" // it called RegisterProcess
	ReadyNotify   ReadyKind = "notify"   // it said READY=1 (sd_notify)
	ReadyHTTP     ReadyKind = "http"     // a page of it answers with success
	ReadyGRPC     ReadyKind = "grpc"     // grpc.health.v1 says SERVING
	ReadyLog      ReadyKind = "log"      // a line of its output matches
	ReadyDelay    ReadyKind = "delay"    // it has lived for a while
)

// These are kinds of health only.
const (
	HealthTCP     ReadyKind = "tcp"     // a port accepts, and answers as it should
	HealthWS      ReadyKind = "ws"      // a port takes a WebSocket
	HealthCommand ReadyKind = "command" // a program finds that all is well
)

// Health is what a process is asked time and again once it is ready.
type Health struct {
	Live  *Check // after its failures the process is replaced; nil: not asked
	Ready *Check // after its failures it is withdrawn from the LAN, until it answers; nil: not asked
}

// Check is a question that is asked at intervals.
type Check struct {
	Ready                   // of the kinds port, http, grpc, and those of health only
	Interval  time.Duration // 10 s by default; each is a tenth longer or shorter, at random
	Timeout   time.Duration // for one answer; 1 s by default
	Failures  int           // in a row that count; 3 by default
	Successes int           // in a row until it is well again; 1 by default
}

// Stop says how a process is asked to end, and when it is made to.
type Stop struct {
	Grace   time.Duration // from its leaving the LAN's table to the signal, if the stop is planned; 0 by default
	Signal  string        // a name such as SIGTERM, the default
	Timeout time.Duration // then SIGKILL; 10 s by default, 0 waits not at all
}

// DefaultStop is that of a module that says nothing of it.
var DefaultStop = Stop{Signal: "SIGTERM", Timeout: 10 * time.Second}

// Log says how much of the output of an instance is kept.
type Log struct {
	MaxSize int64 // bytes of its log file, above which the head of the file becomes a generation
	Keep    int   // generations
}

// DefaultLog is that of a module that says nothing of it.
var DefaultLog = Log{MaxSize: 16 << 20, Keep: 4}

// Backoff says how long a replacement waits: not after a process that had been
// healthy for Reset, else Initial, doubled by each further end, up to Max.
type Backoff struct {
	Initial time.Duration // 100 ms by default
	Max     time.Duration // 1 min by default
	Reset   time.Duration // 10 s by default
}
