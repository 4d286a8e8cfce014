package link

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"github.com/allexgo/machine-agent/lan/wire"
)

// TestRefused: the LAN manager does not want us. The error says where and what
// helps, whether it names the introduction or not.
func TestRefused(t *testing.T) {
	for name, units := range map[string]func(r request) []string{
		"original": func(request) []string { return []string{`{"err":{}}`} },
		"ours": func(r request) []string {
			return []string{`["e","` + r.id + `",{"code":"ADDRESS_NOT_ALLOWED","message":"127.0.0.1 is in no subnet"}]`, `{"err":{}}`}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := &manager{on: func(c *conn, _ string, r request) bool {
				c.send(units(r)...)
				return true
			}}
			_, o := linked(t, m)
			down := expect[Down](t, o)
			got := down.Err.Error()
			for _, want := range []string{down.LANManager, "introduction: the LAN manager refused the introduction", ".allexlanmanager/subnets", "add this machine's there"} {
				if !strings.Contains(got, want) {
					t.Errorf("error %q lacks %q", got, want)
				}
			}
			if name == "ours" && !strings.Contains(got, "127.0.0.1 is in no subnet") {
				t.Errorf("error %q lacks the reason", got)
			}
			if down = expect[Down](t, o); down.Err.Error() != got {
				t.Errorf("then error %q, want the same again", down.Err)
			}
		})
	}
}

// speaker accepts TCP connections, waits for the request and says what it has
// to say. It returns host:port.
func speaker(t *testing.T, says string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				if _, err := http.ReadRequest(in); err == nil && says != "" {
					_, _ = conn.Write([]byte(says))
				}
				_, _ = in.ReadByte() // until the other side goes
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		tasks.Wait()
	})
	return l.Addr().String()
}

// TestRubbish: what listens is no LAN manager at all.
func TestRubbish(t *testing.T) {
	notFound := httptest.NewServer(http.NotFoundHandler())
	defer notFound.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()

	for name, test := range map[string]struct{ at, want string }{
		"plain text": {speaker(t, "220 smtp.example ready\r\n"), `malformed HTTP`},
		"binary":     {speaker(t, "\x16\x03\x01\x00\x00\xff\xfe\x00\r\n\r\n"), `malformed HTTP`},
		"http":       {strings.TrimPrefix(notFound.URL, "http://"), `does not speak WebSocket: it answered "404 Not Found"`},
		"nobody":     {nobody, "connection refused"},
		"silent":     {speaker(t, ""), "no answer within 10s: the machine can not be reached, or what listens there is no LAN manager"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOwner()
			l := New(config(o, test.at))
			if name == "silent" { // with less patience than stepWithin
				dial := l.dial
				l.dial = func(ctx context.Context, address string) (wire.Conn, error) {
					ctx, stop := context.WithTimeout(ctx, 50*time.Millisecond)
					defer stop()
					return dial(ctx, address)
				}
			}
			run(t, l)
			got := expect[Down](t, o).Err.Error()
			if !strings.HasPrefix(got, "no LAN manager at "+test.at+": ") || !strings.Contains(got, test.want) {
				t.Errorf("error %q, want the place and %q", got, test.want)
			}
		})
	}
}

// TestRubbishUnits: what listens speaks WebSocket, but does not answer the
// introduction.
func TestRubbishUnits(t *testing.T) {
	for _, frame := range []string{"hello there", `{"a":1}`, `[]`, `5`, `["r"]`, `["r","1"]`, `["r","1",null]`, `["r","1",{"session":7}]`, `["n","1",["re","x"]]`, `["oob",[]]`, `["f",null]`, `["~",1,"x"]`, "\x00\x00"} {
		t.Run(frame, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &manager{on: func(c *conn, _ string, _ request) bool {
					c.send(frame)
					return true
				}}
				_, o := piped(t, m)
				got := expect[Down](t, o).Err.Error()
				answered := "the LAN manager answered without a session"
				if !strings.Contains(got, "lan:23552: introduction: ") || !strings.Contains(got, "no answer within 10s: what listens there is overloaded, or does not speak like a LAN manager") && !strings.Contains(got, answered) {
					t.Errorf("error %q", got)
				}
			})
		})
	}
}

// TestNoise: odd units and binary frames between the good ones do no harm.
func TestNoise(t *testing.T) {
	m := &manager{needs: []string{need("Probe", "")}}
	m.on = func(c *conn, _ string, _ request) bool {
		c.mu.Lock()
		_ = c.frames.(web).WriteMessage(websocket.BinaryMessage, []byte{0, 1, 2, 0xff})
		c.mu.Unlock()
		c.send("hello", `{"a":1}`, `[]`, `["r","999",1]`, `["n","999",["c",{}]]`, `["oob",["nobody","s",{}]]`, `["f",{"a":1}]`, `["!",1]`)
		return false
	}
	l, o := linked(t, m)
	wantClean(t, o.cycle(t, l))
}

