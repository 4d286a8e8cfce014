package lanmanager

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// placed fails if a mistake does not say where it is.
func placed(t *testing.T, err error) {
	t.Helper()
	var mistakes *jsonfile.Error
	if err == nil {
		return
	}
	if !errors.As(err, &mistakes) {
		t.Fatalf("an error without a place: %v", err)
	}
	for _, m := range mistakes.Mistakes {
		if m.Line < 1 || m.Column < 1 || m.Message == "" {
			t.Fatalf("a mistake without a place: %+v", m)
		}
	}
}

// valued fails if a wrong value does not say where it is, or is in an entry that
// is skipped.
func valued(t *testing.T, name string, text []byte, skipped error) {
	t.Helper()
	if isBroken(skipped) {
		return
	}
	bad := places(skipped)
	wrong := wrongValues(name, text, skipped, func(string, json.RawMessage) bool { return true })
	if wrong == nil {
		return
	}
	placed(t, &jsonfile.Error{File: name, Mistakes: wrong})
	for _, m := range wrong {
		if bad[place(m)] || m.Path == "" {
			t.Fatalf("a wrong value in what is skipped: %+v", m)
		}
	}
}

// FuzzBoot: with any mistake nothing but the defaults holds, and what holds can
// be listened on.
func FuzzBoot(f *testing.F) {
	for _, seed := range []string{
		`{"portcorrection":0,"httpmonitorport":23580}`,
		`{"portcorrection":-22450,"httpmonitorport":22452,"originalports":true,"listen":"::1","gate":{}}`,
		`{"tokenfile":"x","tls":{"certificate":"a","key":"b","clientca":"c"},"runtimedirectory":"."}`,
		`{"portcorrection":1e400}`, `[`, ``, "\ufeff{}",
	} {
		f.Add([]byte(seed))
	}
	directory := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := parseBoot("boot", text, directory, defaultBoot())
		placed(t, err)
		b.RuntimeDirectory = ""
		set := setup{boot: b}
		if err != nil && strings.Join(set.settings().outline(), ", ") != strings.Join(closed, ", ") {
			t.Fatalf("it listens as %q", set.settings().outline())
		}
		for _, line := range set.settings().outline() {
			if port := line[strings.LastIndexByte(strings.TrimSuffix(line, " original"), ':')+1:]; strings.HasPrefix(port, "-") || port == "0" {
				t.Fatalf("no port: %s", line)
			}
		}
	})
}

// FuzzSubnets: an entry is a mistake or admits what it begins with, and nothing
// is admitted that is not written.
func FuzzSubnets(f *testing.F) {
	for _, seed := range []string{`["192.168.1.0/8"]`, `["10/8","10.0.0.1","fd00::/8","::1"]`, `["::ffff:1.2.3.4/96",5,""]`, `[".0/0","1./8","/8","1.2.3.4.5/8"]`, `{}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseSubnets("subnets", text)
		placed(t, err)
		if len(s.prefixes) != len(s.written) {
			t.Fatalf("%d networks of %d entries", len(s.prefixes), len(s.written))
		}
		for i, prefix := range s.prefixes {
			own, err := parseSubnet(s.written[i])
			if err != nil || !prefix.Contains(own.Addr()) || prefix != prefix.Masked() || prefix.Addr().Is4In6() {
				t.Fatalf("%s admits %s, error %v", s.written[i], prefix, err)
			}
		}
	})
}

// FuzzNeeds: what can be read of needs, needs.overlay and needs.runtime makes
// needs that hold again after they were written.
func FuzzNeeds(f *testing.F) {
	for _, seed := range [][3]string{
		{`[{"modulename":"allex_timeservice","instancename":"Time","propertyhash":{}}]`, `[]`, `[]`},
		{`[{"instancename":"A","propertyhash":{"a":{"b":[1]}}},{"instancename":"A"},5]`, `[{"instancename":"A","propertyhash":{"a":{"c":null}}},{"instancename":"B"}]`, `[{"instancename":"A","removed":true}]`},
		{`[{"instancename":"A","strategies":{"ip":[{"ip":"::1","role":"user"}]},"pid":1}]`, `[{"instancename":"A","strategies":[]}]`, `[{"instancename":"C"},{"instancename":"A","strategies":{"ip":5}}]`},
		{`[{"instancename":"A","tcpport":"1","ipaddress":"zz","timeout":0,"foo":{}},{"foo":1},{"instancename":"A","foo":1}]`, `[{"instancename":"A","modulename":null,"wsport":1e400}]`, `[]`},
		{`[`, `{}`, ``},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]), []byte(seed[2]))
	}
	f.Fuzz(func(t *testing.T, static, overlay, runtime []byte) {
		var c contents
		var err error
		c.static, err = parseNeeds("needs", static)
		placed(t, err)
		valued(t, "needs", static, err)
		c.overlay, err = c.parseLayer("needs.overlay", overlay)
		placed(t, err)
		valued(t, "needs.overlay", overlay, err)
		entries, err := parseNeeds("needs.runtime", runtime)
		placed(t, err)
		made := func(entries []fields) *originals {
			o := newOriginals([]peerRole{{"127.0.0.1/32", role}})
			o.replace(c.static, c.overlay)
			o.adopt(entries)
			return o
		}
		o := made(entries)
		for _, name := range o.names {
			if _, wanted := o.record(name); !wanted && string(o.runtime[name][removed]) != "true" {
				t.Fatalf("need %q can not be", name)
			}
		}
		if changed := o.replace(c.static, c.overlay); changed != nil {
			t.Fatalf("the same files changed %q", changed)
		}
		written, err := parseNeeds("needs.runtime", linewise(o.entries()))
		if err != nil {
			t.Fatalf("what was written is wrong: %v", err)
		}
		if a, b := marshal(o.texts()), marshal(made(written).texts()); string(a) != string(b) {
			t.Fatalf("after a restart the needs are %s, not %s", b, a)
		}
	})
}

// FuzzNAT: entries are records with keys of their own.
func FuzzNAT(f *testing.F) {
	for _, seed := range []string{`[{"iaddress":"192.168.1.1","iport":12345,"eaddress":"1.2.3.4","eport":80}]`, `[{"iaddress":"a","iport":[1,2]},{"iaddress":"a","iport":[1,2]},{"iaddress":null}]`, `[[]]`, `5`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		nats, err := parseNATs("nat", text)
		placed(t, err)
		seen := map[string]bool{}
		for _, record := range nats {
			if seen[record.Key()] || !json.Valid(record.JSON()) {
				t.Fatalf("%s", record.JSON())
			}
			seen[record.Key()] = true
		}
	})
}

// FuzzProjectMap: it names a directory that is there, or nothing.
func FuzzProjectMap(f *testing.F) {
	for _, seed := range []string{`{"/lan":"/"}`, `{"/other":5,"/lan":"."}`, `{"/lan":null}`, `{"/lan":"/","/lan":"/tmp"}`, `[]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		runtime, err := parseProjectMap("projectmap.json", text, []string{"/lan", "/real"})
		placed(t, err)
		if err != nil && runtime != "" {
			t.Fatalf("%s and %v", runtime, err)
		}
	})
}
