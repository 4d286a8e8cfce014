package lanmanager

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/lan/table"
)

const (
	noPort    = ", wanted a port from 1 to 65535; until it is mended, or left out, any port will do"
	noModule  = "wanted the name of a module; until it has one no machine can serve the need"
	noSeconds = ", wanted seconds from 1 to 31536000; until it is mended, or left out, it is 60"
	noAddress = ", wanted an address or a network such as 192.168.1.0/24; until it is mended, or left out, "
	anywhere  = "any machine may serve the need"
	nowhere   = "no machine may serve the need"
)

// What is wrong in a need is said, and it is a need all the same, as on the
// original.
func TestWrongValues(t *testing.T) {
	allowed := "Allowed: " + strings.Join(formKeys(), ", ")
	for name, tt := range map[string]struct {
		needs, overlay, runtime string
		want                    []string
	}{
		"all is right": {needs: `[{"instancename":"A","modulename":"m","propertyhash":{},"strategies":{"ip":[]},"closed":null,
			"ipaddress":"10.1.2.3/8","tcpport":1,"tcpoptions":{},"httpport":65535,"httpoptions":[],"wsport":1.61e4,"wsoptions":"x",
			"pid":5,"debug":true,"debug_brk":1,"prof":"p","gate":{},"timeout":60.0}]`},
		"null is nothing": {needs: `[{"instancename":"A","modulename":"m","propertyhash":null,"strategies":null,"ipaddress":null,
			"tcpport":null,"httpport":null,"wsport":null,"timeout":null}]`},
		"any properties": {needs: `[{"instancename":"A","modulename":"m","propertyhash":[1],"ipaddress":"","strategies":{"ip":null}},
			{"instancename":"B","modulename":"dotnet:B","propertyhash":"x","ipaddress":"fd00::1"}]`},
		"module of a wrong type": {needs: `[{"instancename":"A","modulename":3}]`,
			want: []string{`needs:1:35: [0].modulename: found 3, ` + noModule}},
		"empty module": {needs: `[{"instancename":"A","modulename":""}]`,
			want: []string{`needs:1:35: [0].modulename: found "", ` + noModule}},
		"no module": {needs: "[{\"instancename\":\"A\",\"modulename\":\"m\"},\n {\"instancename\":\"B\"}, {\"instancename\":\"C\",\"modulename\":null}]",
			want: []string{`needs:2:2: [1].modulename: missing, ` + noModule, `needs:2:57: [2].modulename: found null, ` + noModule}},
		"a module from another file": {needs: `[{"instancename":"A"},{"instancename":"B","modulename":null},{"instancename":"C"},{"instancename":"D"}]`,
			overlay: `[{"instancename":"A","timeout":5},{"instancename":"A","modulename":"m"}]`,
			runtime: `[{"instancename":"B","modulename":"m"},{"instancename":"C","removed":true},{"instancename":"D","timeout":5}]`,
			want:    []string{`needs:1:83: [3].modulename: missing, ` + noModule}},
		"no ports": {needs: `[{"instancename":"A","modulename":"m","httpport":99999,"tcpport":"16100","wsport":0},
{"instancename":"B","modulename":"m","httpport":"99999","tcpport":-1,"wsport":1.5},
{"instancename":"C","modulename":"m","httpport":[1],"tcpport":true,"wsport":1e400}]`,
			want: []string{
				`needs:1:50: [0].httpport: found 99999` + noPort,
				`needs:1:66: [0].tcpport: found "16100"` + noPort,
				`needs:1:83: [0].wsport: found 0` + noPort,
				`needs:2:49: [1].httpport: found "99999"` + noPort,
				`needs:2:67: [1].tcpport: found -1` + noPort,
				`needs:2:79: [1].wsport: found 1.5` + noPort,
				`needs:3:49: [2].httpport: found an array` + noPort,
				`needs:3:63: [2].tcpport: found true` + noPort,
				`needs:3:77: [2].wsport: found 1e400` + noPort}},
		"no addresses": {needs: `[{"instancename":"A","modulename":"m","ipaddress":"zz"},
{"instancename":"B","modulename":"m","ipaddress":"10.0.0.0/33"},
{"instancename":"C","modulename":"m","ipaddress":7}]`,
			want: []string{
				`needs:1:51: [0].ipaddress: found "zz"` + noAddress + nowhere,
				`needs:2:50: [1].ipaddress: found "10.0.0.0/33"` + noAddress + nowhere,
				`needs:3:50: [2].ipaddress: found 7` + noAddress + anywhere}},
		"no time": {needs: `[{"instancename":"A","modulename":"m","timeout":"60"},{"instancename":"B","modulename":"m","timeout":-1},
{"instancename":"C","modulename":"m","timeout":0},{"instancename":"D","modulename":"m","timeout":31536001}]`,
			want: []string{
				`needs:1:49: [0].timeout: found "60"` + noSeconds,
				`needs:1:102: [1].timeout: found -1` + noSeconds,
				`needs:2:48: [2].timeout: found 0` + noSeconds,
				`needs:2:98: [3].timeout: found 31536001` + noSeconds}},
		"no strategies": {needs: `[{"instancename":"A","modulename":"m","strategies":[1]},{"instancename":"B","modulename":"m","strategies":{"ip":{}}}]`,
			want: []string{
				`needs:1:52: [0].strategies: found an array, wanted an object; until it is mended, or left out, only who is admitted anyway is let in`,
				`needs:1:113: [1].strategies.ip: found an object, wanted an array; until it is mended, or left out, only who is admitted anyway is let in`}},
		"unknown keys": {needs: `[{"instancename":"A","modulename":"m","foo":1,"a b":2},{"instancename":"B","modulname":"m","http_port":3}]`,
			want: []string{
				`needs:1:39: [0].foo: unknown key. ` + allowed,
				`needs:1:47: [0]["a b"]: unknown key. ` + allowed,
				`needs:1:76: [1].modulname: unknown key; did you mean "modulename"? ` + allowed,
				`needs:1:92: [1].http_port: unknown key; did you mean "httpport"? ` + allowed}},
		"in needs.overlay": {needs: `[{"instancename":"A","modulename":"m"}]`, overlay: `[{"instancename":"A","httpport":"x","foo":1},{"instancename":"A","modulename":null}]`,
			want: []string{
				`needs.overlay:1:33: [0].httpport: found "x"` + noPort,
				`needs.overlay:1:37: [0].foo: unknown key. ` + allowed,
				`needs.overlay:1:79: [1].modulename: found null, ` + noModule}},
		"needs.runtime has what peers said": {needs: `[]`, runtime: `[{"instancename":"A","httpport":"x","foo":1,"modulename":3}]`},
		"of what is skipped one mistake is enough": {needs: "[{\"foo\":1},5,{\"instancename\":\"A\",\"modulename\":\"m\",\"wsport\":0},\n{\"instancename\":\"A\",\"bar\":1},{\"instancename\":\"B\",\"pid\":1,\"pid\":2,\"tcpport\":0}]",
			want: []string{
				`needs:1:2: [0]: a need is an object with an instancename`,
				`needs:1:12: [1]: a need is an object with an instancename`,
				`needs:1:60: [2].wsport: found 0` + noPort,
				`needs:2:1: [3]: there is a need "A" before this one; give each a name of its own`,
				`needs:2:58: [4].pid: duplicate key; the first is in line 2`}},
		"all of it": {needs: `{"httpport":0}`, want: []string{`needs:1:1: found an object, wanted an array`}},
	} {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			for file, text := range map[string]string{"needs": tt.needs, "needs.overlay": tt.overlay, "needs.runtime": tt.runtime} {
				if text != "" {
					writeFile(t, directory, file, text)
				}
			}
			f, _, _, err := openFiles(directory, "")
			must(t, err)
			defer f.close()
			c, problems := f.load()
			_, p := f.loadRuntime()
			got := said(append(problems, p), directory+"/.allexlanmanager")
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if before, err := parseNeeds("needs", []byte(tt.needs)); !isBroken(err) && len(before) != len(c.static) {
				t.Errorf("%d needs, want %d", len(c.static), len(before))
			}
		})
	}
}

