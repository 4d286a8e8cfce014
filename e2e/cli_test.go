//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/allexgo/machine-agent/client"
	"github.com/allexgo/machine-agent/e2e/lab"
)

var updateScripts = flag.Bool("update", false, "write what the scripts compare with anew")

// Every command of agentctl on a real agent: the scripts in testdata/script.
// Beside the commands of testscript they have
//
//	agent               starts a LAN manager with the needs of needs.json and
//	                    an agent with the modules hello, crier, which is ready
//	                    when it has registered, and meddler, which runs meddle.sh
//	                    before; $MODULES is where their files are, $LOGS where
//	                    their output is
//	nap                 starts a process of nobody's, whose pid is $NAP
//	pid INSTANCE        sets $PID to that of its process
//	exits CODE PROGRAM  runs a program, which must end with that code; what it
//	                    prints is normalised (see normal)
//	await RE PROGRAM    runs a program again and again until its output matches
//	gone                waits until the agent has ended, with exit code 0
func TestScripts(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal("there are no scripts", err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			t.Parallel()
			c := &cli{stage: newStage(t)}
			testscript.Run(t, testscript.Params{
				Files:               []string{script},
				RequireExplicitExec: true,
				UpdateScripts:       *updateScripts,
				Setup:               c.setup,
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"agent": c.startAgent, "nap": c.nap, "pid": c.pid, "exits": c.exits, "await": c.await, "gone": c.gone,
				},
			})
		})
	}
}

// cli is the world of one script.
type cli struct {
	*stage
	agent *lab.Agent
}

// setup has the script find the programs, and no agent of anybody else.
func (c *cli) setup(env *testscript.Env) error {
	env.Setenv("PATH", c.lab.Bin+":"+env.Getenv("PATH"))
	env.Setenv(client.AddressVariable, "unix:"+filepath.Join(c.lab.Dir, "none"))
	return nil
}

func (c *cli) startAgent(ts *testscript.TestScript, _ bool, _ []string) {
	var wanted []lab.Need
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("needs.json")), &wanted))
	manager, err := c.lab.StartLANManager("lan", wanted)
	ts.Check(err)
	script := func(name, text, ready string) lab.Module {
		return lab.Module{
			"modulename":  name,
			"command":     []string{"sh", "-c", `PATH="$BIN:$PATH"; ` + text + `; exec hello`},
			"environment": map[string]string{"BIN": c.lab.Bin, "WORK": ts.MkAbs(".")},
			"ready":       map[string]string{"kind": ready},
			"ports":       []string{"tcp"},
			// Many programs run before it is ready.
			"starttimeout": "5m",
		}
	}
	_, err = c.lab.WriteAgent("machine", lab.AgentFiles{
		LANManager: manager.Address,
		Ports:      20,
		Config:     map[string]any{"maxprocesses": 5},
		Modules: map[string]lab.Module{
			"hello":   c.hello(),
			"crier":   script("crier", `agentctl register "$MACHINEAGENT_INSTANCE" --status "serving 3 rooms"`, "register"),
			"meddler": script("meddler", `. "$WORK"/meddle.sh`, "port"),
		},
	})
	ts.Check(err)
	c.agent, err = c.lab.StartAgent("machine")
	ts.Check(err)
	ts.Setenv(client.AddressVariable, "unix:"+c.agent.Socket)
	ts.Setenv("MODULES", filepath.Join(c.agent.Directory, "modules"))
	ts.Setenv("LOGS", filepath.Join(c.agent.Directory, ".allexmaster", "log"))
	ts.Setenv("AGENT", strconv.Itoa(c.agent.PID()))
}

func (c *cli) nap(ts *testscript.TestScript, _ bool, _ []string) {
	cmd := exec.Command("sleep", "1000")
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	ts.Setenv("NAP", strconv.Itoa(cmd.Process.Pid))
}

func (c *cli) pid(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: pid INSTANCE")
	}
	pid, err := c.agent.ChildPID(c.ctx, args[0])
	ts.Check(err)
	ts.Setenv("PID", strconv.Itoa(pid))
}

