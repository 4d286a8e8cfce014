package lanmanager

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// door decides who may connect, before the upgrade to an envelope, and counts
// who is in. Its methods may be called from any goroutine.
type door struct {
	subnets []netip.Prefix
	token   string // "" none
	limits  Limits
	count   prometheus.Counter                 // of those who were sent away
	refused func(peer netip.Addr, text string) // told of them, but not of each; not to be called in the core

	mu    sync.Mutex
	in    map[netip.Addr]int // connections of each address
	all   int                // connections
	quiet time.Time          // until then refusals are not told
	muted int                // those that were not
}

func newDoor(s settings, l Limits, count prometheus.Counter, refused func(netip.Addr, string)) *door {
	return &door{subnets: s.subnets, token: s.token, limits: l, count: count, refused: refused, in: map[netip.Addr]int{}}
}

// address is the IP address of a peer; the zero one, which nobody admits, if it
// has none.
func address(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// admits tells whether peers with this address are admitted: those of this
// machine always, and whom the file subnets names.
func (d *door) admits(peer netip.Addr) bool {
	return peer.IsLoopback() || slices.ContainsFunc(d.subnets, func(s netip.Prefix) bool { return s.Contains(peer) })
}

// lets tells whether a request may go on to its envelope. One that may not has
// been answered.
func (d *door) lets(w http.ResponseWriter, r *http.Request, l Listener) bool {
	at, _ := netip.ParseAddrPort(r.RemoteAddr)
	peer := at.Addr().Unmap().WithZone("")
	refuse := func(status int, text string) bool {
		d.tell(peer, text)
		http.Error(w, text, status)
		return false
	}
	switch {
	case !d.admits(peer):
		return refuse(http.StatusForbidden, fmt.Sprintf(
			"ADDRESS_NOT_ADMITTED: the address %s is not admitted; add it, or its subnet, to the file subnets of this LAN manager and start it again", peer))
	case !l.plain() && !d.knows(r):
		w.Header().Set("WWW-Authenticate", "Bearer")
		return refuse(http.StatusUnauthorized,
			"TOKEN_WRONG: this LAN manager admits who sends its token; put what is in its tokenfile into that of the agent")
	}
	if limit := d.full(peer); limit != "" {
		return refuse(http.StatusServiceUnavailable, limit)
	}
	return true
}

// knows tells whether a request bears the token, if one is wanted.
func (d *door) knows(r *http.Request) bool {
	if d.token == "" {
		return true
	}
	given, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	got, want := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(d.token))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// proof is what a peer that was let in has shown of itself: its certificate or
// the token. An agent's id is bound to it.
func (d *door) proof(r *http.Request, l Listener) string {
	switch {
	case r.TLS != nil && len(r.TLS.VerifiedChains) > 0:
		sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
		return "certificate " + hex.EncodeToString(sum[:])
	case d.token != "" && !l.plain():
		return "token"
	}
	return ""
}

// full is the limit that another connection of this address would break; ""
// none.
func (d *door) full(peer netip.Addr) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.isFull(peer)
}

func (d *door) isFull(peer netip.Addr) string {
	switch {
	case d.all >= d.limits.Connections:
		return "TOO_MANY_CONNECTIONS: this LAN manager has its " + strconv.Itoa(d.limits.Connections) + " connections"
	case d.in[peer] >= d.limits.PerAddress:
		return "TOO_MANY_CONNECTIONS: " + peer.String() + " has its " + strconv.Itoa(d.limits.PerAddress) + " connections"
	}
	return ""
}

// enter counts a connection in, if there is room; leave counts it out.
func (d *door) enter(peer netip.Addr) bool {
	d.mu.Lock()
	limit := d.isFull(peer)
	if limit == "" {
		d.all++
		d.in[peer]++
	}
	d.mu.Unlock()
	if limit != "" { // others came between its request and now
		d.tell(peer, limit)
	}
	return limit == ""
}

func (d *door) leave(peer netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all--
	if d.in[peer]--; d.in[peer] == 0 {
		delete(d.in, peer)
	}
}

// tell tells that somebody was sent away.
func (d *door) tell(peer netip.Addr, text string) {
	if text := d.worth(text); text != "" {
		d.refused(peer, text)
	}
}

// worth counts a refusal and returns what is to be told of it. That is nothing
// most of the time when there are many: who is refused comes again at once.
func (d *door) worth(text string) string {
	const pause = time.Second
	d.count.Inc()
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if now.Before(d.quiet) {
		d.muted++
		return ""
	}
	if d.muted > 0 {
		text += fmt.Sprintf(" (%d others were refused since the last that was told)", d.muted)
	}
	d.quiet, d.muted = now.Add(pause), 0
	return text
}
