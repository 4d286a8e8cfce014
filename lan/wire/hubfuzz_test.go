package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/lan/transcript"
)

// tight are limits that a fuzzer can reach.
var tight = Limits{Frame: 2000, Unit: 500, Depth: 10}.orDefault()

func FuzzHubServer(f *testing.F) { fuzzHub(f, transcript.FromClient) }

func FuzzHubClient(f *testing.F) { fuzzHub(f, transcript.FromServer) }

// fuzzHub feeds one side of the SignalR envelope. Where the frames are cut makes
// no difference to the units, and what is kept between them is bounded.
func fuzzHub(f *testing.F, kind transcript.Kind) {
	seen := 0
	for _, frame := range recordedFrames(f, "master-signalr.log") {
		if frame.Kind == kind && len(frame.Text) < tight.Frame {
			if seen++; seen < 10 {
				f.Add([]byte(frame.Text), 7)
			}
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, size int) {
		whole, parts := unpackerOf(kind), unpackerOf(kind)
		whole.limits, parts.limits = tight, tight
		want, err := whole.open(bytes.Clone(text))
		if len(text) > tight.Frame { // no such frame comes in
			return
		}
		var got [][]byte
		var fault error
		for rest := text; len(rest) > 0 && fault == nil; {
			n := min(1+size&0xff, len(rest))
			var units [][]byte
			units, fault = parts.open(bytes.Clone(rest[:n]))
			got = append(got, units...)
			rest = rest[n:]
			if len(parts.rest) > tight.Frame || len(parts.pieces) > 2*tight.Unit+10 {
				t.Fatalf("%d bytes and %d of pieces are kept", len(parts.rest), len(parts.pieces))
			}
		}
		if (err == nil) != (fault == nil) {
			t.Fatalf("whole %v, in parts %v", err, fault)
		}
		if diff := cmp.Diff(texts(want), texts(got)); diff != "" {
			t.Fatal(diff)
		}
		for _, unit := range got {
			if !json.Valid(unit) {
				t.Fatalf("unit %q", unit)
			}
			appendMessage := appendToServer
			if kind == transcript.FromServer {
				appendMessage = appendToClient
			}
			if bytes.HasPrefix(unit, []byte(`["~",`)) {
				continue // a piece in pieces is taken for one when it comes again
			}
			again, err := unpackerOf(kind).open(appendMessage(nil, unit))
			if err != nil || len(again) != 1 || !bytes.Equal(again[0], unit) && !strings.ContainsFunc(string(unit), func(r rune) bool { return r < ' ' || r == 0xFFFD }) {
				t.Fatalf("unit %q became %q, %v", unit, again, err)
			}
		}
	})
}

// FuzzSignalRHandshake: a request, and the texts of both handshakes.
func FuzzSignalRHandshake(f *testing.F) {
	f.Add([]byte("POST /negotiate?negotiateVersion=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"), []byte(clientHello))
	f.Add([]byte("GET /?id=1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: 0Ca37IXuiq5wVsQSCFc+kQ==\r\n\r\n"), []byte(`{"error":"no"}`+"\x1e"))
	f.Add([]byte("POST /negotiate HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\n\r\n"), []byte(`{"connectionId":"1","availableTransports":[{"transport":"WebSockets","transferFormats":["Text"]}]}`))
	f.Fuzz(func(t *testing.T, header, text []byte) {
		s := NewSignalR(func(Conn) { t.Error("a connection without an id was let in") }, SignalROptions{})
		if r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(header))); err == nil {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if ok := r.Method == http.MethodPost && r.Header.Get("Origin") == ""; w.Code == http.StatusOK && !ok {
				t.Fatalf("%q was negotiated", header)
			} else if w.Code == http.StatusOK {
				if id, err := negotiatedID(w.Body.Bytes()); err != nil || !s.take(id) {
					t.Fatalf("id %q: %v", id, err)
				}
			}
		}
		if id, err := negotiatedID(text); err == nil && id == "" {
			t.Fatalf("%q has no id", text)
		}
		messages, err := unpackerOf(transcript.FromClient).messages(bytes.Clone(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, message := range messages {
			if checkHello(message) == nil && checkWelcome(message) == nil && !json.Valid(message) {
				t.Fatalf("%q begins a connection", message)
			}
		}
	})
}
