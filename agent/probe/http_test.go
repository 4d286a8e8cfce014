package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var errOver = errors.New("its start timeout is over")

// soon is a context that ends after a moment, for what never comes.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, errOver)
	t.Cleanup(cancel)
	return ctx
}

// refusedBy is what a question says whose time is over as soon as it has had an answer.
func refusedBy(t *testing.T, q Question) error {
	ctx, end := context.WithCancelCause(t.Context())
	return q.Until(ctx, func(error) { end(errOver) })
}

func page(t *testing.T, answer http.HandlerFunc) (host string, port int) {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	address := s.Listener.Addr().(*net.TCPAddr)
	return address.IP.String(), address.Port
}

func TestHTTPLater(t *testing.T) {
	var asked atomic.Int32
	host, port := page(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/healthz":
			http.NotFound(w, r)
		case asked.Add(1) < 3:
			http.Error(w, "warming up", http.StatusServiceUnavailable)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	if err := HTTP(host, port, "/healthz", mine).Until(t.Context(), untold); err != nil {
		t.Fatal(err)
	}
	if got := asked.Load(); got != 3 {
		t.Errorf("asked %d times, want 3", got)
	}
}

func TestHTTPNever(t *testing.T) {
	elsewhere, _ := page(t, func(http.ResponseWriter, *http.Request) {})
	for what, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"error":    {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no database", 500) }, `500 Internal Server Error: "no database"`},
		"redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "http://"+elsewhere, 302) }, "302 Found"},
		"silence":  {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, ""},
		"a lot": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			fmt.Fprint(w, strings.Repeat("x", 1<<20))
		}, "xxx"},
	} {
		t.Run(what, func(t *testing.T) {
			host, port := page(t, c.answer)
			err := refusedBy(t, HTTP(host, port, "/", mine))
			if !errors.Is(err, errOver) || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 500 {
				t.Errorf("got %v, want %q and the cause", err, c.want)
			}
		})
	}
	if err := refusedBy(t, HTTP("127.0.0.1", free(t), "/", mine)); !errors.Is(err, errOver) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody there: %v", err)
	}
}

// What servers answer that no library has helped.
func TestHTTPAnswers(t *testing.T) {
	const chunked = "Transfer-Encoding: chunked\r\n\r\n9\r\nno databa\r\n2\r\nse\r\n0\r\n\r\n"
	for what, c := range map[string]struct{ answer, no string }{
		"no length":    {"HTTP/1.1 200 OK\r\n\r\nwell", ""},
		"chunked":      {"HTTP/1.1 200 OK\r\n" + chunked, ""},
		"old":          {"HTTP/1.0 204 No Content\r\n\r\n", ""},
		"later":        {"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ""},
		"ill, chunked": {"HTTP/1.1 503 Service Unavailable\r\n" + chunked, `503 Service Unavailable: "no database"`},
		"stays":        {"HTTP/1.1 307 Temporary Redirect\r\nLocation: /well\r\n\r\n", "307 Temporary Redirect"},
		"nothing":      {"", "EOF"},
		"a part":       {"HTTP/1.1 200 OK\r\nContent-", "malformed"},
		"no HTTP":      {"220 mail.example.org ESMTP\r\n", "malformed"},
		"no end":       {"HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 1<<20), "malformed"}, // as it is looked at
	} {
		answering := func(answer string, piece int) int {
			return server(t, func(c net.Conn) {
				if r, err := http.ReadRequest(bufio.NewReader(c)); err != nil || r.URL.Path != "/how are you" || !r.Close {
					t.Errorf("got %v, %v", r, err)
				}
				for ; len(answer) > piece; answer = answer[piece:] {
					if _, err := c.Write([]byte(answer[:piece])); err != nil {
						return
					}
				}
				_, _ = c.Write([]byte(answer))
			})
		}
		t.Run(what, func(t *testing.T) {
			check(t, HTTP("127.0.0.1", answering(c.answer, 1<<20), "/how%20are%20you", mine), c.no)
			if len(c.answer) < 200 { // and byte by byte
				check(t, HTTP("127.0.0.1", answering(c.answer, 1), "/how%20are%20you", mine), c.no)
			}
			if c.no == "" {
				check(t, HTTP("127.0.0.1", answering(c.answer, 1<<20), "/how%20are%20you", theirs), "it is theirs")
			}
		})
	}
}
