//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// TestQuirk is what the original does and a LAN manager had better not: for each
// line of lan/PROTOCOL.md section 14 that an agent meets, and for what older
// versions, losses and other machines add to that, a scripted LAN manager that
// does so. Under each of them a real agent serves every need, starts nothing
// twice, and recovers.
//
//	line  quirk                               shown by
//	 1    a session wipes its address         1_wiped_by_another_session
//	 2    a drop wipes nothing, or all        2_drop_..., 2_nothing_is_ever_wiped, 2_restart
//	 3    removeNeed makes a phantom          3_phantom
//	 4    tickets, timeout, endless bids      4_bid_pending_for_ever; every test: the ticket is sent back
//	 5    a response without pid              5_accepted_and_not_satisfied; every test: we send one
//	 6    roles are not enforced              an agent asks for no more than user
//	 7    a call to a subservice is deadly    every test: the agent makes none
//	 8    {"err":{}} instead of an answer     8_err_for_an_answer
//	 9    limit and offset                    every test: the agent uses neither
//	10    a null-filter u                     10_null_filter
//	11    raw TCP on a dual-stack host        an agent dials WebSocket only
//	12    ranges from their unmasked base     12_range_with_host_bits
//	13    a master outlives SIGTERM           nothing that a LAN manager sees
//	14    paired and stray u and d            14_stray_items; pairs in every test
//	15    the port office stays behind        nothing that a LAN manager sees
//
//	PROTOCOL section                          shown by
//	 0    only the port of old versions       0_on_23451_only
//	 1.1  several units in a frame, long ones 1.1_...
//	 2    f                                   2_forgotten/... (of the beginning: TestForgottenBeginning in agent/link)
//	 4    an absent need is never answered    4_absent_need_never_answered
//	 5    no "-" at the end of a session      5_no_end
//	 8    ALREADY_DESTROYED                   8_already_destroyed
//	 8    NO_PORTS_REACHABLE for a while      8_no_ports_for_a_while
//	10    no pongs                            10_silence
func TestQuirk(t *testing.T) {
	for name, test := range map[string]func(*scene){
		"1_wiped_by_another_session":   wipedByAnother,
		"2_drop_wipes_at_the_next":     func(p *scene) { p.drop() },
		"2_drop_wipes_at_once":         func(p *scene) { p.o.do(func() { p.o.wipesDrops = true }); p.drop() },
		"2_nothing_is_ever_wiped":      nothingWiped,
		"2_restart":                    restart,
		"3_phantom":                    phantom,
		"4_bid_pending_for_ever":       pendingForEver,
		"4_absent_need_never_answered": absentNeed,
		"5_accepted_and_not_satisfied": notSatisfied,
		"5_no_end":                     func(p *scene) { p.o.do(func() { p.o.noEnd = true }); p.life() },
		"8_err_for_an_answer":          errForAnAnswer,
		"8_already_destroyed":          func(p *scene) { p.refuseOnce("ALREADY_DESTROYED", 1) },
		"8_no_ports_for_a_while":       func(p *scene) { p.refuseOnce("NO_PORTS_REACHABLE", 2) },
		"10_null_filter":               nullFilter,
		"10_silence":                   silence,
		"12_range_with_host_bits":      hostBits,
		"14_stray_items":               func(p *scene) { p.o.do(func() { p.o.strays = true }); p.life() },
		"0_on_23451_only":              oldPort,
		"1.1_units_in_one_frame":       func(p *scene) { p.o.do(func() { p.o.piles = true }); p.life() },
		"1.1_long_unit":                longUnit,
		"2_forgotten":                  forgotten,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(newScene(t))
		})
	}
}

// scene is a stage with an original that has three needs.
type scene struct {
	*stage
	address string
	o       *original
	a       *lab.Agent
	before  map[string]lab.Child // the processes when all were served last
	past    []lab.Child          // those that were killed
}

