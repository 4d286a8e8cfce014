//go:build linux

package e2e

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// This file is how the original turns needs into services and back (PROTOCOL
// sections 8 and 9).

// bid gives the word on a need to the first who asks; the others wait. Whose
// address does not fit is sent away.
func (o *original) bid(r request, args []json.RawMessage) {
	var offer struct{ IPAddress string }
	o.must(json.Unmarshal(args[0], &offer))
	if want, ok := o.wanted[r.session.need]["ipaddress"].(string); ok && !fits(offer.IPAddress, want) {
		o.resolve(r, record{"rejected": true})
		return
	}
	b := o.bids[r.session.need]
	b.queue = append(b.queue, r)
	o.challenge(b)
}

func (o *original) challenge(b *bidding) {
	if b.holder != nil || len(b.queue) == 0 {
		return
	}
	next := b.queue[0]
	b.holder, b.queue, b.ticket = next.session, b.queue[1:], o.newID()
	o.resolve(next, record{"bid": b.ticket, "c": true})
}

// fits is the original's arithmetic: a range begins at its base, whatever bits
// that has (quirk 12).
func fits(address, want string) bool {
	base, bits, isRange := strings.Cut(want, "/")
	if !isRange {
		return address == want
	}
	number := func(ip string) int {
		b := net.ParseIP(ip).To4()
		return int(binary.BigEndian.Uint32(b))
	}
	ones, err := strconv.Atoi(bits)
	from := number(base)
	return err == nil && number(address) >= from && number(address) < from+1<<(32-ones)
}

func (o *original) respond(r request, args []json.RawMessage) {
	var response record
	o.must(json.Unmarshal(args[1], &response))
	b := o.bids[r.session.need]
	if b == nil || b.holder != r.session {
		o.reject(r, "ALREADY_DESTROYED", "")
		return
	}
	if _, ok := response["pid"].(float64); !ok || word(args[0]) != b.ticket {
		o.t.Errorf("the original would take this response and not be satisfied: %s", r.text) // quirks 4 and 5
	}
	o.serving.Go(func() {
		open := reachable(response)
		o.mu.Lock()
		defer o.mu.Unlock()
		defer o.flush()
		b := o.bids[r.session.need]
		switch {
		case b == nil || b.holder != r.session:
			o.reject(r, "ALREADY_DESTROYED", "")
		case !open:
			o.reject(r, "NO_PORTS_REACHABLE", "")
		default:
			o.resolve(r, record{"a": word(args[0])})
			o.up(r.session.need, response)
		}
	})
}

// reachable tries the ports of a response.
func reachable(response record) bool {
	for _, field := range []string{"tcpport", "httpport", "wsport"} {
		port, ok := response[field].(float64)
		if !ok {
			continue
		}
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("%v:%d", response["ipaddress"], int(port)), time.Second)
		if err == nil {
			conn.Close()
			return true
		}
	}
	return false
}

// up makes a service of a need: field by field, as the original does it.
func (o *original) up(name string, response record) {
	need, service := o.needs[name], record{"created": 1}
	for field, value := range o.wanted[name] {
		service[field] = value
	}
	filter := equal("instancename", name)
	for _, field := range []string{"pid", "ipaddress", "tcpport", "httpport", "wsport"} {
		need[field], service[field] = response[field], response[field]
		o.tell("needs", "u", filter, need)
		o.tell("needs", "u", filter, record{field: response[field]})
	}
	delete(service, "pid")
	o.shut(name, need)
	o.services[name] = service
	o.tell("services", "c", service)
	o.note(name, service, true)
}

// shut closes an open need.
func (o *original) shut(name string, need record) {
	delete(o.needs, name)
	delete(o.bids, name)
	for _, s := range o.sessions {
		if s.need == name && !o.noEnd {
			delete(o.sessions, s.id)
			o.send(s.conn, "oob", []any{s.id, "-", true})
		}
	}
	need["closed"] = true
	filter := equal("instancename", name)
	o.tell("needs", "u", filter, record{"closed": true})
	o.tell("needs", "d", filter)
}

// removeNeed makes a service without an address of an open need (quirk 3).
func (o *original) removeNeed(name string) {
	need := o.needs[name]
	delete(o.wanted, name)
	if need == nil {
		return
	}
	o.shut(name, need)
	o.services[name] = record{"instancename": name, "modulename": need["modulename"], "ipaddress": nil,
		"tcpport": nil, "httpport": nil, "wsport": nil}
	o.tell("services", "c", o.services[name])
	o.change()
}

// down takes services off, in one item, and opens their needs again.
func (o *original) down(filter record, names ...string) {
	o.tell("services", "d", filter)
	for _, name := range names {
		gone := o.services[name]
		delete(o.services, name)
		if gone["ipaddress"] != nil {
			o.note(name, gone, false)
		}
		if o.wanted[name] != nil {
			o.open(name)
		}
	}
}

func (o *original) note(name string, service record, up bool) {
	o.history = append(o.history, shift{name, service["ipaddress"].(string), up})
	o.change()
}

// change has those look who wait for a change.
func (o *original) change() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// open opens a need and leads those to it who have waited.
func (o *original) open(name string) {
	need := record{"propertyhash": record{}, "strategies": record{}, "timeout": 60}
	for _, field := range []string{"closed", "ipaddress", "tcpport", "httpport", "wsport", "pid"} {
		need[field] = nil
	}
	for field, value := range o.wanted[name] {
		need[field] = value
	}
	o.needs[name], o.bids[name] = need, &bidding{}
	o.tell("needs", "c", need)
	waiting := o.waiting[name]
	delete(o.waiting, name)
	for _, r := range waiting {
		o.reserve(r, "need", name)
	}
}

// end ends a session; who waits for its need gets the word.
func (o *original) end(s *session) {
	delete(o.sessions, s.id)
	o.send(s.conn, "oob", []any{s.id, "-", true})
	o.yield(s)
}

func (o *original) yield(s *session) {
	b := o.bids[s.need]
	if b == nil {
		return
	}
	var rest []request
	for _, r := range b.queue {
		if r.session != s {
			rest = append(rest, r)
		}
	}
	b.queue = rest
	if b.holder == s {
		b.holder = nil
		o.challenge(b)
	}
}
