package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/allexgo/machine-agent/agent/config"
	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// grade says how bad a finding is.
type grade string

const (
	good grade = "OK"
	warn grade = "WARN" // it works, and not as well as it could
	fail grade = "FAIL" // something does not work
)

// finding is one thing that the doctor has found.
type finding struct {
	Grade grade  `json:"grade"`
	About string `json:"about"` // one of the subjects of doctor's help
	What  string `json:"what"`
	Cure  string `json:"cure"` // empty if all is well, or if What says it
}

// The subjects, in the order in which they are told.
const (
	aboutSocket        = "socket"
	aboutAgent         = "agent"
	aboutLANManager    = "LAN manager"
	aboutConfiguration = "configuration"
	aboutModules       = "modules"
	aboutPorts         = "ports"
	aboutCgroups       = "cgroups"
	aboutLimits        = "limits"
	aboutState         = "state"
	aboutClock         = "clock"
	aboutServing       = "serving"
)

func (l *commandLine) doctor() *cobra.Command {
	directory := "."
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what is wrong on this machine, and what to do",
		Long: `Find out what is wrong on this machine, and what to do. It changes nothing, asks the
agent if there is one, and looks at the files of --directory either way; without that,
at those of this directory, or else at those of the agent that answers.

  socket         who serves it, or what lies there
  agent          whether it answers, and what it warns of
  LAN manager    whether it is reached; without an agent by a connection on which
                 nothing is said
  configuration  mistakes in it
  modules        mistakes in them, programs that are not there or other ones
  ports          ranges that the system gives to others; strangers on our ports
  cgroups        whether every child has one
  limits         descriptors for as many processes as there may be
  state          whose the state directory is, and the room on its disk
  clock          whether somebody keeps it right
  serving        drained, held, withdrawn, tried in vain, in a crash loop; needs
                 without a module

The exit code is 1 if there is a FAIL, else 0.`,
		GroupID: looking,
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := readFiles(directory, cmd.Flags().Changed("directory"))
			if f.found && !cmd.Flags().Changed("address") && os.Getenv(client.AddressVariable) == "" {
				l.address = target(f.config.Socket)
			}
			return l.connected(func(c *client.Client) error {
				r := report{commandLine: l}
				r.examine(cmd.Context(), c, f)
				if err := r.end(); err != nil {
					return err
				}
				return verdict(r.findings)
			})
		},
	}
	cmd.Flags().StringVar(&directory, "directory", directory, "where agentd has its allexmasterconfig.json")
	return cmd
}

// same tells whether two paths are of one socket.
func same(a, b string) bool {
	one, err1 := os.Stat(a)
	other, err2 := os.Stat(b)
	return a == b || err1 == nil && err2 == nil && os.SameFile(one, other)
}

// target is a socket as an address.
func target(socket string) string {
	if runtime.GOOS == "windows" {
		return socket
	}
	return "unix:" + socket
}

// verdict is an error if something does not work.
func verdict(findings []finding) error {
	failures := int32(0)
	for _, f := range findings {
		if f.Grade == fail {
			failures++
		}
	}
	if failures == 0 {
		return nil
	}
	return fmt.Errorf("not all is well: %s", plural(failures, "failure", "failures"))
}

// files are what an administrator has written, as far as it could be read.
type files struct {
	config    config.Config
	found     bool              // there is a good configuration
	elsewhere bool              // nobody said where, and they are not in this directory
	catalogue *module.Catalogue // nil: not looked at, or not good
	findings  []finding
}

// readFiles reads them. If nobody has named the directory it may well be the wrong one.
func readFiles(directory string, named bool) (f files) {
	const name = "name the directory of agentd with --directory"
	cfg, file, found, err := config.Load(directory)
	modules := cfg.ModuleDirectory
	switch {
	case err != nil:
		f.findings = append(f.findings, mistakes(aboutConfiguration, err, directory)...)
		modules = cmp.Or(modules, config.Default(directory).ModuleDirectory)
	case !found && !named:
		f.findings = append(f.findings, finding{warn, aboutConfiguration, "was not looked at: there is no " + file, name})
		f.elsewhere = true
		return f
	case !found:
		f.findings = append(f.findings, finding{warn, aboutConfiguration, "there is no " + file + ", and agentd writes the default one when it starts",
			"start agentd there, or " + name})
	default:
		f.findings = append(f.findings, finding{good, aboutConfiguration, file, ""})
	}
	f.config, f.found = cfg, err == nil
	if f.catalogue, err = module.Load(modules); err != nil {
		f.findings = append(f.findings, mistakes(aboutModules, err, directory)...)
	} else if wrong := f.catalogue.Verify(); len(wrong) > 0 {
		for _, err := range wrong {
			f.findings = append(f.findings, wrongProgram(err))
		}
	} else if n := len(f.catalogue.Names()); n > 0 {
		f.findings = append(f.findings, finding{good, aboutModules, fmt.Sprintf("%s in %s", plural(int32(n), "module", "modules"), modules), ""})
	} else {
		f.findings = append(f.findings, finding{warn, aboutModules, "there is none in " + modules + ", so that nothing is served here", "write one; the README shows how"})
	}
	return f
}

