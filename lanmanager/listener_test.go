package lanmanager

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/lan/wire"
)

func TestBothEnvelopesReachOneLAN(t *testing.T) {
	lan := start(t, Config{Listeners: both()}, needs("A", "B"))
	port := listener(t)
	ws, signalR := lan.agent("ws", "127.0.0.1"), newAgent(lan.dialSignalR("127.0.0.1"), "signalr")
	ws.serveAll(port, "A")
	signalR.serveAll(port, "B")
	ws.soon(ws.services, "A", "B")
	signalR.soon(signalR.services, "A", "B")
	if got := signalR.value(signalR.lan, ".", "notifyServiceDown", "B"); got != "1" {
		t.Errorf("notifyServiceDown over SignalR: %s", got)
	}
	ws.item(ws.servicesQuery, `"d"`, `"B"`)
}

func TestTakenPorts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	directory := t.TempDir()
	for _, c := range []struct {
		taken Listener
		cure  string
	}{
		{Listener{Envelope: WebSocket, Address: address}, "another LAN manager"},
		{Listener{Envelope: SignalR, Address: address, Original: true}, "the original allexlanmanager"},
	} {
		m, err := New(Config{Directory: directory, Listeners: append(at("127.0.0.1:0"), c.taken)})
		if err != nil {
			t.Fatal(err)
		}
		err = m.Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), c.cure) {
			t.Errorf("taken %s: %v", c.taken, err)
		}
	}
	// Without its page a LAN manager still works.
	lan := start(t, Config{Page: address}, needs("A"))
	lan.agent("one", "127.0.0.1").serveAll(listener(t), "A")
	if len(lan.m.Addresses()) != 1 || !strings.Contains(lan.log.String(), "there is no page") {
		t.Errorf("addresses %v with a page that can not be:\n%s", lan.m.Addresses(), lan.log)
	}
}

