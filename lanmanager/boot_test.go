package lanmanager

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// set reads how a LAN manager is set up by files, by name; the runtime directory
// has those that begin with "runtime/".
func set(t *testing.T, files map[string]string) (settings, []problem, string) {
	t.Helper()
	directory := t.TempDir()
	for name, content := range files {
		in, name := directory, name
		if rest, ok := strings.CutPrefix(name, "runtime/"); ok {
			in, name = filepath.Join(directory, "runtime"), rest
		}
		writeFile(t, in, name, content)
	}
	f, s, problems, err := openFiles(directory, filepath.Join(directory, "projectmap.json"))
	if err != nil {
		t.Fatal(err)
	}
	f.close()
	return s, problems, directory
}

// said are the problems that are some, a line each, without the directory.
func said(problems []problem, directory string) (lines []string) {
	for _, p := range problems {
		if p.err != nil {
			for line := range strings.SplitSeq(p.err.Error(), "\n") {
				lines = append(lines, strings.ReplaceAll(line, directory+"/", ""))
			}
		}
	}
	return lines
}

// outline is who may connect, and where.
func (s settings) outline() []string {
	var lines []string
	for _, l := range s.listeners {
		line := string(l.Envelope) + " " + l.Address
		if l.Original {
			line += " original"
		}
		lines = append(lines, line)
	}
	if s.page != "" {
		lines = append(lines, "page "+s.page)
	}
	for _, subnet := range s.subnets {
		lines = append(lines, "subnet "+subnet.String())
	}
	if s.token != "" {
		lines = append(lines, "token "+s.token)
	}
	if s.tls != nil {
		lines = append(lines, "tls")
	}
	return lines
}

var closed = []string{"ws 127.0.0.1:23552", "ws 127.0.0.1:23451 original", "signalr 127.0.0.1:22451 original", "page 127.0.0.1:23580"}

func TestBoot(t *testing.T) {
	for name, tt := range map[string]struct {
		boot, subnets string
		want          []string
		warnings      []string
	}{
		"ours":         {boot: `{"portcorrection":0,"httpmonitorport":23580}`, want: closed},
		"empty":        {boot: `{}`, want: closed},
		"the original": {boot: `{"portcorrection":0,"httpmonitorport":0}`, want: closed[:3]},
		"shifted": {boot: `{"portcorrection":101}`,
			want: []string{"ws 127.0.0.1:23653", "ws 127.0.0.1:23552 original", "signalr 127.0.0.1:22552 original", "page 127.0.0.1:23681"}},
		"shifted down": {boot: `{"portcorrection":-22450,"httpmonitorport":22452}`,
			want: []string{"ws 127.0.0.1:1102", "ws 127.0.0.1:1001 original", "signalr 127.0.0.1:1 original", "page 127.0.0.1:2"}},
		"open": {boot: `{}`, subnets: `["10.0.0.0/8"]`,
			want: []string{"ws :23552", "ws :23451 original", "signalr :22451 original", "page 127.0.0.1:23580", "subnet 10.0.0.0/8"}},
		"open on an address": {boot: `{"listen":"10.0.0.1","originalports":false,"httpmonitorport":0}`, subnets: `["10.0.0.0/8"]`,
			want: []string{"ws 10.0.0.1:23552", "subnet 10.0.0.0/8"}},
		"an address without subnets": {boot: `{"listen":"10.0.0.1","originalports":false,"httpmonitorport":0}`,
			want: []string{"ws 127.0.0.1:23552"}, warnings: []string{"listen is not used"}},
		"IPv6 loopback": {boot: `{"listen":"::1","originalports":false,"httpmonitorport":0}`, want: []string{"ws [::1]:23552"}},
		"gate":          {boot: `{"gate":{"ws":{"a":1}}}`, want: closed, warnings: []string{"gate is not used"}},
		"no gate":       {boot: `{"gate":null}`, want: closed},
		"bad subnets":   {boot: `{}`, subnets: `[`, want: closed},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"boot": tt.boot}
			if tt.subnets != "" {
				files["subnets"] = tt.subnets
			}
			s, _, _ := set(t, files)
			if diff := cmp.Diff(tt.want, s.outline()); diff != "" {
				t.Error(diff)
			}
			if len(s.warnings) != len(tt.warnings) {
				t.Fatalf("warnings: %q, want %q", s.warnings, tt.warnings)
			}
			for i, want := range tt.warnings {
				if !strings.Contains(s.warnings[i], want) {
					t.Errorf("warnings: %q, want %q", s.warnings, tt.warnings)
				}
			}
		})
	}
}

