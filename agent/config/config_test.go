package config

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/internal/jsonfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func hostname(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// plain is the configuration of an empty file in dir.
func plain(t *testing.T, dir string) Config {
	return Config{
		LANManager:       LANManager{Protocol: "ws", Address: "127.0.0.1"},
		PortRanges:       [3]port.Range{{Protocol: port.TCP, Start: 15000, Size: 1000}, {Protocol: port.HTTP, Start: 16000, Size: 1000}, {Protocol: port.WS, Start: 17000, Size: 1000}},
		RuntimeDirectory: dir,
		Socket:           defaultSocket,
		StateDirectory:   filepath.Join(dir, ".allexmaster"),
		ModuleDirectory:  filepath.Join(dir, "modules"),
		Name:             hostname(t),
		OrphanGrace:      10 * time.Second,
		PortQuarantine:   30 * time.Second,
		Log:              Log{Level: "info", Format: "text", MaxTotal: 10 << 30},
	}
}

func TestDefaultFile(t *testing.T) {
	dir := t.TempDir()
	cfg, file, found, err := Load(dir)
	if err != nil || found || file != filepath.Join(dir, "allexmasterconfig.json") {
		t.Fatalf("got %s, %t, %v", file, found, err)
	}
	if diff := cmp.Diff(plain(t, dir), cfg); diff != "" {
		t.Error(diff)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("Load made %v", entries)
	}
	if err := Create(file); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	again, _, found, err := Load(dir)
	if err != nil || !found {
		t.Fatalf("second load: found %t, %v", found, err)
	}
	if diff := cmp.Diff(cfg, again); diff != "" {
		t.Error(diff)
	}
	if err := Create(file); err == nil {
		t.Error("a file that is there was made again")
	}
	if second, _ := os.ReadFile(file); string(second) != string(first) {
		t.Error("the file was changed")
	}
	golden, err := os.ReadFile(filepath.Join("testdata", "default.json"))
	if err != nil || string(golden) != string(first) {
		t.Errorf("the default file is not testdata/default.json: %v\n%s", err, first)
	}
}

// Where the modules are is known also when the file has mistakes, if it can be.
func TestLoadOfAFileWithMistakes(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		`{"moduledirectory": "mine", "name": 5}`: filepath.Join(dir, "mine"),
		`{"moduledirectory": 5}`:                 filepath.Join(dir, "modules"),
		`{`:                                      filepath.Join(dir, "modules"),
		`{"moduledirectory": "."}`:               "",
		`{"moduledirectory": ""}`:                "",
	} {
		write(t, filepath.Join(dir, FileName), text)
		cfg, _, _, err := Load(dir)
		var mistakes *jsonfile.Error
		if diff := cmp.Diff(Config{ModuleDirectory: want}, cfg); diff != "" || !errors.As(err, &mistakes) {
			t.Errorf("%s: %v, %s", text, err, diff)
		}
	}
}

func TestLoadPrefersTheVisibleFile(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, HiddenFileName), `{"name": "hidden"}`)
	cfg, file, found, err := Load(dir)
	if err != nil || !found || cfg.Name != "hidden" || filepath.Base(file) != HiddenFileName {
		t.Errorf("got %q of %s, %t, %v", cfg.Name, file, found, err)
	}
	write(t, filepath.Join(dir, FileName), `{"name": "visible"}`)
	cfg, file, found, err = Load(dir)
	if err != nil || !found || cfg.Name != "visible" || filepath.Base(file) != FileName {
		t.Errorf("got %q of %s, %t, %v", cfg.Name, file, found, err)
	}
}

// The original writes this file; installations have it.
func TestOriginalFile(t *testing.T) {
	cfg, err := Parse("f.json", []byte(`{"lanmanageraddress":"127.0.0.1","lanmanagerportcorrection":0,
		"runtimedirectory":".","portrangestart":{"tcp":15000,"http":16000,"ws":17000}}`), "/srv/x")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(plain(t, "/srv/x"), cfg); diff != "" {
		t.Error(diff)
	}
}

