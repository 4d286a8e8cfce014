// Command hello is a service to read and to try: a child that needs nothing of
// the agent but the environment of design section 6. It listens on those of
// HTTP_PORT, WS_PORT and TCP_PORT that are set, or serves on the sockets that it is
// given for them, says who it is, and ends cleanly on SIGTERM. Without an agent it
// runs as well:
//
//	HTTP_PORT=8080 go run ./examples/hello
//
// A module file for it is
//
//	{"modulename": "hello", "command": ["./bin/hello"]}
//
// and one with which a restart refuses no connection
//
//	{"modulename": "hello", "command": ["./bin/hello"], "portmode": "passed", "ready": {"kind": "http"}}
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	// The agent asks a child to end by SIGTERM and, when the module's stop
	// timeout is over, ends it by SIGKILL. Ctrl-C is for a run by hand.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
	fmt.Println("ended")
}

// run serves until ctx ends or a server fails, which ends the others too.
// What it prints lands in the instance's log file.
func run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended, running := make(chan error), 0
	var err error
	for _, service := range []struct {
		variable string
		serve    func(context.Context, net.Listener) error
	}{
		{"HTTP_PORT", serveHTTP},
		{"WS_PORT", serveHTTP}, // a WebSocket starts as HTTP; this service has none to upgrade to
		{"TCP_PORT", serveTCP},
	} {
		port := os.Getenv(service.variable)
		if port == "" {
			continue
		}
		l, listenErr := listen(service.variable, port)
		if listenErr != nil {
			err = fmt.Errorf("%s: %w", service.variable, listenErr)
			stop()
			break
		}
		fmt.Printf("%s; %s is %s\n", greeting(), service.variable, port)
		running++
		go func() { ended <- service.serve(ctx, l) }()
	}
	if running == 0 && err == nil {
		return errors.New("nothing to listen on: set HTTP_PORT, WS_PORT or TCP_PORT")
	}
	for range running {
		err = cmp.Or(err, <-ended)
		stop()
	}
	return err
}

// listen listens on the port, unless we have been given a socket that does: one
// for each name in LISTEN_FDNAMES, from descriptor 3 on, if LISTEN_PID says that
// they are for us.
func listen(variable, port string) (net.Listener, error) {
	const first = 3
	if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
		if n := slices.Index(names, strings.ToLower(strings.TrimSuffix(variable, "_PORT"))); n >= 0 {
			return net.FileListener(os.NewFile(uintptr(first+n), variable))
		}
	}
	// The agent holds the port until we listen on it. Go sets SO_REUSEADDR, as
	// nearly every server does, and so gets in.
	return net.Listen("tcp", ":"+port)
}

// greeting says who we are. The agent gives every process the name of its instance.
func greeting() string {
	return fmt.Sprintf("hello from %s, pid %d", cmp.Or(os.Getenv("MACHINEAGENT_INSTANCE"), "nobody"), os.Getpid())
}

// grace is how long answers that are under way may take when we end.
const grace = 3 * time.Second

// serveHTTP answers every request with the greeting until ctx ends.
func serveHTTP(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, greeting()) }),
		ReadHeaderTimeout: grace,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := server.Shutdown(ctx)
	<-served // http.ErrServerClosed
	return err
}

// serveTCP greets every caller and sends back what it says, until ctx ends.
func serveTCP(ctx context.Context, l net.Listener) error {
	var callers sync.WaitGroup
	defer callers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // hangs up, so that Wait returns
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		if err != nil && ctx.Err() != nil {
			return nil // it was us who closed the listener
		}
		if err != nil {
			return err
		}
		callers.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			fmt.Fprintln(c, greeting())
			io.Copy(c, c)
		})
	}
}
