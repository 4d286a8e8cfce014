package link

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// authority vouches for certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	pair := a.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.cert, a.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// issue makes a certificate; without an authority yet it vouches for itself.
func (a *authority) issue(c *x509.Certificate) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// server is a certificate for 127.0.0.1.
func (a *authority) server() tls.Certificate {
	return a.issue(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
}

// client is what an agent trusts and shows.
func (a *authority) client(shows ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: a.pool(), Certificates: shows}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) machine() tls.Certificate {
	return a.issue(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// guarded is the door of a LAN manager of this project with a token.
func guarded(token func() string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Bearer "+token() {
			return true
		}
		http.Error(w, "the token is not that of this LAN manager", http.StatusUnauthorized)
		return false
	}
}

// TestSecure: a whole cycle over TLS with certificates on both sides and a
// token. When the LAN manager's token is exchanged, a Link that has the new one
// by then comes back.
func TestSecure(t *testing.T) {
	a := newAuthority(t)
	var theirs, ours atomic.Value
	theirs.Store("first")
	ours.Store("first")
	m := &manager{t: t, needs: []string{need("Probe", "")}}
	at := door{
		tls:   &tls.Config{Certificates: []tls.Certificate{a.server()}, ClientCAs: a.pool(), ClientAuth: tls.RequireAndVerifyClientCert},
		admit: guarded(func() string { return theirs.Load().(string) }),
	}.listen(t, m.serve)
	o := newOwner()
	c := config(o, at)
	secure := a.client(a.machine())
	c.Secrets = func() (*tls.Config, string, error) { return secure, ours.Load().(string), nil }
	l := New(c)
	run(t, l)
	wantClean(t, o.cycle(t, l))

	theirs.Store("second")
	m.conn().close()
	for { // the end of the cycle's bid may be told only now
		if _, down := o.next(t).(Down); down {
			break
		}
	}
	if got := expect[Down](t, o).Err.Error(); !strings.Contains(got, "tokenfile must hold the same") {
		t.Errorf("error %q", got)
	}
	ours.Store("second")
	for {
		if _, up := o.next(t).(Up); up {
			break
		}
	}
}

// TestPlainToken: a token travels without TLS, too.
func TestPlainToken(t *testing.T) {
	m := &manager{t: t}
	o := newOwner()
	c := config(o, door{admit: guarded(func() string { return "secret" })}.listen(t, m.serve))
	c.Secrets = func() (*tls.Config, string, error) { return nil, "secret", nil }
	run(t, New(c))
	expect[Up](t, o)
}

// TestDoors: what is wrong between a Link and the door of a LAN manager is said
// with the place and with what to do.
func TestDoors(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	served := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
	asking := func(pool *x509.CertPool, most uint16) *tls.Config {
		c := served(a.server())
		c.ClientCAs, c.ClientAuth, c.MaxVersion = pool, tls.RequireAndVerifyClientCert, most
		return c
	}
	saying := func(code int, text string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, text, code)
			return false
		}
	}
	expired := a.issue(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	elsewhere := a.issue(&x509.Certificate{DNSNames: []string{"lan.example"}})
	badOurs := "it does not take our certificate: tls.certificate and tls.key must be there"

	for name, test := range map[string]struct {
		door  door
		tls   *tls.Config
		token string
		err   error
		want  []string
	}{
		"unknown authority": {door: door{tls: served(other.server())}, tls: a.client(),
			want: []string{"certificate signed by unknown authority", "name the certificate of its authority in tls.ca"}},
		"expired": {door: door{tls: served(expired)}, tls: a.client(),
			want: []string{"certificate has expired", "renew the LAN manager's certificate, or set the clock of this machine"}},
		"another name": {door: door{tls: served(elsewhere)}, tls: a.client(),
			want: []string{"127.0.0.1", `set "lanmanageraddress" to one that it is for`}},
		"no certificate of ours":              {door: door{tls: asking(a.pool(), 0)}, tls: a.client(), want: []string{badOurs}},
		"no certificate of ours, TLS 1.2":     {door: door{tls: asking(a.pool(), tls.VersionTLS12)}, tls: a.client(), want: []string{badOurs}},
		"certificate of another authority":    {door: door{tls: asking(other.pool(), 0)}, tls: a.client(a.machine()), want: []string{badOurs}},
		"token wanted":                        {door: door{admit: saying(401, "a token is needed")}, want: []string{`refused us: it answered "401 Unauthorized": a token is needed`, "name a file that holds it in tokenfile"}},
		"wrong token":                         {door: door{admit: saying(401, "not this one")}, token: "x", want: []string{`"401 Unauthorized": not this one`, "tokenfile must hold the same as the LAN manager's"}},
		"address not admitted":                {door: door{admit: saying(403, "127.0.0.1 is in no entry\nof\x00subnets")}, want: []string{`"403 Forbidden": 127.0.0.1 is in no entry of subnets`, "`.allexlanmanager/subnets`", "add this machine's there"}},
		"a long refusal":                      {door: door{admit: saying(403, strings.Repeat("no ", 10000))}, want: []string{`"403 Forbidden": no no`, "no no...; it admits only"}},
		"another server":                      {door: door{admit: saying(404, "no such page")}, want: []string{`does not speak WebSocket: it answered "404 Not Found": no such page; no LAN manager speaks like that: set "lanmanageraddress"`}},
		"without TLS where TLS is wanted":     {tls: a.client(), want: []string{`does not look like a TLS handshake`, `set "lanmanagerprotocol" to "ws"`}},
		"TLS where none is wanted":            {door: door{tls: served(a.server())}, want: []string{`it may wait for TLS: set "lanmanagerprotocol" to "wss"`}},
		"files that can not be used any more": {err: errors.New("/x/token holds no token"), want: []string{"/x/token holds no token"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := &manager{t: t}
			o := newOwner()
			c := config(o, test.door.listen(t, m.serve))
			c.Secrets = func() (*tls.Config, string, error) { return test.tls, test.token, test.err }
			run(t, New(c))
			got := expect[Down](t, o).Err.Error()
			for _, want := range append(test.want, "no LAN manager at "+c.Addresses[0]+": ") {
				if !strings.Contains(got, want) {
					t.Errorf("error %q lacks %q", got, want)
				}
			}
			if test.token != "" && strings.Contains(got, "Bearer") || len(got) > 1000 {
				t.Errorf("error %q", got)
			}
		})
	}
}

// TestTLSAlert: a server that says in its own way, not as HTTP servers do, that
// it waits for TLS.
func TestTLSAlert(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, _ = conn.Write([]byte("\x15\x03\x01\x00\x02\x02\x46")) // fatal, protocol version
			conn.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		accepting.Wait()
	})
	o := newOwner()
	run(t, New(config(o, l.Addr().String())))
	if got := expect[Down](t, o).Err.Error(); !strings.Contains(got, `it may wait for TLS: set "lanmanagerprotocol" to "wss"`) {
		t.Errorf("error %q", got)
	}
}
