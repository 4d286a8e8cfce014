package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// certify writes a certificate that vouches for itself, with its key.
func certify(t *testing.T, certificate, key string, from, to time.Time) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to}
	public, err := x509.CreateCertificate(rand.Reader, c, c, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certificate, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: public})))
	write(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
}

// secure is a directory with a configuration that uses all secrets.
func secure(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	write(t, filepath.Join(dir, FileName), `{"lanmanagerprotocol": "wss",
"tls": {"ca": "cert.pem", "certificate": "cert.pem", "key": "key.pem"},
"tokenfile": "token"}`)
	certify(t, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	write(t, filepath.Join(dir, "token"), "first\n")
	return dir
}

// What a dial needs is read at each, so that it can be exchanged.
func TestSecrets(t *testing.T) {
	dir := secure(t)
	cfg, _, _, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"first", "second"} {
		secrets, token, err := cfg.LANManager.Secrets()
		if err != nil || token != want || secrets.RootCAs == nil || len(secrets.Certificates) != 1 {
			t.Errorf("got %v, %q, %v", secrets, token, err)
		}
		write(t, filepath.Join(dir, "token"), " second \r\n")
	}
	if problems := cfg.LANManager.Warnings(); problems != nil {
		t.Error(problems)
	}
	none := LANManager{Protocol: "ws", Address: "127.0.0.1"}
	if secrets, token, err := none.Secrets(); secrets != nil || token != "" || err != nil {
		t.Errorf("got %v, %q, %v for ws", secrets, token, err)
	}
	for _, spoilt := range []string{"token", "cert.pem", "key.pem"} {
		dir := secure(t)
		cfg, _, _, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, spoilt), "")
		if _, _, err := cfg.LANManager.Secrets(); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, spoilt)) {
			t.Errorf("without %s: %v", spoilt, err)
		}
	}
}

// All mistakes of the files come at once, with their places.
func TestSecretFiles(t *testing.T) {
	notThere := "open DIR/%: no such file or directory; make it, or make it readable for the user that agentd runs as"
	noToken := "f:3:14: tokenfile: DIR/token holds no token: wanted one line of 1 to 4096 visible ASCII characters, the same as in the LAN manager's tokenfile"
	for _, test := range []struct {
		name  string
		spoil func(dir string)
		want  string
	}{
		{"nothing there", func(dir string) {
			for _, name := range []string{"cert.pem", "key.pem", "token"} {
				os.Remove(filepath.Join(dir, name))
			}
		}, "f:2:15: tls.ca: " + strings.Replace(notThere, "%", "cert.pem", 1) +
			"\nf:2:42: tls.certificate: " + strings.Replace(notThere, "%", "cert.pem", 1) +
			"\nf:3:14: tokenfile: " + strings.Replace(notThere, "%", "token", 1)},
		{"no key", func(dir string) { os.Remove(filepath.Join(dir, "key.pem")) },
			"f:2:61: tls.key: " + strings.Replace(notThere, "%", "key.pem", 1)},
		{"no certificates", func(dir string) { write(t, filepath.Join(dir, "cert.pem"), "hello") },
			"f:2:15: tls.ca: DIR/cert.pem holds no certificate: wanted one or more in PEM, which begin with -----BEGIN CERTIFICATE-----\n" +
				"f:2:42: tls.certificate: DIR/cert.pem and DIR/key.pem are no certificate in PEM with its key: tls: failed to find any PEM data in certificate input"},
		{"another's key", func(dir string) {
			certify(t, filepath.Join(dir, "other.pem"), filepath.Join(dir, "key.pem"), time.Now(), time.Now())
		}, "f:2:42: tls.certificate: DIR/cert.pem and DIR/key.pem are no certificate in PEM with its key: tls: private key does not match public key"},
		{"empty token", func(dir string) { write(t, filepath.Join(dir, "token"), " \n") }, noToken},
		{"token of two lines", func(dir string) { write(t, filepath.Join(dir, "token"), "a\nb\n") }, noToken},
		{"token with an umlaut", func(dir string) { write(t, filepath.Join(dir, "token"), "Schlüssel") }, noToken},
		{"long token", func(dir string) { write(t, filepath.Join(dir, "token"), strings.Repeat("x", 4097)) }, noToken},
		{"endless token", func(dir string) { write(t, filepath.Join(dir, "token"), strings.Repeat("x", mostSecret+1)) },
			"f:3:14: tokenfile: DIR/token has more than 1048576 bytes"},
		{"token that is a directory", func(dir string) {
			os.Remove(filepath.Join(dir, "token"))
			write(t, filepath.Join(dir, "token", "x"), "")
		}, "f:3:14: tokenfile: DIR/token is no regular file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := secure(t)
			test.spoil(dir)
			_, file, _, err := Load(dir)
			got := ""
			if err != nil {
				got = strings.NewReplacer(file, "f", dir, "DIR").Replace(err.Error())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What is allowed and still not good is said.
func TestWarnings(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no such modes")
	}
	dir := secure(t)
	cfg, _, _, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := cfg.LANManager
	for _, file := range []string{m.TokenFile, m.TLS.Key} {
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	certify(t, m.TLS.Certificate, m.TLS.Key, time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))
	want := []string{"token can be read or written by every user", "chmod o= ", "key.pem can be read", "cert.pem expired at 20", "renew it"}
	got := strings.Join(m.Warnings(), "\n")
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("warnings\n%s\nlack %q", got, w)
		}
	}
	certify(t, m.TLS.Certificate, m.TLS.Key, time.Now().Add(time.Hour), time.Now().Add(2*time.Hour))
	if got := strings.Join(m.Warnings(), "\n"); !strings.Contains(got, "is not valid before 20") || !strings.Contains(got, "clock") {
		t.Errorf("warnings\n%s", got)
	}

	for address, want := range map[string]bool{"127.0.0.1": false, "::1": false, "localhost": false, "10.0.0.1": true, "lan.example": true} {
		clear := strings.Contains(strings.Join(LANManager{Protocol: "ws", Address: address, TokenFile: "/none"}.Warnings(), ""), "travels readable")
		if clear != want {
			t.Errorf("token to %s in the clear: warned %v, want %v", address, clear, want)
		}
	}
}

func TestPorts(t *testing.T) {
	for _, test := range []struct {
		m    LANManager
		want []int
	}{
		{LANManager{Protocol: "ws"}, []int{23552, 23451}},
		{LANManager{Protocol: "ws", PortCorrection: 101}, []int{23653, 23552}},
		{LANManager{Protocol: "ws", Port: 5}, []int{5}},
		{LANManager{Protocol: "wss", PortCorrection: 1}, []int{23553}},
		{LANManager{Protocol: "ws", TokenFile: "x"}, []int{23552}},
		{LANManager{Protocol: "wss", Port: 443, TokenFile: "x"}, []int{443}},
	} {
		if diff := cmp.Diff(test.want, test.m.Ports()); diff != "" {
			t.Errorf("%+v: %s", test.m, diff)
		}
	}
}
