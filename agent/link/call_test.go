package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// TestBeginningUnits are the units with which a session begins.
func TestBeginningUnits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &manager{}
		_, o := piped(t, m)
		expect[Up](t, o)
		c := m.conn()
		lan, needs, services := c.session("lan"), c.session("needs"), c.session("services")
		want := []string{
			`[null,{"ip":{"id":"agent-1","name":"machine","role":"user"}}]]`,
			fmt.Sprintf(`[%q,null],["!",["subConnect",["needs",{"role":"user"}]]]]`, lan),
			fmt.Sprintf(`[%q,null],["!",["subConnect",["services",{"role":"user"}]]]]`, lan),
		}
		got := m.sent()
		if diff := cmp.Diff(want, got[:3]); diff != "" {
			t.Errorf("units (-want +got):\n%s", diff)
		}
		// Which of the two comes first is not said.
		for _, s := range []string{needs, services} {
			want := strings.Join([]string{
				fmt.Sprintf(`[%q,null]]`, s),
				fmt.Sprintf(`[%q,null],["!",["confirmReservation",[]]]]`, s),
				fmt.Sprintf(`[%q,null],["!",["query",[{"continuous":true}]]]]`, s),
			}, "\n")
			if units := strings.Join(got[3:], "\n"); !strings.Contains(units, want) {
				t.Errorf("units:\n%s\nlack:\n%s", units, want)
			}
		}
	})
}

// TestMessageUnits are the units of what the LAN manager is told, which it may
// answer as it likes.
func TestMessageUnits(t *testing.T) {
	for name, test := range map[string]struct {
		tell func(*Link)
		want string
	}{
		"report":             {func(l *Link) { l.ReportDown("Probe", "withdrawn", nil) }, `["notifyServiceDown",["Probe",{"reason":"withdrawn"}]]`},
		"report of a kill":   {func(l *Link) { l.ReportDown("Probe", "it ended", &process.Exit{Signal: "SIGKILL"}) }, `["notifyServiceDown",["Probe",{"reason":"it ended","status":{"signal":"SIGKILL"}}]]`},
		"report of an exit":  {func(l *Link) { l.ReportDown("Probe", "it ended", &process.Exit{}) }, `["notifyServiceDown",["Probe",{"reason":"it ended","status":{"code":0}}]]`},
		"report of a riddle": {func(l *Link) { l.ReportDown("Probe", "it ended", &process.Exit{Unknown: true}) }, `["notifyServiceDown",["Probe",{"reason":"it ended","status":{"unknown":true}}]]`},
		"report of oddness":  {func(l *Link) { l.ReportDown("\"\x00\n", "<", nil) }, `["notifyServiceDown",["\"\u0000\n",{"reason":"\u003c"}]]`},
		"failing":            {func(l *Link) { l.ReportFailing("Probe", "it loops", &process.Exit{Code: 3}) }, `["notifyServiceFails",["Probe",{"reason":"it loops","status":{"code":3}}]]`},
		"module":             {func(l *Link) { l.EngageModule("allex_time") }, `["notifyModuleEngaged",["allex_time"]]`},
		"keep":               {func(l *Link) { l.Keep([]string{"A", "B"}) }, `["keepServices",[["A","B"]]]`},
		"keep nothing":       {func(l *Link) { l.Keep(nil) }, `["keepServices",[[]]]`},
	} {
		for answer, on := range map[string]func(c *conn, r request){
			"taken":    func(c *conn, r request) { c.send(resolve(r, "1")) },
			"rejected": func(c *conn, r request) { c.send(reject(r, "METHOD_DOES_NOT_EXIST")) },
			"silence":  silent,
		} {
			t.Run(name+" "+answer, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := &manager{on: func(c *conn, step string, r request) bool {
						if r.target == "." {
							on(c, r)
						}
						return r.target == "."
					}}
					l, o := piped(t, m)
					expect[Up](t, o)
					test.tell(l)
					time.Sleep(time.Hour)
					synctest.Wait()
					if strings.HasPrefix(test.want, `["keepServices"`) && answer != "silence" {
						if r := expect[Recognised](t, o); r.Ours != (answer == "taken") || r.LANManager == "" {
							t.Errorf("recognised as %+v", r)
						}
					}
					o.none(t)
					want := []string{fmt.Sprintf(`[%q,null],[".",%s]]`, m.conn().session("lan"), test.want)}
					if diff := cmp.Diff(want, m.sent()[len(beginning):]); diff != "" {
						t.Errorf("units (-want +got):\n%s", diff)
					}
				})
			})
		}
	}
}

