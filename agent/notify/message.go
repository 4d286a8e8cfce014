package notify

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Message is what a process said of itself, in one datagram or in several that
// nobody had taken yet. The zero value says nothing.
type Message struct {
	Ready     bool          // READY=1
	Reloading bool          // RELOADING=1, and no READY=1 since
	Stopping  bool          // STOPPING=1
	Status    *string       // STATUS=; nil: no word of it
	Alive     bool          // WATCHDOG=1
	Trigger   bool          // WATCHDOG=trigger: it wants to be replaced
	Watchdog  time.Duration // WATCHDOG_USEC=; 0: no word of it
	Extend    time.Duration // EXTEND_TIMEOUT_USEC=; 0: no word of it
	MainPID   int           // MAINPID=; 0: no word of it
	Store     bool          // FDSTORE=1
	Barrier   bool          // BARRIER=1
	Problems  []string      // what was not understood

	open []func() // the barriers at which somebody waits
}

const (
	maxMessage  = 4096 // bytes, as systemd takes them
	maxStatus   = 256  // bytes that are kept of a status
	maxProblems = 4
	maxBarriers = 16
	maxDuration = 24 * time.Hour
)

// Parse reads the text of a datagram: assignments, one a line. Keys that the
// agent has no use for are passed over; what is wrong with the others is among
// the Problems.
func Parse(text []byte) (m Message) {
	for line := range bytes.Lines(text) {
		key, value, ok := strings.Cut(string(bytes.TrimSuffix(line, []byte("\n"))), "=")
		if !ok {
			if key != "" && key != "\x00" {
				m.problem(fmt.Errorf("%.40q is no assignment", key))
			}
			continue
		}
		if err := m.assign(key, value); err != nil {
			m.problem(fmt.Errorf("%s=%.40q: %w", key, value, err))
		}
	}
	return m
}

func (m *Message) assign(key, value string) (err error) {
	switch key {
	case "READY":
		err = one(value, &m.Ready)
		m.Reloading = m.Reloading && !m.Ready
	case "RELOADING":
		err = one(value, &m.Reloading)
	case "STOPPING":
		err = one(value, &m.Stopping)
	case "BARRIER":
		err = one(value, &m.Barrier)
	case "FDSTORE":
		err = one(value, &m.Store)
	case "STATUS":
		status := strings.ToValidUTF8(strings.ReplaceAll(value, "\x00", ""), "\uFFFD")
		status = strings.ToValidUTF8(status[:min(len(status), maxStatus)], "") // the cut may be in a character
		m.Status = &status
	case "WATCHDOG":
		if value == "trigger" {
			m.Trigger = true
		} else {
			err = one(value, &m.Alive)
		}
	case "WATCHDOG_USEC":
		m.Watchdog, err = microseconds(value)
	case "EXTEND_TIMEOUT_USEC":
		m.Extend, err = microseconds(value)
	case "MAINPID":
		if m.MainPID, err = strconv.Atoi(value); err != nil || m.MainPID <= 0 {
			m.MainPID, err = 0, errors.New("wanted a process id")
		}
	}
	return err
}

// one raises a flag of which there is but one value.
func one(value string, flag *bool) error {
	if value != "1" {
		return errors.New("wanted 1")
	}
	*flag = true
	return nil
}

// microseconds is a time of more than nothing and at most a day.
func microseconds(value string) (time.Duration, error) {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil || n == 0 || n > uint64(maxDuration/time.Microsecond) {
		return 0, fmt.Errorf("wanted microseconds, 1 to %d", maxDuration/time.Microsecond)
	}
	return time.Duration(n) * time.Microsecond, nil
}

func (m *Message) problem(err error) {
	if len(m.Problems) < maxProblems {
		m.Problems = append(m.Problems, strings.ToValidUTF8(err.Error(), "\uFFFD"))
	}
}

// add makes m what it and next say together.
func (m *Message) add(next Message) {
	if next.Ready {
		m.Ready, m.Reloading = true, false
	}
	m.Reloading = m.Reloading || next.Reloading
	m.Stopping = m.Stopping || next.Stopping
	m.Alive = m.Alive || next.Alive
	m.Trigger = m.Trigger || next.Trigger
	m.Store = m.Store || next.Store
	m.Barrier = m.Barrier || next.Barrier
	if next.Status != nil {
		m.Status = next.Status
	}
	if next.Watchdog != 0 {
		m.Watchdog = next.Watchdog
	}
	m.Extend = max(m.Extend, next.Extend)
	if next.MainPID != 0 {
		m.MainPID = next.MainPID
	}
	for _, p := range next.Problems {
		if len(m.Problems) < maxProblems {
			m.Problems = append(m.Problems, p)
		}
	}
	m.open = append(m.open, next.open...)
	for len(m.open) > maxBarriers { // nobody sends so many and waits at each
		m.open[0]()
		m.open = m.open[1:]
	}
}

// Done lets those go on who wait, at a barrier, for all that the message says to
// be done. Whoever takes a message from an Inbox has to call it.
func (m *Message) Done() {
	for _, open := range m.open {
		open()
	}
	m.open = nil
}
