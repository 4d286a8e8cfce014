package lanmanager

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/lan/wire"
)

// server serves every open need with one port, over the client of lan/wire.
type server struct {
	t      testing.TB
	port   int
	lan    *wire.Session
	needs  *wire.Session
	served chan string   // names, as they are accepted
	atOnce chan struct{} // holds one for each need that is being served
	tasks  sync.WaitGroup
}

func newServer(t testing.TB, url, id string, port, room int) *server {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	conn, err := wire.Dial(ctx, url, wire.DialOptions{LocalIP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	client := wire.NewClient(conn, wire.ClientOptions{})
	s := &server{t: t, port: port, served: make(chan string, room), atOnce: make(chan struct{}, 8)}
	s.tasks.Go(func() { client.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		s.tasks.Wait()
	})
	credentials := map[string]any{"ip": map[string]string{"name": "n", "role": "user", "id": id}}
	if s.lan, err = client.Introduce(ctx, credentials); err != nil {
		t.Fatal(err)
	}
	if s.needs, err = s.lan.Sub(ctx, "needs", map[string]string{}); err != nil {
		t.Fatal(err)
	}
	s.tasks.Go(func() {
		s.needs.Query(ctx, map[string]bool{"continuous": true}, func(item json.RawMessage) { s.item(ctx, item) })
	})
	return s
}

func (s *server) item(ctx context.Context, item json.RawMessage) {
	var parts []json.RawMessage
	if err := json.Unmarshal(item, &parts); err != nil {
		s.t.Errorf("item %s: %v", item, err)
		return
	}
	if op := string(parts[0]); op != `"c"` && op != `"r1"` {
		return
	}
	var record struct{ InstanceName string }
	if err := json.Unmarshal(parts[len(parts)-1], &record); err != nil {
		s.t.Errorf("item %s: %v", item, err)
		return
	}
	s.tasks.Go(func() {
		s.atOnce <- struct{}{}
		defer func() { <-s.atOnce }()
		if err := s.serve(ctx, record.InstanceName); err != nil && ctx.Err() == nil {
			s.t.Errorf("serving %s: %v", record.InstanceName, err)
		}
	})
}

func (s *server) serve(ctx context.Context, name string) error {
	session, err := s.needs.Sub(ctx, name, map[string]string{})
	if err != nil {
		return err
	}
	answer, err := session.Call(ctx, wire.Protocol, "bid", map[string]string{})
	if err != nil {
		return err
	}
	var challenge struct{ Bid string }
	if err := json.Unmarshal(answer, &challenge); err != nil {
		return err
	}
	_, err = session.Call(ctx, wire.Protocol, "respond", challenge.Bid, map[string]int{"pid": 1, "tcpport": s.port})
	if err == nil {
		s.served <- name
	}
	return err
}

func (s *server) down(name string) {
	if _, err := s.lan.Call(s.t.Context(), wire.Business, "notifyServiceDown", name); err != nil {
		s.t.Errorf("notifyServiceDown of %s: %v", name, err)
	}
}

func manyNeeds(n int) map[string]string {
	var texts []string
	for i := range n {
		texts = append(texts, fmt.Sprintf(`{"instancename":"n%d","modulename":"m","propertyhash":{"i":%d}}`, i, i))
	}
	return map[string]string{"needs": "[" + strings.Join(texts, ",\n") + "]"}
}

// A thousand needs are served once each, and again after all have gone down.
func TestAThousandNeeds(t *testing.T) {
	const n = 1000
	lan := start(t, Config{}, manyNeeds(n))
	began := time.Now()
	s := newServer(t, lan.url, "one", listener(t), n)
	collect := func() {
		t.Helper()
		names := map[string]int{}
		late := time.After(time.Minute)
		for len(names) < n {
			select {
			case name := <-s.served:
				if names[name]++; names[name] > 1 {
					t.Fatalf("%s is served twice", name)
				}
			case <-late:
				t.Fatalf("%d of %d needs are served", len(names), n)
			}
		}
	}
	collect()
	t.Logf("served after %s", time.Since(began))
	began = time.Now()
	for i := range n {
		s.tasks.Go(func() { s.down(fmt.Sprint("n", i)) })
	}
	collect()
	t.Logf("served again after %s", time.Since(began))

	watcher := lan.agent("watcher", "127.0.0.9")
	names := watcher.names(watcher.services)
	slices.Sort(names)
	if len(slices.Compact(names)) != n {
		t.Errorf("%d services, want %d", len(names), n)
	}
}

// BenchmarkRoad is the LAN manager's part of a restart: report, need, bid,
// challenge, response, port check, accepted.
func BenchmarkRoad(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			lan := start(b, Config{}, manyNeeds(n))
			s := newServer(b, lan.url, "one", listenerOn(b, "127.0.0.1"), n)
			for range n {
				<-s.served
			}
			for b.Loop() {
				s.down("n0")
				<-s.served
			}
		})
	}
}
