package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/agent"
	"github.com/allexgo/machine-agent/agent/config"
	"github.com/allexgo/machine-agent/agent/handover"
	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/notify"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
	"github.com/allexgo/machine-agent/internal/jsonfile"
	"github.com/allexgo/machine-agent/server"
)

// Exit codes.
const (
	exitFailed  = 1 // it could not run, or not go on
	exitInvalid = 2 // what it was given is wrong
)

// options are the command line.
type options struct {
	directory string
	check     bool
	takeOver  int
	dev       bool
	version   bool
}

const usage = `agentd manages the service processes of this machine.

It reads allexmasterconfig.json and modules/*.json in its working directory,
takes open needs from the LAN manager, starts a process for each, and answers
grpcurl and agentctl on its socket. SIGTERM makes it leave: the processes stay,
and the next agentd takes them over. "agentctl shutdown" stops them too.

`

func parse(args []string, complaints io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("agentd", flag.ContinueOnError)
	f.SetOutput(complaints)
	f.Usage = func() {
		fmt.Fprint(complaints, usage)
		f.PrintDefaults()
	}
	f.StringVar(&o.directory, "directory", ".", "where allexmasterconfig.json and modules are")
	f.BoolVar(&o.check, "check", false, "validate all files, start nothing, exit with 0 or 2")
	f.IntVar(&o.takeOver, handover.CheckFlag, 0, "with --check: also tell whether it takes over from a running agentd that hands over in this `format`")
	f.BoolVar(&o.dev, "dev", false, "try it: a LAN manager and an agent in a temporary directory; Ctrl-C stops and removes everything")
	f.BoolVar(&o.version, "version", false, "print the version")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		err := fmt.Errorf("unexpected argument %q; agentd --help tells what there is", f.Arg(0))
		fmt.Fprintln(complaints, "agentd:", err)
		return o, err
	}
	return o, nil
}

// start does what the command line asks for, complains on standard error, and tells
// the exit code.
func start(args []string, in inherited) (int, error) {
	o, err := parse(args, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0, nil
	case err != nil:
		return exitInvalid, err
	}
	ctx, deafen := untilAsked()
	defer deafen()
	in.Unless(deafen)
	code, err := o.run(ctx, deafen, os.Stdout, in)
	if err != nil {
		fmt.Fprintln(os.Stderr, "agentd:", err)
	}
	return code, err
}

// run does what the command line asks for and tells the exit code.
func (o options) run(ctx context.Context, deafen func() bool, out io.Writer, in inherited) (int, error) {
	switch {
	case o.version:
		fmt.Fprintln(out, "agentd", version)
		return 0, nil
	case o.dev:
		return develop(ctx, out)
	}
	cfg, catalogue, err := o.load(out)
	if err != nil {
		return o.failure(err), err
	}
	if o.check {
		return o.checkState(cfg, out)
	}
	haveThreads()
	return o.serve(ctx, deafen, cfg, catalogue, logger(cfg.Log), in)
}

// checkState is the rest of --check: whether what an agent has left can be read.
func (o options) checkState(cfg config.Config, out io.Writer) (int, error) {
	if err := state.Check(cfg.StateDirectory); err != nil {
		return exitInvalid, err
	}
	switch o.takeOver {
	case 0:
	case handover.Version:
		fmt.Fprintln(out, "agentd", version, handover.Says)
	default:
		return exitInvalid, fmt.Errorf("agentd %s takes over in format %d, not %d: start it anew instead", version, handover.Version, o.takeOver)
	}
	return 0, nil
}

// failure is the exit code when the files can not be used: whether they are
// wrong, or the machine does not give them. To --check they are not good either
// way.
func (o options) failure(err error) int {
	if _, wrong := errors.AsType[*jsonfile.Error](err); wrong || o.check {
		return exitInvalid
	}
	return exitFailed
}

// load reads and validates everything that a user writes, and reports all
// mistakes of all files at once.
func (o options) load(out io.Writer) (config.Config, *module.Catalogue, error) {
	cfg, file, found, err := config.Load(o.directory)
	if err == nil && !found && !o.check {
		if err := config.Create(file); err != nil {
			return cfg, nil, err
		}
		fmt.Fprintf(out, "agentd: wrote %s with the defaults\n", file)
	}
	catalogue, err := o.modules(cfg, err)
	// Who takes over from another agent must not fail for a module that fails under
	// that one as well.
	if err == nil && o.check && o.takeOver == 0 {
		err = errors.Join(catalogue.Verify()...)
	}
	if err != nil {
		return cfg, nil, err
	}
	if o.check {
		verdict := "good"
		if !found {
			verdict = "not there; agentd writes it with the defaults when it starts"
		}
		fmt.Fprintf(out, "%s: %s\n%s: good, modules: %d\n", file, verdict, cfg.ModuleDirectory, len(catalogue.Names()))
		for _, w := range agent.Warnings(cfg) {
			fmt.Fprintln(out, "warning:", w)
		}
	}
	return cfg, catalogue, nil
}

