package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// server is a TCP server that does talk with each connection.
func server(t *testing.T, talk func(net.Conn)) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			talk(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().(*net.TCPAddr).Port
}

// theirs has every port in wrong hands.
func theirs(int) error { return errors.New("it is theirs") }

func TestTCP(t *testing.T) {
	pong := func(c net.Conn) {
		buf := make([]byte, 6)
		if _, err := io.ReadFull(c, buf); err == nil && string(buf) == "PING\r\n" {
			fmt.Fprint(c, "+PO")
			fmt.Fprint(c, "NG\r\n")
		}
	}
	silent := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for what, c := range map[string]struct {
		talk   func(net.Conn)
		send   string
		expect string
		whose  Owner
		no     string
	}{
		"answers":       {pong, "PING\r\n", `^\+PONG`, mine, ""},
		"only accepts":  {silent, "", "", mine, ""},
		"takes it":      {silent, "PING\r\n", "", mine, ""},
		"wrong answer":  {pong, "PING\r\n", `^-ERR`, mine, `it answers "+PONG\r\n" and closes, which does not match "^-ERR"`},
		"no answer":     {pong, "NONE\r\n", `^\+PONG`, mine, `it answers "" and closes`},
		"silence":       {silent, "PING\r\n", `^\+PONG`, mine, "timeout"},
		"anything":      {silent, "PING\r\n", `.*`, mine, "timeout"},
		"a lot":         {func(c net.Conn) { fmt.Fprint(c, strings.Repeat("x", 1<<20)) }, "", "y", mine, "and more, which does not match"},
		"in bad hands":  {pong, "PING\r\n", `^\+PONG`, theirs, "it is theirs"},
		"slow, but yes": {func(c net.Conn) { pong(c); silent(c) }, "PING\r\n", `^\+PONG`, mine, ""},
	} {
		t.Run(what, func(t *testing.T) {
			var expect *regexp.Regexp
			if c.expect != "" {
				expect = regexp.MustCompile(c.expect)
			}
			check(t, TCP("127.0.0.1", server(t, c.talk), c.send, expect, c.whose), c.no)
		})
	}
	check(t, TCP("127.0.0.1", free(t), "", nil, mine), "refused")
}

// check asks once; no is part of the error, empty if the answer is to be yes.
func check(t *testing.T, q Question, no string) {
	t.Helper()
	ctx := t.Context()
	if no == "timeout" {
		ctx = soon(t)
	}
	err := q.Once(ctx)
	if no == "" && err != nil || no != "" && (err == nil || !strings.Contains(err.Error(), no)) || len(fmt.Sprint(err)) > 700 {
		t.Errorf("got %v, want %q", err, no)
	}
}

func TestWebSocket(t *testing.T) {
	upgrader := websocket.Upgrader{}
	host, port := page(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/feed":
			if c, err := upgrader.Upgrade(w, r, nil); err == nil {
				_, _, _ = c.ReadMessage()
				c.Close()
			}
		case "/liar":
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "websocket")
			w.Header().Set("Sec-WebSocket-Accept", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=")
			w.WriteHeader(http.StatusSwitchingProtocols)
		case "/slow":
			<-r.Context().Done()
		}
	})
	for path, no := range map[string]string{"/feed": "", "/": "it answers 200 OK", "/liar": "not to our key", "/slow": "its start timeout is over"} {
		t.Run(path, func(t *testing.T) {
			ctx := t.Context()
			if path == "/slow" {
				ctx = soon(t)
			}
			err := WebSocket(host, port, path, mine).Once(ctx)
			if no == "" && err != nil || no != "" && (err == nil || !strings.Contains(err.Error(), no)) {
				t.Errorf("got %v, want %q", err, no)
			}
		})
	}
	check(t, WebSocket(host, port, "/feed", theirs), "it is theirs")
	check(t, WebSocket("127.0.0.1", free(t), "/feed", mine), "refused")
}

func TestGRPC(t *testing.T) {
	serving := func(_ context.Context, address, service string) error {
		if address != "127.0.0.1:77" || service != "a.B" {
			return fmt.Errorf("%s is asked for %q", address, service)
		}
		return nil
	}
	check(t, GRPC("127.0.0.1", 77, "a.B", serving, mine), "")
	check(t, GRPC("127.0.0.1", 77, "a.B", serving, theirs), "it is theirs")
	over, stop := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer stop()
	if err := GRPC("127.0.0.1", 78, "a.B", serving, mine).Once(over); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("its time is over: %v", err)
	}
	check(t, GRPC("127.0.0.1", 78, "a.B", serving, mine), "does not say SERVING (127.0.0.1:78 is asked")
}

// untold is for who does not want to hear of each answer.
func untold(error) {}
