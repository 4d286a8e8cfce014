//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// Whatever a client sends, on whichever port, in whichever envelope: the LAN
// manager goes on, and so do the sessions of others.
func TestRubbishForALANManager(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	m := s.wholeLAN()
	watchers := []*watcher{
		s.watch("our ws", func() (wire.Conn, error) { return wire.Dial(s.ctx, "ws://"+m.ours+"/", wire.DialOptions{}) }),
		s.watch("the original's ws", func() (wire.Conn, error) { return wire.Dial(s.ctx, "ws://"+m.older+"/", wire.DialOptions{}) }),
		s.watch("SignalR", func() (wire.Conn, error) {
			return wire.DialSignalR(s.ctx, "http://"+m.signalR+"/", wire.DialOptions{})
		}),
	}
	check := func(after string) {
		t.Helper()
		for _, w := range watchers {
			if err := w.round(s.ctx, watchers); err != nil {
				t.Fatalf("after %s: a session over %s: %v", after, w.name, err)
			}
		}
	}
	check("nothing")
	for _, address := range []string{m.ours, m.older, m.signalR, m.page} {
		for n, r := range rawRubbish(rand.New(rand.NewPCG(seed, 1))) {
			s.sendRaw(address, r)
			check(fmt.Sprintf("raw rubbish %d on %s: %.80q", n, address, r))
		}
	}
	for _, address := range []string{m.ours, m.older, m.signalR} {
		for n, r := range frameRubbish(rand.New(rand.NewPCG(seed, 2))) {
			c := s.upgraded(address, address == m.signalR)
			_, _ = c.NetConn().Write(r) // it may be dropped before it is through
			s.hangUp(c)
			check(fmt.Sprintf("frame rubbish %d on %s: %.80q", n, address, r))
		}
		for n, r := range textRubbish(rand.New(rand.NewPCG(seed, 3))) {
			for _, kind := range []int{websocket.TextMessage, websocket.BinaryMessage} {
				for _, shaken := range []bool{false, true} {
					c := s.upgraded(address, address == m.signalR)
					if shaken { // for ws it is more rubbish
						_ = c.WriteMessage(websocket.TextMessage, []byte(`{"protocol":"json","version":1}`+"\x1e"))
					}
					_ = c.WriteMessage(kind, r)
					s.hangUp(c)
				}
			}
			check(fmt.Sprintf("text rubbish %d on %s: %.80q", n, address, r))
		}
	}
	for n, r := range negotiationRubbish(s.ctx, m.signalR) {
		if answer, err := http.DefaultTransport.RoundTrip(r); err == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<20))
			answer.Body.Close()
		}
		check(fmt.Sprintf("negotiation rubbish %d: %s %s", n, r.Method, r.URL))
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	s.must(m.stop())
}

// wholeLAN is a LAN manager with all its ports, and how it is stopped.
type wholeLAN struct {
	ours, older, signalR, page string // host:port
	stop                       func() error
}

// wholeLAN runs a LAN manager as its file boot says.
func (s *stage) wholeLAN() wholeLAN {
	s.t.Helper()
	const signalR, older, ours, page = 22451, 23451, 23552, 23580
	first, err := s.lab.Ports(page - signalR + 1)
	s.must(err)
	shift := first - signalR
	dir := filepath.Join(s.lab.Dir, "whole")
	s.must(lab.WriteJSON(filepath.Join(dir, ".allexlanmanager", "boot"), map[string]int{"portcorrection": shift, "httpmonitorport": page}))
	s.must(lab.WriteJSON(filepath.Join(dir, ".allexlanmanager", "needs"), []int{}))
	log, err := os.Create(filepath.Join(s.lab.Dir, "whole.log"))
	s.must(err)
	defer log.Close()
	cmd := exec.Command(filepath.Join(s.lab.Bin, "lanmanager"), "--directory", dir)
	cmd.Stdout, cmd.Stderr = log, log
	s.must(cmd.Start())
	stop := sync.OnceValue(func() error {
		return errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
	})
	s.t.Cleanup(func() { _ = stop() })
	at := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port+shift) }
	m := wholeLAN{ours: at(ours), older: at(older), signalR: at(signalR), page: at(page), stop: stop}
	for _, address := range []string{m.ours, m.older, m.signalR, m.page} {
		s.until(func() string {
			c, err := net.Dial("tcp", address)
			if err != nil {
				return err.Error()
			}
			c.Close()
			return ""
		})
	}
	return m
}