func newScene(t *testing.T) *scene {
	s := newStage(t)
	port, err := s.lab.Ports(1)
	s.must(err)
	p := &scene{stage: s, address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	p.manage()
	return p
}

// manage starts an original.
func (p *scene) manage() {
	var wanted []record
	for _, n := range needs(3, "hello") {
		wanted = append(wanted, record{"instancename": n.InstanceName, "modulename": n.ModuleName})
	}
	p.o = startOriginal(p.t, p.address, wanted)
}

// when has the original ask first about each request, with its lock held, what
// has dealt with it.
func (p *scene) when(on func(step string, r request, args []json.RawMessage) (dealt bool)) {
	p.o.do(func() { p.o.on = on })
}

// come has the agent come.
func (p *scene) come(config map[string]any) {
	p.t.Helper()
	p.a = p.agent("machine", lab.AgentFiles{LANManager: p.address, Config: config})
}

// all waits until every need is served, since so many changes.
func (p *scene) all(what string, changes int) {
	p.t.Helper()
	p.o.await(p.stage, what, func(at map[string]string, history []shift) bool {
		return len(at) == 3 && len(history) >= changes
	})
}

// begin has the agent come, and all needs served.
func (p *scene) begin(config map[string]any) {
	p.t.Helper()
	p.come(config)
	p.all("the needs are served", 3)
	p.before = p.singles()
}

// unmoved makes sure that the processes are those that there were.
func (p *scene) unmoved() {
	p.t.Helper()
	if diff := cmp.Diff(p.before, p.singles()); diff != "" {
		p.t.Errorf("other processes (-before +after):\n%s", diff)
	}
	p.started(p.before, p.past...)
}

// killed kills a child and waits for its replacement.
func (p *scene) killed() {
	p.t.Helper()
	const victim = "hello-1"
	old, seen := p.child(victim), len(p.o.since(0))
	old.Kill()
	p.all("the killed one is served again", seen+2)
	now := p.child(victim)
	if now == old {
		p.t.Errorf("%s is still process %d", victim, old.PID)
	}
	want := []shift{{victim, "127.0.0.1", false}, {victim, "127.0.0.1", true}}
	if got := p.o.since(seen); !slices.Equal(got, want) {
		p.t.Errorf("after the kill: %+v, want %+v", got, want)
	}
	p.past = append(p.past, old)
	p.before[victim] = now
	p.unmoved()
}

// life is what there is to see of an agent: it serves, replaces, and comes back.
func (p *scene) life() {
	p.begin(nil)
	p.killed()
	p.drop()
}

// drop cuts the connection. The services are back, with the same processes.
func (p *scene) drop() {
	if p.a == nil {
		p.begin(nil)
	}
	seen := len(p.o.since(0))
	p.o.cut("127.0.0.1")
	p.all("the services are back", seen+6)
	p.unmoved()
	p.killed()
}

func wipedByAnother(p *scene) {
	p.begin(nil)
	for range 3 {
		seen := len(p.o.since(0))
		p.o.do(func() { p.o.wipe("127.0.0.1") })
		p.all("the services are back", seen+6)
		p.unmoved()
	}
	p.killed()
}

// nothingWiped: neither the loss of a session nor a new one takes services off.
// What has ended meanwhile is for the agent to say.
func nothingWiped(p *scene) {
	p.o.do(func() { p.o.keeps = true })
	var refusing atomic.Bool
	p.when(func(step string, r request, _ []json.RawMessage) bool {
		return refusing.Load() && step == "introduce"
	})
	p.begin(nil)
	seen := len(p.o.since(0))
	refusing.Store(true)
	p.o.cut("127.0.0.1")
	p.until(func() string {
		if link := p.link(p.a); link.GetConnected() {
			return "the agent has not noticed: " + link.String()
		}
		return ""
	})
	old := p.child("hello-1")
	old.Kill()
	p.gone(old)
	if more := p.o.since(seen); len(more) > 0 {
		p.t.Errorf("without a session the table changed: %v", more)
	}
	refusing.Store(false)
	p.o.cut("127.0.0.1")
	p.all("the one that ended is served again", seen+2)
	if more := p.o.since(seen); len(more) != 2 || more[0] != (shift{"hello-1", "127.0.0.1", false}) {
		p.t.Errorf("the table changed by %v, want hello-1 down and up", more)
	}
	p.past = append(p.past, old)
	p.before["hello-1"] = p.child("hello-1")
	p.unmoved()
}

// restart: the LAN manager comes back without services.
func restart(p *scene) {
	p.begin(nil)
	p.o.stop()
	p.manage()
	p.all("the services are on the new table", 3)
	p.unmoved()
	p.killed()
}

// phantom: a need that is removed while its process is offered becomes a service
// without an address. The process is nobody's rival, and serves when it is
// needed again.
func phantom(p *scene) {
	removed := false
	p.when(func(step string, r request, _ []json.RawMessage) bool {
		if removed || step != "need!respond" || r.session.need != "hello-0" {
			return false
		}
		removed = true
		p.o.removeNeed("hello-0")
		p.o.reject(r, "ALREADY_DESTROYED", "")
		return true
	})
	p.come(map[string]any{"orphangrace": "100ms"})
	p.o.await(p.stage, "two services and a phantom", func(at map[string]string, history []shift) bool {
		_, there := at["hello-0"]
		return there && len(history) == 2
	})
	p.until(func() string {
		if place := p.process(p.a, "hello-0").GetPlace(); place != pb.ProcessPlace_PROCESS_PLACE_UNNEEDED {
			return fmt.Sprintf("hello-0 is %v", place)
		}
		return ""
	})
	p.before = p.singles()
	select {
	case <-time.After(500 * time.Millisecond): // far beyond the grace of an orphan
	case <-p.ctx.Done():
	}
	p.unmoved()
	p.o.do(func() { // an operator takes the phantom off, and adds the need again
		p.o.wanted["hello-0"] = record{"instancename": "hello-0", "modulename": "hello"}
		p.o.down(equal("instancename", "hello-0"), "hello-0")
	})
	p.all("the need that came back is served", 3)
	p.unmoved()
}

// pendingForEver: somebody else holds a need and does nothing.
func pendingForEver(p *scene) {
	somebody := &session{kind: "need", need: "hello-0"}
	p.o.do(func() { p.o.bids["hello-0"].holder = somebody })
	p.come(nil)
	p.o.await(p.stage, "the other needs are served", func(at map[string]string, _ []shift) bool { return len(at) == 2 })
	p.decided(p.a, "hello-0", pb.Decision_DECISION_BID_PENDING)
	if all := p.lab.Children()["hello-0"]; len(all) > 0 {
		p.t.Errorf("%v runs for a need that somebody else has", all)
	}
	p.o.do(func() { p.o.yield(somebody) })
	p.all("the need that was let go is served", 3)
	p.before = p.singles()
	p.unmoved()
	p.killed()
}

// absentNeed: the need of a service that went down opens only when somebody has
// asked for it, who is never answered.
func absentNeed(p *scene) {
	asked, gone := false, false
	p.o.do(func() { p.o.swallows = true })
	p.when(func(step string, r request, args []json.RawMessage) bool {
		switch {
		case step == "lan.notifyServiceDown":
			name := word(args[0])
			p.o.resolve(r, 1)
			service := p.o.services[name]
			delete(p.o.services, name)
			p.o.tell("services", "d", equal("instancename", name))
			p.o.note(name, service, false)
			gone = true
		case step == "needs!subConnect" && p.o.needs[word(args[0])] == nil:
			asked = true // and no more
		default:
			return false
		}
		if asked && gone {
			p.o.open("hello-1")
		}
		return true
	})
	p.begin(nil)
	p.killed()
	if !asked {
		p.t.Error("nobody asked too early")
	}
}

// notSatisfied: somebody else's response without a pid is accepted. The need
// stays open, with that one's address and ports in it.
func notSatisfied(p *scene) {
	somebody := &session{kind: "need", need: "hello-0"}
	p.o.do(func() { p.o.bids["hello-0"].holder = somebody })
	p.come(nil)
	p.decided(p.a, "hello-0", pb.Decision_DECISION_BID_PENDING)
	p.o.do(func() {
		for field, value := range map[string]any{"ipaddress": "127.0.0.1", "tcpport": 7, "httpport": 8, "wsport": 9} {
			p.o.needs["hello-0"][field] = value
			p.o.tell("needs", "u", equal("instancename", "hello-0"), p.o.needs["hello-0"])
			p.o.tell("needs", "u", equal("instancename", "hello-0"), record{field: value})
		}
		p.o.yield(somebody)
	})
	p.all("all needs are served", 3)
	if port := p.running(p.a)["hello-0"].GetPorts().GetHttp(); port == 8 {
		p.t.Errorf("it serves on port %d, which is another's", port)
	}
	p.before = p.singles()
	p.unmoved()
	p.killed()
}

// refuseOnce: the first responses to a need are refused.
func (p *scene) refuseOnce(code string, times int) {
	p.when(func(step string, r request, _ []json.RawMessage) bool {
		if step != "need!respond" || r.session.need != "hello-1" || times == 0 {
			return false
		}
		times--
		p.o.reject(r, code, "")
		return true
	})
	p.begin(nil)
	p.unmoved()
	p.killed()
}

// errForAnAnswer: the agent is not admitted at first, and says what helps.
func errForAnAnswer(p *scene) {
	var admits atomic.Bool
	p.when(func(step string, r request, _ []json.RawMessage) bool {
		if step != "introduce" || admits.Load() {
			return false
		}
		p.o.must(r.session.conn.WriteMessage(1, []byte(`{"err":{}}`)))
		return true
	})
	p.come(nil)
	p.until(func() string {
		out, err := p.a.Ctl(p.ctx, "status")
		p.must(err)
		if !strings.Contains(out, ".allexlanmanager/subnets") {
			return "the cure in:\n" + out
		}
		return ""
	})
	admits.Store(true)
	p.all("the needs are served", 3)
	p.before = p.singles()
	p.unmoved()
}

// nullFilter: what notifyModuleEngaged does to one table, on all of them.
func nullFilter(p *scene) {
	upsert := func() {
		for _, table := range []string{"needs", "services"} {
			p.o.tell(table, "u", nil, record{"upsert": true})
		}
	}
	p.when(func(string, request, []json.RawMessage) bool {
		upsert()
		return false
	})
	p.begin(nil)
	p.o.do(upsert)
	p.killed()
	p.drop()
}

// silence: the LAN manager says nothing any more, not even to pings, and its
// connection stays.
func silence(p *scene) {
	var silent atomic.Bool
	var pings atomic.Int32
	p.begin(nil)
	seen := len(p.o.since(0))
	first := map[*peer]bool{}
	p.o.do(func() {
		for c := range p.o.peers {
			first[c] = true
		}
		p.o.on = func(step string, r request, _ []json.RawMessage) bool {
			if step == "ping" {
				pings.Add(1)
			}
			return silent.Load() && first[r.session.conn]
		}
	})
	silent.Store(true)
	p.all("the services are back over another connection", seen+6)
	if pings.Load() == 0 {
		p.t.Error("it never asked whether the LAN manager lives")
	}
	p.unmoved()
	p.killed()
}

// hostBits: to the original this range is 127.0.0.9 to 16, so that it does not
// take the offer of a machine at 127.0.0.8.
func hostBits(p *scene) {
	p.o.do(func() {
		p.o.wanted["hello-0"]["ipaddress"] = "127.0.0.9/29"
		p.o.open("hello-0")
	})
	var bids atomic.Int32
	p.when(func(step string, r request, _ []json.RawMessage) bool {
		if step == "need!bid" && r.session.need == "hello-0" {
			bids.Add(1)
		}
		return false
	})
	p.come(map[string]any{"address": "127.0.0.8"})
	p.o.await(p.stage, "the other needs are served", func(at map[string]string, _ []shift) bool { return len(at) == 2 })
	p.decided(p.a, "hello-0", pb.Decision_DECISION_ADDRESS)
	if n := bids.Load(); n != 1 {
		p.t.Errorf("%d offers, want one", n)
	}
}

// oldPort: nobody is at the present port, the LAN manager at the old one.
func oldPort(p *scene) {
	p.o.stop()
	first, err := p.lab.Ports(23552 - 23451 + 1)
	p.must(err)
	p.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(first))
	p.manage()
	p.begin(map[string]any{"lanmanagerport": nil, "lanmanagerportcorrection": first - 23451})
	if at := p.link(p.a).GetLanManager(); at != p.address {
		p.t.Errorf("the LAN manager is at %s, want %s", at, p.address)
	}
	p.until(func() string {
		if link := p.link(p.a); link.GetKind() != pb.LanManagerKind_LAN_MANAGER_KIND_ORIGINAL {
			return "it is known as the original: " + link.String()
		}
		return ""
	})
	p.drop()
}

