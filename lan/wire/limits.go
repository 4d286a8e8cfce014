package wire

import "errors"

// Limits bound what the other side can make us hold. A zero field stands for
// that of DefaultLimits.
type Limits struct {
	Frame    int // bytes of one frame; a longer one ends the connection
	Unit     int // bytes of one unit
	Depth    int // nesting of one unit
	InFlight int // calls without an answer, and units waiting to be written
	Sessions int // of one channel; an agent has one for each need it bids for
}

// DefaultLimits are far beyond what the real programs send: their frames have
// 65,536 characters, their longest units some 200 kB.
func DefaultLimits() Limits {
	return Limits{Frame: 4 << 20, Unit: 1 << 20, Depth: 64, InFlight: 1 << 16, Sessions: 1 << 16}
}

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	if l.Frame <= 0 {
		l.Frame = d.Frame
	}
	if l.Unit <= 0 {
		l.Unit = d.Unit
	}
	if l.Depth <= 0 {
		l.Depth = d.Depth
	}
	if l.InFlight <= 0 {
		l.InFlight = d.InFlight
	}
	if l.Sessions <= 0 {
		l.Sessions = d.Sessions
	}
	return l
}

// What can be wrong with the text of a unit.
var (
	ErrNotJSON  = errors.New("unit is not JSON")             // a server ignores it
	ErrNotUnit  = errors.New("JSON is not a unit")           // a server answers it with Forget
	ErrTooLarge = errors.New("unit or frame is too large")   // beyond Limits.Unit or Limits.Frame
	ErrTooDeep  = errors.New("unit is nested too deep")      // beyond Limits.Depth
	ErrBusy     = errors.New("too many calls are in flight") // Limits.InFlight is reached
)
