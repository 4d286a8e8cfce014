package lanmanager

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/lan/transcript"
	"github.com/allexgo/machine-agent/lan/wire"
)

// These tests do what the independent client of the transcripts did with the
// real LAN manager, and compare what comes back: for every call and every
// session the units in their order, with their values; for every query the
// items with their records. Between calls the order is free, as it is in the
// original, which answers over several internal queues.
//
// Tolerated everywhere:
//   - "u" items. The original sends a pair for every field of a winner, some of
//     them behind the "d" that ends the record; we send one before it.
//   - How many "d" items end what ends at one time: the original sends a second
//     one for a need, and a single one for all services of an address, where we
//     name each, because services of agents with an id may stay.
//   - The text beside the code of a rejection.
//
// What else differs is listed with each transcript.

// toleration changes what is expected at one place of a transcript.
type toleration struct {
	why  string
	edit func(want map[string][]string)
}

// recording is a transcript with what the LAN manager of it had.
type recording struct {
	file      string
	needs     []string
	ports     []string // on which the services listened
	tolerated []toleration
}

func TestBidCycleTranscript(t *testing.T) {
	replayBoth(t, recording{file: "client-bid-cycle.log", needs: []string{needProbe, needFixed, needStrat}, ports: []string{"15999"}})
}

// The master's connections end without a word in its transcripts: the recorder
// between the two was started anew.
func TestMasterTranscripts(t *testing.T) {
	for _, file := range []string{"master-ws.log", "master-signalr.log"} {
		replayBoth(t, recording{file: file, needs: []string{needTime, needTime2}, ports: []string{"15000", "15500"}})
	}
}

func TestEdgeCasesTranscript(t *testing.T) {
	replayBoth(t, recording{file: "client-edge-cases.log", needs: []string{needFixed, needStrat, needProbe},
		ports: []string{"15998"}, tolerated: []toleration{
			{"a refused introduction gets an error with its id too", func(want map[string][]string) {
				want["q1"] = []string{"e NAME_MISSING"}
				want["q2"] = []string{"e STRATEGY_UNKNOWN"}
				want["q3"] = []string{"e ROLE_UNKNOWN"}
				want["q4"] = []string{"e ROLE_UNKNOWN"}
				want["q6"] = []string{"e STRATEGY_UNKNOWN"}
			}},
			{"roles are checked: nobody but user comes in", func(want map[string][]string) {
				want["q5"] = []string{"e ROLE_UNKNOWN"}
				want["err"] = append(want["err"], "err")
				delete(want, "session 02fc0000000130974136941931ce0d3b000466")
			}},
			{"notifyModuleEngaged does what it was meant for", func(want map[string][]string) {
				want["q27"] = append(want["q27"], `c {"modulename":"allex_foo"}`)
			}},
			{"peers may not write tables", func(want map[string][]string) {
				want["q37"] = []string{"e METHOD_NOT_EXECUTABLE"}
				want["q39"] = []string{"e METHOD_NOT_EXECUTABLE"}
				want["q38"] = without(want["q38"], "hackserv")
				want["q26"] = slices.Delete(want["q26"], 3, 5) // the "c" and "d" of hackserv
			}},
			{"removeNeed makes no phantom service", func(want map[string][]string) {
				want["q26"] = without(want["q26"], `"Added"`)
			}},
			{"tickets are checked, and a response needs a pid", func(want map[string][]string) {
				want["q65"] = []string{"e ALREADY_DESTROYED"}
				want["q82"] = []string{`r {"a":"` + rightTicket + `"}`}
			}},
			{"services go with the last session of their address (PROTOCOL section 9.3)", func(want map[string][]string) {
				probe := want["q25"][4] // its r1
				want["q25"] = append(want["q25"], "c"+probe[2:])
				want["q97"] = append(want["q97"], "c"+probe[2:])
				want["q103"] = slices.Insert(want["q103"], 4, probe)
			}},
		}})
}

// The needs of the recorded LAN managers.
const (
	needTime  = `{"modulename":"allex_timeservice","instancename":"Time","propertyhash":{}}`
	needTime2 = `{"modulename":"allex_timeservice","instancename":"Time2","propertyhash":{"x":1},"tcpport":15500,"httpport":16500,"wsport":17500}`
	needProbe = `{"modulename":"probe_module","instancename":"Probe","propertyhash":{"a":1}}`
	needFixed = `{"modulename":"probe_module","instancename":"Fixed","propertyhash":{},"ipaddress":"10.1.2.3","tcpport":15777}`
	needStrat = `{"modulename":"probe_module","instancename":"Strat","propertyhash":{},"strategies":{"ip":[{"ip":"10.0.0.0/8","role":"user"}]},"timeout":7,"gate":{"ws":{}},"extra":"unknownfield"}`
)

func without(seq []string, text string) []string {
	return slices.DeleteFunc(slices.Clone(seq), func(element string) bool { return strings.Contains(element, text) })
}