// After any mistake only this machine is admitted, whatever subnets says.
func TestBootFailsClosed(t *testing.T) {
	for name, tt := range map[string]struct {
		boot string
		want []string
	}{
		"no JSON":         {"{", []string{".allexlanmanager/boot:1:1: broken JSON: unexpected end of JSON input"}},
		"nothing":         {"", []string{".allexlanmanager/boot:1:1: the file is empty, wanted a JSON document"}},
		"array":           {"[]", []string{".allexlanmanager/boot:1:1: found an array, wanted an object"}},
		"null":            {"null", []string{".allexlanmanager/boot:1:1: found null, wanted an object"}},
		"unknown key":     {`{"listne":"10.0.0.1"}`, []string{`.allexlanmanager/boot:1:2: listne: unknown key; did you mean "listen"? Allowed: portcorrection, httpmonitorport, gate, runtimedirectory, originalports, listen, tokenfile, tls`}},
		"twice":           {`{"listen":"10.0.0.1","listen":"10.0.0.1"}`, []string{".allexlanmanager/boot:1:22: listen: duplicate key; the first is in line 1"}},
		"all the types":   {"{\"portcorrection\":\"5\",\n \"originalports\":1, \"tls\":[], \"tokenfile\":null}", []string{".allexlanmanager/boot:1:19: portcorrection: found the string \"5\", wanted a whole number", ".allexlanmanager/boot:2:18: originalports: found the number 1, wanted true or false", ".allexlanmanager/boot:2:27: tls: found an array, wanted an object", ".allexlanmanager/boot:2:43: tokenfile: found null, wanted a string"}},
		"too high":        {`{"portcorrection":41984}`, []string{".allexlanmanager/boot:1:19: portcorrection: found 41984, wanted -22450 to 41983, so that the ports 22451 to 23552 stay between 1 and 65535"}},
		"too low":         {`{"portcorrection":-22451}`, []string{".allexlanmanager/boot:1:19: portcorrection: found -22451, wanted -22450 to 41983, so that the ports 22451 to 23552 stay between 1 and 65535"}},
		"huge":            {`{"portcorrection":9223372036854775807}`, []string{".allexlanmanager/boot:1:19: portcorrection: found 9223372036854775807, wanted -22450 to 41983, so that the ports 22451 to 23552 stay between 1 and 65535"}},
		"page too high":   {`{"httpmonitorport":65535,"portcorrection":1}`, []string{".allexlanmanager/boot:1:20: httpmonitorport: found 65535, wanted 0 for no page, or a port that is between 1 and 65535 when portcorrection is added"}},
		"page below zero": {`{"httpmonitorport":-1}`, []string{".allexlanmanager/boot:1:20: httpmonitorport: found -1, wanted 0 for no page, or a port that is between 1 and 65535 when portcorrection is added"}},
		"page in the way": {`{"httpmonitorport":22451}`, []string{".allexlanmanager/boot:1:20: httpmonitorport: found 22451, which is where agents look for the LAN manager; choose another"}},
		"listen to names": {`{"listen":"localhost"}`, []string{`.allexlanmanager/boot:1:11: listen: found "localhost", wanted an IP address`}},
		"listen mapped":   {`{"listen":"::ffff:10.0.0.1"}`, []string{`.allexlanmanager/boot:1:11: listen: found "::ffff:10.0.0.1", wanted it as the IPv4 address 10.0.0.1`}},
		"no token":        {`{"tokenfile":"token"}`, []string{".allexlanmanager/boot:1:14: tokenfile: open token: no such file or directory"}},
		"odd token file":  {`{"tokenfile":"/"}`, []string{".allexlanmanager/boot:1:14: tokenfile: can not read /: it is no file"}},
		"half of TLS":     {`{"tls":{"certificate":"a"}}`, []string{".allexlanmanager/boot:1:8: tls: wanted both certificate and key"}},
		"no certificate":  {`{"tls":{"certificate":"a","key":".allexlanmanager/boot","clientca":".allexlanmanager/boot"}}`, []string{".allexlanmanager/boot:1:23: tls.certificate: open a: no such file or directory", ".allexlanmanager/boot:1:68: tls.clientca: .allexlanmanager/boot holds no certificate in PEM form"}},
		"no key":          {`{"tls":{"certificate":".allexlanmanager/boot","key":".allexlanmanager/boot"}}`, []string{".allexlanmanager/boot:1:8: tls: certificate and key can not be used: tls: failed to find any PEM data in certificate input"}},
		"no directory":    {`{"runtimedirectory":"nowhere"}`, []string{".allexlanmanager/boot:1:21: runtimedirectory: nowhere is no directory; make it, or name another"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, problems, directory := set(t, map[string]string{"boot": tt.boot, "subnets": `["10.0.0.0/8"]`})
			if diff := cmp.Diff(tt.want, said(problems, directory)); diff != "" {
				t.Errorf("problems: %s", diff)
			}
			if diff := cmp.Diff(closed, s.outline()); diff != "" {
				t.Errorf("settings: %s", diff)
			}
			if diff := cmp.Diff([]peerRole{{"127.0.0.1/32", "user"}, {"127.0.0.0/8", "user"}}, s.admitted); diff != "" {
				t.Errorf("admitted: %s", diff)
			}
			if problems[0].consequence != failClosed {
				t.Errorf("consequence: %s", problems[0].consequence)
			}
			if got := readFile(t, directory, "boot"); got != tt.boot {
				t.Errorf("boot is now %s", got)
			}
		})
	}
}