func TestEveryKey(t *testing.T) {
	cfg, err := Parse("f.json", []byte(`{
		"lanmanageraddress": "lan-manager.example", "lanmanagerport": 23451, "address": "192.168.1.5",
		"portrangestart": {"tcp": 20000, "http": 20010, "ws": 65526}, "portrangesize": 10, "portquarantine": "2m",
		"runtimedirectory": "run", "socket": "run/agent.sock", "statedirectory": "/var/lib/agent/../agent",
		"moduledirectory": "../modules", "name": "Mühle 3", "maxprocesses": 7, "orphangrace": "1m",
		"stopunneeded": true, "endstrays": true, "log": {"level": "debug", "format": "json", "maxtotal": "3GiB"},
		"lanmanagerprotocol": "wss", "tls": {"ca": "tls/ca.pem", "certificate": "/etc/agent/cert.pem", "key": "/etc/agent/key.pem"}, "tokenfile": "token",
		"metricsaddress": "[::1]:9469", "tracing": {"endpoint": "https://collector.example:4318"}
	}`), "/srv/x")
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		LANManager: LANManager{Protocol: "wss", Address: "lan-manager.example", Port: 23451, TokenFile: "/srv/x/token",
			TLS: TLS{CA: "/srv/x/tls/ca.pem", Certificate: "/etc/agent/cert.pem", Key: "/etc/agent/key.pem"}},
		Address:          "192.168.1.5",
		PortRanges:       [3]port.Range{{Protocol: port.TCP, Start: 20000, Size: 10}, {Protocol: port.HTTP, Start: 20010, Size: 10}, {Protocol: port.WS, Start: 65526, Size: 10}},
		RuntimeDirectory: "/srv/x/run",
		Socket:           "/srv/x/run/agent.sock",
		StateDirectory:   "/var/lib/agent",
		ModuleDirectory:  "/srv/modules",
		Name:             "Mühle 3",
		MaxProcesses:     7,
		OrphanGrace:      time.Minute,
		PortQuarantine:   2 * time.Minute,
		StopUnneeded:     true,
		EndStrays:        true,
		Log:              Log{Level: "debug", Format: "json", MaxTotal: 3 << 30},
		MetricsAddress:   "[::1]:9469",
		Tracing:          Tracing{Endpoint: "https://collector.example:4318/v1/traces"},
	}
	if diff := cmp.Diff(want, cfg); diff != "" {
		t.Error(diff)
	}
}

const allowed = "lanmanageraddress, lanmanagerport, lanmanagerprotocol, lanmanagerportcorrection, address, portrangestart, portrangesize, portquarantine, " +
	"runtimedirectory, socket, statedirectory, moduledirectory, name, maxprocesses, orphangrace, stopunneeded, endstrays, log, tls, tokenfile, metricsaddress, tracing"

