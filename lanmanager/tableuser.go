package lanmanager

import (
	"encoding/json"

	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// tableUser is the user of a session on a table: it may read, and be told what
// changes (PROTOCOL section 6). Unlike in the original it may not write: needs
// and services change only by their own methods.
type tableUser struct {
	table   *table.Table
	schema  *table.Schema
	name    string                     // as which its owner is seen
	queries map[string]continuousQuery // by the id of the query
}

type continuousQuery struct {
	request *wire.Request
	close   func()
}

func newTableUser(t *table.Table, s *table.Schema, name string) *tableUser {
	return &tableUser{table: t, schema: s, name: name, queries: map[string]continuousQuery{}}
}

func (u *tableUser) Opened(s *wire.ServerSession) { s.State("name", u.name) }

func (u *tableUser) Closed() {
	for _, q := range u.queries {
		q.close()
	}
}

func (u *tableUser) Call(r *wire.Request) {
	switch r.Method {
	case "!query":
		u.query(r)
	case "!closeQuery":
		if id, ok := r.String(0, "Query id"); ok {
			u.closeQuery(r, id)
		}
	case ".read":
		u.read(r)
	default:
		r.Unknown()
	}
}

func (u *tableUser) query(r *wire.Request) {
	q, ok := u.parse(r)
	if !ok {
		return
	}
	id, close := u.table.Query(q, r.Notify)
	if q.Continuous {
		u.queries[id] = continuousQuery{r, close}
		return
	}
	close()
	r.Resolve(true)
}

// closeQuery answers the query itself first, as the original does.
func (u *tableUser) closeQuery(r *wire.Request, id string) {
	q, ok := u.queries[id]
	if ok {
		delete(u.queries, id)
		q.close()
		q.request.Resolve(true)
	}
	r.Resolve(ok)
}

// read is a query that is over when it has read, and tells no id.
func (u *tableUser) read(r *wire.Request) {
	q, ok := u.parse(r)
	if !ok {
		return
	}
	q.Continuous = false
	first := true
	_, close := u.table.Query(q, func(item json.RawMessage) {
		if !first { // the first is the id
			r.Notify(item)
		}
		first = false
	})
	close()
	r.Resolve(nil)
}

func (u *tableUser) parse(r *wire.Request) (table.Query, bool) {
	q, err := table.ParseQuery(u.schema, r.Arg(0))
	if err != nil {
		r.Reject("QUERY_INVALID", err.Error())
	}
	return q, err == nil
}

// needsUser is the user of a session on the needs: besides reading the table it
// leads to the open needs.
type needsUser struct {
	*tableUser
	lan     *lan
	party   *party
	waiting map[string][]waiter // subConnects to needs that are not open, by name
}

type waiter struct {
	request *wire.Request
	as      string
}

func newNeedsUser(l *lan, p *party, name string) *needsUser {
	u := &needsUser{tableUser: newTableUser(l.needs, table.Needs, name), lan: l, party: p,
		waiting: map[string][]waiter{}}
	l.watchers[u] = struct{}{}
	return u
}

func (u *needsUser) Closed() {
	delete(u.lan.watchers, u)
	u.tableUser.Closed()
}

func (u *needsUser) Call(r *wire.Request) {
	if r.Method != "!subConnect" {
		u.tableUser.Call(r)
		return
	}
	name, as, ok := identity(r, u.name)
	if !ok {
		return
	}
	if n := u.lan.open[name]; n != nil {
		u.lead(n, waiter{r, as})
	} else {
		u.waiting[name] = append(u.waiting[name], waiter{r, as})
	}
}

// needOpened answers those who waited for the need.
func (u *needsUser) needOpened(name string) {
	waiting := u.waiting[name]
	delete(u.waiting, name)
	for _, w := range waiting {
		u.lead(u.lan.open[name], w)
	}
}

func (u *needsUser) lead(n *need, w waiter) {
	b := &bidder{lan: u.lan, need: n, party: u.party, name: w.as, address: u.party.address.String()}
	b.session = w.request.Reserve(wire.Grant{Role: role, ModuleName: "allex_serviceneedservice", User: b})
	if b.session != nil {
		n.bidders = append(n.bidders, b)
	}
}
