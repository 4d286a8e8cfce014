package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
)

// listenSignalR is listen in the SignalR envelope.
func listenSignalR(t testing.TB, l Limits, handle func(Conn)) (url string) {
	t.Helper()
	return "http://" + host(t, signalRHandler(l, handle)) + "/"
}

func signalRHandler(l Limits, handle func(Conn)) *SignalR {
	return NewSignalR(func(conn Conn) {
		defer conn.Close()
		handle(conn)
	}, SignalROptions{Limits: l})
}

func echo(conn Conn) {
	for {
		units, err := conn.Read()
		if err != nil || conn.Write(units) != nil {
			return
		}
	}
}

// readUnits reads until so many units have come.
func readUnits(t *testing.T, conn Conn, count int) []string {
	t.Helper()
	var all []string
	for len(all) < count {
		units, err := conn.Read()
		if err != nil {
			t.Fatalf("after %d units: %v", len(all), err)
		}
		all = append(all, texts(units)...)
	}
	return all
}

func TestSignalRThereAndBack(t *testing.T) {
	url := listenSignalR(t, Limits{}, echo)
	conn, err := DialSignalR(t.Context(), url, DialOptions{LocalIP: net.ParseIP("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	want := []string{`["?",1]`, `["x","` + strings.Repeat(`ž\"😀`, 50_000) + `"]`, `{"a":"\u0000\\"}`}
	for range 3 {
		if err := conn.Write([][]byte{[]byte(want[0]), {}, []byte(want[1]), []byte(want[2])}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, readUnits(t, conn, 3)); diff != "" {
			t.Fatal(diff)
		}
	}
}

func request(t *testing.T, method, url string, header http.Header) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		r.Header = header
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// What Microsoft's clients look for in the answer.
func TestNegotiation(t *testing.T) {
	url := listenSignalR(t, Limits{}, echo)
	status, body := request(t, http.MethodPost, url+"negotiate?negotiateVersion=1", nil)
	id, err := negotiatedID([]byte(body))
	if status != http.StatusOK || err != nil {
		t.Fatalf("status %d, %v: %s", status, err, body)
	}
	want := `{"connectionId":"` + id + `","availableTransports":[{"transport":"WebSockets","transferFormats":["Text"]}]}` + "\n"
	if diff := cmp.Diff(want, body); diff != "" {
		t.Error(diff)
	}
	browser := http.Header{"Origin": {"http://example.org"}}
	for _, test := range []struct {
		method, path string
		header       http.Header
		want         int
	}{
		{http.MethodGet, "negotiate", nil, http.StatusMethodNotAllowed},
		{http.MethodPost, "negotiate", browser, http.StatusForbidden},
		{http.MethodOptions, "negotiate", browser, http.StatusForbidden},
		{http.MethodGet, "?id=" + id, browser, http.StatusForbidden},
		{http.MethodGet, "?id=" + id, nil, http.StatusUpgradeRequired},
		{http.MethodPost, "any/path/negotiate", nil, http.StatusOK},
	} {
		if status, body := request(t, test.method, url+test.path, test.header); status != test.want {
			t.Errorf("%s %s: status %d: %s", test.method, test.path, status, body)
		}
	}
	ws := "ws" + strings.TrimPrefix(url, "http")
	for _, test := range []struct {
		query  string
		header http.Header
		want   int
	}{
		{"", nil, http.StatusNotFound},
		{"?id=", nil, http.StatusNotFound},
		{"?id=1", nil, http.StatusNotFound},
		{"?id=" + id, browser, http.StatusForbidden},
		{"?id=" + id, nil, http.StatusSwitchingProtocols},
		{"?id=" + id, nil, http.StatusNotFound}, // once is enough
	} {
		conn, response, err := websocket.DefaultDialer.DialContext(t.Context(), ws+test.query, test.header)
		if err == nil {
			conn.Close()
		}
		if response == nil || response.StatusCode != test.want {
			t.Errorf("%q: %v, %v", test.query, response, err)
		}
	}
}

// Negotiations that nothing follows cost no more than so much.
func TestNegotiationsAreBounded(t *testing.T) {
	s := NewSignalR(nil, SignalROptions{})
	first := s.newID()
	second := s.newID()
	for range maxNegotiated - 1 {
		s.newID()
	}
	if s.take(first) || !s.take(second) || len(s.negotiated) != maxNegotiated-1 {
		t.Errorf("%d ids wait", len(s.negotiated))
	}
}

// Who forwards a request may say for whom, but is not believed.
func TestForwardedForIsNotBelieved(t *testing.T) {
	peer := make(chan net.Addr, 1)
	url := listenSignalR(t, Limits{}, func(conn Conn) { peer <- conn.RemoteAddr() })
	header := http.Header{"X-Forwarded-For": {"10.9.8.7"}}
	_, body := request(t, http.MethodPost, url+"negotiate", header)
	id, err := negotiatedID([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(url, "http")+"?id="+id, header)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := (<-peer).(*net.TCPAddr).IP; !got.IsLoopback() {
		t.Errorf("the peer is %s", got)
	}
}

func TestDialSignalRFails(t *testing.T) {
	const usable = `{"connectionId":"1","availableTransports":[{"transport":"WebSockets","transferFormats":["Text"]}]}`
	// says is a server that answers a negotiation with a body and a hello with a frame.
	says := func(body, frame string) string {
		return host(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				_, _ = io.WriteString(w, body)
				return
			}
			f, err := upgrade(w, r, Limits{})
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if _, err := f.read(); err == nil {
				_ = f.write([]byte(frame), writeTimeout)
			}
			_, _ = f.read()
		}))
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for address, want := range map[string]string{
		closed.Addr().String():                            "refused",
		host(t, http.NotFoundHandler()):                   "404",
		says("nonsense", ""):                              "no JSON",
		says(`{"error":"full"}`, ""):                      `"full"`,
		says(`{"connectionId":"1"}`, ""):                  "offers no WebSocket",
		says(strings.Repeat(" ", handshakeBytes), ""):     "no JSON",
		says(strings.Replace(usable, `"1"`, `""`, 1), ""): "offers no WebSocket",
		says(usable, `{"error":"no"}`+"\x1e"):             `refused: "no"`,
		says(usable, "no\x1e"):                            "no JSON",
	} {
		_, err := DialSignalR(t.Context(), "http://"+address+"/", DialOptions{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), address) {
			t.Errorf("error %v, want %q and the address", err, want)
		}
	}
	for _, url := range []string{"ws://127.0.0.1/", "://"} {
		if _, err := DialSignalR(t.Context(), url, DialOptions{}); err == nil {
			t.Errorf("dialed %s", url)
		}
	}
}

func TestDialSignalRIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	url := listenSignalR(t, Limits{}, func(conn Conn) {
		cancel(why) // instead of the handshake
		_, _ = conn.(*hub).read()
		_, _ = conn.(*hub).read()
	})
	if _, err := DialSignalR(ctx, url, DialOptions{}); !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
}

// In every envelope the token reaches the server, on every request, over TLS.
func TestTokenAndTLS(t *testing.T) {
	handlers := map[string]http.Handler{
		"WebSocket": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if conn, err := Upgrade(w, r, Limits{}); err == nil {
				defer conn.Close()
				echo(conn)
			}
		}),
		"SignalR": signalRHandler(Limits{}, echo),
	}
	for _, e := range envelopes {
		var all sync.WaitGroup
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			all.Add(1)
			defer all.Done()
			if r.Header.Get("Authorization") != "Bearer secret" {
				http.Error(w, "who are you", http.StatusUnauthorized)
				return
			}
			handlers[e.name].ServeHTTP(w, r)
		}))
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.StartTLS()
		roots := x509.NewCertPool()
		roots.AddCert(server.Certificate())
		url := server.URL
		if e.name == "WebSocket" {
			url = "wss" + strings.TrimPrefix(url, "https")
		}
		o := DialOptions{TLS: &tls.Config{RootCAs: roots}, Token: "secret"}
		conn := e.connect(t, url, o)
		if err := conn.Write([][]byte{[]byte(`["?",1]`)}); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{`["?",1]`}, readUnits(t, conn, 1)); diff != "" {
			t.Errorf("%s: %s", e.name, diff)
		}
		conn.Close()
		for what, o := range map[string]DialOptions{"no token": {TLS: o.TLS}, "unknown authority": {Token: "secret"}} {
			if _, err := e.dial(t.Context(), url, o); err == nil {
				t.Errorf("%s: connected with %s", e.name, what)
			}
		}
		server.Close()
		all.Wait()
	}
}

func TestHandshakeIsChecked(t *testing.T) {
	ended := make(chan error, 1)
	url := listenSignalR(t, Limits{}, func(conn Conn) {
		_, err := conn.Read()
		ended <- err
	})
	for _, hello := range []string{keepAlive, "{}\x1e", "\x1e", "rubbish\x1e", `{"protocol":"messagepack","version":1}` + "\x1e", `{"protocol":"json","version":2}` + "\x1e"} {
		f := negotiated(t, url)
		if err := f.write([]byte(hello), writeTimeout); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err == nil {
			t.Errorf("%q was a handshake", hello)
		}
		frame, err := f.read()
		var answer struct{ Error string }
		if err == nil {
			err = json.Unmarshal([]byte(strings.TrimSuffix(string(frame), "\x1e")), &answer)
		}
		if err != nil || answer.Error == "" {
			t.Errorf("%q was answered %q, %v", hello, frame, err)
		}
	}
}

// negotiated opens the WebSocket of a SignalR server and leaves it at that.
func negotiated(t *testing.T, url string) *frames {
	t.Helper()
	_, body := request(t, http.MethodPost, url+"negotiate", nil)
	id, err := negotiatedID([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	f, err := dial(t.Context(), "ws"+strings.TrimPrefix(url, "http")+"?id="+id, DialOptions{}, DialOptions{}.connect())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Whatever a connection says, it harms no other, and the rest of what it says
// counts.
func TestRubbishHarmsNobody(t *testing.T) {
	url := listenSignalR(t, Limits{}, echo)
	good, err := DialSignalR(t.Context(), url, DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	bad := negotiated(t, url)
	for _, frame := range []string{clientHello, "rubbish\x1e{\"type\":9}\x1e", string(appendToServer(nil, []byte("not json"))), string(appendToServer(nil, []byte(`["?",1]`)))} {
		if err := bad.write([]byte(frame), writeTimeout); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{serverHello, string(appendToClient(nil, []byte(`["?",1]`)))} {
		if frame, err := bad.read(); err != nil || string(frame) != want {
			t.Errorf("got %q, %v; want %q", frame, err, want)
		}
	}
	if err := bad.ws.WriteMessage(websocket.TextMessage, []byte("\xff")); err != nil {
		t.Fatal(err)
	}
	if frame, err := bad.read(); err != nil || string(frame) != hubGoodbye {
		t.Errorf("then %q, %v", frame, err)
	}
	if err := good.Write([][]byte{[]byte(`["?",2]`)}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`["?",2]`}, readUnits(t, good, 1)); diff != "" {
		t.Error(diff)
	}
}

func TestCloseOfSignalR(t *testing.T) {
	closing := make(chan struct{})
	result := make(chan error, 2)
	url := listenSignalR(t, Limits{}, func(conn Conn) {
		go func() { // nobody shakes hands, so that this waits
			close(closing)
			result <- conn.Write([][]byte{[]byte("1")})
		}()
		<-closing
		result <- conn.Close()
		if err := conn.Close(); err != nil {
			t.Error("second time: ", err)
		}
	})
	f := negotiated(t, url)
	first, second := <-result, <-result
	if (first == nil) == (second == nil) {
		t.Errorf("Close and Write ended with %v and %v", first, second)
	}
	frame, err := f.read()
	if err == nil {
		t.Errorf("without a handshake the server said %q", frame)
	}
	if closed := new(websocket.CloseError); errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure {
		t.Errorf("without a handshake the server said %v, after which a stock master connects never again", err)
	}
	conn, err := DialSignalR(t.Context(), listenSignalR(t, Limits{}, func(conn Conn) { _, _ = conn.Read() }), DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(); !errors.Is(err, errGoodbye) {
		t.Errorf("the client read %v", err)
	}
}