// mistakes are those of the files of a directory, one to a line. What is behind a
// semicolon there explains more often than it helps.
func mistakes(about string, err error, directory string) (all []finding) {
	if errors.Is(err, os.ErrPermission) {
		return []finding{unreadable(about, err)}
	}
	check := "agentd --check"
	if directory != "." {
		check += " --directory " + directory
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		all = append(all, finding{fail, about, line, "correct it there, and try `" + check + "`"})
	}
	return all
}

// wrongProgram is a program that is another one than its module says.
func wrongProgram(err error) finding {
	if errors.Is(err, os.ErrPermission) {
		return unreadable(aboutModules, err)
	}
	return split(fail, aboutModules, err.Error())
}

func unreadable(about string, err error) finding {
	return finding{warn, about, err.Error(), "ask as root or as the agent's user"}
}

// split takes what to do from the end of a text, where this project puts it.
func split(g grade, about, text string) finding {
	if i := strings.LastIndex(text, "; "); i > 0 {
		return finding{g, about, text[:i], text[i+2:]}
	}
	return finding{g, about, text, ""}
}

// report tells findings as they come, to a program all at once.
type report struct {
	*commandLine
	findings []finding
	err      error // of writing
}

func (r *report) say(findings ...finding) {
	r.findings = append(r.findings, findings...)
	if r.output == "json" || r.err != nil {
		return
	}
	var text bytes.Buffer
	for _, f := range findings {
		f.print(&text, terminalWidth(r.stdout))
	}
	r.err = write(r.stdout, text.Bytes())
}

func (r *report) end() error {
	if r.output != "json" {
		return r.err
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(map[string][]finding{"findings": r.findings}); err != nil {
		return err
	}
	return write(r.stdout, text.Bytes())
}

// examine looks at everything.
func (r *report) examine(ctx context.Context, c *client.Client, f files) {
	at := r.serverOf(c.Address())
	if at.pid != 0 {
		r.say(at.finding(c.Address()))
	}
	a := r.askAgent(ctx, c)
	a.server = at
	r.say(a.answers(c.Address())...)
	if f.elsewhere && a.status.GetDirectory() != "" {
		f = readFiles(a.status.Directory, true)
	}
	if a.status != nil {
		r.say(a.warnings(f)...)
		r.say(a.link())
	} else if f.found {
		r.say(tryLANManager(ctx, f.config))
	}
	r.say(f.findings...)
	if a.status != nil && f.found && !same(c.Address(), f.config.Socket) {
		r.say(finding{warn, aboutConfiguration, "it is of another agent than the one that answered: its socket is " + f.config.Socket,
			"name the directory of that one with --directory, or the address of the other with --address"})
	}
	r.say(ports(a, f)...)
	if a.status != nil {
		r.say(cgroups(a.status), limits(a, f))
	}
	if f.found {
		r.say(r.state(f.config.StateDirectory, a))
	}
	r.say(clock())
	if a.status != nil {
		r.say(a.serving(f.catalogue)...)
	}
}

// print writes a finding for a terminal of a width, between words; for 0 each of its
// lines is one there, too.
func (f finding) print(w io.Writer, width int) {
	head := fmt.Sprintf("%-4s  %-13s  ", f.Grade, f.About)
	var texts []string
	for line := range strings.SplitSeq(f.What, "\n") {
		texts = append(texts, printable(line))
	}
	if f.Cure != "" {
		texts = append(texts, toDo+" "+printable(f.Cure))
	}
	const readable = 10 // columns; with less of them the terminal itself breaks the lines
	if room := width - len(head); room >= readable {
		texts = inLines(strings.Join(texts, "\n"), room)
	}
	for _, line := range texts {
		fmt.Fprintf(w, "%s%s\n", head, line)
		head = strings.Repeat(" ", len(head))
	}
}

// answer is what an agent says, as far as it does.
type answer struct {
	status    *machineagentv1.GetStatusResponse // nil: it does not answer
	leases    []*machineagentv1.PortLease
	processes []*machineagentv1.Process
	needs     []*machineagentv1.NeedDecision
	modules   []*machineagentv1.Module
	server    server
	within    time.Duration // it was given that much time
	err       error         // why something is missing
	now       time.Time
}

func (l *commandLine) askAgent(ctx context.Context, c *client.Client) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	a.now = l.now
	if a.status, a.err = c.Agent.GetStatus(ctx, &machineagentv1.GetStatusRequest{}); a.err != nil {
		return answer{now: l.now, within: l.timeout, err: a.err}
	}
	leases, err1 := all(func(token string) (*machineagentv1.ListPortsResponse, error) {
		return c.Ports.ListPorts(ctx, &machineagentv1.ListPortsRequest{PageToken: token})
	})
	processes, err2 := all(func(token string) (*machineagentv1.ListProcessesResponse, error) {
		return c.Processes.ListProcesses(ctx, &machineagentv1.ListProcessesRequest{PageToken: token})
	})
	needs, err3 := all(func(token string) (*machineagentv1.ListNeedsResponse, error) {
		return c.Needs.ListNeeds(ctx, &machineagentv1.ListNeedsRequest{PageToken: token})
	})
	modules, err4 := all(func(token string) (*machineagentv1.ListModulesResponse, error) {
		return c.Agent.ListModules(ctx, &machineagentv1.ListModulesRequest{PageToken: token})
	})
	a.leases, a.processes, a.needs, a.modules = leases.GetLeases(), processes.GetProcesses(), needs.GetNeeds(), modules.GetModules()
	a.err = cmp.Or(err1, err2, err3, err4)
	return a
}
