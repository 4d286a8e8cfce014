package lanmanager

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// settings is how the LAN manager is set up until it ends.
type settings struct {
	listeners []Listener     // what to listen on, unless Config says
	page      string         // host:port of the page; "" none
	subnets   []netip.Prefix // masked; who is admitted beyond this machine
	admitted  []peerRole     // what needs get in strategies.ip
	token     string         // of the LAN manager's own port; "" none
	tls       *tls.Config    // of the LAN manager's own port; nil none
	runtime   string         // directory of the runtime files, which holds .allexlanmanager
	warnings  []string       // for the log at start
}

// setup reads boot, subnets and the project map, in the directory and over that
// in the runtime directory.
type setup struct {
	base, runtime string
	boot          boot
	subnets       subnets
	problems      []problem
	closed        bool // what says who is admitted was not understood
}

const failClosed = "the LAN manager runs with the defaults and admits this machine only; mend it and start again"

func (s *setup) read(projectMap string) {
	s.readBoot(filepath.Join(s.base, folder, "boot"), s.base)
	s.findRuntime(projectMap)
	if over := s.override("boot"); s.runtime != s.base && filepath.Dir(filepath.Dir(over)) == s.runtime {
		s.readBoot(over, s.runtime)
	}
	path := s.override("subnets")
	text, err := readPlain(path)
	if err == nil {
		s.subnets, err = parseSubnets(path, text)
	}
	s.note(path, "the entries with a mistake are skipped", err)
}

func (s *setup) note(file, consequence string, err error) {
	s.problems = append(s.problems, problem{file, consequence, err})
}

// override is the path of a file that may be in the runtime directory too.
func (s *setup) override(name string) string {
	path := filepath.Join(s.runtime, folder, name)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return filepath.Join(s.base, folder, name)
	}
	return path
}

func (s *setup) readBoot(path, directory string) {
	text, err := readPlain(path)
	if err == nil {
		s.boot, err = parseBoot(path, text, directory, s.boot)
	}
	s.closed = s.closed || err != nil
	s.note(path, failClosed, err)
}

// findRuntime decides on the runtime directory: what boot says, else what the
// project map says for the directory, else the directory.
func (s *setup) findRuntime(projectMap string) {
	runtime := s.boot.RuntimeDirectory
	if runtime == "" {
		var err error
		if runtime, err = s.mapped(projectMap); err != nil {
			s.closed = true
			s.note(projectMap, failClosed, err)
		}
	}
	info, err := os.Stat(runtime)
	base, baseErr := os.Stat(s.base)
	if err == nil && baseErr == nil && !os.SameFile(info, base) {
		s.runtime = runtime
	}
}

// mapped is the runtime directory for the directory in the project map, which is
// shared with other programs: of it only that entry has to be right.
func (s *setup) mapped(projectMap string) (string, error) {
	text, err := readPlain(projectMap)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return parseProjectMap(projectMap, text, s.names())
}

// names are those under which the project map may have the directory.
func (s *setup) names() []string {
	names := []string{s.base}
	if real, err := filepath.EvalSymlinks(s.base); err == nil && real != s.base {
		names = append(names, real)
	}
	return names
}

// parseProjectMap returns the entry of the first of the names that has one.
func parseProjectMap(name string, text []byte, names []string) (string, error) {
	var entries map[string]json.RawMessage
	doc := jsonfile.Read(name, text, &entries)
	if err := doc.Err(); isBroken(err) {
		return "", err
	}
	for _, directory := range names {
		entry, ok := entries[directory]
		if !ok {
			continue
		}
		var runtime string
		if json.Unmarshal(entry, &runtime) == nil && runtime != "" {
			runtime = within(directory, runtime)
			if info, err := os.Stat(runtime); err == nil && info.IsDir() {
				return runtime, nil
			}
		}
		doc.Add("["+strconv.Quote(directory)+"]", "found %s, wanted a directory that is there", excerpt(entry))
		return "", doc.Err()
	}
	return "", nil
}

// settings draws the conclusions.
func (s *setup) settings() settings {
	b, nets := s.boot, s.subnets
	if s.closed {
		b, nets = defaultBoot(), subnets{}
	}
	host, warnings := listenHost(b.Listen, len(nets.prefixes) > 0)
	address := func(host string, port int) string {
		return net.JoinHostPort(host, strconv.Itoa(port+b.PortCorrection))
	}
	set := settings{
		listeners: []Listener{{Envelope: WebSocket, Address: address(host, ownPort)}},
		subnets:   nets.prefixes,
		admitted:  []peerRole{{"127.0.0.1/32", role}, {"127.0.0.0/8", role}},
		token:     b.token,
		tls:       b.tls,
		runtime:   s.runtime,
		warnings:  append(append(warnings, b.warnings()...), nets.warnings...),
	}
	if b.hasOriginalPorts() {
		set.listeners = append(set.listeners,
			Listener{Envelope: WebSocket, Address: address(host, olderPort), Original: true},
			Listener{Envelope: SignalR, Address: address(host, signalRPort), Original: true})
	}
	if b.HTTPMonitorPort != 0 {
		set.page = address("127.0.0.1", b.HTTPMonitorPort)
	}
	for _, entry := range nets.written {
		set.admitted = append(set.admitted, peerRole{entry, role})
	}
	return set
}

// listenHost is the host to listen on: this machine only, until subnets admits
// somebody else.
func listenHost(listen string, admitsOthers bool) (host string, warnings []string) {
	address, err := netip.ParseAddr(listen)
	switch {
	case admitsOthers:
		return listen, nil // "" are all addresses
	case err != nil:
		return "127.0.0.1", nil
	case address.IsLoopback():
		return listen, nil
	default:
		return "127.0.0.1", []string{"boot: listen is not used: subnets admits nobody but this machine"}
	}
}