// TestNeedUnits are the units of the calls about needs, and what their answers
// mean.
func TestNeedUnits(t *testing.T) {
	full := table.Need{InstanceName: "Probe", ModuleName: "dotnet:Probe", PropertyHash: json.RawMessage(`{"a":[1]}`),
		Strategies: json.RawMessage(`{"ip":[]}`), IPAddress: "10.0.0.0/8", Ports: table.Ports{TCP: 1, WS: 3}, Timeout: 7}
	for name, test := range map[string]struct {
		ask    func(context.Context, *Link) error
		answer func(*conn, request)
		unit   string
		want   func(error) bool
	}{
		"add": {
			func(ctx context.Context, l *Link) error { return l.AddNeed(ctx, full) }, resolving("true"),
			`["addNeed",[{"instancename":"Probe","ipaddress":"10.0.0.0/8","modulename":"dotnet:Probe","propertyhash":{"a":[1]},"strategies":{"ip":[]},"tcpport":1,"timeout":7,"wsport":3}]]`,
			func(err error) bool { return err == nil },
		},
		"add refused": {
			func(ctx context.Context, l *Link) error {
				return l.AddNeed(ctx, table.Need{InstanceName: "P", ModuleName: "m"})
			}, rejecting("NEED_NOT_DEFINED"),
			`["addNeed",[{"instancename":"P","modulename":"m"}]]`,
			func(err error) bool {
				var rejected *wire.RejectedError
				return errors.As(err, &rejected) && rejected.Code == "NEED_NOT_DEFINED"
			},
		},
		"remove": {
			func(ctx context.Context, l *Link) error { return l.RemoveNeed(ctx, "Probe") }, resolving("true"),
			`["removeNeed",["Probe"]]`,
			func(err error) bool { return err == nil },
		},
		"remove without an answer": {
			func(ctx context.Context, l *Link) error {
				ctx, stop := context.WithTimeout(ctx, time.Minute)
				defer stop()
				return l.RemoveNeed(ctx, "Probe")
			}, silent,
			`["removeNeed",["Probe"]]`,
			func(err error) bool { return errors.Is(err, context.DeadlineExceeded) },
		},
		"remove while the session is lost": {
			func(ctx context.Context, l *Link) error { return l.RemoveNeed(ctx, "Probe") },
			func(c *conn, _ request) { c.close() },
			`["removeNeed",["Probe"]]`,
			func(err error) bool {
				return errors.Is(err, ErrNoSession) && strings.Contains(err.Error(), "lost before the answer came")
			},
		},
		"remove in a forgotten session": {
			func(ctx context.Context, l *Link) error { return l.RemoveNeed(ctx, "Probe") },
			func(c *conn, r request) { c.send(forget(r)) },
			`["removeNeed",["Probe"]]`,
			func(err error) bool {
				return errors.Is(err, ErrNoSession) && strings.Contains(err.Error(), "lost before the answer came")
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &manager{on: func(c *conn, _ string, r request) bool {
					if r.target == "." {
						test.answer(c, r)
					}
					return r.target == "."
				}}
				l, o := piped(t, m)
				expect[Up](t, o)
				lan := m.conn().session("lan")
				if err := test.ask(t.Context(), l); !test.want(err) {
					t.Errorf("error %v", err)
				}
				want := []string{fmt.Sprintf(`[%q,null],[".",%s]]`, lan, test.unit)}
				if diff := cmp.Diff(want, m.sent()[len(beginning):][:1]); diff != "" {
					t.Errorf("units (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestWithoutSession: calls fail at once, messages come to nothing.
func TestWithoutSession(t *testing.T) {
	l := New(config(newOwner(), "lan:23552"))
	if err := l.AddNeed(t.Context(), table.Need{InstanceName: "A"}); !errors.Is(err, ErrNoSession) {
		t.Errorf("AddNeed: %v", err)
	}
	if err := l.RemoveNeed(t.Context(), "A"); !errors.Is(err, ErrNoSession) {
		t.Errorf("RemoveNeed: %v", err)
	}
	<-l.ReportDown("A", "", nil)
	l.EngageModule("m")
	l.Keep(nil)
	l.Flush(t.Context())
}

// TestFlush waits for the answers to what was told, but no longer than it may.
func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slowness = 300 * time.Millisecond
		m := &manager{on: func(c *conn, step string, r request) bool {
			switch step {
			case "lan notifyServiceDown Late":
				time.Sleep(slowness)
				c.send(resolve(r, "1"))
			case "lan notifyServiceDown Never":
			default:
				return false
			}
			return true
		}}
		l, o := piped(t, m)
		expect[Up](t, o)
		for _, test := range []struct {
			name string
			want time.Duration
		}{{"Late", slowness}, {"Never", time.Second}} {
			l.ReportDown(test.name, "the agent leaves", nil)
			began := time.Now()
			ctx, stop := context.WithTimeout(t.Context(), time.Second)
			l.Flush(ctx)
			stop()
			if after := time.Since(began); after != test.want {
				t.Errorf("%s: flushed after %s, want %s", test.name, after, test.want)
			}
		}
	})
}

// TestReportIsAnswered: a report says when the LAN manager has taken it, and when
// nothing of that is to be awaited any more.
func TestReportIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slowness = 300 * time.Millisecond
		m := &manager{on: func(c *conn, step string, r request) bool {
			switch step {
			case "lan notifyServiceDown Late":
				time.Sleep(slowness)
				c.send(resolve(r, "1"))
			case "lan notifyServiceDown Lost":
				time.Sleep(slowness)
				c.close()
			default:
				return false
			}
			return true
		}}
		l, o := piped(t, m)
		expect[Up](t, o)
		for _, name := range []string{"Late", "Lost"} {
			began := time.Now()
			<-l.ReportDown(name, "", nil)
			if after := time.Since(began); after != slowness {
				t.Errorf("%s: answered after %s, want %s", name, after, slowness)
			}
		}
	})
}