// longUnit: one unit of 200 kB comes in one frame.
func longUnit(p *scene) {
	p.o.do(func() {
		p.o.services["Far"] = record{"instancename": "Far", "modulename": "far", "ipaddress": "127.0.0.9", "tcpport": 7,
			"propertyhash": record{"long": strings.Repeat("x", 200_000)}}
	})
	p.come(nil)
	p.o.await(p.stage, "all are served", func(at map[string]string, _ []shift) bool { return len(at) == 4 })
	p.before = p.singles()
	p.unmoved()
	if need := p.need(p.a, "Far"); need.GetDecision() != pb.Decision_DECISION_SERVED_ELSEWHERE {
		p.t.Errorf("Far is %v", need)
	}
}

// forgotten: each request of an agent with a session comes back once.
func forgotten(p *scene) {
	for _, at := range []string{"needs!subConnect", "need attach", "need!confirmReservation", "need!bid", "need!respond",
		"lan.notifyServiceDown", "lan.notifyModuleEngaged", "lan.keepServices"} {
		p.t.Run(strings.NewReplacer("!", " ", ".", " ").Replace(at), func(t *testing.T) {
			t.Parallel()
			p := newScene(t)
			forgot := false
			p.when(func(step string, r request, _ []json.RawMessage) bool {
				if step != at || forgot {
					return false
				}
				forgot = true
				p.o.forget(r)
				return true
			})
			p.come(nil)
			p.all("the needs are served", 3)
			p.before = p.singles()
			old := p.child("hello-1")
			old.Kill()
			p.until(func() string {
				now := p.running(p.a)
				for _, n := range needs(3, "hello") {
					if c := now[n.InstanceName]; c.GetPlace() != pb.ProcessPlace_PROCESS_PLACE_SERVED || int(c.GetPid()) == old.PID {
						return fmt.Sprintf("%s is %v", n.InstanceName, c)
					}
				}
				return ""
			})
			p.started(p.before, p.child("hello-1"))
			if !forgot {
				t.Errorf("there was no %s", at)
			}
		})
	}
}

