package wire

import (
	"fmt"
	"runtime"
	"testing"
)

// peer is a LAN manager that follows a script.
type peer struct {
	t     *testing.T
	conn  Conn
	units [][]byte // heard and not yet looked at
}

// frame returns the requests that came in the next frame.
func (p *peer) frame() []Unit {
	for len(p.units) == 0 {
		var err error
		if p.units, err = p.conn.Read(); err != nil {
			p.t.Errorf("the client went away: %v", err)
			runtime.Goexit()
		}
	}
	var requests []Unit
	for _, text := range p.units {
		u, err := ParseRequest(text, Limits{})
		if err != nil {
			p.t.Errorf("the client said %s: %v", text, err)
		}
		requests = append(requests, u)
	}
	p.units = nil
	return requests
}

// next returns the next request, which must be of the kind and method.
func (p *peer) next(kind Kind, method string) Unit {
	if len(p.units) == 0 {
		p.units, _ = p.conn.Read()
	}
	if len(p.units) == 0 {
		p.t.Errorf("no %s %s came", kind, method)
		runtime.Goexit()
	}
	u, err := ParseRequest(p.units[0], Limits{})
	if err != nil || u.Kind != kind || u.Method != method {
		p.t.Errorf("%s %s was to come, %s came: %v", kind, method, p.units[0], err)
	}
	p.units = p.units[1:]
	return u
}

// say sends units in one frame, each made as by fmt.Sprintf from its own
// arguments or a plain text.
func (p *peer) say(units ...string) {
	var texts [][]byte
	for _, unit := range units {
		texts = append(texts, []byte(unit))
	}
	if err := p.conn.Write(texts); err != nil {
		p.t.Error(err)
	}
}

// welcome lets the client's first introduction in.
func (p *peer) welcome() {
	u := p.next(Introduce, "")
	p.say(`["oob",["S","s",{"p":["name"],"o":"s","d":"127.0.0.1"}]]`, resolve(u, `{"session":"S","role":"user","modulename":"lm"}`))
}

// untilGone reads until the client has closed the connection.
func (p *peer) untilGone() {
	for {
		if _, err := p.conn.Read(); err != nil {
			return
		}
	}
}

func resolve(u Unit, value string) string { return fmt.Sprintf(`["r",%q,%s]`, u.ID, value) }

func notify(u Unit, item string) string { return fmt.Sprintf(`["n",%q,%s]`, u.ID, item) }

// against runs a client against a script, which may end when it likes.
func against(t *testing.T, o ClientOptions, script func(*peer)) *Client {
	t.Helper()
	url := listen(t, Limits{}, func(conn Conn) { script(&peer{t: t, conn: conn}) })
	c := NewClient(connect(t, url, DialOptions{}), o)
	run(t, c)
	return c
}

func introduce(t *testing.T, c *Client) *Session {
	t.Helper()
	s, err := c.Introduce(t.Context(), map[string]any{"ip": map[string]string{"name": "any_name", "role": "user"}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
