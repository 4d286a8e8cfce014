package wire

import (
	"bytes"
	"net"
	"time"
)

// Conn carries the texts of units in one envelope (PROTOCOL section 1). One
// goroutine reads and one writes; Close may come from any, and twice, and ends
// both.
type Conn interface {
	// Read returns the texts of the units that came together, at least one.
	// They stay valid. Every error is final.
	Read() ([][]byte, error)
	// Write sends units together. It keeps none of them. Every error is final.
	Write(units [][]byte) error
	Close() error
	// SetReadDeadline makes Read fail with a net.Error that is a timeout.
	SetReadDeadline(time.Time) error
	RemoteAddr() net.Addr
	LocalAddr() net.Addr
}

// frameSize is the length at which the real programs begin a new frame. They
// count characters and we bytes, of which there are never fewer.
const frameSize = 65_536

// join calls send with one frame after the other: units joined by NUL, never a
// unit split, and no frame of several units longer than frameSize. It builds
// them in buf and returns it for the next time.
func join(buf []byte, units [][]byte, send func(frame []byte) error) ([]byte, error) {
	buf = buf[:0]
	for _, unit := range units {
		if len(unit) == 0 {
			continue
		}
		if len(buf) > 0 && len(buf)+1+len(unit) > frameSize {
			if err := send(buf); err != nil {
				return buf, err
			}
			buf = buf[:0]
		}
		if len(buf) > 0 {
			buf = append(buf, 0)
		}
		buf = append(buf, unit...)
	}
	if len(buf) == 0 {
		return buf, nil
	}
	return buf, send(buf)
}

// unjoin returns the units of a frame, which are slices of it. Nothing between
// two NULs, or behind the last one, is no unit.
func unjoin(frame []byte) [][]byte {
	units := make([][]byte, 0, 1+bytes.Count(frame, []byte{0}))
	for unit := range bytes.SplitSeq(frame, []byte{0}) {
		if len(unit) > 0 {
			units = append(units, unit)
		}
	}
	return units
}