// What boot says holds, unless the Config says something.
func TestListenersOfBoot(t *testing.T) {
	directory := t.TempDir()
	writeFile(t, directory, "boot", `{"portcorrection":-100,"httpmonitorport":24000}`)
	for _, c := range []struct {
		name   string
		config Config
		want   string
	}{
		{"as boot says", Config{}, "[ws 127.0.0.1:23452 ws 127.0.0.1:23351 signalr 127.0.0.1:22351] 127.0.0.1:23900"},
		{"no page", Config{Page: "-"}, "[ws 127.0.0.1:23452 ws 127.0.0.1:23351 signalr 127.0.0.1:22351] -"},
		{"another page", Config{Page: "127.0.0.1:1"}, "[ws 127.0.0.1:23452 ws 127.0.0.1:23351 signalr 127.0.0.1:22351] 127.0.0.1:1"},
		{"one listener", Config{Listeners: at("127.0.0.1:7")}, "[ws 127.0.0.1:7] -"},
		{"one listener and a page", Config{Listeners: at("127.0.0.1:7"), Page: "127.0.0.1:8"}, "[ws 127.0.0.1:7] 127.0.0.1:8"},
	} {
		c.config.Directory = directory
		c.config.ProjectMap = filepath.Join(directory, "none")
		m, err := New(c.config)
		if err != nil {
			t.Fatal(err)
		}
		m.files.close()
		if got := fmt.Sprint(m.config.Listeners, " ", m.config.Page); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestPageIsServed(t *testing.T) {
	lan := start(t, Config{Page: "127.0.0.1:0"}, needs("Lonely"))
	page := "http://" + lan.m.Addresses()[1].String()
	for path, want := range map[string]string{
		"/":        "Lonely",
		"/metrics": "lanmanager_needs_open 1",
		"/healthz": "",
	} {
		response, err := http.Get(page + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(text), want) {
			t.Errorf("%s: %s %v, without %q:\n%.2000s", path, response.Status, err, want, text)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestTokenAtTheDoor(t *testing.T) {
	directory := t.TempDir()
	writeFile(t, directory, "token", "s3cret\n")
	listeners := append(at("127.0.0.1:0"), Listener{Envelope: SignalR, Address: "127.0.0.1:0", Original: true})
	lan := start(t, Config{Directory: directory, Listeners: listeners},
		map[string]string{"boot": `{"tokenfile":".allexlanmanager/token","originalports":true}`, "needs": "[]"})
	for token, admitted := range map[string]bool{"s3cret": true, "": false, "s3cre": false, "s3cret ": true, "other": false} {
		conn, err := wire.Dial(t.Context(), lan.url, wire.DialOptions{Token: token})
		if err == nil {
			conn.Close()
		} else if !strings.Contains(err.Error(), "401") {
			t.Errorf("token %q: %v", token, err)
		}
		if (err == nil) != admitted {
			t.Errorf("token %q: %v, want admitted %t", token, err, admitted)
		}
	}
	lan.dialSignalR("127.0.0.1").introduce("") // the original's know none

	// An id that has shown the token is not to be had without.
	conn, err := wire.Dial(t.Context(), lan.url, wire.DialOptions{Token: "s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	lan.peer(conn).introduce("one")
	if u := lan.dialSignalR("127.0.0.1").tryIntroduce("one"); u.Code != "ID_IN_USE" || !strings.Contains(u.Message, "token") {
		t.Errorf("the id without the token: %s", u.AppendJSON(nil))
	}
}

func TestTLSAtTheDoor(t *testing.T) {
	authority := newAuthority(t)
	directory := t.TempDir()
	authority.write(t, directory, "server", "127.0.0.1")
	writeFile(t, directory, "ca", string(authority.pem))
	lan := start(t, Config{Directory: directory}, map[string]string{"needs": "[]",
		"boot": `{"tls":{"certificate":".allexlanmanager/server.crt","key":".allexlanmanager/server.key","clientca":".allexlanmanager/ca"}}`})
	url := strings.Replace(lan.url, "ws:", "wss:", 1)
	dial := func(certificates ...tls.Certificate) (wire.Conn, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return wire.Dial(ctx, url, wire.DialOptions{TLS: &tls.Config{RootCAs: authority.pool, Certificates: certificates}})
	}
	if conn, err := dial(); err == nil {
		// TLS 1.3 tells a client only when it reads.
		if _, err = conn.Read(); err == nil {
			t.Error("a client without a certificate is admitted")
		}
		conn.Close()
	}
	if conn, err := wire.Dial(t.Context(), lan.url, wire.DialOptions{}); err == nil {
		conn.Close()
		t.Error("a client without TLS is admitted")
	}
	stranger := newAuthority(t).issue(t, "stranger")
	if conn, err := dial(stranger); err == nil {
		conn.Close()
		t.Error("a client with a stranger's certificate is admitted")
	}
	first, second := authority.issue(t, "first"), authority.issue(t, "second")
	open := func(c tls.Certificate) *peer {
		conn, err := dial(c)
		if err != nil {
			t.Fatal(err)
		}
		return lan.peer(conn)
	}
	open(first).introduce("one")
	open(first).introduce("one") // again, with the same certificate
	if u := open(second).tryIntroduce("one"); u.Code != "ID_IN_USE" || !strings.Contains(u.Message, "certificate") {
		t.Errorf("the id with another certificate: %s", u.AppendJSON(nil))
	}
	open(second).introduce("two")
}

// authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
	pool        *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, pool: x509.NewCertPool(), pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.certificate)
	return a
}

func (a *authority) issue(t *testing.T, name string, addresses ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, address := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(address))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// write writes a new certificate and its key beside the LAN manager's files.
func (a *authority) write(t *testing.T, directory, name string, addresses ...string) {
	t.Helper()
	c := a.issue(t, name, addresses...)
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, directory, name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})))
	writeFile(t, directory, name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
}
