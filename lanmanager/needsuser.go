package lanmanager

import (
	"container/list"
	"strconv"

	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// needsUser is the user of a session on the needs: besides reading the table it
// leads to the open needs.
type needsUser struct {
	*tableUser
	party   *party
	waiting map[*waiter]*list.Element // its part of lan.waiting
}

// waiter is a subConnect to a need that is not open.
type waiter struct {
	user    *needsUser
	request *wire.Request
	name    string // of the need
	as      string
}

func newNeedsUser(l *lan, v *visitor, p *party, name string) *needsUser {
	return &needsUser{tableUser: newTableUser(l, v, l.needs, table.Needs, name), party: p,
		waiting: map[*waiter]*list.Element{}}
}

// Closed implements wire.User.
func (u *needsUser) Closed() {
	u.visitor.waiting -= len(u.waiting)
	for w, place := range u.waiting {
		all := u.lan.waiting[w.name]
		if all.Remove(place); all.Len() == 0 {
			delete(u.lan.waiting, w.name)
		}
	}
	u.tableUser.Closed()
}

// Call implements wire.User.
func (u *needsUser) Call(r *wire.Request) {
	if r.Method != "!subConnect" {
		u.tableUser.Call(r)
		return
	}
	name, as, ok := identity(r, u.name)
	if !ok {
		return
	}
	w := &waiter{user: u, request: r, name: name, as: as}
	if n := u.lan.open[name]; n != nil {
		w.lead(n)
	} else if u.visitor.waits(r, u.lan.limits.Waiting) {
		u.wait(w)
	}
}

func (u *needsUser) wait(w *waiter) {
	all := u.lan.waiting[w.name]
	if all == nil {
		all = list.New()
		u.lan.waiting[w.name] = all
	}
	u.waiting[w] = all.PushBack(w)
}

// waits counts a subConnect that has to wait. One that is too much is rejected.
func (v *visitor) waits(r *wire.Request, most int) bool {
	if v.waiting >= most {
		r.Reject("TOO_MANY_WAITING", "this connection has its "+strconv.Itoa(most)+" subConnects to what is not there")
		return false
	}
	v.waiting++
	return true
}

// leadIn answers those who waited for a need, in the order in which they came.
func (l *lan) leadIn(name string) {
	all := l.waiting[name]
	if all == nil {
		return
	}
	delete(l.waiting, name)
	for place := all.Front(); place != nil; place = place.Next() {
		w := place.Value.(*waiter)
		delete(w.user.waiting, w)
		w.user.visitor.waiting--
		w.lead(l.open[name])
	}
}

// lead answers with a session on the need.
func (w *waiter) lead(n *need) {
	u := w.user
	b := &bidder{lan: u.lan, need: n, party: u.party, name: w.as, address: u.visitor.address.String()}
	b.session = w.request.Reserve(wire.Grant{Role: role, ModuleName: "allex_serviceneedservice", User: b})
	if b.session != nil {
		n.enter(b)
	}
}