// What an agent says of a service that went down, with the end of its process.
func TestReportOfAnEnd(t *testing.T) {
	t.Parallel()
	p := newScene(t)
	p.begin(nil)
	said := func() string {
		p.o.mu.Lock()
		defer p.o.mu.Unlock()
		return p.o.reports[len(p.o.reports)-1]
	}
	for _, test := range []struct {
		end  syscall.Signal
		want string
	}{
		{syscall.SIGKILL, `{"reason":"it ended by itself","status":{"signal":"SIGKILL"}}`},
		{syscall.SIGSEGV, `{"reason":"it ended by itself","status":{"code":2}}`}, // as Go programs do it
	} {
		seen := len(p.o.since(0))
		p.must(syscall.Kill(p.child("hello-0").PID, test.end))
		p.all("it is served again", seen+2)
		if got := said(); got != test.want {
			t.Errorf("after %v: %s, want %s", test.end, got, test.want)
		}
	}

	// Of a process that it did not start itself, it may not know.
	p.must(p.a.Leave())
	p.a = p.again("machine")
	p.all("all are back", 13)
	seen := len(p.o.since(0))
	p.must(syscall.Kill(p.child("hello-0").PID, syscall.SIGKILL))
	p.all("it is served again", seen+2)
	unknown := `{"reason":"it ended by itself","status":{"unknown":true}}`
	if got := said(); got != `{"reason":"it ended by itself","status":{"signal":"SIGKILL"}}` && got != unknown {
		t.Errorf("of an adopted process: %s", got)
	}
}
