package wire

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/lan/transcript"
)

// hubOverPipe serves in the time of a synctest bubble, without a network.
func hubOverPipe(t *testing.T, handler http.Handler) *pipeListener {
	t.Helper()
	listener := newPipeListener()
	var all sync.WaitGroup
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all.Add(1)
		defer all.Done()
		handler.ServeHTTP(w, r)
	})}
	all.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Close()
		all.Wait()
	})
	return listener
}

var lanmanagerURL = url.URL{Scheme: "http", Host: "lanmanager", Path: "/"}

// open is the WebSocket of a SignalR server, before the handshake.
func (l *pipeListener) open(t *testing.T) *frames {
	t.Helper()
	id, err := negotiate(t.Context(), &lanmanagerURL, DialOptions{}, l.dial)
	if err != nil {
		t.Fatal(err)
	}
	f, err := dial(t.Context(), "ws://lanmanager/?id="+id, DialOptions{}, l.dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// greet shakes hands.
func (l *pipeListener) greet(t *testing.T) *frames {
	t.Helper()
	f := l.open(t)
	if err := f.write([]byte(clientHello), writeTimeout); err != nil {
		t.Fatal(err)
	}
	if frame, err := f.read(); err != nil || string(frame) != serverHello {
		t.Fatalf("greeted with %q, %v", frame, err)
	}
	return f
}

var pingNumber = regexp.MustCompile(`(\["?\[?\[\\"\?\\",)\d+`)

// A client that sends the frames of the recorded master, byte by byte, gets from
// our envelope the recorded frames, byte by byte; the pings it makes by itself.
func TestServerAsRecorded(t *testing.T) {
	recording := recordedFrames(t, "master-signalr.log")
	synctest.Test(t, func(t *testing.T) {
		listener := hubOverPipe(t, signalRHandler(Limits{}, func(conn Conn) {
			for _, frame := range recording {
				units, err := unpackerOf(frame.Kind).open([]byte(frame.Text))
				if err != nil {
					t.Error(err)
				}
				if frame.Kind == transcript.FromClient {
					got, err := conn.Read()
					if diff := cmp.Diff(strings.Join(texts(units), "\n"), strings.Join(texts(got), "\n")); err != nil || diff != "" {
						t.Errorf("line %d: %v %s", frame.Number, err, diff)
					}
				} else if len(units) > 0 && !strings.HasPrefix(string(units[0]), `["?"`) {
					if err := conn.Write(units); err != nil {
						t.Errorf("line %d: %v", frame.Number, err)
					}
				}
			}
		}))
		f := listener.open(t)
		for _, frame := range recording {
			if frame.Kind == transcript.FromClient {
				if err := f.write([]byte(frame.Text), writeTimeout); err != nil {
					t.Fatal(err)
				}
				continue
			}
			got, err := f.read()
			if err != nil {
				t.Fatal(err)
			}
			want := pingNumber.ReplaceAllString(frame.Text, "${1}n")
			if diff := cmp.Diff(want, pingNumber.ReplaceAllString(string(got), "${1}n")); diff != "" {
				t.Errorf("line %d: %s", frame.Number, diff)
			}
		}
	})
}

// Our client sends what the recorded master did, byte by byte, from the first
// request on, and understands what it got.
func TestClientAsRecorded(t *testing.T) {
	recording := recordedFrames(t, "master-signalr.log")
	const answer = `{"connectionId":"1","availableTransports":[{"transport":"WebSockets","transferFormats":["Text"]},{"transport":"LongPolling","transferFormats":["Text"]}]}`
	synctest.Test(t, func(t *testing.T) {
		listener := hubOverPipe(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost && r.URL.RequestURI() == "/negotiate?negotiateVersion=1" {
				_, _ = io.WriteString(w, answer)
				return
			}
			if r.URL.RequestURI() != "/?id=1" {
				t.Errorf("%s %s", r.Method, r.URL)
			}
			f, err := upgrade(w, r, Limits{})
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			for _, frame := range recording {
				if frame.Kind == transcript.FromServer {
					if err := f.write([]byte(frame.Text), writeTimeout); err != nil {
						t.Error(err)
					}
					continue
				}
				got, err := f.read()
				if diff := cmp.Diff(frame.Text, string(got)); err != nil || diff != "" {
					t.Errorf("line %d: %v %s", frame.Number, err, diff)
				}
			}
		}))
		conn, err := dialSignalR(t.Context(), lanmanagerURL.String(), DialOptions{}, listener.dial)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, frame := range recording[3:] {
			units, err := unpackerOf(frame.Kind).open([]byte(frame.Text))
			if err != nil {
				t.Fatal(err)
			}
			if frame.Kind == transcript.FromClient {
				if err := conn.Write(units); err != nil {
					t.Fatal(err)
				}
				continue
			}
			got, err := conn.Read()
			if diff := cmp.Diff(texts(units), texts(got)); err != nil || diff != "" {
				t.Errorf("line %d: %v %s", frame.Number, err, diff)
			}
		}
		if _, err := conn.Read(); err == nil { // until the server has read all
			t.Error("there is more than was recorded")
		}
	})
}

