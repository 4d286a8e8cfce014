package lanmanager

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/lan/wire"
)

// FuzzUnits feeds the core with frames of a peer that has sessions on
// everything: nothing panics, all that goes out are units, and nothing of the
// peer is left when it is gone.
func FuzzUnits(f *testing.F) {
	for _, seed := range []string{
		`["2",["S",null],["!",["subConnect",["needs",{"role":"user"}]]]]`,
		`["2",["S",null],[".",["addNeed",[{"instancename":"B","ipaddress":"10.0.0.0/8","timeout":1}]]]]` + "\x00" + `["3",["S",null],[".",["removeNeed",["A"]]]]`,
		`["2",["S",null],[".",["keepServices",[["A"]]]]]` + "\x00" + `["3",["S",null],[".",["notifyServiceDown",["A",{"reason":"x"}]]]]`,
		`["2",["N",null],["!",["query",[{"continuous":true,"filter":{"op":"and","filters":[{"op":"eq","field":"pid","value":null}]},"limit":1}]]]]`,
		`["2",["B",null],["!",["bid",[{"ipaddress":"127.0.0.1"}]]]]` + "\x00" + `["3",["B",null],["!",["respond",["t",{"pid":1}]]]]`,
	} {
		f.Add([]byte(seed))
	}
	directory, figures := f.TempDir(), newMetrics()
	f.Fuzz(func(t *testing.T, frame []byte) {
		m := &Manager{config: Config{}.orDefault(), log: hclog.NewNullLogger(), crew: newCrew(), metrics: figures}
		m.files = &files{runtime: directory} // no files: nothing is read or saved
		m.door = newDoor(m.settings, m.config.Limits, figures.refused, nil)
		m.gate = wire.NewGate(m.introduce, wire.Limits{})
		m.lan = newLAN(m, nil)
		m.lan.reload(contents{static: []fields{{"instancename": json.RawMessage(`"A"`)}}}, nil)
		defer func() {
			m.crew.dismiss(nil)
			m.crew.tasks.Wait()
		}()
		var sent [][]byte
		c := m.gate.Open(netip.MustParseAddr("127.0.0.1"), func(u wire.Unit) { sent = append(sent, u.AppendJSON(nil)) })
		names := map[string]string{}
		feed := func(text []byte) {
			for name, session := range names {
				text = bytes.ReplaceAll(text, []byte(`"`+name+`"`), []byte(`"`+session+`"`))
			}
			if u, err := wire.ParseRequest(text, wire.Limits{}); err == nil {
				c.Receive(u)
			}
		}
		reserve := func(name, in, of string) {
			feed([]byte(`["s",["` + in + `",null],["!",["subConnect",["` + of + `",{}]]]]`))
			u, err := wire.ParseReply(sent[len(sent)-1], wire.Limits{})
			var v struct{ Introduce struct{ Session string } }
			if err == nil {
				err = json.Unmarshal(u.Value, &v)
			}
			if err != nil {
				t.Fatal(err)
			}
			names[name] = v.Introduce.Session
		}
		feed([]byte(`["1",["S",{"ip":{"name":"x","role":"user","id":"f"}}]]`))
		reserve("N", "S", "needs")
		reserve("B", "N", "A")
		for text := range bytes.SplitSeq(frame, []byte{0}) {
			feed(text)
		}
		for _, text := range sent {
			if _, err := wire.ParseReply(text, wire.Limits{}); err != nil {
				t.Errorf("sent %s: %v", text, err)
			}
		}
		c.Close()
		if len(m.lan.waiting) != 0 || m.lan.sessions != 0 {
			t.Errorf("%d sessions are left, and waiters for %d needs", m.lan.sessions, len(m.lan.waiting))
		}
		for name, n := range m.lan.open {
			if len(n.bidders) != 0 || n.queue.Len() != 0 || n.bid != nil {
				t.Errorf("a bidder is left on %s", name)
			}
		}
	})
}
