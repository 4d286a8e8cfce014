//go:build !windows

package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// What a call has to say about a failure is typed, and names the cure.
func ExampleDial() {
	c, err := client.Dial("unix:/tmp/no-agent-listens-here")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	_, err = c.Processes.GetProcess(context.Background(), &machineagentv1.GetProcessRequest{Instance: "Echo"})
	switch failure := new(client.Error); {
	case errors.Is(err, client.ErrNotFound):
		fmt.Println("this machine knows no Echo")
	case errors.As(err, &failure):
		fmt.Println(failure.Message)
		fmt.Println("What to do:", failure.Cure)
	}
	// Output:
	// there is no agent at /tmp/no-agent-listens-here: there is no such socket
	// What to do: start one with `agentd`, or name the address of yours in MACHINEAGENT_ADDRESS
}

// A whole child. It serves HTTP until it is asked to end, and then finishes what
// it has begun. Here nobody runs it but this example, so it ends by itself.
func ExampleRunChild() {
	err := client.RunChild(context.Background(), client.ChildConfig{}, func(ctx context.Context, c *client.Child) error {
		l, err := c.Listen(client.HTTP)
		if err != nil {
			return err
		}
		server := &http.Server{Handler: http.NotFoundHandler()}
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		if err := c.Up(ctx, "ready to serve"); err != nil {
			return err
		}
		if err := c.Down(ctx, "this was only an example"); err != nil {
			return err
		}
		select {
		case err := <-served:
			return err
		case <-ctx.Done():
			fmt.Println(context.Cause(ctx))
		}
		finish, cancel := client.Grace(ctx)
		defer cancel()
		return server.Shutdown(finish)
	})
	fmt.Println("error:", err)
	// Output:
	// the child was asked to end: this was only an example
	// error: <nil>
}

// What a need says about its instance becomes a struct of the child's own.
func ExampleSpawn_Properties() {
	spawn := client.Spawn{Instance: "Echo", PropertyHash: json.RawMessage(`{"greeting": "good morning"}`)}
	properties := struct {
		Greeting string
		Loud     bool
	}{Greeting: "hello"}
	if err := spawn.Properties(&properties); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%+v\n", properties)
	// Output: {Greeting:good morning Loud:false}
}

// A picture of where the services of the LAN are, kept up to date across restarts
// of the agent.
func ExampleClient_WatchServices() {
	c, err := client.Dial("")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	services := map[string]*machineagentv1.Service{}
	for u, err := range c.WatchServices(context.Background(), client.From{}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		switch u.Kind {
		case client.StartedOver:
			clear(services) // what is there now follows
		case client.Changed:
			services[u.Instance] = u.Value
		case client.Gone:
			delete(services, u.Instance)
		case client.CaughtUp:
			fmt.Println("the LAN has", len(services), "services")
		}
	}
}
