//go:build linux

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// notifierRole is a server that says on the notify socket what it is told to: its
// arguments at once, and then what is posted to it. Without a server it is a
// sender, which has ended when it is heard, or one that says time and again that all
// is well.
func notifierRole() error {
	if len(os.Args) > 1 && os.Args[1] == "say" {
		return notify(strings.Join(os.Args[2:], "\n"))
	}
	if len(os.Args) > 1 && os.Args[1] == "beat" {
		for beat := time.Tick(100 * time.Millisecond); ; <-beat {
			if err := notify("WATCHDOG=1"); err != nil {
				return err
			}
		}
	}
	l, err := net.Listen("tcp", ":"+os.Getenv("HTTP_PORT"))
	if err != nil {
		return err
	}
	if err := notify(strings.Join(os.Args[1:], "\n")); err != nil {
		return err
	}
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch text := r.FormValue("say"); text {
		case "":
		case "exit":
			os.Exit(3)
		default:
			if err := notify(text); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		}
	}))
}

// notify says something on the notify socket.
func notify(text string) error {
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(text))
	return err
}

// notifiers are modules of the notifier role, by name, with what they say at the
// beginning.
func (s *stage) notifiers(said map[string]string) map[string]lab.Module {
	s.t.Helper()
	self, err := os.Executable()
	s.must(err)
	modules := map[string]lab.Module{}
	for name, text := range said {
		modules[name] = lab.Module{
			"modulename": name, "command": []string{self, text}, "ports": []string{"http"},
			"environment": map[string]string{roleVariable: "notifier"},
			"ready":       map[string]string{"kind": "notify"}, "backoff": map[string]string{"initial": "0s"},
		}
	}
	return modules
}

// say has a notifier say something.
func (s *stage) say(a *lab.Agent, instance, text string) {
	s.t.Helper()
	answer, err := http.PostForm(fmt.Sprintf("http://127.0.0.1:%d/", s.process(a, instance).GetPorts().GetHttp()), map[string][]string{"say": {text}})
	if err == nil {
		answer.Body.Close()
	} else if text != "exit" && text != "WATCHDOG=trigger" { // which may end it before it answers
		s.t.Fatal(err)
	}
}

// status waits until an instance has that status text.
func (s *stage) status(a *lab.Agent, instance, want string) {
	s.t.Helper()
	s.until(func() string {
		if got := s.process(a, instance).GetStatusText(); got != want {
			return fmt.Sprintf("the status of %s is %q, want %q", instance, got, want)
		}
		return ""
	})
}

// replaced waits until a ready process has taken the place of one.
func (s *stage) replaced(a *lab.Agent, instance string, first int32) *pb.Process {
	s.t.Helper()
	var now *pb.Process
	s.until(func() string {
		now = s.running(a)[instance]
		if now == nil || now.GetPid() == first || now.GetState() != pb.ProcessState_PROCESS_STATE_READY {
			return "no replacement of " + instance + " is ready"
		}
		return ""
	})
	return now
}

// logs waits until an agent has logged something.
func (s *stage) logs(a *lab.Agent, what string) {
	s.t.Helper()
	s.until(func() string {
		if out := a.Program.Output(); !strings.Contains(out, what) {
			return fmt.Sprintf("%q in:\n%s", what, out)
		}
		return ""
	})
}

// A process is ready when it says so, and is shown as it says that it is; what
// strangers say in its place is not believed.
func TestNotify(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	modules := s.notifiers(map[string]string{"quick": "READY=1\nSTATUS=at work", "silent": "STATUS=not yet", "patient": "STATUS=warming up\nEXTEND_TIMEOUT_USEC=3600000000"})
	for _, name := range []string{"silent", "patient"} {
		modules[name]["starttimeout"] = "4s" // in which it has to say that it wants more
		modules[name]["backoff"] = map[string]string{"initial": "1m", "max": "1m"}
	}
	self, err := os.Executable()
	s.must(err)
	modules["script"] = s.notifiers(map[string]string{"script": ""})["script"]
	// The sender has ended before the script goes on, as systemd-notify --no-block has.
	modules["script"]["command"] = []string{"sh", "-c", self + " say READY=1 'STATUS=said by another' && exec " + filepath.Join(s.lab.Bin, "hello")}
	manager := s.lan(append(append(needs(1, "quick"), needs(1, "silent")...), append(needs(1, "patient"), needs(1, "script")...)...)...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: modules})
	s.served(o, 2)
	s.status(a, "quick-0", "at work")
	s.status(a, "script-0", "said by another")

	stranger := exec.Command(self, "say", "READY=1")
	stranger.Env = append(os.Environ(), roleVariable+"=notifier", "NOTIFY_SOCKET="+a.Socket+".notify")
	s.must(stranger.Run())
	if d := s.decided(a, "silent-0", pb.Decision_DECISION_BACKOFF); !strings.Contains(d.GetDetail(), "not ready within 4s: it did not say READY=1") {
		t.Errorf("silent waits because %q", d.GetDetail())
	}
	s.logs(a, "is not believed")
	// Its start timeout would be over by now.
	if p := s.process(a, "patient-0"); p.GetState() != pb.ProcessState_PROCESS_STATE_STARTING || p.GetStatusText() != "warming up" {
		t.Errorf("who asked for more time is %v", p)
	}
	s.say(a, "patient-0", "READY=1\nSTATUS=\nMAINPID=1\nFDSTORE=1")
	s.served(o, 3)
	s.logs(a, "MAINPID=")
	s.logs(a, "FDSTORE=1")
	s.say(a, "quick-0", "RELOADING=1\nSTATUS=new rules")
	s.status(a, "quick-0", "reloading: new rules")
	s.say(a, "quick-0", "READY=1")
	s.status(a, "quick-0", "new rules")

	// The next agent hears on the same socket.
	s.must(a.Leave())
	a = s.again("machine")
	s.say(a, "quick-0", "STATUS=still here")
	s.status(a, "quick-0", "still here")
}

