package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// top is the live table: the latest sample and what the user has chosen. Only
// Update changes it; what is asked of the agent comes back to it as a message.
type top struct {
	ctx      context.Context // ends what is asked of the agent
	client   *client.Client
	interval time.Duration
	timeout  time.Duration

	width, height int

	last     sample
	all      []use // of the last sample
	shown    []use // those that match, in order
	order    order
	filter   string
	typing   bool   // the filter
	selected string // the instance of the row that is marked
	chosen   bool   // by the user; before that it is the first row
	at       int    // where that row is in shown
	first    int    // the first row of shown that is to be seen

	helping  bool    // the keys are to be seen
	helpFrom int     // and the first of their lines that is
	question *action // that y confirms
	said     string  // what became of the last action
	problem  string  // why it was refused
	asked    int     // how many samples were asked for
	waiting  bool    // for the last of them
	silence  string  // why there is no new sample
	log      *logView
}

func newTop(ctx context.Context, c *client.Client, interval, timeout time.Duration) *top {
	return &top{ctx: ctx, client: c, interval: interval, timeout: timeout}
}

// action is something that can be done to an instance.
type action struct {
	instance string
	question string // without its mark
	do       func(context.Context, *client.Client, string) (*machineagentv1.Process, error)
	then     string // what follows, behind what the process is doing now
}

// actions by their keys; what is asked has the instance in it.
var actions = map[string]action{
	"x": {question: "stop %s, and hold it on this machine", then: "held here until it is started",
		do: func(ctx context.Context, c *client.Client, of string) (*machineagentv1.Process, error) {
			r, err := c.Processes.StopProcess(ctx, &machineagentv1.StopProcessRequest{Instance: of})
			return r.GetProcess(), err
		}},
	"r": {question: "restart %s", then: "this agent bids for its need again at once",
		do: func(ctx context.Context, c *client.Client, of string) (*machineagentv1.Process, error) {
			r, err := c.Processes.RestartProcess(ctx, &machineagentv1.RestartProcessRequest{Instance: of})
			return r.GetProcess(), err
		}},
	"s": {question: "let %s run here again", then: "it may run here again",
		do: func(ctx context.Context, c *client.Client, of string) (*machineagentv1.Process, error) {
			r, err := c.Processes.StartProcess(ctx, &machineagentv1.StartProcessRequest{Instance: of})
			return r.GetProcess(), err
		}},
}

type (
	due  struct{}                       // it is time for the next sample
	late struct{ asked int }            // one that was asked for should have come
	done struct{ said, problem string } // an action is over
)

// patience is how long the agent may take for a sample before that is said. It is
// waited for longer, up to --timeout.
const patience = 2 * time.Second

func (t *top) Init() tea.Cmd { return t.wait() }

// wait lets the interval pass.
func (t *top) wait() tea.Cmd {
	return tea.Tick(t.interval, func(time.Time) tea.Msg { return due{} })
}

func (t *top) measure() sample {
	ctx, cancel := context.WithTimeout(t.ctx, t.timeout)
	defer cancel()
	return measure(ctx, t.client)
}

func (t *top) Update(m tea.Msg) (tea.Model, tea.Cmd) {
	next := t.receive(m)
	t.first = max(min(t.first, t.at, len(t.shown)-t.rows()), t.at-t.rows()+1, 0)
	t.helpFrom = max(0, min(t.helpFrom, len(t.helpLines())-t.height+1))
	return t, next
}

func (t *top) receive(m tea.Msg) tea.Cmd {
	switch m := m.(type) {
	case tea.WindowSizeMsg:
		t.width, t.height = m.Width, m.Height
	case due:
		t.asked++
		t.waiting = true
		asked := late{t.asked}
		return tea.Batch(func() tea.Msg { return t.measure() }, tea.Tick(patience, func(time.Time) tea.Msg { return asked }))
	case late:
		if t.waiting && m.asked == t.asked {
			t.silence = fmt.Sprintf("the agent at %s has not answered for %s; see in its log what holds it up", t.client.Address(), patience)
		}
	case sample:
		t.waiting = false
		t.take(m)
		return t.wait()
	case done:
		t.said, t.problem = m.said, m.problem
	case piece:
		return t.log.take(m)
	case logEnd:
		t.log.end(m)
	case tea.PasteMsg:
		if t.typing {
			t.filter += m.Content
			t.show()
		}
	case tea.KeyPressMsg:
		return t.key(m)
	}
	return nil
}