func (c *cli) exits(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARGUMENT...]")
	}
	code := c.run(ts, args[1:])
	if args[0] != strconv.Itoa(code) {
		ts.Fatalf("%q exits with %d, want %s", args[1:], code, args[0])
	}
}

func (c *cli) await(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: await PATTERN PROGRAM [ARGUMENT...]")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for {
		code := c.run(ts, args[1:])
		out := ts.ReadFile("stdout")
		if code == 0 && pattern.MatchString(out) {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-c.ctx.Done():
			ts.Fatalf("%q does not come to show %q; it exits with %d:\n%s%s", args[1:], args[0], code, out, ts.ReadFile("stderr"))
		}
	}
}

// run runs a program, makes what it prints that of the script's command, and
// tells its exit code.
func (c *cli) run(ts *testscript.TestScript, args []string) (code int) {
	var exit *exec.ExitError
	if err := ts.Exec(args[0], args[1:]...); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	out, problems := c.normal(ts.ReadFile("stdout")), c.normal(ts.ReadFile("stderr"))
	fmt.Fprint(ts.Stdout(), out)
	fmt.Fprint(ts.Stderr(), problems)
	return code
}

func (c *cli) gone(ts *testscript.TestScript, _ bool, _ []string) {
	select {
	case <-c.agent.Ended():
	case <-c.ctx.Done():
		ts.Fatalf("the agent has not ended")
	}
	if code := c.agent.ExitCode(); code != 0 {
		ts.Fatalf("the agent ended with exit code %d", code)
	}
}

// normalities make what differs from run to run the same: pids, ports, ages,
// times, versions and what this machine is; and the widths of columns with them.
var normalities = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`(\S)  +`), "$1  "},
	{regexp.MustCompile(regexp.QuoteMeta(runtime.Version()) + ", " + runtime.GOOS + "/" + runtime.GOARCH), "GO, OS/ARCH"},
	{regexp.MustCompile(`"(go|platform)": "[^"]+"`), `"$1": "$1"`},
	{regexp.MustCompile(`"([a-z]*Time|failingSince)": "[^"]+"`), `"$1": "TIME"`},
	{regexp.MustCompile(`"(pid|port|tcp|http|ws)": [1-9]\d*`), `"$1": 1`},
	{regexp.MustCompile(`"LAN_MANAGER_KIND_\w+"`), `"LAN_MANAGER_KIND"`}, // it shows a moment after the session has begun
	{regexp.MustCompile(`"epoch": ?"[^"]+"`), `"epoch": "EPOCH"`},
	{regexp.MustCompile(`"revision": ?"?\d+"?`), `"revision": 1`},
	{regexp.MustCompile(`\b(pid:?|process) \d+`), "$1 PID"},
	{regexp.MustCompile(`\buid \d+`), "uid UID"},
	{regexp.MustCompile(`\b(port|release) \d{4,}`), "$1 PORT"},
	{regexp.MustCompile(`\b(up|for) \d+s`), "$1 AGE"},
	{regexp.MustCompile(`(?m)  \d+  \d+s  `), "  PID  AGE  "},
	{regexp.MustCompile(`\b(http|tcp|ws):\d+`), "$1:PORT"},
	{regexp.MustCompile(`(?m)^\d+  (http|tcp|ws)  (\S+)  \d+`), "PORT  $1  $2  PID"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:PORT"},
	// Not every machine lets us have cgroups.
	{regexp.MustCompile(`(?m)^Cgroups  .*`), "Cgroups  CGROUPS"},
	{regexp.MustCompile(`(?m)^Warning  children get no cgroup .*\n`), ""},
	{regexp.MustCompile(`"cgroups": (true|false)`), `"cgroups": true`},
	{regexp.MustCompile(`"warnings": \[\s*"children get no cgroup[^\n]*\n\s*\]`), `"warnings": []`},
}

func (c *cli) normal(text string) string {
	for _, n := range normalities {
		text = n.what.ReplaceAllString(text, n.by)
	}
	return strings.ReplaceAll(text, c.lab.Dir, "LAB")
}
