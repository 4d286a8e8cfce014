package wire

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
)

// A LAN manager can go away in the middle of every step, in several ways, and
// each time all that waits learns it.
func TestConnectionLostInEveryStep(t *testing.T) {
	// Each step reads what leads to it, and returns when it is time to go.
	steps := map[string]func(p *peer){
		"before anything": func(*peer) {},
		"introduction":    func(p *peer) { p.next(Introduce, "") },
		"states": func(p *peer) {
			p.next(Introduce, "")
			p.say(`["oob",["S","s",{"p":["name"],"o":"s","d":"127.0.0.1"}]]`)
		},
		"introduced": func(p *peer) { p.welcome() },
		"subConnect": func(p *peer) { p.welcome(); p.next(Call, "subConnect") },
		"reserved":   func(p *peer) { reserve(p) },
		"attach":     func(p *peer) { reserve(p); p.next(Introduce, "") },
		"query":      func(p *peer) { reserve(p); attached(p); p.next(Call, "query") },
		"reading": func(p *peer) {
			reserve(p)
			attached(p)
			u := p.next(Call, "query")
			p.say(notify(u, `["i","Q"]`), notify(u, `["rb","R"]`))
		},
		"call": func(p *peer) { read(p); p.next(Call, "bid") },
		"die":  func(p *peer) { read(p); p.say(resolve(p.next(Call, "bid"), `1`)); p.next(Call, "die") },
	}
	ways := map[string]func(net.Conn){
		"close": func(net.Conn) {}, // with the close frame that listen sends
		"cut":   func(conn net.Conn) { conn.Close() },
		"reset": func(conn net.Conn) {
			_ = conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		},
		"half a frame": func(conn net.Conn) {
			_, _ = conn.Write([]byte("\x81\x20[\"r\""))
			conn.Close()
		},
	}
	for step, lead := range steps {
		for way, leave := range ways {
			t.Run(step+"/"+way, func(t *testing.T) {
				c := against(t, ClientOptions{}, func(p *peer) {
					lead(p)
					leave(p.conn.(*socket).ws.NetConn())
				})
				if err := everyStep(t.Context(), c); !errors.Is(err, ErrLost) {
					t.Errorf("error %v", err)
				}
				<-c.Lost()
				if _, err := c.Introduce(t.Context(), nil); !errors.Is(err, ErrLost) {
					t.Errorf("afterwards: %v", err)
				}
				if len(c.calls) != 0 || len(c.sessions) != 0 || len(c.introductions) != 0 {
					t.Errorf("%d calls, %d sessions, %d introductions are left", len(c.calls), len(c.sessions), len(c.introductions))
				}
			})
		}
	}
}

func reserve(p *peer) {
	p.welcome()
	p.say(resolve(p.next(Call, "subConnect"), `{"introduce":{"session":"N"}}`))
}

func attached(p *peer) {
	p.say(resolve(p.next(Introduce, ""), `{"session":"N"}`), resolve(p.next(Call, "confirmReservation"), `"ok"`))
}

func read(p *peer) {
	reserve(p)
	attached(p)
	u := p.next(Call, "query")
	p.say(notify(u, `["i","Q"]`), resolve(u, `true`))
}

// everyStep goes as far as it can; every session that it got must be done then.
func everyStep(ctx context.Context, c *Client) error {
	s, err := c.Introduce(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { <-s.Done() }()
	sub, err := s.Sub(ctx, "P", nil)
	if err != nil {
		return err
	}
	defer func() { <-sub.Done() }()
	if err := sub.Query(ctx, nil, func(json.RawMessage) {}); err != nil {
		return err
	}
	if _, err := sub.Call(ctx, Protocol, "bid"); err != nil {
		return err
	}
	return sub.Die(ctx)
}

func TestRunEndsWithItsContext(t *testing.T) {
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	url := listen(t, Limits{}, func(conn Conn) {
		p := &peer{t: t, conn: conn}
		p.next(Introduce, "")
		cancel(why)
		p.untilGone()
	})
	c := NewClient(connect(t, url, DialOptions{}), ClientOptions{})
	waiting := make(chan error, 1)
	go func() {
		_, err := c.Introduce(t.Context(), nil)
		waiting <- err
	}()
	if err := c.Run(ctx); !errors.Is(err, why) {
		t.Errorf("Run ended with %v", err)
	}
	if err := <-waiting; !errors.Is(err, ErrLost) || !errors.Is(err, why) {
		t.Errorf("the introduction ended with %v", err)
	}
}

// pipeListener is a listener whose connections are pipes.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
}

func newPipeListener() *pipeListener { return &pipeListener{conns: make(chan net.Conn, 10)} }

// dial is a connectFunc.
func (l *pipeListener) dial(context.Context, string, string) (net.Conn, error) {
	clientEnd, serverEnd := net.Pipe()
	l.conns <- serverEnd
	return clientEnd, nil
}

func (l *pipeListener) Accept() (net.Conn, error) {
	if conn, ok := <-l.conns; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.conns) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{} }