func TestMistakes(t *testing.T) {
	long := "/" + strings.Repeat("x", 119)
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", `{"lanmanagerprt": 1}`,
			`f.json:1:2: lanmanagerprt: unknown key; did you mean "lanmanagerport"? Allowed: ` + allowed},
		{"key of a later version", `{"whatcomesnext": ":9090"}`, "f.json:1:2: whatcomesnext: unknown key. Allowed: " + allowed},
		{"metrics without an address", `{"metricsaddress": ":9469"}`,
			`f.json:1:20: metricsaddress: found ":9469", wanted an IP address of this machine and a port, such as "127.0.0.1:9469"; without this key the metrics are not shown`},
		{"metrics at a name", `{"metricsaddress": "localhost:9469"}`,
			`f.json:1:20: metricsaddress: found "localhost:9469", wanted an IP address of this machine and a port, such as "127.0.0.1:9469"; without this key the metrics are not shown`},
		{"metrics without a port", `{"metricsaddress": "127.0.0.1:0"}`,
			`f.json:1:20: metricsaddress: found "127.0.0.1:0", wanted an IP address of this machine and a port, such as "127.0.0.1:9469"; without this key the metrics are not shown`},
		{"traces without a scheme", `{"tracing": {"endpoint": "127.0.0.1:4318"}}`,
			`f.json:1:26: tracing.endpoint: found "127.0.0.1:4318", wanted the URL of a collector of OTLP over HTTP, such as "http://127.0.0.1:4318"; without tracing no traces are sent`},
		{"traces with a path", `{"tracing": {"endpoint": "http://[::1]:4318/otlp/traces"}}`, ""},
		{"metrics for everybody", `{"metricsaddress": "0.0.0.0:9469"}`, ""},
		{"wrong type", `{"portrangesize": "1000"}`, `f.json:1:19: portrangesize: found the string "1000", wanted a whole number`},
		{"broken JSON", "{\n  \"name\": \"x\"\n  \"socket\": \"y\"\n}",
			`f.json:3:3: broken JSON: invalid character '"' after object key:value pair`},
		{"port 70000", `{"portrangestart": {"tcp": 70000}}`, "f.json:1:28: portrangestart.tcp: found 70000, allowed are 1 to 65535"},
		{"port 0", `{"portrangestart": {"ws": 0}}`, "f.json:1:27: portrangestart.ws: found 0, allowed are 1 to 65535"},
		{"range beyond the end", `{"portrangestart": {"ws": 65000}}`,
			"f.json:1:27: portrangestart.ws: 65000 and portrangesize 1000 make 65000-65999, but ports end at 65535; start lower, or make portrangesize smaller"},
		{"overlapping ranges", `{"portrangestart": {"tcp": 15000, "http": 15999}}`,
			"f.json:1:43: portrangestart.http: http 15999-16998 overlaps tcp 15000-15999; move one of them, or make portrangesize smaller"},
		{"overlapping a default", `{"portrangestart": {"tcp": 16500}}`,
			"f.json:1:20: portrangestart.http: http 16000-16999 overlaps tcp 16500-17499; move one of them, or make portrangesize smaller\n" +
				"f.json:1:20: portrangestart.ws: ws 17000-17999 overlaps tcp 16500-17499; move one of them, or make portrangesize smaller"},
		{"neighbours", `{"portrangestart": {"tcp": 15000, "http": 15001, "ws": 15002}, "portrangesize": 1}`, ""},
		{"range of no port", `{"portrangesize": 0}`, "f.json:1:19: portrangesize: found 0, allowed are 1 to 65535"},
		{"LAN manager port 0", `{"lanmanagerport": 0}`,
			"f.json:1:20: lanmanagerport: found 0, allowed are 1 to 65535; without this key 23552 and 23451 are tried"},
		{"port and correction", `{"lanmanagerport": 1, "lanmanagerportcorrection": 101}`,
			"f.json:1:51: lanmanagerportcorrection: found 101 beside lanmanagerport, which is used as it is; leave one of them out"},
		{"correction too large", `{"lanmanagerportcorrection": 42000}`,
			"f.json:1:30: lanmanagerportcorrection: found 42000, which makes 65552 of port 23552; ports are 1 to 65535"},
		{"correction too small", `{"lanmanagerportcorrection": -23500}`,
			"f.json:1:30: lanmanagerportcorrection: found -23500, which makes -49 of port 23451; ports are 1 to 65535"},
		{"LAN manager with port", `{"lanmanageraddress": "10.0.0.1:23552"}`,
			`f.json:1:23: lanmanageraddress: found "10.0.0.1:23552", wanted a host name or IP address without a port; that goes into lanmanagerport`},
		{"LAN manager as URL", `{"lanmanageraddress": "ws://lan"}`,
			`f.json:1:23: lanmanageraddress: found "ws://lan", wanted a host name or IP address without a protocol`},
		{"no LAN manager", `{"lanmanageraddress": ""}`,
			`f.json:1:23: lanmanageraddress: found "", wanted a host name or an IP address`},
		{"IPv6 LAN manager", `{"lanmanageraddress": "::1"}`, ""},
		{"address", `{"address": "0.0.0.0"}`,
			`f.json:1:13: address: found "0.0.0.0", wanted an IP address of this machine, such as "192.168.1.5"; without this key it is the one that the LAN manager sees`},
		{"empty path", `{"statedirectory": ""}`,
			`f.json:1:20: statedirectory: found "", wanted a path; without this key it has its default`},
		{"path with NUL", `{"moduledirectory": "a\u0000b"}`,
			`f.json:1:21: moduledirectory: found "a\x00b", wanted a path; without this key it has its default`},
		{"socket of 120 bytes", `{"socket": "` + long + `"}`,
			"f.json:1:12: socket: the path has 120 bytes, a Unix socket can have 107; choose a shorter one, such as /tmp/allexmachinemanager: " + long},
		{"socket of 107 bytes", `{"socket": "` + long[:107] + `"}`, ""},
		{"socket that grows long", `{"socket": "` + long[1:107] + `"}`,
			"f.json:1:12: socket: the path has 109 bytes, a Unix socket can have 107; choose a shorter one, such as /tmp/allexmachinemanager: /d/" + long[1:107]},
		{"name", `{"name": "a\nb"}`, `f.json:1:10: name: found "a\nb", wanted 1 to 255 bytes without control characters`},
		{"negative maximum", `{"maxprocesses": -1}`, "f.json:1:18: maxprocesses: found -1, allowed are 0 (no limit) and more"},
		{"negative quarantine", `{"portquarantine": "-1s"}`, "f.json:1:20: portquarantine: found -1s, allowed are 0s and more"},
		{"negative grace", `{"orphangrace": "-1s"}`, "f.json:1:17: orphangrace: found -1s, allowed are 0s and more"},
		{"log", `{"log": {"level": "loud", "format": "xml"}}`,
			"f.json:1:19: log.level: found \"loud\", allowed are trace, debug, info, warn, error\n" +
				"f.json:1:37: log.format: found \"xml\", allowed are text, json"},
		{"log of a few bytes", `{"log": {"maxtotal": 1000}}`, "f.json:1:22: log.maxtotal: found 1000, allowed are 0 (no limit) and at least 1MiB"},
		{"log of no size", `{"log": {"maxtotal": "1 GB"}}`, "f.json:1:22: log.maxtotal: found \"1 GB\", wanted a number of bytes such as 1024 or \"64MiB\""},
		{"log without limit", `{"log": {"maxtotal": 0}}`, ""},
		{"protocol", `{"lanmanagerprotocol": "https"}`, `f.json:1:24: lanmanagerprotocol: found "https", allowed are ws, wss`},
		{"wss without more", `{"lanmanagerprotocol": "wss"}`, ""},
		{"wss leaves out the port of old ones", `{"lanmanagerprotocol": "wss", "lanmanagerportcorrection": -23500}`, ""},
		{"tls without wss", `{"tls": {"ca": "x"}}`,
			`f.json:1:9: tls: means nothing to ws; add "lanmanagerprotocol": "wss", or leave it out`},
		{"paths of secrets", `{"lanmanagerprotocol": "wss", "tls": {"ca": ""}, "tokenfile": "a\u0000"}`,
			"f.json:1:45: tls.ca: found \"\", wanted a path; leave the key out if there is no such file\n" +
				`f.json:1:63: tokenfile: found "a\x00", wanted a path; leave the key out if there is no such file`},
		{"certificate without key", `{"lanmanagerprotocol": "wss", "tls": {"certificate": "x"}}`,
			"f.json:1:54: tls.certificate: there is no tls.key beside it; a certificate is of no use without its key"},
		{"key without certificate", `{"lanmanagerprotocol": "wss", "tls": {"key": "x"}}`,
			"f.json:1:46: tls.key: there is no tls.certificate beside it; a key is of no use without its certificate"},
		{"unknown key of tls", `{"lanmanagerprotocol": "wss", "tls": {"cert": "x"}}`,
			"f.json:1:39: tls.cert: unknown key. Allowed: ca, certificate, key"},
		{"all in one", "{\n\"lanmanagerport\": \"x\",\n\"potrangesize\": 5,\n\"portrangestart\": {\"tcp\": 70000, \"http\": true},\n\"maxprocesses\": -2\n}",
			"f.json:2:19: lanmanagerport: found the string \"x\", wanted a whole number\n" +
				"f.json:3:1: potrangesize: unknown key; did you mean \"portrangesize\"? Allowed: " + allowed + "\n" +
				"f.json:4:27: portrangestart.tcp: found 70000, allowed are 1 to 65535\n" +
				"f.json:4:42: portrangestart.http: found true, wanted a whole number\n" +
				"f.json:5:17: maxprocesses: found -2, allowed are 0 (no limit) and more"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if runtime.GOOS != "linux" && strings.HasPrefix(tt.name, "socket") {
				tt.want = strings.ReplaceAll(tt.want, "107", "103")
			}
			cfg, err := Parse("f.json", []byte(tt.text), "/d")
			got := ""
			if err != nil {
				got = err.Error()
				if _, ok := errors.AsType[*jsonfile.Error](err); !ok || cfg != (Config{}) {
					t.Errorf("got %v and a %T", cfg, err)
				}
			}
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// A file with mistakes is left as it is, and nothing is made beside it.
func TestLoadLeavesABadFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, FileName)
	const text = `{"runtimedirectory": "none", "portrangesize": 0}`
	write(t, file, text)
	_, used, found, err := Load(dir)
	want := file + ":1:22: runtimedirectory: stat " + dir + "/none: no such file or directory; make it, or name another directory\n" +
		file + ":1:47: portrangesize: found 0, allowed are 1 to 65535"
	if err == nil || err.Error() != want || !found || used != file {
		t.Errorf("got %s, %t\n%v\nwant\n%s", used, found, err, want)
	}
	data, _ := os.ReadFile(file)
	entries, _ := os.ReadDir(dir)
	if string(data) != text || len(entries) != 1 {
		t.Errorf("the directory has %v, the file %s", entries, data)
	}
}