// Who says that it stops leaves the LAN's table at once, and its end is no
// failure, be it that it comes right behind.
func TestNotifyStopping(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	modules := s.notifiers(map[string]string{"quick": "READY=1", "slow": "READY=1"})
	for _, m := range modules {
		m["backoff"] = map[string]string{"initial": "1m", "max": "1m"} // which would be seen
	}
	modules["slow"]["stop"] = map[string]string{"timeout": "300ms"}
	modules["slow"]["backoff"] = map[string]string{"initial": "0s"}
	manager := s.lan(append(needs(1, "quick"), needs(1, "slow")...)...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: modules})
	s.served(o, 2)
	first := s.process(a, "quick-0").GetPid()
	s.say(a, "quick-0", "STOPPING=1")
	s.served(o, 1)
	if d := s.decided(a, "quick-0", pb.Decision_DECISION_STARTING); !strings.Contains(d.GetDetail(), "stops by itself") {
		t.Errorf("it is not offered because %q", d.GetDetail())
	}
	s.say(a, "quick-0", "exit")
	if p := s.replaced(a, "quick-0", first); p.GetFailures() != 0 || !strings.Contains(p.GetLastReason(), "STOPPING=1") {
		t.Errorf("its end was a failure: %v", p)
	}
	slow := s.process(a, "slow-0").GetPid()
	s.say(a, "slow-0", "STOPPING=1")
	if p := s.replaced(a, "slow-0", slow); !strings.Contains(p.GetLastReason(), "did not end within 300ms") {
		t.Errorf("who says that it stops and does not: %v", p)
	}
}

// A process that is not heard of in time, or says so itself, is replaced.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	modules := s.notifiers(map[string]string{"mute": "READY=1", "ill": "READY=1", "well": "READY=1"})
	modules["mute"]["watchdog"], modules["ill"]["watchdog"], modules["well"]["watchdog"] = "700ms", "1h", "3s"
	self, err := os.Executable()
	s.must(err)
	modules["well"]["command"] = []string{"sh", "-c", self + " beat & exec " + self + ` "READY=1" "STATUS=$WATCHDOG_USEC"`}
	manager := s.lan(append(append(needs(1, "mute"), needs(1, "ill")...), needs(1, "well")...)...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: modules})
	s.served(o, 3)
	s.status(a, "well-0", "3000000")
	mute, ill, well := s.process(a, "mute-0").GetPid(), s.process(a, "ill-0").GetPid(), s.process(a, "well-0").GetPid()
	if p := s.replaced(a, "mute-0", mute); !strings.Contains(p.GetLastReason(), "has not said WATCHDOG=1 within 700ms") {
		t.Errorf("the mute one was replaced because %q", p.GetLastReason())
	}
	s.say(a, "ill-0", "WATCHDOG=trigger")
	if p := s.replaced(a, "ill-0", ill); !strings.Contains(p.GetLastReason(), "WATCHDOG=trigger") {
		t.Errorf("the ill one was replaced because %q", p.GetLastReason())
	}
	for range 4 { // by then the well one has lived for longer than its watchdog waits
		mute = s.replaced(a, "mute-0", mute).GetPid()
	}
	if p := s.process(a, "well-0"); p.GetPid() != well {
		t.Errorf("the well one was replaced because %q", p.GetLastReason())
	}
}