// While needs.overlay can not be read what it held holds on, also the modules.
func TestModulesOfABrokenOverlay(t *testing.T) {
	directory := t.TempDir()
	writeFile(t, directory, "needs", `[{"instancename":"A"}]`)
	writeFile(t, directory, "needs.overlay", `[{"instancename":"A","modulename":"m"}]`)
	f, _, _, err := openFiles(directory, "")
	must(t, err)
	defer f.close()
	for _, step := range []struct{ overlay, want string }{
		{`[{"instancename":"A","modulename":"m"}]`, ""},
		{`[{`, "needs.overlay:1:2: broken JSON: unexpected end of JSON input"},
		{`[]`, "needs:1:2: [0].modulename: missing, " + noModule},
	} {
		writeFile(t, directory, "needs.overlay", step.overlay)
		_, problems := f.load()
		if got := strings.Join(said(problems, directory+"/.allexlanmanager"), "\n"); got != step.want {
			t.Errorf("%s: %s, want %s", step.overlay, got, step.want)
		}
	}
}

// The log and the page say it and what becomes of it, the needs are there, and
// the file stays as it is.
func TestWrongValuesAreShown(t *testing.T) {
	const wrong = "[{\"instancename\":\"A\",\"modulename\":\"m\"},\n{\"instancename\":\"B\",\"modulename\":\"m\",\"httpport\":99999},{\"modulename\":\"m\"}]"
	lan := start(t, Config{}, map[string]string{"needs": wrong})
	a := lan.agent("one", "127.0.0.1")
	a.soon(a.needs, "A", "B")
	const line = "needs:2:49: [1].httpport: found 99999" + noPort
	if log := lan.log.String(); !strings.Contains(log, line) || !strings.Contains(log, someSkipped) {
		t.Errorf("the log lacks %q:\n%s", line, log)
	}
	consequence := func() string {
		t.Helper()
		s, err := lan.m.Snapshot(t.Context())
		must(t, err)
		if len(s.Problems) == 0 {
			return ""
		}
		if !strings.Contains(s.Problems[0].Text, line) {
			t.Errorf("the page says %q", s.Problems[0].Text)
		}
		return s.Problems[0].Consequence
	}
	if got := consequence(); got != someSkipped {
		t.Errorf("consequence: %s", got)
	}
	if got := readFile(t, lan.directory, "needs"); got != wrong {
		t.Errorf("needs is now %s", got)
	}
	writeFile(t, lan.directory, "needs", strings.Replace(wrong, `,{"modulename":"m"}`, "", 1))
	a.until("one mistake to be gone", func() bool { return consequence() == noneSkipped })
	writeFile(t, lan.directory, "needs", `[{"instancename":"A","modulename":"m"},{"instancename":"B","modulename":"m","httpport":9999}]`)
	a.until("all to be gone", func() bool { return consequence() == "" })
	a.soon(a.needs, "A", "B")
}

// The keys of a need are those of the table.
func TestFormOfNeeds(t *testing.T) {
	var want []string
	for _, field := range table.Needs.Fields {
		want = append(want, field.Name)
	}
	if diff := cmp.Diff(want, formKeys()); diff != "" {
		t.Error(diff)
	}
}

func formKeys() (keys []string) {
	for _, field := range reflect.VisibleFields(reflect.TypeFor[form]()) {
		keys = append(keys, field.Tag.Get("json"))
	}
	return keys
}
