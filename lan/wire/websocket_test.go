package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
)

// host serves HTTP on a loopback port until the test ends, and waits for all
// that it does.
func host(t testing.TB, handler http.Handler) (address string) {
	t.Helper()
	var requests sync.WaitGroup
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		defer requests.Done()
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.Close()
		requests.Wait()
	})
	return server.Listener.Addr().String()
}

// listen serves WebSockets on a loopback port until the test ends. Every
// connection is handled on a goroutine of its own, which the test waits for.
func listen(t testing.TB, l Limits, handle func(Conn)) (url string) {
	t.Helper()
	return "ws://" + host(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, err := Upgrade(w, r, l); err == nil {
			defer conn.Close()
			handle(conn)
		}
	})) + "/"
}

func connect(t *testing.T, url string, o DialOptions) Conn {
	t.Helper()
	conn, err := Dial(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// connectRaw is a peer that is free to send what a Conn never would.
func connectRaw(t *testing.T, url string) *websocket.Conn {
	t.Helper()
	ws, response, err := websocket.DefaultDialer.DialContext(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	t.Cleanup(func() { ws.Close() })
	return ws
}

func texts(units [][]byte) []string {
	list := make([]string, len(units))
	for i, unit := range units {
		list[i] = string(unit)
	}
	return list
}

func TestJoin(t *testing.T) {
	long := func(n int) []byte { return []byte(strings.Repeat("x", n)) }
	tests := []struct {
		name  string
		units []int
		want  []int // lengths of frames
	}{
		{"nothing", nil, nil},
		{"one", []int{5}, []int{5}},
		{"joined by NUL", []int{5, 6, 7}, []int{20}},
		{"empty ones are none", []int{0, 5, 0}, []int{5}},
		{"exactly full", []int{frameSize - 10, 9}, []int{frameSize}},
		{"one too many", []int{frameSize - 10, 10}, []int{frameSize - 10, 10}},
		{"a long one is not split", []int{3, 200_000, 4}, []int{3, 200_000, 4}},
		{"many", []int{30_000, 30_000, 30_000, 30_000}, []int{60_001, 60_001}},
	}
	for _, test := range tests {
		var units [][]byte
		for _, n := range test.units {
			units = append(units, long(n))
		}
		var got []int
		var back int
		_, err := join(nil, units, func(frame []byte) error {
			got = append(got, len(frame))
			back += len(unjoin(frame))
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
		if test.name != "empty ones are none" && back != len(units) {
			t.Errorf("%s: %d units became %d", test.name, len(units), back)
		}
	}
	broken := errors.New("broken")
	if _, err := join(nil, [][]byte{long(3)}, func([]byte) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

func TestUnjoin(t *testing.T) {
	for frame, want := range map[string][]string{
		"a": {"a"}, "a\x00b": {"a", "b"}, "a\x00": {"a"}, "\x00\x00a\x00\x00b": {"a", "b"}, "": {}, "\x00": {},
	} {
		if diff := cmp.Diff(want, texts(unjoin([]byte(frame)))); diff != "" {
			t.Errorf("%q: %s", frame, diff)
		}
	}
}

func TestUnitsTravelTogether(t *testing.T) {
	heard := make(chan []string, 10)
	url := listen(t, Limits{}, func(conn Conn) {
		for {
			units, err := conn.Read()
			if err != nil {
				return
			}
			heard <- texts(units)
			if err := conn.Write(units); err != nil {
				t.Error(err)
			}
		}
	})
	conn := connect(t, url, DialOptions{LocalIP: net.ParseIP("127.0.0.1")})
	if got := conn.LocalAddr().(*net.TCPAddr).IP.String(); got != "127.0.0.1" {
		t.Errorf("connected from %s", got)
	}
	long := strings.Repeat("ž", 100_000) // one unit, 200 kB
	units := []string{`["?",1]`, `["?",2]`, long, `["?",3]`}
	var raw [][]byte
	for _, unit := range units {
		raw = append(raw, []byte(unit))
	}
	if err := conn.Write(raw); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]string{units[:2], units[2:3], units[3:]} {
		if diff := cmp.Diff(want, <-heard); diff != "" {
			t.Error("the server heard: ", diff)
		}
		units, err := conn.Read()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, texts(units)); diff != "" {
			t.Error("the client heard: ", diff)
		}
	}
}

func TestFramesThatAreNotRead(t *testing.T) {
	result := make(chan any, 10)
	url := listen(t, Limits{Frame: 1000}, func(conn Conn) {
		for {
			units, err := conn.Read()
			if err != nil {
				result <- err
				return
			}
			result <- texts(units)
		}
	})
	send := func(ws *websocket.Conn, kind int, frame string) {
		if err := ws.WriteMessage(kind, []byte(frame)); err != nil {
			t.Fatal(err)
		}
	}
	ws := connectRaw(t, url)
	send(ws, websocket.BinaryMessage, "ignored")
	send(ws, websocket.TextMessage, "\x00")
	send(ws, websocket.TextMessage, "a\x00b\x00")
	if diff := cmp.Diff(any([]string{"a", "b"}), <-result); diff != "" {
		t.Error(diff)
	}
	send(ws, websocket.TextMessage, "\xff")
	if err, ok := (<-result).(error); !ok || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("text that is not UTF-8: %v", err)
	}
	send(connectRaw(t, url), websocket.TextMessage, strings.Repeat("x", 1001))
	if err, ok := (<-result).(error); !ok || !errors.Is(err, ErrTooLarge) {
		t.Errorf("long frame: %v", err)
	}
}

func TestCloseEndsRead(t *testing.T) {
	ended := make(chan error, 1)
	url := listen(t, Limits{}, func(conn Conn) {
		_, err := conn.Read()
		ended <- err
	})
	conn := connect(t, url, DialOptions{})
	read := make(chan error, 1)
	go func() {
		_, err := conn.Read()
		read <- err
	}()
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if err := conn.Close(); err != nil {
		t.Error("second time: ", err)
	}
	if <-read == nil || <-ended == nil {
		t.Error("a read went on")
	}
}

func TestReadDeadline(t *testing.T) {
	url := listen(t, Limits{}, func(conn Conn) { _, _ = conn.Read() })
	conn := connect(t, url, DialOptions{})
	if err := conn.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := conn.Read(); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("error %v", err)
	}
}

func TestUpgradeRefuses(t *testing.T) {
	url := listen(t, Limits{}, func(Conn) { t.Error("it was let in") })
	response, err := http.Get("http" + strings.TrimPrefix(url, "ws"))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusUpgradeRequired || response.Header.Get("Upgrade") != "websocket" {
		t.Errorf("a plain GET got %s", response.Status)
	}
	_, response, err = websocket.DefaultDialer.Dial(url, http.Header{"Origin": {"http://example.org"}})
	if err == nil || response == nil || response.StatusCode != http.StatusForbidden {
		t.Errorf("a browser got %v, %v", response, err)
	}
}

func TestDialFails(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	rubbish := answer(t, func(conn net.Conn) { io.WriteString(conn, "SSH-2.0-OpenSSH_9.2\r\n\r\n") })
	endless := answer(t, func(conn net.Conn) {
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n")
		for {
			if _, err := io.WriteString(conn, "X-More: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
				return
			}
		}
	})
	for address, want := range map[string]string{
		closed.Addr().String():       "refused",
		web.Listener.Addr().String(): "does not speak WebSocket: it answered \"404 Not Found\"",
		rubbish:                      "malformed HTTP",
		endless:                      "too large",
	} {
		url := "ws://" + address + "/"
		_, err := Dial(t.Context(), url, DialOptions{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), url) {
			t.Errorf("error %v, want %q and the URL", err, want)
		}
	}
	if _, err := Dial(t.Context(), "http://127.0.0.1", DialOptions{}); err == nil {
		t.Error("dialed a URL that is no WebSocket's")
	}
}

// A server that accepts and says nothing holds Dial no longer than its context.
func TestDialIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	address := answer(t, func(conn net.Conn) {
		cancel(why)
		_, _ = io.Copy(io.Discard, conn)
	})
	if _, err := Dial(ctx, "ws://"+address+"/", DialOptions{}); !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
}

// answer runs a TCP server that reads a request and then does as it is told.
func answer(t *testing.T, handle func(net.Conn)) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var server sync.WaitGroup
	server.Go(func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Read(make([]byte, 4096))
		handle(conn)
	})
	t.Cleanup(func() {
		listener.Close()
		server.Wait()
	})
	return listener.Addr().String()
}
