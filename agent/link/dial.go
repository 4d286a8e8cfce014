package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/allexgo/machine-agent/lan/wire"
)

// dialWire opens the WebSocket to a LAN manager.
func (l *Link) dialWire(ctx context.Context, address string) (wire.Conn, error) {
	scheme, options := "ws", wire.DialOptions{LocalIP: l.LocalIP}
	if l.Secrets != nil {
		secure, token, err := l.Secrets()
		if err != nil {
			return nil, err
		}
		if secure != nil {
			scheme, options.TLS = "wss", secure
		}
		options.Token = token
	}
	conn, err := wire.Dial(ctx, scheme+"://"+address+"/", options)
	if err != nil {
		return nil, advise(err, options)
	}
	return conn, nil
}

// reach opens a connection to a LAN manager, or says why there is none.
func (l *Link) reach(ctx context.Context, address string) (wire.Conn, error) {
	within, stop := context.WithTimeout(ctx, stepWithin)
	defer stop()
	conn, err := l.dial(within, address)
	if timedOut(err) {
		err = fmt.Errorf("no answer within %s: the machine can not be reached, or what listens there is no LAN manager", stepWithin)
	}
	if err != nil {
		return nil, fmt.Errorf("no LAN manager at %s: %w", address, err)
	}
	return conn, nil
}

// Try tells whether somebody at address takes a WebSocket from us, as a LAN manager
// does, or why not and what would help. Nothing is said there: to the original an
// introduction is the end of what this machine serves (PROTOCOL section 9). Of the
// Config it uses LocalIP and Secrets.
func (l *Link) Try(ctx context.Context, address string) error {
	conn, err := l.reach(ctx, address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Nowhere tells of all places why no LAN manager is there; nil are those that have not
// been tried. What to do stays at the end, where there is one for each thing to do.
func Nowhere(tried []error) error {
	var problems, cures []string
	for _, err := range tried {
		if err == nil {
			continue
		}
		problem, cure := err.Error(), ""
		if i := strings.LastIndex(problem, "; "); i > 0 {
			problem, cure = problem[:i], problem[i+2:]
		}
		problems = append(problems, problem)
		if cure != "" && !slices.Contains(cures, cure) {
			cures = append(cures, cure)
		}
	}
	text := strings.Join(problems, ", and ")
	if len(cures) > 0 {
		text += "; " + strings.Join(cures, ", or ")
	}
	return errors.New(text)
}

// advise adds to the error of a dial what to do about it, where that is known.
func advise(err error, o wire.DialOptions) error {
	cure := ""
	if o.TLS != nil {
		cure = cureTLS(err)
	} else if speaksTLS(err) {
		cure = `it may wait for TLS: set "lanmanagerprotocol" to "wss"`
	}
	var refused *wire.HandshakeError
	var unknown *net.DNSError
	switch {
	case cure != "":
	case errors.As(err, &unknown):
		cure = `set "lanmanageraddress" to a name that this machine finds, or to an IP address, or mend what looks names up here`
	case errors.As(err, &refused):
		cure = cureRefusal(refused, o.Token != "")
	case strings.Contains(err.Error(), "malformed HTTP"):
		cure = cureOther
	}
	if cure == "" {
		return err
	}
	return fmt.Errorf("%w; %s", err, cure)
}

// cureTLS knows what can be wrong with certificates, theirs and ours.
func cureTLS(err error) string {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		remote  *net.OpError
	)
	switch {
	case errors.As(err, new(tls.RecordHeaderError)):
		return `it does not speak TLS: set "lanmanagerprotocol" to "ws", or have the LAN manager use TLS`
	case errors.As(err, &unknown):
		return "nobody whom we trust vouches for its certificate: name the certificate of its authority in tls.ca"
	case errors.As(err, &name):
		return `its certificate is for another name: set "lanmanageraddress" to one that it is for, or have it made for this one`
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the LAN manager's certificate, or set the clock of this machine"
	case errors.As(err, &remote) && remote.Op == "remote error":
		return "it does not take our certificate: tls.certificate and tls.key must be there, be valid now and come from the authority that its clientca names"
	}
	return ""
}

// speaksTLS tells whether somebody who waits for TLS heard us without it. HTTP
// servers have an answer for that, others send an alert.
func speaksTLS(err error) bool {
	var refused *wire.HandshakeError
	if errors.As(err, &refused) {
		return refused.Code == 400
	}
	return strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`)
}

// cureRefusal knows the refusals of a LAN manager of this project, and of what
// may stand before it.
func cureRefusal(r *wire.HandshakeError, shown bool) string {
	switch {
	case r.Code == 401 && shown:
		return "it does not know our token: tokenfile must hold the same as the LAN manager's"
	case r.Code == 401:
		return "it asks for a token: name a file that holds it in tokenfile"
	case r.Code == 403:
		return "it admits only the addresses that its file `.allexlanmanager/subnets` names: add this machine's there"
	}
	return cureOther
}

// cureOther is for a place where something else listens.
const cureOther = `no LAN manager speaks like that: set "lanmanageraddress" and "lanmanagerport" to where it listens`