// A client that connects and does not shake hands is gone after 10 s, or sooner,
// if its reader likes, whatever else it says.
func TestNoHandshake(t *testing.T) {
	for name, test := range map[string]struct {
		deadline time.Duration // 0: none
		want     time.Duration
	}{
		"no deadline":    {0, handshakeTimeout},
		"a later one":    {20 * time.Second, handshakeTimeout},
		"an earlier one": {3 * time.Second, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan error)
				listener := hubOverPipe(t, signalRHandler(Limits{}, func(conn Conn) {
					if test.deadline > 0 {
						_ = conn.SetReadDeadline(time.Now().Add(test.deadline))
					}
					_, err := conn.Read()
					ended <- err
				}))
				f := listener.open(t)
				began := time.Now()
				var speaker sync.WaitGroup
				defer speaker.Wait()
				speaker.Go(func() {
					for f.write([]byte("{"), writeTimeout) == nil { // half a message is none
						time.Sleep(2500 * time.Millisecond)
					}
				})
				if err := <-ended; !isTimeout(err) || time.Since(began) != test.want {
					t.Errorf("after %s: %v", time.Since(began), err)
				}
			})
		})
	}
}

// The deadline of the reader holds as soon as the handshake is over.
func TestDeadlineAfterHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error)
		listener := hubOverPipe(t, signalRHandler(Limits{}, func(conn Conn) {
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := conn.Read(); err != nil {
				t.Error(err)
			}
			_, err := conn.Read()
			ended <- err
		}))
		began := time.Now()
		f := listener.greet(t)
		go func() { _, _ = f.read(); _, _ = f.read(); _, _ = f.read() }()
		if err := <-ended; !isTimeout(err) || time.Since(began) != 20*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}

func TestNegotiationExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSignalR(nil, SignalROptions{})
		early, late := s.newID(), s.newID()
		time.Sleep(negotiatedLife - 1)
		if !s.take(early) {
			t.Error("an id was forgotten before its time")
		}
		time.Sleep(1)
		if s.take(late) || len(s.negotiated) != 0 {
			t.Error("an id lives for ever")
		}
	})
}

// Who has nothing to say says that it is there: a server by a ping unit 10 s
// after it wrote last, a client by a keep-alive after 15 s.
func TestBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := hubOverPipe(t, signalRHandler(Limits{}, func(conn Conn) {
			for {
				units, err := conn.Read()
				if err != nil || conn.Write(units) != nil {
					return
				}
			}
		}))
		f := listener.greet(t)
		began := time.Now()
		time.Sleep(4 * time.Second)
		if err := f.write(appendToServer(nil, []byte("1")), writeTimeout); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"4s 1", `14s ["?",14000]`, `24s ["?",24000]`, `34s ["?",34000]`} {
			frame, err := f.read()
			units, _ := unpackerOf(transcript.FromServer).open(frame)
			if got := time.Since(began).String() + " " + strings.Join(texts(units), " "); err != nil || got != want {
				t.Errorf("%s, %v; want %s", got, err, want)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		silent := make(chan struct{})
		heard := make(chan string, 10)
		began := time.Now()
		listener := hubOverPipe(t, signalRHandler(Limits{}, func(conn Conn) {
			h := conn.(*hub)
			if _, err := h.Read(); err != nil {
				t.Error(err)
			}
			for {
				frame, err := h.read()
				if err != nil {
					close(silent)
					return
				}
				heard <- time.Since(began).String() + " " + string(frame)
			}
		}))
		conn, err := dialSignalR(t.Context(), lanmanagerURL.String(), DialOptions{}, listener.dial)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				if _, err := conn.Read(); err != nil {
					return
				}
			}
		}()
		for _, want := range []string{"0s " + keepAlive, "15s " + keepAlive, "30s " + keepAlive} {
			if got := <-heard; got != want {
				t.Errorf("heard %q, want %q", got, want)
			}
		}
		conn.Close()
		<-silent
		time.Sleep(time.Minute) // in which a beat of a closed connection would be one too many
	})
}

// A Client in this envelope lives on the beats of a server that says nothing else.
func TestClientLivesOnBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cut sync.WaitGroup
		listener := hubOverPipe(t, signalRHandler(Limits{}, func(conn Conn) {
			for {
				_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
				if _, err := conn.Read(); err != nil {
					return
				}
			}
		}))
		conn, err := dialSignalR(t.Context(), lanmanagerURL.String(), DialOptions{}, listener.dial)
		if err != nil {
			t.Fatal(err)
		}
		c := NewClient(conn, ClientOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		cut.Go(func() { _ = c.Run(ctx) })
		select {
		case <-c.Lost():
			t.Error("lost")
		case <-time.After(10 * time.Minute):
		}
		cancel()
		cut.Wait()
	})
}

// A client that does not read holds a write, a beat and a Close no longer than
// they may take.
func TestHubThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := make(chan time.Duration, 2)
		listener := hubOverPipe(t, signalRHandler(Limits{}, func(conn Conn) {
			if _, err := conn.Read(); err != nil {
				t.Error(err)
			}
			began := time.Now()
			if _, err := conn.Read(); err == nil || errors.Is(err, errGoodbye) { // until the beat gives up
				t.Errorf("error %v", err)
			}
			took <- time.Since(began)
		}))
		f := listener.greet(t)
		if got := <-took; got != serverBeat+writeTimeout+closeTimeout && got != serverBeat+writeTimeout {
			t.Errorf("the beat gave up after %s", got)
		}
		f.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		took := make(chan time.Duration, 1)
		listener := hubOverPipe(t, signalRHandler(Limits{}, func(conn Conn) {
			if _, err := conn.Read(); err != nil {
				t.Error(err)
			}
			wrote := make(chan error)
			go func() { wrote <- conn.Write([][]byte{[]byte("1")}) }()
			synctest.Wait()
			began := time.Now()
			conn.Close()
			if err := <-wrote; err == nil {
				t.Error("a write went on")
			}
			took <- time.Since(began)
		}))
		f := listener.greet(t)
		if got := <-took; got > closeTimeout {
			t.Errorf("Close took %s", got)
		}
		f.Close()
	})
}