func TestToken(t *testing.T) {
	for content, want := range map[string]string{
		"secret": "", " secret\r\n": "", "": "is empty", "\n": "is empty", "two words": "more than one word",
		"two\nlines": "more than one word", "käse": "more than one word", "a\x00b": "more than one word",
	} {
		t.Run(strconv.Quote(content), func(t *testing.T) {
			s, problems, directory := set(t, map[string]string{"boot": `{"tokenfile":".allexlanmanager/token"}`,
				"token": content, "subnets": `["10.0.0.0/8"]`})
			if want != "" {
				if got := strings.Join(said(problems, directory), ""); !strings.Contains(got, want) {
					t.Errorf("problems: %s, want %q", got, want)
				}
				if diff := cmp.Diff(closed, s.outline()); diff != "" {
					t.Error(diff)
				}
				return
			}
			// The originals can have no token, so their ports are off.
			if diff := cmp.Diff([]string{"ws :23552", "page 127.0.0.1:23580", "subnet 10.0.0.0/8", "token secret"}, s.outline()); diff != "" {
				t.Error(diff)
			}
		})
	}
	s, _, _ := set(t, map[string]string{"boot": `{"tokenfile":".allexlanmanager/token","originalports":true}`, "token": "secret"})
	if len(s.listeners) != 3 || len(s.warnings) != 1 || !strings.Contains(s.warnings[0], "ports 23451 and 22451 neither a token nor TLS") {
		t.Errorf("with the original ports: %q, warnings %q", s.outline(), s.warnings)
	}
}

func TestTLS(t *testing.T) {
	certificate, key := keyPair(t)
	files := map[string]string{"certificate.pem": certificate, "key.pem": key,
		"boot": `{"tls":{"certificate":".allexlanmanager/certificate.pem","key":".allexlanmanager/key.pem"}}`}
	s, problems, directory := set(t, files)
	if lines := said(problems, directory); lines != nil {
		t.Fatal(lines)
	}
	if diff := cmp.Diff([]string{"ws 127.0.0.1:23552", "page 127.0.0.1:23580", "tls"}, s.outline()); diff != "" {
		t.Error(diff)
	}
	if len(s.tls.Certificates) != 1 || s.tls.ClientAuth != tls.NoClientCert || s.tls.MinVersion != tls.VersionTLS12 {
		t.Errorf("%+v", s.tls)
	}
	files["boot"] = strings.Replace(files["boot"], `key.pem"`, `key.pem","clientca":".allexlanmanager/certificate.pem"`, 1)
	s, _, _ = set(t, files)
	if s.tls == nil || s.tls.ClientAuth != tls.RequireAndVerifyClientCert || s.tls.ClientCAs == nil {
		t.Errorf("with clientca: %+v", s.tls)
	}
	files["key.pem"] = certificate
	s, problems, directory = set(t, files)
	if diff := cmp.Diff(closed, s.outline()); diff != "" || len(said(problems, directory)) != 1 {
		t.Errorf("a certificate as key: %s, %s", diff, said(problems, directory))
	}
}

