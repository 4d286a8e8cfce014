package lanmanager

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// The ports of a LAN manager, before portcorrection.
const (
	ownPort      = 23552
	olderPort    = 23451
	signalRPort  = 22451
	pagePort     = 23580
	leastPort    = 1
	mostPort     = 65535
	lowestShift  = leastPort - signalRPort
	highestShift = mostPort - ownPort
)

// boot is the file of that name.
type boot struct {
	PortCorrection   int             `json:"portcorrection"`
	HTTPMonitorPort  int             `json:"httpmonitorport"`
	Gate             json.RawMessage `json:"gate"`
	RuntimeDirectory string          `json:"runtimedirectory"`
	OriginalPorts    *bool           `json:"originalports"`
	Listen           string          `json:"listen"`
	TokenFile        string          `json:"tokenfile"`
	TLS              *tlsFiles       `json:"tls"`

	token string
	tls   *tls.Config
}

type tlsFiles struct {
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
	ClientCA    string `json:"clientca"`
}

func defaultBoot() boot { return boot{HTTPMonitorPort: pagePort} }

// parseBoot reads the file called name, which lies below directory, over what
// holds without it. After a mistake nothing of it holds but the runtime
// directory: where the files are does not depend on who is admitted.
func parseBoot(name string, text []byte, directory string, b boot) (boot, error) {
	doc := jsonfile.Read(name, text, &b)
	b.checkPorts(doc)
	if address, err := netip.ParseAddr(b.Listen); b.Listen != "" && err != nil {
		doc.Add("listen", "found %.60q, wanted an IP address", b.Listen)
	} else if b.Listen != "" && address.Is4In6() {
		doc.Add("listen", "found %.60q, wanted it as the IPv4 address %s", b.Listen, address.Unmap())
	}
	b.checkRuntime(doc, directory)
	b.readToken(doc, directory)
	b.readTLS(doc, directory)
	if err := doc.Err(); err != nil {
		rest := defaultBoot()
		rest.RuntimeDirectory = b.RuntimeDirectory
		return rest, err
	}
	return b, nil
}

func (b *boot) checkPorts(doc *jsonfile.Document) {
	if b.PortCorrection < lowestShift || b.PortCorrection > highestShift {
		doc.Add("portcorrection", "found %d, wanted %d to %d, so that the ports %d to %d stay between %d and %d",
			b.PortCorrection, lowestShift, highestShift, signalRPort, ownPort, leastPort, mostPort)
		return
	}
	switch page := b.HTTPMonitorPort; {
	case page == 0: // none
	case page == ownPort, page == olderPort, page == signalRPort:
		doc.Add("httpmonitorport", "found %d, which is where agents look for the LAN manager; choose another", page)
	case page < leastPort-b.PortCorrection || page > mostPort-b.PortCorrection || page < 0:
		doc.Add("httpmonitorport", "found %d, wanted 0 for no page, or a port that is between %d and %d when portcorrection is added",
			page, leastPort, mostPort)
	}
}

func (b *boot) checkRuntime(doc *jsonfile.Document, directory string) {
	if b.RuntimeDirectory == "" {
		return
	}
	b.RuntimeDirectory = within(directory, b.RuntimeDirectory)
	if info, err := os.Stat(b.RuntimeDirectory); err != nil || !info.IsDir() {
		doc.Add("runtimedirectory", "%s is no directory; make it, or name another", b.RuntimeDirectory)
		b.RuntimeDirectory = ""
	}
}

// readToken reads the token, which goes into an HTTP header.
func (b *boot) readToken(doc *jsonfile.Document, directory string) {
	if b.TokenFile == "" {
		return
	}
	b.TokenFile = within(directory, b.TokenFile)
	text, err := readPlain(b.TokenFile)
	b.token = strings.TrimSpace(string(text))
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	switch {
	case err != nil:
		doc.Add("tokenfile", "%s", err)
	case b.token == "":
		doc.Add("tokenfile", "%s is empty; write a long random word into it", b.TokenFile)
	case strings.ContainsFunc(b.token, odd):
		doc.Add("tokenfile", "%s holds more than one word of plain ASCII", b.TokenFile)
	}
}

func (b *boot) readTLS(doc *jsonfile.Document, directory string) {
	if b.TLS == nil {
		return
	}
	b.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if b.TLS.Certificate == "" || b.TLS.Key == "" {
		doc.Add("tls", "wanted both certificate and key")
		return
	}
	read := func(key string, name *string) []byte {
		*name = within(directory, *name)
		text, err := readPlain(*name)
		if err != nil {
			doc.Add("tls."+key, "%s", err)
		}
		return text
	}
	certificate, key := read("certificate", &b.TLS.Certificate), read("key", &b.TLS.Key)
	if certificate != nil && key != nil {
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			doc.Add("tls", "certificate and key can not be used: %s", err)
		}
		b.tls.Certificates = []tls.Certificate{pair}
	}
	if b.TLS.ClientCA == "" {
		return
	}
	if authorities := read("clientca", &b.TLS.ClientCA); authorities != nil {
		b.tls.ClientAuth = tls.RequireAndVerifyClientCert
		b.tls.ClientCAs = x509.NewCertPool()
		if !b.tls.ClientCAs.AppendCertsFromPEM(authorities) {
			doc.Add("tls.clientca", "%s holds no certificate in PEM form", b.TLS.ClientCA)
		}
	}
}

// within is a path that is meant from directory.
func within(directory, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(directory, path)
}

// isSecret tells whether peers need more than an admitted address.
func (b *boot) isSecret() bool { return b.token != "" || b.tls != nil }

// hasOriginalPorts tells whether the ports of the original are open. Its clients
// know neither tokens nor TLS.
func (b *boot) hasOriginalPorts() bool {
	if b.OriginalPorts == nil {
		return !b.isSecret()
	}
	return *b.OriginalPorts
}

func (b *boot) warnings() (warnings []string) {
	if b.OriginalPorts != nil && *b.OriginalPorts && b.isSecret() {
		warnings = append(warnings, fmt.Sprintf("boot: originalports is true: on the ports %d and %d neither a token nor TLS is asked for",
			olderPort+b.PortCorrection, signalRPort+b.PortCorrection))
	}
	if len(b.Gate) > 0 && string(b.Gate) != "null" {
		warnings = append(warnings, "boot: gate is not used by this LAN manager")
	}
	return warnings
}
