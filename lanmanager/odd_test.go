package lanmanager

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/allexgo/machine-agent/lan/wire"
)

// Whatever one peer sends, the others are served.
func TestGarbageHarmsNobodyElse(t *testing.T) {
	lan := start(t, Config{}, needs("A"))
	good := lan.agent("one", "127.0.0.1")
	odd := lan.dial("127.0.0.2")
	session := odd.introduce("two")
	odd.send("not json", `{"a":1}`, `[]`, `["x"]`, `5`, `"text"`, "\xef\xbb\xbf[]",
		`["q",["`+session+`",null],["needs",["spawn",[{}]]]]`, // ends the real one
		`["q",["`+session+`",null],[".",["addNeed",[[[[]]]]]]]`,
		`["q",["`+session+`",null],[".",["addNeed",{"instancename":{}}]]]`,
		`["q",["`+session+`",null],["!",["subConnect",[{}]]]]`,
		`["q",["`+session+`",null],["!",["subConnect",["needs","x"]]]]`,
		`["q",["`+session+`",null],["!",["subConnect"]]]`,
		`["q",["`+session+`",null],[".",["keepServices",["A"]]]]`,
		`["q",["`+session+`",null],["",["",[]]]]`,
		`["~",1,"x"]`, `["oob",["s","-",true]]`, `["?","x"]`, `["?",1e999]`,
		strings.Repeat("[", 100000),
		`["deep",[null,{"ip":`+strings.Repeat(`{"a":`, 5000)+`1`+strings.Repeat(`}`, 5000)+`}]]`)
	odd.send(`["?",7]`)
	odd.find("pong", func(u wire.Unit) bool { return u.Kind == wire.Pong && string(u.Value) == "7" })

	huge := lan.dial("127.0.0.3")
	_ = huge.conn.Write([][]byte{[]byte(`["` + strings.Repeat("x", 5<<20) + `",[null,null]]`)})
	huge.gone()
	good.serveAll(listener(t), "A")
}

func TestOddConnections(t *testing.T) {
	lan := start(t, Config{}, needs("A"))
	address := strings.Trim(lan.url, "ws:/")

	response, err := http.Get("http://" + address + "/")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if response.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("a plain GET: %s", response.Status)
	}

	ws, _, err := websocket.DefaultDialer.Dial(lan.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	for kind, text := range map[int]string{websocket.BinaryMessage: `["?",1]`, websocket.TextMessage: "\x00" + `["?",2]` + "\x00\x00"} {
		if err := ws.WriteMessage(kind, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if _, text, err := ws.ReadMessage(); err != nil || string(text) != `["!",2]` {
		t.Errorf("after a binary frame: %s %v", text, err)
	}

	raw, err := net.Dial("tcp", address) // neither WebSocket nor HTTP, cut off in the middle
	if err != nil {
		t.Fatal(err)
	}
	binary.Write(raw, binary.LittleEndian, uint64(1<<60))
	raw.Close()
	lan.agent("one", "127.0.0.1").serveAll(listener(t), "A")
}

// A peer that asks and never reads is dropped, and its services go.
func TestSlowReaderIsDropped(t *testing.T) {
	var big []string
	for i := range 20 {
		big = append(big, fmt.Sprintf(`{"instancename":"n%d","propertyhash":{"x":%q}}`, i, strings.Repeat("x", 100_000)))
	}
	for _, e := range []Envelope{WebSocket, SignalR} {
		t.Run(string(e), func(t *testing.T) {
			lan := start(t, Config{Listeners: both(), Limits: Limits{Backlog: 4 << 20}},
				map[string]string{"needs": "[" + strings.Join(big, ",") + "]"})
			testSlowReader(t, lan, e)
		})
	}
}

func testSlowReader(t *testing.T, lan *running, e Envelope) {
	watcher := lan.agent("watcher", "127.0.0.9")
	slow := lan.agent("", "127.0.0.1")
	slow.serveAll(listener(t), "n0")

	dial, url := wire.Dial, lan.url
	if e == SignalR {
		dial, url = wire.DialSignalR, lan.signalR
	}
	deaf, err := dial(t.Context(), url, wire.DialOptions{LocalIP: net.ParseIP("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	err = deaf.Write([][]byte{
		[]byte(`["q",["S",{"ip":{"name":"deaf","role":"user","id":"deaf"}}]]`),
		[]byte(`["q",["S",null],["!",["subConnect",["needs",{}]]]]`)})
	if err != nil {
		t.Fatal(err)
	}
	needs := ""
	for needs == "" { // the last that it reads
		texts, err := deaf.Read()
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			if u, err := wire.ParseReply(text, wire.Limits{}); err == nil && strings.Contains(string(u.Value), "introduce") {
				_, needs, _ = strings.Cut(string(u.Value), `"session":"`)
				needs, _, _ = strings.Cut(needs, `"`)
			}
		}
	}
	for range 30 { // 60 MB of answers
		if deaf.Write([][]byte{[]byte(`["r",["` + needs + `",null],[".",["read",[{}]]]]`)}) != nil {
			break
		}
	}
	watcher.until("the slow reader to be dropped", func() bool { return strings.Contains(lan.log.String(), "is dropped") })
	watcher.serveAll(listenerOn(t, "127.0.0.9"), "n1")
	if got := watcher.names(watcher.services); len(got) != 2 {
		t.Errorf("services: %v", got)
	}
}

// What Run was given to end with ends everything, in the middle of whatever.
func TestRunEnds(t *testing.T) {
	lan := start(t, Config{}, needs("A"))
	a := lan.agent("one", "127.0.0.1")
	session := a.on("A")
	a.begin(session, "!", "respond", a.bid(session), map[string]int{"pid": 1, "tcpport": listener(t)})
	a.begin(a.lan, ".", "addNeed", map[string]string{"instancename": "B"})
	lan.stop()
	a.gone()
	if _, err := wire.Dial(context.Background(), lan.url, wire.DialOptions{}); err == nil {
		t.Error("it still listens")
	}
}