func keyPair(t *testing.T) (certificate, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

func TestRuntimeDirectory(t *testing.T) {
	t.Run("by boot", func(t *testing.T) {
		s, problems, directory := set(t, map[string]string{
			"boot": `{"runtimedirectory":"runtime","portcorrection":1,"httpmonitorport":0}`, "subnets": `["10.0.0.0/8"]`,
			"runtime/boot": `{"portcorrection":2,"originalports":false}`, "runtime/subnets": `["10.1.0.0/16"]`})
		if lines := said(problems, directory); lines != nil {
			t.Error(lines)
		}
		if diff := cmp.Diff([]string{"ws :23554", "subnet 10.1.0.0/16"}, s.outline()); diff != "" {
			t.Error(diff)
		}
		runtime := filepath.Join(directory, "runtime")
		if s.runtime != runtime {
			t.Errorf("runtime directory %s", s.runtime)
		}
		wantNames(t, directory, "boot", "lock", "nat", "needs", "subnets")
		wantNames(t, runtime, "boot", "lock", "needs.overlay", "needs.runtime", "subnets")
	})
	t.Run("by the project map", func(t *testing.T) {
		directory := t.TempDir()
		writeFile(t, filepath.Join(directory, "runtime"), "subnets", `["10.1.0.0/16"]`)
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(directory, link); err != nil {
			t.Fatal(err)
		}
		projectMap := filepath.Join(directory, "projectmap.json")
		text := `{"/other":5,"/twice":"a","/twice":"b",` + strconv.Quote(directory) + `:` + strconv.Quote(filepath.Join(directory, "runtime")) + `}`
		if err := os.WriteFile(projectMap, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, as := range []string{directory, link} {
			f, s, problems, err := openFiles(as, projectMap)
			if err != nil {
				t.Fatal(err)
			}
			f.close()
			if lines := said(problems, directory); lines != nil || s.runtime != filepath.Join(directory, "runtime") || len(s.subnets) != 1 {
				t.Errorf("as %s: runtime directory %s, subnets %s, problems %s", as, s.runtime, s.subnets, lines)
			}
		}
	})
	t.Run("the directory itself", func(t *testing.T) {
		directory := t.TempDir()
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(directory, link); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{".", directory, link} {
			writeFile(t, directory, "boot", `{"runtimedirectory":`+strconv.Quote(name)+`}`)
			f, s, problems, err := openFiles(directory, "")
			if err != nil {
				t.Fatal(err)
			}
			f.close()
			if lines := said(problems, directory); lines != nil || s.runtime != directory {
				t.Errorf("%s: runtime directory %s, %s", name, s.runtime, lines)
			}
		}
	})
}

func TestRuntimeBootFailsClosed(t *testing.T) {
	s, problems, directory := set(t, map[string]string{
		"boot": `{"runtimedirectory":"runtime","portcorrection":1}`, "subnets": `["10.0.0.0/8"]`, "runtime/boot": `{"portcorrection":x}`})
	if diff := cmp.Diff([]string{"runtime/.allexlanmanager/boot:1:19: broken JSON: invalid character 'x' looking for beginning of value"},
		said(problems, directory)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(closed, s.outline()); diff != "" {
		t.Error(diff)
	}
	// The needs that were added are still those in the runtime directory.
	s, _, directory = set(t, map[string]string{"boot": `{"runtimedirectory":"runtime","listen":5}`, "runtime/needs.runtime": `[]`})
	if diff := cmp.Diff(closed, s.outline()); diff != "" || s.runtime != filepath.Join(directory, "runtime") {
		t.Errorf("runtime directory %s, %s", s.runtime, diff)
	}
}

func TestProjectMapFailsClosed(t *testing.T) {
	for _, entry := range []string{"", "{", "[]", `{"%s":5}`, `{"%s":""}`, `{"%s":"/nowhere/at/all"}`} {
		directory := t.TempDir()
		projectMap := filepath.Join(directory, "projectmap.json")
		if err := os.WriteFile(projectMap, []byte(strings.ReplaceAll(entry, "%s", directory)), 0o600); err != nil {
			t.Fatal(err)
		}
		writeFile(t, directory, "subnets", `["10.0.0.0/8"]`)
		f, s, problems, err := openFiles(directory, projectMap)
		if err != nil {
			t.Fatal(err)
		}
		f.close()
		lines := said(problems, directory)
		if len(lines) != 1 || !strings.HasPrefix(lines[0], "projectmap.json:1:") {
			t.Errorf("%s: %q", entry, lines)
		}
		if diff := cmp.Diff(closed, s.outline()); diff != "" {
			t.Errorf("%s: %s", entry, diff)
		}
	}
}

func TestSubnets(t *testing.T) {
	for entry, want := range map[string]string{
		"10.0.0.1": "10.0.0.1/32", "10.0.0.0/8": "10.0.0.0/8", "10/8": "10.0.0.0/8", "192.168/16": "192.168.0.0/16", "0/0": "0.0.0.0/0",
		"10.0.0.1/32": "10.0.0.1/32", "fd00:1::/64": "fd00:1::/64", "fd00::1": "fd00::1/128", "fd00::1/64": "fd00::/64", "::/0": "::/0",
		"192.168.1.0/8": "192.0.0.0/8", // the original's default
	} {
		s, err := parseSubnets("subnets", []byte(`["`+entry+`"]`))
		if err != nil || len(s.prefixes) != 1 || s.prefixes[0].String() != want || s.written[0] != entry {
			t.Errorf("%s: %v, error %v, want %s", entry, s.prefixes, err, want)
		}
	}
	for _, entry := range []string{"", "10", "10.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/08", "10.0.0.256/8", "10.0.0.0.0/8",
		"010.0.0.0/8", " 10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "fe80::1%eth0", "fe80::%eth0/64", "fd00::/129", "localhost", "*"} {
		s, err := parseSubnets("subnets", []byte(`["10.9.0.0/16", "`+entry+`"]`))
		if err == nil || !strings.HasPrefix(err.Error(), "subnets:1:17: [1]: found "+strconv.Quote(entry)+", wanted an address or a network") {
			t.Errorf("%q: %v", entry, err)
		}
		if len(s.prefixes) != 1 || len(s.written) != 1 || s.prefixes[0] != netip.MustParsePrefix("10.9.0.0/16") {
			t.Errorf("%q: %v, %v", entry, s.prefixes, s.written)
		}
	}
}

func TestSubnetsWarnOfHostBits(t *testing.T) {
	s, err := parseSubnets("subnets", []byte(`["10.0.0.0/8", "192.168.1.0/8", "fd00::1/64", "255.255.255.255/1", "10.1.2.3/32"]`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`subnets: [1]: "192.168.1.0/8" admits 192.0.0.0 to 192.255.255.255; the original admitted 192.168.1.0 to 193.168.0.255; write "192.0.0.0/8" if the first is meant`,
		`subnets: [3]: "255.255.255.255/1" admits 128.0.0.0 to 255.255.255.255; the original admitted 255.255.255.255 to 255.255.255.255; write "128.0.0.0/1" if the first is meant`,
	}
	if diff := cmp.Diff(want, s.warnings); diff != "" {
		t.Error(diff)
	}
}

// Mistakes of form and of meaning come together, each with its place.
func TestSubnetsMistakes(t *testing.T) {
	s, problems, directory := set(t, map[string]string{"subnets": "[\n 5, \"x\",\n \"10.0.0.0/8\"]"})
	if diff := cmp.Diff([]string{".allexlanmanager/subnets:2:2: [0]: found the number 5, wanted a string",
		`.allexlanmanager/subnets:2:5: [1]: found "x", wanted an address or a network such as 192.168.1.0/24 or fd00:1::/64`},
		said(problems, directory)); diff != "" {
		t.Error(diff)
	}
	if len(s.subnets) != 1 {
		t.Errorf("subnets %s", s.subnets)
	}
	want := []peerRole{{"127.0.0.1/32", "user"}, {"127.0.0.0/8", "user"}, {"10.0.0.0/8", "user"}}
	if diff := cmp.Diff(want, s.admitted); diff != "" {
		t.Error(diff)
	}
}

func wantNames(t *testing.T, directory string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(directory, ".allexlanmanager"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files in %s: %s", directory, diff)
	}
}