// overPipe runs a client against a server in the time of a synctest bubble, on
// a real WebSocket without a network. It returns the client, which runs, and
// what Run returns.
func overPipe(t *testing.T, o ClientOptions, handle func(*socket)) (*Client, <-chan error) {
	t.Helper()
	listener := newPipeListener()
	var all sync.WaitGroup
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all.Add(1)
		defer all.Done()
		if conn, err := Upgrade(w, r, Limits{}); err == nil {
			defer conn.Close()
			handle(conn.(*socket))
		}
	})}
	all.Go(func() { _ = server.Serve(listener) })
	f, err := dial(t.Context(), "ws://lanmanager/", DialOptions{}, listener.dial)
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(&socket{frames: f}, o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	all.Go(func() { ended <- c.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		server.Close()
		all.Wait()
	})
	return c, ended
}

// drain reads what the client sends, and answers its pings if told so.
func drain(conn *socket, answer func(ping Unit)) {
	for {
		units, err := conn.Read()
		if err != nil {
			return
		}
		for _, text := range units {
			if u, err := ParseRequest(text, Limits{}); err == nil && u.Kind == Ping {
				answer(u)
			}
		}
	}
}

func TestSilence(t *testing.T) {
	every := func(conn *socket, period time.Duration, say func() error) {
		var speaker sync.WaitGroup
		stop := make(chan struct{})
		speaker.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(period):
					if say() != nil {
						return
					}
				}
			}
		})
		drain(conn, func(Unit) {})
		close(stop)
		speaker.Wait()
	}
	unit := func(conn *socket, text string) func() error {
		return func() error { return conn.Write([][]byte{[]byte(text)}) }
	}
	tests := map[string]struct {
		server func(conn *socket)
		lost   time.Duration // 0: never
	}{
		"a silent server":            {func(conn *socket) { drain(conn, func(Unit) {}) }, 20 * time.Second},
		"rubbish is no word":         {func(conn *socket) { every(conn, 3*time.Second, unit(conn, "rubbish")) }, 20 * time.Second},
		"a ping of WebSocket is not": {func(conn *socket) { every(conn, 3*time.Second, func() error { return control(conn) }) }, 20 * time.Second},
		"any unit is":                {func(conn *socket) { every(conn, 19*time.Second, unit(conn, `["n","x",1]`)) }, 0},
		"and a pong, of course": {func(conn *socket) {
			drain(conn, func(ping Unit) {
				ping.Kind = Pong
				_ = conn.Write([][]byte{ping.AppendJSON(nil)})
			})
		}, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				c, ended := overPipe(t, ClientOptions{}, test.server)
				select {
				case <-c.Lost():
				case <-time.After(10 * time.Minute):
					if test.lost != 0 {
						t.Error("the connection is still there")
					}
					return
				}
				if after := time.Since(began); after != test.lost {
					t.Errorf("lost after %s, want %s", after, test.lost)
				}
				if err := <-ended; err == nil || !strings.Contains(err.Error(), "no word from the LAN manager for 20s") {
					t.Errorf("error %v", err)
				}
			})
		})
	}
}

func control(conn *socket) error {
	return conn.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second))
}

func TestPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		pings := make(chan string, 100)
		overPipe(t, ClientOptions{Ping: 3 * time.Second}, func(conn *socket) {
			drain(conn, func(ping Unit) {
				pings <- time.Since(began).String() + " " + string(ping.Value)
				ping.Kind = Pong
				_ = conn.Write([][]byte{ping.AppendJSON(nil)})
			})
		})
		for _, want := range []string{"3s 3000", "6s 6000", "9s 9000"} {
			if got := <-pings; got != want {
				t.Errorf("ping %s, want %s", got, want)
			}
		}
	})
}

// A server that speaks but does not listen holds the client no longer than a
// write may take.
func TestServerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c, _ := overPipe(t, ClientOptions{}, func(conn *socket) {
			for conn.Write([][]byte{[]byte(`["!",1]`)}) == nil {
				time.Sleep(time.Second)
			}
		})
		<-c.Lost()
		if after := time.Since(began); after != 10*time.Second+writeTimeout {
			t.Errorf("lost after %s", after)
		}
	})
}

func TestHandshakeTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clientEnd, serverEnd := net.Pipe()
		defer serverEnd.Close()
		go func() { _, _ = io.Copy(io.Discard, serverEnd) }()
		began := time.Now()
		_, err := dial(t.Context(), "ws://lanmanager/", DialOptions{}, func(context.Context, string, string) (net.Conn, error) {
			return clientEnd, nil
		})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != handshakeTimeout {
			t.Errorf("error %v after %s", err, time.Since(began))
		}
	})
}

// While item works nothing else is received, and nothing is lost.
func TestItemHoldsUpTheReader(t *testing.T) {
	c := against(t, ClientOptions{}, func(p *peer) {
		p.welcome()
		u := p.next(Call, "query")
		for range 100 {
			p.say(notify(u, `1`))
		}
		p.say(resolve(u, `true`))
		p.untilGone()
	})
	s := introduce(t, c)
	count := 0
	if err := s.Query(t.Context(), nil, func(json.RawMessage) { runtime.Gosched(); count++ }); err != nil || count != 100 {
		t.Errorf("%d items, error %v", count, err)
	}
}
