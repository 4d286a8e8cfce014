package lanmanager

import (
	"encoding/json"
	"strconv"

	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// tableUser is the user of a session on a table: it may read, and be told what
// changes (PROTOCOL section 6). Unlike in the original it may not write: needs
// and services change only by their own methods.
type tableUser struct {
	lan     *lan
	visitor *visitor
	table   *table.Table
	schema  *table.Schema
	name    string                     // as which its owner is seen
	queries map[string]continuousQuery // by the id of the query
}

type continuousQuery struct {
	request *wire.Request
	close   func()
}

func newTableUser(l *lan, v *visitor, t *table.Table, s *table.Schema, name string) *tableUser {
	return &tableUser{lan: l, visitor: v, table: t, schema: s, name: name, queries: map[string]continuousQuery{}}
}

// Opened implements wire.User.
func (u *tableUser) Opened(s *wire.ServerSession) { s.State("name", u.name) }

// Closed implements wire.User.
func (u *tableUser) Closed() {
	u.visitor.queries -= len(u.queries)
	for _, q := range u.queries {
		q.close()
	}
}

// Call implements wire.User.
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
	case ".create", ".update", ".delete":
		r.Reject("METHOD_NOT_EXECUTABLE", "nobody writes to the tables directly; addNeed, removeNeed and notifyServiceDown change them")
	default:
		r.Unknown()
	}
}

func (u *tableUser) query(r *wire.Request) {
	q, ok := u.parse(r)
	if !ok {
		return
	}
	if most := u.lan.limits.Queries; q.Continuous && u.visitor.queries >= most {
		r.Reject("TOO_MANY_QUERIES", "this connection has its "+strconv.Itoa(most)+" continuous queries; close some")
		return
	}
	id, close := u.table.Query(q, r.Notify)
	if q.Continuous {
		u.visitor.queries++
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
		u.visitor.queries--
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
