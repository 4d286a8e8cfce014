// Command greeter is a child of an agent that does what a good child does: it
// registers, watches the LAN's services, finds another one among them, reports
// itself down, and ends when it is asked to. docs/children.md goes through it,
// and through the same in Node and Python, which lie beside it. Without an agent
// it runs as well:
//
//	HTTP_PORT=8080 go run ./examples/greeter
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

func main() {
	if err := client.RunChild(context.Background(), client.ChildConfig{}, serve); err != nil {
		fmt.Fprintln(os.Stderr, "greeter:", err)
		os.Exit(1)
	}
}

// serve is the child, from its start until ctx ends.
func serve(ctx context.Context, c *client.Child) error {
	g := &greeter{child: c, Greeting: "hello"}
	g.services.Store(&table{})
	if err := c.Spawn.Properties(g); err != nil {
		return err
	}
	l, err := c.Listen(client.HTTP)
	if err != nil {
		return err
	}
	fmt.Printf("%s serves %s\n", g.name(), l.Addr())
	server := &http.Server{Handler: g.pages(), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 2)
	go func() { failed <- server.Serve(l) }()
	if err := c.Up(ctx, "greets in Go"); err != nil {
		return err
	}
	if c.Spawn.Instance != "" {
		go func() { failed <- g.watch(ctx) }()
	}
	select {
	case err := <-failed:
		if ctx.Err() == nil {
			return err
		}
	case <-ctx.Done():
	}
	fmt.Println("ended:", context.Cause(ctx))
	finish, cancel := client.Grace(ctx)
	defer cancel()
	return server.Shutdown(finish)
}

// greeter is the service. Its exported fields are the properties of its need.
type greeter struct {
	Greeting string
	Friend   string // the instance that it asks for a greeting

	child    *client.Child
	services atomic.Pointer[table]
}

// table is the services of the LAN, by instance. One that is published does not
// change any more.
type table map[string]*machineagentv1.Service

// name is who we are; without an agent nobody has given us a name.
func (g *greeter) name() string { return cmp.Or(g.child.Spawn.Instance, "nobody") }

// watch keeps the table of services until ctx ends.
func (g *greeter) watch(ctx context.Context) error {
	next, caughtUp := table{}, false
	for u, err := range g.child.Client.WatchServices(ctx, client.From{}) {
		if err != nil {
			return err
		}
		switch u.Kind {
		case client.Changed:
			next[u.Instance] = u.Value
		case client.Gone:
			delete(next, u.Instance)
		case client.CaughtUp:
			caughtUp = true
		case client.StartedOver:
			next, caughtUp = table{}, false // until it has caught up the old table is better
		}
		if caughtUp {
			published := maps.Clone(next)
			g.services.Store(&published)
		}
	}
	return nil
}

// pages are what we serve.
func (g *greeter) pages() http.Handler {
	pages := map[string]func(context.Context) (string, error){
		"/": func(context.Context) (string, error) {
			return fmt.Sprintf("%s from %s, pid %d\n", g.Greeting, g.name(), os.Getpid()), nil
		},
		"/services": g.list,
		"/friend":   g.askFriend,
		"/down": func(ctx context.Context) (string, error) {
			return "goodbye\n", g.child.Down(ctx, "somebody asked for it")
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, ok := pages[r.URL.Path]
		if !ok {
			http.Error(w, "no such page", http.StatusNotFound)
			return
		}
		text, err := page(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, text)
	})
}

// list is a line for each service.
func (g *greeter) list(context.Context) (string, error) {
	var lines []string
	for _, s := range *g.services.Load() {
		lines = append(lines, fmt.Sprintf("%s %s\n", s.GetInstance(), address(s)))
	}
	slices.Sort(lines)
	return strings.Join(lines, ""), nil
}

// askFriend has another service greet.
func (g *greeter) askFriend(ctx context.Context) (string, error) {
	friend, ok := (*g.services.Load())[g.Friend]
	if !ok {
		return "", fmt.Errorf("no service %q", g.Friend)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address(friend)+"/", nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}

func address(s *machineagentv1.Service) string {
	return net.JoinHostPort(s.GetIpAddress(), strconv.Itoa(int(s.GetPorts().GetHttp())))
}
