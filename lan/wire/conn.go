package wire

import (
	"bytes"
	"net"
	"slices"
	"time"
)

// Conn carries the texts of units in one envelope (PROTOCOL section 1). One
// goroutine reads and one writes; Close may come from any, and twice, and ends
// both.
type Conn interface {
	// Read returns the texts of the units that came together; none, if the
	// envelope had something of its own to say. They stay valid. Every error is
	// final.
	Read() ([][]byte, error)
	// Write sends units together. It keeps none of them. Every error is final.
	Write(units [][]byte) error
	Close() error
	// SetReadDeadline makes Read fail with a net.Error that is a timeout. It is
	// the reader's to call.
	SetReadDeadline(time.Time) error
	RemoteAddr() net.Addr
	LocalAddr() net.Addr
}

// frameSize is the length at which the real programs begin a new frame. They
// count characters and we bytes, of which there are never fewer.
const frameSize = 65_536

// keptRoom is how many bytes of a connection's buffer outlive the write that
// needed them: a burst is no reason to keep its room on every connection.
const keptRoom = 16 << 10

// kept is buf for the next time.
func kept(buf []byte) []byte {
	if cap(buf) > keptRoom {
		return nil
	}
	return buf
}

// join calls send with one frame after the other: units joined by NUL, never a
// unit split, and no frame of several units longer than frameSize. It builds
// them in buf and returns it for the next time; a unit that travels alone goes
// as it is.
func join(buf []byte, units [][]byte, send func(frame []byte) error) ([]byte, error) {
	for len(units) > 0 {
		n, size := 1, len(units[0])
		for n < len(units) && size+1+len(units[n]) <= frameSize {
			size += 1 + len(units[n])
			n++
		}
		frame := units[0]
		if n > 1 {
			buf = slices.Grow(buf[:0], size)
			for _, unit := range units[:n] {
				if len(buf) > 0 && len(unit) > 0 {
					buf = append(buf, 0)
				}
				buf = append(buf, unit...)
			}
			frame = buf
		}
		if len(frame) > 0 {
			if err := send(frame); err != nil {
				return buf, err
			}
		}
		units = units[n:]
	}
	return buf, nil
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
