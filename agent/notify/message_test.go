package notify

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func text(s string) *string { return &s }

var asMessage = cmpopts.IgnoreUnexported(Message{})

func TestParse(t *testing.T) {
	for in, want := range map[string]Message{
		"":                               {},
		"READY=1":                        {Ready: true},
		"READY=1\n":                      {Ready: true},
		"READY=1\nSTATUS=at work":        {Ready: true, Status: text("at work")},
		"STATUS=":                        {Status: text("")},
		"STATUS=a=b":                     {Status: text("a=b")},
		"STATUS=one\nSTATUS=two":         {Status: text("two")},
		"RELOADING=1\nMONOTONIC_USEC=77": {Reloading: true},
		"RELOADING=1\nREADY=1":           {Ready: true},
		"STOPPING=1\nERRNO=2\nBUSERROR=x\nEXIT_STATUS=3\nX_Y": {Stopping: true, Problems: []string{`"X_Y" is no assignment`}},
		"WATCHDOG=1":       {Alive: true},
		"WATCHDOG=trigger": {Trigger: true},
		"WATCHDOG_USEC=1500000\nEXTEND_TIMEOUT_USEC=86400000000": {Watchdog: 1500 * time.Millisecond, Extend: 24 * time.Hour},
		"MAINPID=77\nFDSTORE=1\nBARRIER=1":                       {MainPID: 77, Store: true, Barrier: true},
		"READY=0":                                                {Problems: []string{`READY="0": wanted 1`}},
		"WATCHDOG_USEC=0":                                        {Problems: []string{`WATCHDOG_USEC="0": wanted microseconds, 1 to 86400000000`}},
		"EXTEND_TIMEOUT_USEC=86400000001":                        {Problems: []string{`EXTEND_TIMEOUT_USEC="86400000001": wanted microseconds, 1 to 86400000000`}},
		"MAINPID=-1":                                             {Problems: []string{`MAINPID="-1": wanted a process id`}},
	} {
		if diff := cmp.Diff(want, Parse([]byte(in)), asMessage); diff != "" {
			t.Errorf("%q: -want +got\n%s", in, diff)
		}
	}
}

// What was not taken becomes one message with what comes after it.
func TestAdd(t *testing.T) {
	for _, c := range []struct {
		said []string
		want Message
	}{
		{[]string{"READY=1", "STATUS=a", "WATCHDOG=1", "STATUS=b"}, Message{Ready: true, Alive: true, Status: text("b")}},
		{[]string{"READY=1", "RELOADING=1"}, Message{Ready: true, Reloading: true}},
		{[]string{"RELOADING=1", "READY=1"}, Message{Ready: true}},
		{[]string{"STOPPING=1", "EXTEND_TIMEOUT_USEC=2", "EXTEND_TIMEOUT_USEC=1"}, Message{Stopping: true, Extend: 2 * time.Microsecond}},
		{[]string{"MAINPID=1", "MAINPID=2", "WATCHDOG_USEC=1", "FDSTORE=1", "WATCHDOG=trigger"}, Message{MainPID: 2, Watchdog: time.Microsecond, Store: true, Trigger: true}},
	} {
		var m Message
		for _, s := range c.said {
			m.add(Parse([]byte(s)))
		}
		if diff := cmp.Diff(c.want, m, asMessage); diff != "" {
			t.Errorf("%q: -want +got\n%s", c.said, diff)
		}
	}
}

// Somebody who sends barriers and waits at none holds few descriptors.
func TestAddBarriers(t *testing.T) {
	var m Message
	open := 0
	for range 100 {
		m.add(Message{open: []func(){func() { open++ }}})
	}
	if open != 100-maxBarriers {
		t.Errorf("%d were opened early", open)
	}
	m.Done()
	m.Done()
	if open != 100 {
		t.Errorf("%d are open in the end", open)
	}
}

// Whatever a process sends, what is kept of it is small and can be shown.
func FuzzParse(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=at work\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		m := Parse(in)
		if m.Status != nil && (len(*m.Status) > maxStatus || !utf8.ValidString(*m.Status) || strings.ContainsAny(*m.Status, "\n\x00")) {
			t.Errorf("status %q", *m.Status)
		}
		if len(m.Problems) > maxProblems || m.Watchdog < 0 || m.Extend < 0 || m.Watchdog > maxDuration || m.Extend > maxDuration || m.MainPID < 0 {
			t.Errorf("%+v", m)
		}
		for _, p := range m.Problems {
			if len(p) > 400 || !utf8.ValidString(p) {
				t.Errorf("problem %q", p)
			}
		}
		twice := Parse(in)
		twice.add(m)
		twice.Problems = m.Problems
		if diff := cmp.Diff(m, twice, asMessage); diff != "" && !(m.Reloading || m.Ready) {
			t.Errorf("said twice it is another thing: %s", diff)
		}
	})
}