// attempt is one dial of a Link.
type attempt struct {
	address string
	wait    time.Duration // since the attempt before ended
}

// dialing is a Link in a bubble. Of its dials, counted from 0, those in up find
// a LAN manager, which leaves when the session has been up for so long; the
// others find nobody. It returns the first count of them.
func dialing(t *testing.T, count int, up []int, lasts time.Duration, addresses ...string) []attempt {
	t.Helper()
	var (
		m        = &manager{t: t}
		attempts []attempt
		done     = make(chan struct{})
		last     = time.Now()
	)
	c := config(nil, addresses...)
	c.Emit = func(_ context.Context, e Event) {
		switch e.(type) {
		case Up:
			time.AfterFunc(lasts, m.conn().close)
		case Down:
			last = time.Now()
		}
	}
	l := New(c)
	l.dial = func(ctx context.Context, address string) (wire.Conn, error) {
		n := len(attempts)
		if n == count {
			close(done)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		attempts = append(attempts, attempt{address, time.Since(last)})
		if slices.Contains(up, n) {
			return pipe(m.serve)(ctx, address)
		}
		return nil, errors.New("nobody there")
	}
	run(t, l)
	<-done
	return attempts
}

// TestRedial: the waits grow from 50 ms to 5 s, spread by a quarter, and begin
// anew after a session that lasted. A LAN manager that drops everybody at once is
// not run down.
func TestRedial(t *testing.T) {
	for lasts, after := range map[time.Duration][]time.Duration{
		time.Minute:      milliseconds(50, 100, 200),
		time.Millisecond: milliseconds(5000, 5000, 5000),
	} {
		synctest.Test(t, func(t *testing.T) {
			attempts := dialing(t, 15, []int{11}, lasts, "lan:23552")
			nominal := append(milliseconds(0, 50, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000, 5000), after...)
			for n, a := range attempts {
				if low, high := nominal[n]*3/4, nominal[n]*5/4; a.wait < low || a.wait > high {
					t.Errorf("session of %s: dial %d after %s, want %s to %s", lasts, n, a.wait, low, high)
				}
			}
		})
	}
}

// TestJitter: a quarter to both sides, and not always the same.
func TestJitter(t *testing.T) {
	seen := make(map[time.Duration]bool)
	for range 1000 {
		d := jitter(time.Second)
		if d < 750*time.Millisecond || d > 1250*time.Millisecond {
			t.Fatalf("a second became %s", d)
		}
		seen[d] = true
	}
	if len(seen) < 500 {
		t.Errorf("%d different waits of 1000", len(seen))
	}
}

// TestAddresses: the addresses are tried in turn, and the one that answered is
// kept for as long as it does.
func TestAddresses(t *testing.T) {
	const first, second = "lan:23552", "lan:23451"
	synctest.Test(t, func(t *testing.T) {
		var got []string
		for _, a := range dialing(t, 9, []int{1, 2, 5}, time.Millisecond, first, second) {
			got = append(got, a.address)
		}
		want := []string{first, second /* up */, second /* up */, second, first, second /* up */, second, first, second}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("dialed (-want +got):\n%s", diff)
		}
	})
}

// TestEnds: Run returns at once when its context ends, whatever it is at.
func TestEnds(t *testing.T) {
	for name, on := range map[string]func(*conn, string, request) bool{
		"up":      nil,
		"silence": func(*conn, string, request) bool { return true },
		"bidding": func(_ *conn, step string, _ request) bool { return step == "Probe bid" || step == "Probe die" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &manager{t: t, on: on}
				o := newOwner()
				l := New(config(o, "lan:23552"))
				l.dial = pipe(m.serve)
				ctx, stop := context.WithCancelCause(t.Context())
				ended := make(chan error)
				go func() { ended <- l.Run(ctx) }()
				synctest.Wait()
				l.Bid("Probe")
				l.ReportDown("Probe", "x", nil)
				synctest.Wait()
				began := time.Now()
				why := errors.New("enough")
				stop(why)
				if err := <-ended; err != why {
					t.Errorf("Run returned %v, want the cause", err)
				}
				if after := time.Since(began); after != 0 {
					t.Errorf("Run returned after %s", after)
				}
			})
		})
	}
}