// take shows a sample. One that failed leaves the one before it to be seen.
func (t *top) take(s sample) {
	if s.err != nil {
		t.silence = explain(s.err)
		return
	}
	t.silence = ""
	t.all = uses(t.last, s)
	t.last = s
	t.show()
}

// explain is an error with its cure, in one line.
func explain(err error) string {
	var told *client.Error
	if !errors.As(err, &told) {
		return err.Error()
	}
	if help := cure(told); help != "" {
		return message(told) + "; " + help
	}
	return message(told)
}

// show picks and sorts what is to be seen. A mark that the user has set stays with
// its instance; if that is gone, it stays where it is.
func (t *top) show() {
	p := &page{now: t.last.at}
	t.shown = t.shown[:0]
	for _, u := range t.all {
		if u.matches(p, t.filter) {
			t.shown = append(t.shown, u)
		}
	}
	t.order.sort(t.shown)
	if i := slices.IndexFunc(t.shown, func(u use) bool { return u.Instance == t.selected }); t.chosen && i >= 0 {
		t.at = i
	}
	t.move(0)
}

// move moves the mark.
func (t *top) move(by int) {
	t.chosen = t.chosen || by != 0
	t.at = max(0, min(t.at+by, len(t.shown)-1))
	t.selected = ""
	if len(t.shown) > 0 {
		t.selected = t.shown[t.at].Instance
	}
}

// key does what a key says where it is pressed.
func (t *top) key(k tea.KeyPressMsg) tea.Cmd {
	key := k.String()
	switch {
	case key == "ctrl+c":
		return tea.Quit
	case key == "ctrl+z":
		return tea.Suspend
	case t.log != nil:
		if t.log.key(key, t.width, t.height) {
			t.log.cancel()
			t.log = nil
		}
		return nil
	case t.helping:
		t.help(key)
		return nil
	case t.question != nil:
		asked := *t.question
		t.question = nil
		if key != "y" {
			return nil
		}
		return func() tea.Msg { return t.act(asked) }
	case t.typing:
		t.edit(k)
		return nil
	}
	t.said, t.problem = "", ""
	return t.command(key)
}

// help is a key while the keys are to be seen.
func (t *top) help(key string) {
	page := t.height - 1
	switch key {
	case "up", "k":
		t.helpFrom--
	case "down", "j":
		t.helpFrom++
	case "pgup":
		t.helpFrom -= page
	case "pgdown":
		t.helpFrom += page
	default:
		t.helping = false
	}
}

// edit is a key while the filter is typed.
func (t *top) edit(k tea.KeyPressMsg) {
	switch k.String() {
	case "enter":
		t.typing = false
	case "esc":
		t.typing, t.filter = false, ""
	case "backspace":
		if r := []rune(t.filter); len(r) > 0 {
			t.filter = string(r[:len(r)-1])
		}
	default:
		t.filter += k.Text
	}
	t.show()
}

// command is a key on the table.
func (t *top) command(key string) tea.Cmd {
	switch key {
	case "q":
		return tea.Quit
	case "up", "k":
		t.move(-1)
	case "down", "j":
		t.move(1)
	case "pgup":
		t.move(-t.rows())
	case "pgdown":
		t.move(t.rows())
	case "home", "g":
		t.move(-len(t.shown))
	case "end", "G":
		t.move(len(t.shown))
	case "/":
		t.typing = true
	case "?", "h":
		t.helping, t.helpFrom = true, 0
	case "esc":
		t.filter = ""
		t.show()
	case "l", "enter":
		if t.selected != "" {
			t.chosen = true
			t.log = newLogView(t.ctx, t.client, t.selected)
			return tea.Batch(t.log.follow(), t.log.next())
		}
	default:
		if a, is := actions[key]; is && t.selected != "" {
			t.chosen = true
			a.instance, a.question = t.selected, fmt.Sprintf(a.question, t.selected)
			t.question = &a
		}
		if i := slices.IndexFunc(columns, func(c column) bool { return c.key == key }); i >= 0 {
			t.order = order{by: i, backwards: i == t.order.by && !t.order.backwards}
			t.show()
		}
	}
	return nil
}

// act does what was confirmed.
func (t *top) act(a action) tea.Msg {
	ctx, cancel := context.WithTimeout(t.ctx, t.timeout)
	defer cancel()
	x, err := a.do(ctx, t.client, a.instance)
	if err != nil {
		return done{problem: explain(err)}
	}
	if x.GetPid() == 0 { // it is not said to have no process: it may have one in a moment
		return done{said: x.GetInstance() + ": " + a.then}
	}
	return done{said: now(x) + "; " + a.then}
}
