package link

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// manager is a small scripted LAN manager that behaves well. A test makes it
// misbehave with on.
type manager struct {
	t               *testing.T
	needs, services []string // records of the first reading
	nats            []string // as these

	// on is asked first about each request, by its step (see stepOf). If it
	// reports true, it has dealt with the request.
	on func(c *conn, step string, r request) bool

	mu      sync.Mutex
	steps   []string // all that were asked for
	texts   []string // the requests' units, without their ids
	current *conn
}

// serve is the manager at one connection.
func (m *manager) serve(f frames) {
	c := &conn{frames: f, sessions: make(map[string]string), queries: make(map[string]string)}
	m.mu.Lock()
	m.current = c
	m.mu.Unlock()
	c.requests(m.t, func(r request) {
		step := c.stepOf(r)
		m.mu.Lock()
		m.steps = append(m.steps, step)
		m.texts = append(m.texts, strings.TrimPrefix(r.text, fmt.Sprintf("[%q,", r.id)))
		m.mu.Unlock()
		if m.on == nil || !m.on(c, step, r) {
			m.answer(c, r)
		}
	})
}

// asked are the steps so far.
func (m *manager) asked() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.steps)
}

// sent are the units so far, without their ids.
func (m *manager) sent() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.texts)
}

// conn is the latest connection.
func (m *manager) conn() *conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current
}

// stepOf names a request by what it is about: "introduce", "lan subConnect
// needs", "needs attach", "Probe bid" ...
func (c *conn) stepOf(r request) string {
	switch {
	case r.credentials != "":
		return "introduce"
	case r.attaches():
		return c.of(r.session) + " attach"
	case r.method == "subConnect", r.target == ".":
		return strings.TrimSpace(c.of(r.session) + " " + r.method + " " + r.arg(0))
	}
	return c.of(r.session) + " " + r.method
}

// of is what a session is of.
func (c *conn) of(session string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if of, ok := c.sessions[session]; ok {
		return of
	}
	return "nothing"
}

// session finds the latest session of that.
func (c *conn) session(of string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := c.last; n > 0; n-- {
		if id := fmt.Sprint("s", n); c.sessions[id] == of {
			return id
		}
	}
	return ""
}

// open makes a session.
func (c *conn) open(of string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	id := fmt.Sprint("s", c.last)
	c.sessions[id] = of
	return id
}

// item is the unit of an item of the query of a table.
func (c *conn) item(table, item string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf(`["n",%q,%s]`, c.queries[table], item)
}

func resolve(r request, value string) string { return fmt.Sprintf(`["r",%q,%s]`, r.id, value) }
func forget(r request) string                { return `["f",` + r.text + `]` }
func ended(session string) string            { return fmt.Sprintf(`["oob",[%q,"-",true]]`, session) }

func reject(r request, code string) string {
	return fmt.Sprintf(`["e",%q,{"code":%q,"message":""}]`, r.id, code)
}

func state(session, name, value string) string {
	return fmt.Sprintf(`["oob",[%q,"s",{"p":[%q],"o":"s","d":%s}]]`, session, name, value)
}

// answer is what a well-behaved LAN manager does.
func (m *manager) answer(c *conn, r request) {
	switch {
	case r.credentials != "":
		s := c.open("lan")
		c.send(state(s, "haveservices", "true"), state(s, "haveneeds", "true"), state(s, "name", `"127.0.0.1"`),
			resolve(r, fmt.Sprintf(`{"session":%q,"role":"user","modulename":"allex_lanmanagerservice"}`, s)))
	case r.attaches():
		c.send(state(r.session, "name", `"127.0.0.1"`),
			resolve(r, fmt.Sprintf(`{"session":%q,"role":"user","modulename":"m"}`, r.session)))
	default:
		m.call(c, r)
	}
}

func (m *manager) call(c *conn, r request) {
	switch r.target + r.method {
	case "!subConnect":
		c.send(resolve(r, fmt.Sprintf(`{"introduce":{"session":%q,"modulename":"m","role":"user"}}`, c.open(r.arg(0)))))
	case "!confirmReservation":
		c.send(resolve(r, `"ok"`))
	case "!query":
		m.query(c, r)
	case "!bid":
		c.send(resolve(r, `{"bid":"ticket","c":true}`))
	case "!respond":
		c.send(resolve(r, `{"a":"ticket"}`))
		c.accept(c.of(r.session), r)
	case "!die":
		c.send(resolve(r, `"dead"`), ended(r.session))
	case "!closeQuery":
		c.send(resolve(r, "true"))
	case ".notifyServiceDown":
		c.send(c.item("services", `["d",`+key(r.arg(0))+`]`), resolve(r, "1"),
			c.item("needs", `["c",`+need(r.arg(0), "")+`]`))
	default:
		c.send(reject(r, "METHOD_DOES_NOT_EXIST"))
	}
}

// query sends the whole table.
func (m *manager) query(c *conn, r request) {
	table := c.of(r.session)
	c.mu.Lock()
	c.queries[table] = r.id
	c.mu.Unlock()
	units := []string{c.item(table, `["i","q"]`), c.item(table, `["rb","read"]`)}
	for _, record := range map[string][]string{"needs": m.needs, "services": m.services, "nat": m.nats}[table] {
		units = append(units, c.item(table, `["r1","read",`+record+`]`))
	}
	c.send(append(units, c.item(table, `["re","read"]`))...)
}

// accept makes a need a service, in the order of PROTOCOL section 8.
func (c *conn) accept(name string, respond request) {
	c.send(
		c.item("needs", `["u",`+key(name)+`,{"pid":4711}]`),
		c.item("needs", `["u",`+key(name)+`,{"ipaddress":"127.0.0.1"}]`),
		c.item("needs", `["u",`+key(name)+`,{"tcpport":15000}]`),
		ended(respond.session),
		c.item("needs", `["u",`+key(name)+`,{"closed":true}]`),
		c.item("needs", `["d",`+key(name)+`]`),
		c.item("services", `["c",`+service(name, "127.0.0.1")+`]`),
	)
}

// key is the filter of one record.
func key(name string) string {
	return fmt.Sprintf(`{"op":"eq","field":"instancename","value":%q}`, name)
}

// need is the record of an open need for a machine at an address.
func need(name, address string) string {
	if address != "" {
		address = fmt.Sprintf(`,"ipaddress":%q`, address)
	}
	return fmt.Sprintf(`{"instancename":%q,"modulename":"probe","propertyhash":{"a":1},"pid":null,"closed":null%s}`, name, address)
}

// service is the record of a service.
func service(name, address string) string {
	return fmt.Sprintf(`{"instancename":%q,"modulename":"probe","ipaddress":%q,"tcpport":15000,"httpport":null,"wsport":null}`, name, address)
}
