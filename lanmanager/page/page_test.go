package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// begun is when the LANs of the tests are.
var begun = time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)

func serve(t *testing.T, s Source) *Page {
	p := New(Config{Source: s})
	t.Cleanup(p.Close)
	return p
}

// ask is the answer to a GET of a browser on this machine, changed by change.
func ask(h http.Handler, url string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, url, nil)
	r.Host = "127.0.0.1:23580"
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }

func TestWhoMayAsk(t *testing.T) {
	p := serve(t, newSource(lan(1, begun)))
	server := httptest.NewServer(p)
	defer server.Close()
	here := server.Listener.Addr().String()
	method := func(m string) func(*http.Request) { return func(r *http.Request) { r.Method = m } }
	for _, c := range []struct {
		name   string
		change []func(*http.Request)
		want   int
	}{
		{"as it is", nil, 200},
		{"HEAD", []func(*http.Request){method("HEAD")}, 200},
		{"POST", []func(*http.Request){method("POST")}, 405},
		{"OPTIONS", []func(*http.Request){method("OPTIONS")}, 405},
		{"localhost through a tunnel", []func(*http.Request){host("localhost:8080")}, 200},
		{"localhost in capitals", []func(*http.Request){host("LOCALHOST")}, 200},
		{"IPv6 loopback", []func(*http.Request){host("[::1]:23580")}, 200},
		{"mapped loopback", []func(*http.Request){host("[::ffff:127.0.0.1]:23580")}, 200},
		{"another loopback address", []func(*http.Request){host("127.9.9.9")}, 200},
		{"a name that leads here", []func(*http.Request){host("evil.example:23580")}, 421},
		{"localhost within a name", []func(*http.Request){host("localhost.evil.example")}, 421},
		{"an address in a name", []func(*http.Request){host("127.0.0.1.evil.example")}, 421},
		{"another address", []func(*http.Request){host("192.0.2.1:23580")}, 421},
		{"no address at all", []func(*http.Request){host("0.0.0.0")}, 421},
		{"no host", []func(*http.Request){host("")}, 421},
		{"its own origin", []func(*http.Request){header("Origin", "http://"+here)}, 200},
		{"another origin", []func(*http.Request){header("Origin", "http://evil.example")}, 403},
		{"another port's origin", []func(*http.Request){header("Origin", "http://127.0.0.1:1")}, 403},
		{"the origin null", []func(*http.Request){header("Origin", "null")}, 403},
		{"part of another site", []func(*http.Request){header("Sec-Fetch-Site", "cross-site"), header("Sec-Fetch-Mode", "no-cors")}, 403},
		{"part of another port's page", []func(*http.Request){header("Sec-Fetch-Site", "same-site"), header("Sec-Fetch-Mode", "no-cors")}, 403},
		{"a link of another site", []func(*http.Request){header("Sec-Fetch-Site", "cross-site"), header("Sec-Fetch-Mode", "navigate")}, 200},
		{"its own part", []func(*http.Request){header("Sec-Fetch-Site", "same-origin"), header("Sec-Fetch-Mode", "cors")}, 200},
	} {
		for _, path := range []string{"/", "/api/needs", "/api/lan", "/metrics", "/healthz", "/page.js"} {
			r, err := http.NewRequest(http.MethodGet, server.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range c.change {
				f(r)
			}
			if r.Host == "" {
				continue // net/http sends the URL's; see below
			}
			answer, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
			if answer.StatusCode != c.want {
				t.Errorf("%s: %s is answered with %d, want %d", c.name, path, answer.StatusCode, c.want)
			}
			for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"} {
				if got := answer.Header.Get(name); got != want {
					t.Errorf("%s: %s: %s is %q, want %q", c.name, path, name, got, want)
				}
			}
			if csp := answer.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'self'") || !strings.Contains(csp, "frame-ancestors 'none'") {
				t.Errorf("%s: %s: the policy is %q", c.name, path, csp)
			}
		}
	}
	if got := ask(p, "/", host("")).Code; got != 421 {
		t.Errorf("a request without a host is answered with %d, want 421", got)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func TestPageEscapesNames(t *testing.T) {
	s := lan(1, begun)
	s.Version, s.Listeners = "<b>", []string{"<i>"}
	name := "<script>alert(1)</script>\u202e\x00\" autofocus onfocus=\"x"
	s.Needs[0] = Need{Instance: name, Module: name, Address: name, Ports: name, Open: true, Why: name, Source: name}
	s.Services = []Service{{Instance: name, Module: name, Address: name, Owner: name}}
	s.Machines = []Machine{{Name: name, ID: name, Address: name, Kind: name, Envelopes: []string{name}}}
	s.NAT = []NAT{{name, name, name, name}}
	s.Events = []Event{{begun, ServiceDown, name, name}}
	s.Problems = []Problem{{name, name, name}}
	p := serve(t, newSource(s))
	tag := regexp.MustCompile(`<(script|b|i)>|\x{202e}|\x00|" autofocus`)
	for _, k := range kinds {
		for _, url := range []string{"/?tab=" + k.name, "/?tab=" + k.name + "&filter=%3Cscript%3E%22+autofocus"} {
			body := ask(p, url).Body.String()
			if found := tag.FindString(body); found != "" {
				t.Errorf("%s holds %q", url, found)
			}
			if !strings.Contains(body, `&lt;script&gt;alert(1)&lt;/script&gt;\u202e\x00`) {
				t.Errorf("%s does not show the name", url)
			}
		}
	}
}

func TestBadQueries(t *testing.T) {
	p := serve(t, newSource(lan(1, begun)))
	for url, want := range map[string]string{
		"/?tab=nothing":                        `there is no table "nothing"; there are needs, services, machines, nat, events`,
		"/?sort=nothing":                       `needs have no column "nothing" to sort by; they have state, instance, why, since, module, address, ports, source, with - before it downwards`,
		"/?page=0":                             `page is "0"; it must be a number from 1 to 1073741824`,
		"/?rows=1001":                          `rows is "1001"; it must be a number from 1 to 1000`,
		"/?page=%zz":                           `the query can not be read: invalid URL escape "%zz"`,
		"/?filter=" + strings.Repeat("x", 601): "filter has more than 600 bytes",
		"/?nobody=knows" + strings.Repeat("x", 4096): "the query has more than 4096 bytes",
		"/api/nothing": `there is no table "nothing"; there are needs, services, machines, nat, events`,
	} {
		if got := ask(p, url); got.Code != 400 || strings.TrimSpace(got.Body.String()) != want {
			t.Errorf("%.40s is answered with %d: %s, want 400: %s", url, got.Code, got.Body, want)
		}
	}
	for _, url := range []string{"/nothing", "/api/", "/api/needs/Time", "/debug/pprof/"} {
		if got := ask(p, url).Code; got != 404 {
			t.Errorf("%s is answered with %d, want 404", url, got)
		}
	}
}

func TestJSON(t *testing.T) {
	p := serve(t, newSource(lan(50, begun)))
	answer := ask(p, "/api/needs?filter=open&rows=1&page=2")
	var got, want any
	if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	json.Unmarshal([]byte(`{"revision":7,"time":"2026-03-14T15:09:26Z","total":50,"matched":2,"page":2,"pages":2,"rows":[
		{"instance":"Node34","module":"echo","address":"10.7.0.0/16","open":true,"since":"2026-03-14T15:05:28Z",
		"why":"Its address 10.7.0.0/16 fits none of the connected machines.","source":"needs"}]}`), &want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got := ask(p, "/api/nat?filter=nowhere").Body.String(); !strings.Contains(got, `"rows":[]`) {
		t.Errorf("no rows are %s, want an empty array", got)
	}
	if got := ask(p, "/api/lan").Body.String(); !strings.Contains(got, `"file":"needs.overlay"`) {
		t.Errorf("the LAN is %s, want its problems in it", got)
	}
}

func TestHealth(t *testing.T) {
	answer := ask(serve(t, newSource(lan(50, begun))), "/healthz")
	const want = `{"status":"ok","needs":50,"open":2,"services":48,"problems":1}` + "\n"
	if answer.Code != 200 || answer.Body.String() != want {
		t.Errorf("healthy is %d: %s, want 200: %s", answer.Code, answer.Body, want)
	}
	if answer := ask(serve(t, stuck{}), "/healthz"); answer.Code != 503 {
		t.Errorf("a core that does not answer is %d: %s, want 503", answer.Code, answer.Body)
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "lanmanager_tests_total", Help: "Tests."})
	registry.MustRegister(counter)
	p := New(Config{Source: stuck{}, Registry: registry})
	defer p.Close()
	if got := ask(p, "/metrics").Body.String(); !strings.Contains(got, "lanmanager_tests_total 0") {
		t.Errorf("the metrics are %s, want those of the registry", got)
	}
}

func TestFilesAreKeptByBrowsers(t *testing.T) {
	p := serve(t, stuck{})
	for name, contentType := range map[string]string{
		"/page.css": "text/css; charset=utf-8", "/page.js": "text/javascript; charset=utf-8", "/icon.svg": "image/svg+xml",
	} {
		first := ask(p, name)
		if got := first.Header().Get("Content-Type"); first.Code != 200 || got != contentType {
			t.Errorf("%s is %d of %q, want 200 of %q", name, first.Code, got, contentType)
		}
		if again := ask(p, name, header("If-None-Match", first.Header().Get("ETag"))); again.Code != 304 {
			t.Errorf("%s is sent again with %d, want 304", name, again.Code)
		}
	}
}

func TestClosed(t *testing.T) {
	p := New(Config{Source: newSource(lan(1, begun))})
	p.Close()
	p.Close()
	for _, url := range []string{"/", "/api/needs", "/healthz"} {
		if got := ask(p, url); got.Code != 503 {
			t.Errorf("%s of a closed page is answered with %d: %s, want 503", url, got.Code, got.Body)
		}
	}
}

// failing is a source whose core has gone.
type failing struct{ stuck }

func (failing) Snapshot(context.Context) (*Snapshot, error) {
	return nil, errors.New("the core has ended")
}

func TestFailingSource(t *testing.T) {
	got := ask(serve(t, failing{}), "/")
	const want = "The LAN manager can not be shown: the core has ended.\n"
	if got.Code != 503 || got.Body.String() != want {
		t.Errorf("it says %d: %s, want 503: %s", got.Code, got.Body, want)
	}
}

func BenchmarkView(b *testing.B) {
	s := lan(10_000, begun)
	for _, url := range []string{"/", "/?filter=node99+echo", "/?sort=-instance&page=100"} {
		b.Run(url, func(b *testing.B) {
			p := New(Config{Source: newSource(s)})
			defer p.Close()
			for b.Loop() {
				if got := ask(p, url); got.Code != 200 {
					b.Fatal(got)
				}
			}
		})
		b.Run(fmt.Sprintf("%s of a new revision", url), func(b *testing.B) {
			q, err := parseQuery(strings.TrimLeft(url, "/?"), "")
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				newView(newMoment(&s), q, begun)
			}
		})
	}
}
