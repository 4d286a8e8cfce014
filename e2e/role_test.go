//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/allexgo/machine-agent/client"
	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// roleVariable makes the test binary a child of an agent.
const roleVariable = "E2E_ROLE"

// play plays the role that the environment asks for, if it asks for one.
func play() bool {
	var err error
	switch role := os.Getenv(roleVariable); role {
	case "":
		return false
	case "registrant":
		err = registrant(context.Background())
	case "daemon":
		err = daemonRole()
	case "notifier":
		err = notifierRole()
	case "checked":
		err = checkedRole()
	case "patient":
		err = patientRole()
	case "thief":
		err = thief()
	case "talker":
		err = talker()
	case "chatter":
		err = chatter()
	case "glutton":
		err = glutton()
	case "bystander":
		err = bystanderRole()
	case "leaver":
		err = leaver(context.Background())
	case "obedient":
		err = obedient(context.Background())
	default:
		err = fmt.Errorf("there is no role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// role is a module whose processes are this program in a role.
func (s *stage) role(name string, environment map[string]string) lab.Module {
	s.t.Helper()
	self, err := os.Executable()
	s.must(err)
	module := s.hello()
	module["modulename"], module["command"] = name, []string{self}
	env := map[string]string{roleVariable: name}
	for k, v := range environment {
		env[k] = v
	}
	module["environment"] = env
	return module
}

// What a registrant is told by signals.
const (
	doRegister   = syscall.SIGUSR1
	doReportDown = syscall.SIGUSR2
)

// registrantText is what a registrant says of itself.
const registrantText = "ready for anything"

// registrant listens on its HTTP port at once, and says that it is up, or down,
// when it is told to by a signal.
func registrant(ctx context.Context) error {
	told := make(chan os.Signal, 1)
	signal.Notify(told, doRegister, doReportDown, syscall.SIGTERM)
	l, err := listenHTTP()
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := client.Dial("")
	if err != nil {
		return err
	}
	defer c.Close()
	for s := range told {
		switch s {
		case doRegister:
			_, err = c.Processes.RegisterProcess(ctx, &pb.RegisterProcessRequest{StatusText: registrantText})
		case doReportDown:
			_, err = c.Processes.ReportDown(ctx, &pb.ReportDownRequest{Reason: "tired"})
		default:
			return nil
		}
		fmt.Println(s, err)
	}
	return nil
}

// listenHTTP listens on the HTTP port that the agent gave.
func listenHTTP() (net.Listener, error) { return net.Listen("tcp", ":"+os.Getenv("HTTP_PORT")) }

// glutton listens on its HTTP port, and takes all memory when it is told to.
func glutton() error {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGUSR1, syscall.SIGTERM)
	l, err := listenHTTP()
	if err != nil {
		return err
	}
	defer l.Close()
	var all [][]byte
	for s := range told {
		for s == syscall.SIGUSR1 {
			all = append(all, bytes.Repeat([]byte("x"), 1<<20))
		}
		return nil
	}
	return fmt.Errorf("%d MiB are not enough", len(all))
}