// read is load for an agent that runs: it writes and tells nothing.
func (o options) read() (config.Config, *module.Catalogue, error) {
	cfg, _, _, err := config.Load(o.directory)
	catalogue, err := o.modules(cfg, err)
	return cfg, catalogue, err
}

// modules reads the catalogue that belongs to a configuration; wrong is what is
// wrong with that.
func (o options) modules(cfg config.Config, wrong error) (*module.Catalogue, error) {
	directory := cfg.ModuleDirectory
	if directory == "" { // the configuration did not get as far as that
		directory = config.Default(o.directory).ModuleDirectory
	}
	catalogue, err := module.Load(directory)
	return catalogue, errors.Join(wrong, err)
}

func logger(l config.Log) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name:       "agentd",
		Level:      hclog.LevelFromString(l.Level),
		JSONFormat: l.Format == "json",
		Output:     os.Stderr,
	})
}

// serve runs an agent until ctx ends or it is shut down over its API.
func (o options) serve(ctx context.Context, deafen func() bool, cfg config.Config, catalogue *module.Catalogue, log hclog.Logger, in inherited) (int, error) {
	m, err := o.assemble(cfg, catalogue, log, in)
	if err != nil {
		return exitFailed, err
	}
	m.deafen = deafen
	defer m.store.Close()
	defer m.traces.end()
	defer m.reloadOn(syscall.SIGHUP, log)()
	if err := m.run(ctx); err != nil {
		return exitFailed, err
	}
	log.Info("agent has left")
	return 0, nil
}

// machine is an agent with what it stands on and its API.
type machine struct {
	agent    *agent.Agent
	server   *server.Server
	store    *state.Store
	listener net.Listener
	cgroups  string         // of the children; empty: there are none
	notices  *notify.Socket // nil: there is none
	shown    *shown
	traces   traces
	kept     *fdStore // nil: there is none
	log      hclog.Logger
	socket   string
	dev      bool

	deafen    func() bool // of untilAsked
	handed    inherited
	ready     chan struct{} // closed when nobody comes back any more who was before us
	upgrading chan struct{} // has one in it while an upgrade is under way
	upgrades  chan upgrade
}

func (o options) assemble(cfg config.Config, catalogue *module.Catalogue, log hclog.Logger, in inherited) (*machine, error) {
	m, err := in.open(cfg.StateDirectory, cfg.Socket)
	if err != nil {
		return nil, err
	}
	m.kept = newFDStore(log.Named("systemd"))
	m.log, m.ready, m.upgrading, m.upgrades = log, make(chan struct{}), make(chan struct{}, 1), make(chan upgrade, 1)
	directory, err := filepath.Abs(o.directory)
	if err != nil {
		return nil, err
	}
	var warnings []string // of what stays as it is until another agent starts
	if m.cgroups, err = process.Cgroups("machine-agent-" + m.store.AgentID()); err != nil {
		warnings = append(warnings, fmt.Sprintf("children get no cgroup of their own, so what leaves their session outlives them: %v", err))
	}
	if m.shown, err = show(cfg.MetricsAddress); err != nil {
		warnings = append(warnings, err.Error())
	}
	m.notices, err = in.notices(cfg.Socket+notifySuffix, log.Named("notify"))
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		warnings = append(warnings, fmt.Sprintf("modules with `notify` or `watchdog` do not start: %v", err))
	}
	if m.traces, err = sendTraces(cfg, m.store.AgentID(), log.Named("traces")); err != nil {
		warnings = append(warnings, err.Error())
	}
	for _, w := range append(agent.Warnings(cfg), warnings...) {
		log.Warn(w)
	}
	log.Info("agent starts", "version", version, "socket", cfg.Socket, "modules", len(catalogue.Names()))
	m.agent = agent.New(agent.Config{
		Config: cfg, Catalogue: catalogue, Load: o.read, Store: m.store, Cgroups: m.cgroups, Notify: m.notices, Launcher: beside("agentexec"),
		Children: server.Children{}, Version: version, Warnings: warnings, Directory: directory, Figures: m.shown.figures, Tracer: m.traces.tracer(), Logger: log,
		Sockets: in.sockets(), Depot: m.kept.depot(), Upgrade: in.upgraded(),
	})
	m.server = server.New(server.Config{Socket: cfg.Socket, Agent: m.agent, Upgrader: m, Logger: log.Named("api"), AgentUID: os.Getuid()})
	m.shown.of(m.agent, m.server, log.Named("monitor"))
	return m, nil
}

// abandon leaves nothing behind of a machine that has not run.
func (m *machine) abandon() {
	m.listener.Close()
	if m.notices != nil {
		m.notices.Close()
	}
	if m.cgroups != "" {
		_ = process.RemoveCgroups(m.cgroups)
	}
}

// beside is the path of a program that lies beside agentd; empty if it does not.
func beside(name string) string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	path := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}