// watcher is a client that behaves, with one session for as long as the test
// lasts.
type watcher struct {
	name    string
	lan     *wire.Session
	changed chan string // names of needs that came or went
}

func (s *stage) watch(name string, dial func() (wire.Conn, error)) *watcher {
	s.t.Helper()
	conn, err := dial()
	s.must(err)
	client := wire.NewClient(conn, wire.ClientOptions{})
	ctx, cancel := context.WithCancel(s.ctx)
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = client.Run(ctx) })
	s.t.Cleanup(func() { cancel(); tasks.Wait() })
	w := &watcher{name: name, changed: make(chan string, 64)}
	w.lan, err = client.Introduce(s.ctx, map[string]any{"ip": map[string]string{"name": name, "role": "user", "id": name}})
	s.must(err)
	needs, err := w.lan.Sub(s.ctx, "needs", map[string]string{})
	s.must(err)
	mirror := table.NewMirror(table.Needs)
	tasks.Go(func() {
		_ = needs.Query(ctx, map[string]bool{"continuous": true}, func(item json.RawMessage) {
			changes, err := mirror.Apply(item)
			if err != nil {
				s.t.Errorf("%s: %v", name, err)
			}
			for _, c := range changes {
				w.changed <- c.Key + " " + c.Kind.String()
			}
		})
	})
	return w
}

// round adds a need and removes it, and waits until everybody knows.
func (w *watcher) round(ctx context.Context, all []*watcher) error {
	const name = "Probe"
	for _, step := range []struct {
		method string
		arg    any
		want   string
	}{{"addNeed", record{"instancename": name, "modulename": "probe"}, name + " created"}, {"removeNeed", name, name + " deleted"}} {
		if _, err := w.lan.Call(ctx, wire.Business, step.method, step.arg); err != nil {
			return fmt.Errorf("%s: %w", step.method, err)
		}
		for _, other := range all {
			select {
			case got := <-other.changed:
				if got != step.want {
					return fmt.Errorf("%s was told %q, want %q", other.name, got, step.want)
				}
			case <-other.lan.Done():
				return fmt.Errorf("the session of %s has ended: %w", other.name, other.lan.Err())
			case <-ctx.Done():
				return fmt.Errorf("%s was not told %q", other.name, step.want)
			}
		}
	}
	return nil
}

// sendRaw sends bytes on a connection of its own, and hangs up.
func (s *stage) sendRaw(address string, text []byte) {
	s.t.Helper()
	c, err := net.Dial("tcp", address)
	s.must(err)
	defer c.Close()
	s.must(c.SetDeadline(time.Now().Add(10 * time.Second)))
	_, _ = c.Write(text)
	_ = c.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(io.Discard, c) // until the answer is complete, or nobody answers
}

// upgraded is a WebSocket, for SignalR with an id that was negotiated.
func (s *stage) upgraded(address string, negotiate bool) *websocket.Conn {
	s.t.Helper()
	url := "ws://" + address + "/"
	if negotiate {
		answer, err := http.Post("http://"+address+"/negotiate?negotiateVersion=1", "", nil)
		s.must(err)
		var n struct{ ConnectionID string }
		s.must(json.NewDecoder(answer.Body).Decode(&n))
		answer.Body.Close()
		url += "?id=" + n.ConnectionID
	}
	c, _, err := websocket.DefaultDialer.DialContext(s.ctx, url, nil)
	s.must(err)
	return c
}