// rightTicket is what q82 ought to have had; the real LAN manager took "x".
const rightTicket = "02fc00000001309741379018aa0ac9fe000750"

// replayer drives one transcript.
type replayer struct {
	t        *testing.T
	peers    map[int]*peer     // by the recorded connection
	ours     map[string]string // what a recorded session, ticket or query is called here
	recorded []wire.Unit       // what the real LAN manager sent
	ports    map[string]string // recorded to ours
	deaf     string
}

// replayBoth replays a transcript in both envelopes, whichever it came in.
func replayBoth(t *testing.T, rec recording) {
	for _, e := range []Envelope{WebSocket, SignalR} {
		t.Run(rec.file+" over "+string(e), func(t *testing.T) { replay(t, rec, e) })
	}
}

func replay(t *testing.T, rec recording, e Envelope) {
	lines, err := transcript.Read(filepath.Join("..", "lan", "testdata", "transcripts", rec.file))
	if err != nil {
		t.Fatal(err)
	}
	lan := start(t, Config{Listeners: both()}, map[string]string{"needs": "[" + strings.Join(rec.needs, ",") + "]"})
	dial := lan.dial
	if e == SignalR {
		dial = lan.dialSignalR
	}
	r := &replayer{t: t, peers: map[int]*peer{}, ours: map[string]string{}, ports: map[string]string{}, deaf: strconv.Itoa(deafPort(t))}
	for _, port := range rec.ports {
		r.ports[port] = strconv.Itoa(listener(t))
	}
	for _, line := range lines {
		p := r.peers[line.Connection]
		switch line.Kind {
		case transcript.Open:
			if before := r.peers[line.Connection-1]; strings.HasPrefix(rec.file, "master") && before != nil {
				before.conn.Close()
				before.gone()
			}
			r.peers[line.Connection] = dial(addressOf(line.Connection, lines))
		case transcript.Close:
			p.conn.Close()
		case transcript.FromClient:
			r.send(p, line)
		case transcript.FromServer:
			r.await(p, line.Text)
		}
	}
	r.compare(rec.tolerated)
}

var nameState = regexp.MustCompile(`"p":\["name"\],"o":"s","d":"(127\.[0-9.]+)"`)

// addressOf is the address from which the recorded client came with a
// connection: what it was told to be seen as.
func addressOf(connection int, lines []transcript.Line) string {
	for _, line := range lines {
		m := nameState.FindStringSubmatch(line.Text)
		if line.Connection == connection && m != nil {
			return m[1]
		}
	}
	return "127.0.0.1"
}

// send sends a recorded request with our names and ports in it.
func (r *replayer) send(p *peer, line transcript.Line) {
	text := line.Text
	if line.ID == "q82" {
		text = strings.Replace(text, `"x"`, `"`+rightTicket+`"`, 1)
	}
	for recorded, ours := range r.ours {
		text = strings.ReplaceAll(text, `"`+recorded+`"`, `"`+ours+`"`)
	}
	for recorded, ours := range r.ports {
		if line.ID == "q59" { // nothing listens yet
			ours = r.deaf
		}
		for _, before := range []string{`:`, `:"`} {
			text = strings.ReplaceAll(text, before+recorded, before+ours)
		}
	}
	p.send(text)
}

// await notes a recorded reply and waits for ours, if it answers something.
func (r *replayer) await(p *peer, text string) {
	u, err := wire.ParseReply([]byte(text), wire.Limits{})
	if err != nil {
		r.t.Fatalf("%s: %v", text, err)
	}
	r.recorded = append(r.recorded, u)
	switch u.Kind {
	case wire.Resolve:
		r.learn(u.Value, p.answer(u.ID).Value)
	case wire.Reject:
		p.answer(u.ID)
	case wire.Forget, wire.AuthFailure:
		translate := r.translate()
		p.find(text, func(got wire.Unit) bool {
			return got.Kind == u.Kind && canonical(translate(string(got.Value))) == canonical(string(u.Value))
		})
	case wire.Pong:
		p.find(text, func(got wire.Unit) bool { return got.Kind == wire.Pong && string(got.Value) == string(u.Value) })
	case wire.OutOfBand:
		session, known := r.ours[u.Session]
		if !known { // the client has chosen it
			session = u.Session
		}
		if u.Channel == wire.EndChannel {
			p.find(text, func(got wire.Unit) bool {
				return got.Kind == wire.OutOfBand && got.Session == session && got.Channel == wire.EndChannel
			})
		}
	case wire.Notify:
		if strings.HasPrefix(string(u.Value), `["i"`) {
			got := p.find("query id", func(got wire.Unit) bool { return got.Kind == wire.Notify && got.ID == u.ID })
			r.learn(u.Value, got.Value)
		}
	}
}

