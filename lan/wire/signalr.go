package wire

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/go-hclog"
)

const (
	// negotiatedLife is how long a negotiated id waits for its connection.
	negotiatedLife = 15 * time.Second
	// maxNegotiated ids wait at one time; then the oldest makes room.
	maxNegotiated = 1024
)

// SignalROptions of NewSignalR; the zero value is good.
type SignalROptions struct {
	Limits Limits
	Logger hclog.Logger // default: none
}

// SignalR is the server side of the SignalR envelope (PROTOCOL section 1.3), an
// http.Handler: POST /negotiate hands out an id, and with that a WebSocket is
// opened, once. Who is asking is for the caller to check before; what a request
// says of itself, such as X-Forwarded-For, is not believed, and browsers are
// refused as by Upgrade. There is no other transport than the WebSocket.
type SignalR struct {
	serve  func(Conn)
	limits Limits
	log    hclog.Logger

	mu         sync.Mutex
	negotiated []negotiation // the oldest first
}

type negotiation struct {
	id      string
	expires time.Time
}

// NewSignalR returns a SignalR that gives every connection to serve, on the
// goroutine of its request. The connection is serve's to close, also after it
// has returned. Its first Read does the handshake.
func NewSignalR(serve func(Conn), o SignalROptions) *SignalR {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return &SignalR{serve: serve, limits: o.Limits.orDefault(), log: o.Logger}
}

func (s *SignalR) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case fromBrowser(r):
		http.Error(w, "browsers are not served here", http.StatusForbidden)
	case path.Base(r.URL.Path) == "negotiate":
		s.negotiate(w, r)
	default:
		s.connect(w, r)
	}
}

// transport is a way to connect, as the negotiation tells of it.
type transport struct {
	Name    string   `json:"transport"`
	Formats []string `json:"transferFormats"`
}

func (s *SignalR) negotiate(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "negotiate with POST", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(struct {
		ID         string      `json:"connectionId"`
		Transports []transport `json:"availableTransports"`
	}{s.newID(), []transport{{"WebSockets", []string{"Text"}}}}) // else it is the client's loss
}

func (s *SignalR) connect(w http.ResponseWriter, r *http.Request) {
	if websocket.IsWebSocketUpgrade(r) && !s.take(r.URL.Query().Get("id")) {
		w.Header().Set("Connection", "close")
		http.Error(w, "no connection of this id was negotiated", http.StatusNotFound)
		s.log.Debug("SignalR connection without a negotiated id", "peer", r.RemoteAddr)
		return
	}
	f, err := upgrade(w, r, s.limits)
	if err != nil {
		s.log.Debug("no SignalR connection", "peer", r.RemoteAddr, "error", err)
		return
	}
	h, err := newHub(f, true, s.limits, s.log)
	if err != nil {
		s.log.Debug("no SignalR connection", "peer", r.RemoteAddr, "error", err)
		f.cut()
		return
	}
	s.serve(h)
}

// newID makes an id that nobody can guess.
func (s *SignalR) newID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	if len(s.negotiated) == maxNegotiated {
		s.negotiated = slices.Delete(s.negotiated, 0, 1)
	}
	n := negotiation{rand.Text(), time.Now().Add(negotiatedLife)}
	s.negotiated = append(s.negotiated, n)
	return n.id
}

// take tells whether an id was negotiated, and makes sure that it is so no more.
func (s *SignalR) take(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	i := slices.IndexFunc(s.negotiated, func(n negotiation) bool { return n.id == id })
	if i < 0 {
		return false
	}
	s.negotiated = slices.Delete(s.negotiated, i, i+1)
	return true
}

// forget lets go of the ids whose time is over.
func (s *SignalR) forget() {
	now := time.Now()
	live := slices.IndexFunc(s.negotiated, func(n negotiation) bool { return n.expires.After(now) })
	if live < 0 {
		live = len(s.negotiated)
	}
	s.negotiated = slices.Delete(s.negotiated, 0, live)
}

// DialSignalR connects as a stock master does: it negotiates at a URL such as
// http://127.0.0.1:22451/, and opens a WebSocket there with the id that it got.
// It gives up when ctx ends, or after 10 s.
func DialSignalR(ctx context.Context, address string, o DialOptions) (Conn, error) {
	return dialSignalR(ctx, address, o, o.connect())
}

func dialSignalR(ctx context.Context, address string, o DialOptions, connect connectFunc) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is no URL of SignalR: it begins with http:// or https://", address)
	}
	id, err := negotiate(ctx, u, o, connect)
	if err != nil {
		return nil, fmt.Errorf("negotiating with %s: %w", address, err)
	}
	u.Scheme = map[string]string{"http": "ws", "https": "wss"}[u.Scheme]
	u.RawQuery = url.Values{"id": {id}}.Encode()
	f, err := dial(ctx, u.String(), o, connect)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { f.ws.Close() })
	h, err := newHub(f, false, o.Limits, hclog.NewNullLogger())
	if err == nil {
		err = h.hello()
	}
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("connecting to %s: %w", address, err)
	}
	return h, nil
}

// negotiate asks a server for an id.
func negotiate(ctx context.Context, base *url.URL, o DialOptions, connect connectFunc) (string, error) {
	transport := &http.Transport{
		DialContext:            connect,
		TLSClientConfig:        o.TLS,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: handshakeBytes,
	}
	defer transport.CloseIdleConnections()
	target := base.JoinPath("negotiate")
	target.RawQuery = "negotiateVersion=1"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), http.NoBody)
	if err != nil {
		return "", err
	}
	request.Header = o.header()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("it answered %q", response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, handshakeBytes))
	if err != nil {
		return "", err
	}
	return negotiatedID(body)
}

// negotiatedID reads the answer to a negotiation.
func negotiatedID(body []byte) (string, error) {
	var answer struct {
		ID         string      `json:"connectionId"`
		Token      string      `json:"connectionToken"` // of newer servers; then this is the id
		Transports []transport `json:"availableTransports"`
		Error      string      `json:"error"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", fmt.Errorf("it answered with what is no JSON: %w", err)
	}
	usable := slices.ContainsFunc(answer.Transports, func(t transport) bool {
		return t.Name == "WebSockets" && slices.Contains(t.Formats, "Text")
	})
	switch {
	case answer.Error != "":
		return "", fmt.Errorf("it answered %.200q", answer.Error)
	case answer.Token != "":
		answer.ID = answer.Token
	}
	if answer.ID == "" || !usable {
		return "", errors.New("it offers no WebSocket with text")
	}
	return answer.ID, nil
}