func TestLoadFails(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "plain"), "")
	write(t, filepath.Join(dir, "bad", FileName), `{"runtimedirectory": "`+FileName+`"}`)
	if err := os.MkdirAll(filepath.Join(dir, "odd", FileName), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ dir, want string }{
		{filepath.Join(dir, "plain"), "can not read the configuration: open " + dir + "/plain/allexmasterconfig.json: not a directory"},
		{filepath.Join(dir, "odd"), "can not read the configuration: read " + dir + "/odd/allexmasterconfig.json: is a directory"},
		{filepath.Join(dir, "bad"), dir + "/bad/allexmasterconfig.json:1:22: runtimedirectory: " + dir + "/bad/allexmasterconfig.json is no directory"},
	} {
		_, _, found, err := Load(tt.dir)
		if err == nil || !found || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("got %t, %v\nwant %s", found, err, tt.want)
		}
	}
}

func TestCreateFails(t *testing.T) {
	err := Create("/proc/" + FileName)
	for _, want := range []string{
		"there is no configuration, and the default one can not be made: can not write /proc/allexmasterconfig.json: ",
		"make the directory writable for the user that agentd runs as, or write the file yourself",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

// FuzzParse: every text is a configuration that keeps what Config promises, or
// an error.
func FuzzParse(f *testing.F) {
	f.Add([]byte(defaultFile))
	f.Add([]byte(`{"lanmanagerportcorrection": 101, "socket": "s", "portrangesize": 1, "orphangrace": "1h"}`))
	f.Add([]byte(`{"lanmanagerprotocol": "wss", "tls": {"ca": "a", "certificate": "b", "key": "c"}, "tokenfile": "d"}`))
	f.Add([]byte(`{"portrangestart": {"tcp": 9223372036854775807}, "address": "::1", "lanmanageraddress": "a.b"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := Parse("f.json", data, "/d")
		if err != nil {
			if _, ok := errors.AsType[*jsonfile.Error](err); !ok {
				t.Errorf("the error is a %T: %v", err, err)
			}
			return
		}
		for i, r := range cfg.PortRanges {
			if r.Start < 1 || r.Size < 1 || r.Start+r.Size > 65536 {
				t.Errorf("range %v", r)
			}
			for _, other := range cfg.PortRanges[:i] {
				if r.Start < other.Start+other.Size && other.Start < r.Start+r.Size {
					t.Errorf("%v overlaps %v", r, other)
				}
			}
		}
		for _, path := range []string{cfg.LANManager.TokenFile, cfg.LANManager.TLS.CA, cfg.LANManager.TLS.Certificate, cfg.LANManager.TLS.Key} {
			if path != "" && (!filepath.IsAbs(path) || strings.ContainsRune(path, 0)) {
				t.Errorf("path %q", path)
			}
		}
		if (cfg.LANManager.TLS.Certificate == "") != (cfg.LANManager.TLS.Key == "") {
			t.Errorf("got %+v", cfg.LANManager)
		}
		for _, path := range []string{cfg.RuntimeDirectory, cfg.Socket, cfg.StateDirectory, cfg.ModuleDirectory} {
			if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
				t.Errorf("path %q", path)
			}
		}
		if cfg.MaxProcesses < 0 || cfg.OrphanGrace < 0 || cfg.LANManager.Address == "" || cfg.Name == "" {
			t.Errorf("got %+v", cfg)
		}
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
