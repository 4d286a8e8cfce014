package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/allexgo/machine-agent/internal/jsonfile"
)

const maxPort = 65535

// LANManagerPorts are those on which LAN managers have listened over the years,
// the present one first (lan/PROTOCOL.md section 0). Not to be changed.
var LANManagerPorts = [...]int{23552, 23451}

// check adds to doc what is wrong with the meaning of f; cfg is f resolved.
func (f *file) check(doc *jsonfile.Document, cfg Config) {
	f.checkLANManager(doc, cfg)
	f.checkRanges(doc, cfg)
	if f.Address != nil {
		if ip, err := netip.ParseAddr(*f.Address); err != nil || ip.Zone() != "" || ip.IsUnspecified() {
			doc.Add("address", "found %q, wanted an IP address of this machine, such as \"192.168.1.5\"; "+
				"without this key it is the one that the LAN manager sees", *f.Address)
		}
	}
	for key, path := range map[string]string{"runtimedirectory": f.RuntimeDirectory, "socket": f.Socket,
		"statedirectory": f.StateDirectory, "moduledirectory": f.ModuleDirectory} {
		if badPath(path) {
			doc.Add(key, "found %q, wanted a path; without this key it has its default", path)
		}
	}
	f.checkSecrets(doc)
	if problem := checkSocket(cfg.Socket); problem != "" && f.Socket != "" {
		doc.Add("socket", "%s", problem)
	}
	if f.Name == "" || len(f.Name) > 255 || strings.ContainsFunc(f.Name, unicode.IsControl) {
		doc.Add("name", "found %.40q, wanted 1 to 255 bytes without control characters", f.Name)
	}
	if f.MaxProcesses < 0 {
		doc.Add("maxprocesses", "found %d, allowed are 0 (no limit) and more", f.MaxProcesses)
	}
	if f.PortQuarantine < 0 {
		doc.Add("portquarantine", "found %s, allowed are 0s and more", cfg.PortQuarantine)
	}
	if f.OrphanGrace < 0 {
		doc.Add("orphangrace", "found %s, allowed are 0s and more", cfg.OrphanGrace)
	}
	if f.Tracing != nil {
		if u, err := url.Parse(f.Tracing.Endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			doc.Add("tracing.endpoint", "found %q, wanted the URL of a collector of OTLP over HTTP, such as \"http://127.0.0.1:4318\"; "+
				"without tracing no traces are sent", f.Tracing.Endpoint)
		}
	}
	if f.MetricsAddress != nil {
		if at, err := netip.ParseAddrPort(*f.MetricsAddress); err != nil || at.Port() == 0 {
			doc.Add("metricsaddress", "found %q, wanted an IP address of this machine and a port, such as \"127.0.0.1:9469\"; "+
				"without this key the metrics are not shown", *f.MetricsAddress)
		}
	}
	checkOneOf(doc, "log.level", f.Log.Level, "trace", "debug", "info", "warn", "error")
	if f.Log.MaxTotal != 0 && f.Log.MaxTotal < leastTotal {
		doc.Add("log.maxtotal", "found %d, allowed are 0 (no limit) and at least 1MiB", f.Log.MaxTotal)
	}
	checkOneOf(doc, "log.format", f.Log.Format, "text", "json")
}

// leastTotal is the least that all logs together may be held to.
const leastTotal = 1 << 20

func badPath(path string) bool { return path == "" || strings.ContainsRune(path, 0) }

func checkOneOf(doc *jsonfile.Document, path, found string, allowed ...string) {
	if !slices.Contains(allowed, found) {
		doc.Add(path, "found %q, allowed are %s", found, strings.Join(allowed, ", "))
	}
}

func (f *file) checkLANManager(doc *jsonfile.Document, cfg Config) {
	if problem := checkHost(f.LANManagerAddress); problem != "" {
		doc.Add("lanmanageraddress", "found %.80q, %s", f.LANManagerAddress, problem)
	}
	correction := f.LANManagerPortCorrection
	switch {
	case f.LANManagerPort == nil:
		for _, p := range cfg.LANManager.Ports() {
			if p < 1 || p > maxPort {
				doc.Add("lanmanagerportcorrection", "found %d, which makes %d of port %d; ports are 1 to %d",
					correction, p, p-correction, maxPort)
				break
			}
		}
	case *f.LANManagerPort < 1 || *f.LANManagerPort > maxPort:
		doc.Add("lanmanagerport", "found %d, allowed are 1 to %d; without this key %d and %d are tried",
			*f.LANManagerPort, maxPort, LANManagerPorts[0], LANManagerPorts[1])
	case correction != 0:
		doc.Add("lanmanagerportcorrection", "found %d beside lanmanagerport, which is used as it is; leave one of them out",
			correction)
	}
}

// checkHost tells what is wrong with a host name or IP address.
func checkHost(host string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	allowed := func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '.' || r == '-' || r == '_'
	}
	switch {
	case strings.Contains(host, "://"):
		return "wanted a host name or IP address without a protocol"
	case strings.Count(host, ":") == 1:
		return "wanted a host name or IP address without a port; that goes into lanmanagerport"
	case host == "" || len(host) > 253 || strings.ContainsFunc(host, func(r rune) bool { return !allowed(r) }):
		return "wanted a host name or an IP address"
	}
	return ""
}

// checkRanges checks that the ranges are ranges of ports and that no port is in
// two of them.
func (f *file) checkRanges(doc *jsonfile.Document, cfg Config) {
	if f.PortRangeSize < 1 || f.PortRangeSize > maxPort {
		doc.Add("portrangesize", "found %d, allowed are 1 to %d", f.PortRangeSize, maxPort)
		return
	}
	for i, r := range cfg.PortRanges {
		path := fmt.Sprintf("portrangestart.%s", r.Protocol)
		if r.Start < 1 || r.Start > maxPort {
			doc.Add(path, "found %d, allowed are 1 to %d", r.Start, maxPort)
			continue
		}
		if last := r.Start + r.Size - 1; last > maxPort {
			doc.Add(path, "%d and portrangesize %d make %d-%d, but ports end at %d; start lower, or make portrangesize smaller",
				r.Start, r.Size, r.Start, last, maxPort)
		}
		for _, other := range cfg.PortRanges[:i] {
			if r.Start < other.Start+other.Size && other.Start < r.Start+r.Size {
				doc.Add(path, "%s overlaps %s; move one of them, or make portrangesize smaller", r, other)
			}
		}
	}
}
