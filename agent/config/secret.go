package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// The protocols that the LAN manager may be spoken to in.
const (
	protocolWS  = "ws"
	protocolWSS = "wss"
)

const (
	mostSecret = 1 << 20 // bytes of a file of certificates
	mostToken  = 4 << 10 // characters
)

// Ports are those on which the LAN manager may be, in the order in which they
// are tried. That of old ones knows neither TLS nor tokens, and is left out
// where we want them: whoever listens there could not prove who it is, or would
// be shown a token that it has no use for.
func (m LANManager) Ports() []int {
	if m.Port != 0 {
		return []int{m.Port}
	}
	ports := slices.Clone(LANManagerPorts[:])
	if m.Protocol == protocolWSS || m.TokenFile != "" {
		ports = ports[:1]
	}
	for i := range ports {
		ports[i] += m.PortCorrection
	}
	return ports
}

// Addresses are the places where the LAN manager may be, as host:port, in the order
// of Ports.
func (m LANManager) Addresses() []string {
	var at []string
	for _, p := range m.Ports() {
		at = append(at, net.JoinHostPort(m.Address, strconv.Itoa(p)))
	}
	return at
}

// Secrets reads what a dial needs: the TLS side of wss, nil for ws, and the
// token, empty for none. It reads the files each time, so that they can be
// exchanged while the agent runs. The error names the file and the cure.
func (m LANManager) Secrets() (*tls.Config, string, error) {
	token, err := m.token()
	if err != nil || m.Protocol != protocolWSS {
		return nil, token, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if m.TLS.CA != "" {
		if c.RootCAs, err = authorities(m.TLS.CA); err != nil {
			return nil, "", err
		}
	}
	if m.TLS.Certificate != "" {
		pair, err := m.TLS.pair()
		if err != nil {
			return nil, "", err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, token, nil
}

func (m LANManager) token() (string, error) {
	if m.TokenFile == "" {
		return "", nil
	}
	text, err := read(m.TokenFile)
	if err != nil {
		return "", err
	}
	text = bytes.TrimSpace(text)
	odd := func(b byte) bool { return b <= ' ' || b > '~' }
	if len(text) == 0 || len(text) > mostToken || slices.ContainsFunc(text, odd) {
		return "", fmt.Errorf("%s holds no token: wanted one line of 1 to %d visible ASCII characters, the same as in the LAN manager's tokenfile",
			m.TokenFile, mostToken)
	}
	return string(text), nil
}

func authorities(file string) (*x509.CertPool, error) {
	text, err := read(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate: wanted one or more in PEM, which begin with -----BEGIN CERTIFICATE-----", file)
	}
	return pool, nil
}

func (t TLS) pair() (tls.Certificate, error) {
	certificate, err := read(t.Certificate)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := read(t.Key)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return pair, fmt.Errorf("%s and %s are no certificate in PEM with its key: %w", t.Certificate, t.Key, err)
	}
	return pair, nil
}

// read reads a file that must not be as large as it likes, nor of any kind: a
// pipe would be waited for.
func read(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%w; make it, or make it readable for the user that agentd runs as", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, mostSecret+1))
	if err == nil && len(text) > mostSecret {
		err = fmt.Errorf("%s has more than %d bytes", file, mostSecret)
	}
	return text, err
}

// Warnings tells what is allowed and still not good: secrets that others can
// read, and a certificate that is not valid now.
func (m LANManager) Warnings() []string {
	var all []string
	for _, file := range []string{m.TokenFile, m.TLS.Key} {
		if info, err := os.Stat(file); err == nil && runtime.GOOS != "windows" && info.Mode()&0o007 != 0 {
			all = append(all, fmt.Sprintf("%s can be read or written by every user of this machine (mode %04o): `chmod o= %s`", file, info.Mode().Perm(), file))
		}
	}
	if m.TokenFile != "" && m.Protocol == protocolWS && !local(m.Address) {
		all = append(all, `the token travels readable for everybody on the way to the LAN manager: use "lanmanagerprotocol": "wss"`)
	}
	if m.TLS.Certificate == "" {
		return all
	}
	if pair, err := m.TLS.pair(); err == nil {
		switch now := time.Now(); {
		case now.After(pair.Leaf.NotAfter):
			all = append(all, fmt.Sprintf("%s expired at %s, and the LAN manager will refuse it: renew it", m.TLS.Certificate, pair.Leaf.NotAfter.Format(time.RFC3339)))
		case now.Before(pair.Leaf.NotBefore):
			all = append(all, fmt.Sprintf("%s is not valid before %s: see whether the clock of this machine is right", m.TLS.Certificate, pair.Leaf.NotBefore.Format(time.RFC3339)))
		}
	}
	return all
}

// local tells whether what goes to host stays on this machine.
func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkSecrets adds what is wrong with the keys themselves.
func (f *file) checkSecrets(doc *jsonfile.Document) {
	checkOneOf(doc, "lanmanagerprotocol", f.LANManagerProtocol, protocolWS, protocolWSS)
	checkPath := func(key string, path *string) {
		if path != nil && badPath(*path) {
			doc.Add(key, "found %q, wanted a path; leave the key out if there is no such file", *path)
		}
	}
	checkPath("tokenfile", f.TokenFile)
	if f.TLS == nil {
		return
	}
	if f.LANManagerProtocol == protocolWS {
		doc.Add("tls", `means nothing to ws; add "lanmanagerprotocol": "wss", or leave it out`)
	}
	checkPath("tls.ca", f.TLS.CA)
	checkPath("tls.certificate", f.TLS.Certificate)
	checkPath("tls.key", f.TLS.Key)
	switch {
	case f.TLS.Certificate != nil && f.TLS.Key == nil:
		doc.Add("tls.certificate", "there is no tls.key beside it; a certificate is of no use without its key")
	case f.TLS.Certificate == nil && f.TLS.Key != nil:
		doc.Add("tls.key", "there is no tls.certificate beside it; a key is of no use without its certificate")
	}
}

// checkFiles adds what is wrong with the files.
func (m LANManager) checkFiles(doc *jsonfile.Document) {
	if _, err := m.token(); err != nil {
		doc.Add("tokenfile", "%s", err)
	}
	if m.TLS.CA != "" {
		if _, err := authorities(m.TLS.CA); err != nil {
			doc.Add("tls.ca", "%s", err)
		}
	}
	if m.TLS.Certificate == "" || m.TLS.Key == "" {
		return
	}
	if _, err := m.TLS.pair(); err != nil {
		where := "tls.certificate"
		if pathErr := new(os.PathError); errors.As(err, &pathErr) && pathErr.Path == m.TLS.Key {
			where = "tls.key"
		}
		doc.Add(where, "%s", err)
	}
}