// learn finds the names in a recorded value and what they are here.
func (r *replayer) learn(recorded, got json.RawMessage) {
	var theirs, ours any
	_, _ = json.Unmarshal(recorded, &theirs), json.Unmarshal(got, &ours)
	r.learnFrom("", theirs, ours)
}

func (r *replayer) learnFrom(key string, theirs, ours any) {
	switch theirs := theirs.(type) {
	case map[string]any:
		if ours, ok := ours.(map[string]any); ok {
			for key, value := range theirs {
				r.learnFrom(key, value, ours[key])
			}
		}
	case []any: // ["i", id]
		if ours, ok := ours.([]any); ok && len(theirs) == 2 && len(ours) == 2 {
			r.learnFrom("i", theirs[1], ours[1])
		}
	case string:
		if ours, ok := ours.(string); ok && slices.Contains([]string{"session", "bid", "i"}, key) {
			r.ours[theirs] = ours
		}
	}
}

// compare waits until all that is wanted has come, and nothing else.
func (r *replayer) compare(tolerated []toleration) {
	r.t.Helper()
	want := sequences([][]wire.Unit{r.recorded}, func(text string) string { return text })
	for _, e := range tolerated {
		r.t.Logf("tolerated: %s", e.why)
		e.edit(want)
	}
	want = collapsed(want)
	var got map[string][]string
	for late := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		got = collapsed(sequences(r.units(), r.translate()))
		if cmp.Equal(want, got) || time.Now().After(late) {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("replies (-real +ours):\n%s", diff)
	}
}

func (r *replayer) units() (all [][]wire.Unit) {
	for i := range len(r.peers) {
		p := r.peers[i+1]
		p.mu.Lock()
		all = append(all, slices.Clone(p.units))
		p.mu.Unlock()
	}
	return all
}

// translate turns what comes from us into the words of the transcript.
func (r *replayer) translate() func(string) string {
	var pairs []string
	for recorded, ours := range r.ours {
		pairs = append(pairs, `"`+ours+`"`, `"`+recorded+`"`)
	}
	// q10 introduces and calls in one; its session shows in its states only.
	hidden := "02fc0000000130974137013979f5e223000475"
	for _, units := range r.units() {
		for _, u := range units {
			if u.Kind == wire.OutOfBand && !slices.Contains(pairs, `"`+u.Session+`"`) {
				pairs = append(pairs, `"`+u.Session+`"`, `"`+hidden+`"`)
			}
		}
	}
	for recorded, ours := range r.ports {
		pairs = append(pairs, ":"+ours+",", ":"+recorded+",")
	}
	return strings.NewReplacer(pairs...).Replace
}

// sequences are the units by what they belong to, in the order of each
// connection.
func sequences(connections [][]wire.Unit, translate func(string) string) map[string][]string {
	seq := map[string][]string{}
	add := func(key, element string) { seq[key] = append(seq[key], element) }
	for _, units := range connections {
		for _, u := range units {
			value := canonical(translate(string(u.Value)))
			switch u.Kind {
			case wire.Resolve:
				add(u.ID, "r "+value)
				var v struct{ Session string }
				if json.Unmarshal([]byte(value), &v) == nil && v.Session != "" {
					add("session "+v.Session, "introduced")
				}
			case wire.Reject:
				add(u.ID, "e "+u.Code)
			case wire.Notify:
				add(u.ID, element(value))
			case wire.OutOfBand:
				add("session "+strings.Trim(translate(`"`+u.Session+`"`), `"`), u.Channel+" "+value)
			case wire.Forget:
				add("f", value)
			case wire.AuthFailure:
				add("err", "err")
			case wire.Ping: // in its own time, of the SignalR envelope only
			default:
				add(u.Kind.String(), value)
			}
		}
	}
	return seq
}

// element is what an item of a query says: the operation and, of those that
// have one, the record.
func element(item string) string {
	var parts []any
	if err := json.Unmarshal([]byte(item), &parts); err != nil || len(parts) < 2 {
		return item
	}
	op := fmt.Sprint(parts[0])
	record, isRecord := parts[len(parts)-1].(map[string]any)
	if isRecord && (op == "c" || op == "r1") {
		text, _ := json.Marshal(record)
		return op + " " + string(text)
	}
	return op
}

func canonical(text string) string {
	var value any
	if json.Unmarshal([]byte(text), &value) != nil {
		return text
	}
	sorted, _ := json.Marshal(value)
	return string(sorted)
}

// collapsed drops "u" and makes one of "d" items in a row.
func collapsed(seq map[string][]string) map[string][]string {
	out := map[string][]string{}
	for key, elements := range seq {
		elements = slices.DeleteFunc(slices.Clone(elements), func(e string) bool { return e == "u" })
		previous := ""
		out[key] = slices.DeleteFunc(elements, func(e string) bool {
			again := e == "d" && previous == "d"
			previous = e
			return again
		})
	}
	return out
}