// hangUp ends a connection after a unit behind all that was sent, so that the LAN
// manager has read it, if it still reads and is quick; if not the next check sees
// what that does.
func (s *stage) hangUp(c *websocket.Conn) {
	_ = c.WriteMessage(websocket.TextMessage, []byte(`["?",4711]`))
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	for {
		_, text, err := c.ReadMessage()
		if err != nil || bytes.Contains(text, []byte("4711")) {
			break
		}
	}
	c.Close()
}

func noise(random *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

const upgrade = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"

// rawRubbish is what is no HTTP, or hardly.
func rawRubbish(random *rand.Rand) [][]byte {
	texts := [][]byte{nil, noise(random, 1), noise(random, 100), noise(random, 1<<20)}
	for _, text := range []string{
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", // a client of TLS
		"SSH-2.0-x\r\n",
		"GET / HTTP/1.1\r\n",
		"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
		"GET " + strings.Repeat("/", 2<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 1<<18) + "\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nx",
		"POST /negotiate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
		"POST /negotiate HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
		upgrade + "\r\n",
		upgrade + "Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: eA==\r\n\r\n",
		upgrade + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + strings.Repeat("A", 1<<16) + "\r\n\r\n",
		upgrade + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + string(noise(random, 1000)),
		upgrade + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://evil.example\r\n\r\n",
	} {
		texts = append(texts, []byte(text))
	}
	return texts
}

// frameRubbish is what is no frame of a WebSocket, or a bad one.
func frameRubbish(random *rand.Rand) [][]byte {
	texts := [][]byte{
		{0x81, 0x05, 'h', 'e', 'l', 'l', 'o'},                                    // not masked
		{0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, // 2^63-1 bytes
		{0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, // a negative length
		{0x80, 0x80, 0, 0, 0, 0},                                                 // goes on with nothing
		{0xf1, 0x80, 0, 0, 0, 0},                                                 // reserved bits
		{0x83, 0x80, 0, 0, 0, 0},                                                 // an unknown kind
		{0x09, 0x80, 0, 0, 0, 0},                                                 // a ping in parts
		{0x89, 0xfe, 0x01, 0, 0, 0, 0},                                           // a long ping
		{0x88, 0x81, 0, 0, 0, 0, 1},                                              // a close of one byte
		{0x88, 0x82, 0, 0, 0, 0, 0, 0},                                           // a close with code 0
		{0x81, 0x84, 0, 0, 0, 0},                                                 // a frame that breaks off
		bytes.Repeat([]byte{0x89, 0x80, 0, 0, 0, 0}, 10_000),                     // pings
		append([]byte{0x01, 0x81, 0, 0, 0, 0, '['}, bytes.Repeat([]byte{0x00, 0x81, 0, 0, 0, 0, '['}, 100_000)...), // a message of many parts
	}
	for n := 1; n <= 1<<16; n *= 4 {
		texts = append(texts, noise(random, n))
	}
	return texts
}

// textRubbish is what is no unit and no message of SignalR, or an odd one.
func textRubbish(random *rand.Rand) [][]byte {
	introduce := `["i",[null,{"ip":{"name":"rubbish","role":"user","id":"rubbish"}}]]`
	call := func(inner string) string { return `["c",["no",null],` + inner + `]` }
	var texts [][]byte
	for _, text := range []string{
		"", "\x00", strings.Repeat("\x00", 1<<16), "\x1e", strings.Repeat("\x1e", 1<<16), "hello", "{", "[", "]", `"`, "null", "5", "1e999", "-", "[]", "{}", `[[]]`, `[null,null]`, `["",null]`,
		"\xff\xfe\xfd", `["` + "\xed\xa0\x80" + `",[null,null]]`, `["\ud800",[null,null]]`,
		strings.Repeat("[", 1<<20), strings.Repeat(`{"a":`, 1<<18), `["x",[null,{"ip":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}]]`,
		strings.Repeat(" ", 5<<20), `["` + strings.Repeat("x", 2<<20) + `",[null,null]]`,
		introduce + "\x00" + introduce + "\x00" + introduce, `["i",[` + introduce + `,null]]`, `["i",[null,{"ip":null}]]`, `["i",[null,{"ip":{"name":{},"role":[],"id":7}}]]`,
		`["i",[null,{"ip":{"name":"x","role":"user","id":"` + strings.Repeat("i", 300) + `"}}]]`, `["i",["` + strings.Repeat("s", 300) + `",{"ip":{"name":"x","role":"user","id":"y"}}]]`,
		call(`[".",["addNeed",null]]`), call(`["needs",["spawn",[{}]]]`), call(`[".",["__proto__",[]]]`), call(`[5,[6,7]]`), call(`null`),
		`["r","1",null]`, `["e","1",null]`, `["n","1",["c",{}]]`, `["oob",["S","-",true]]`, `["f",["f",["f"]]]`, `["~",5,"x"]`, `["~",-1,"x"]`, `["!",{}]`, `["?","x"]`, `["?",` + strings.Repeat("9", 1<<10) + `]`,
		`{"protocol":"messagepack","version":1}` + "\x1e", `{"protocol":"json","version":99}` + "\x1e", `{"protocol":"json","version":1}`,
		`{"type":1}` + "\x1e", `{"type":1,"target":"allexjs","arguments":5}` + "\x1e", `{"type":1,"target":"allexjs","arguments":[]}` + "\x1e", `{"type":1,"target":"other","arguments":[["x",[null,null]]]}` + "\x1e",
		`{"type":1,"target":"allexjs","arguments":[` + introduce + `]}` + "\x1e" + `{"type":1,"target":"allexjs","arguments":[["~",2,"[["],["~",0,"]"]]}` + "\x1e",
		`{"type":1,"target":"allexjs","arguments":[["~",99999999999,"x"]]}` + "\x1e", `{"type":1,"target":"allexjs","arguments":[["~",-5,"x"]]}` + "\x1e",
		strings.Repeat(`{"type":1,"target":"allexjs","arguments":[["~",1,"`+strings.Repeat("p", 1000)+`"]]}`+"\x1e", 3000),
		`{"type":7}` + "\x1e", `{"type":3,"invocationId":"x"}` + "\x1e", `{"type":6}` + "\x1e" + `{"type":99}` + "\x1e", `{"type":"1"}` + "\x1e",
	} {
		texts = append(texts, []byte(text))
	}
	for range 40 { // good ones in which some bytes are others
		text := []byte(introduce + "\x00" + call(`[".",["addNeed",[{"instancename":"x"}]]]`))
		for range 1 + random.IntN(4) {
			text[random.IntN(len(text))] = byte(random.Uint32())
		}
		texts = append(texts, text)
	}
	return texts
}

// negotiationRubbish is what SignalR may be asked that is no negotiation.
func negotiationRubbish(ctx context.Context, address string) []*http.Request {
	var all []*http.Request
	for _, r := range []struct{ method, path, body string }{
		{"GET", "/negotiate", ""}, {"DELETE", "/negotiate", ""}, {"POST", "/negotiate?negotiateVersion=x&x=%00", ""},
		{"POST", "/negotiate", strings.Repeat("x", 10<<20)}, {"POST", "/" + strings.Repeat("../", 1000) + "negotiate", "{}"},
		{"GET", "/", ""}, {"GET", "/?id=", ""}, {"GET", "/?id=1", ""}, {"POST", "/?id=" + strings.Repeat("1", 1<<16), "x"}, {"PUT", "/x", "x"},
	} {
		for _, ws := range []bool{false, true} {
			request, err := http.NewRequestWithContext(ctx, r.method, "http://"+address+r.path, bufio.NewReader(strings.NewReader(r.body)))
			if err != nil {
				panic(err) // they are written above
			}
			if ws {
				request.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
			}
			all = append(all, request)
		}
	}
	return all
}
