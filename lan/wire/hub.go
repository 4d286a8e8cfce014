package wire

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// serverBeat is after how much silence of its own a server sends a ping unit.
	// It is all by which a master knows that a LAN manager with nothing to say is
	// there; it gives up after 20 s.
	serverBeat = 10 * time.Second
	// clientBeat is the same of a client, whose keep-alive is the envelope's.
	clientBeat = 15 * time.Second
)

// hub is a Conn in the SignalR envelope, of a server or of a client.
//
// The handshake of a server is the first thing that its Read does, so that
// whoever owns the connection owns that too: until the client has said hello,
// within handshakeTimeout, writes wait.
type hub struct {
	*frames
	server bool
	log    hclog.Logger
	began  time.Time
	leave  sync.Once
	open   chan struct{} // closed when the handshake is over, or the connection
	opened sync.Once

	// The reader's.
	unpacker
	greeted  bool
	deadline time.Time
	early    [][]byte // messages that came in one frame with the hello

	writing sync.Mutex // guards the rest, and frames.write
	out     []byte
	beat    *time.Timer // nil before the handshake
	wrote   time.Time   // last
	closed  bool
}

func newHub(f *frames, server bool, l Limits, log hclog.Logger) (*hub, error) {
	h := &hub{frames: f, server: server, log: log, began: time.Now(), open: make(chan struct{})}
	h.limits, h.target = l.orDefault(), onClient
	if server {
		h.target = onServer
	}
	return h, h.SetReadDeadline(time.Time{})
}

// SetReadDeadline never puts off the end of a handshake.
func (h *hub) SetReadDeadline(t time.Time) error {
	h.deadline = t
	if end := h.began.Add(handshakeTimeout); !h.greeted && (t.IsZero() || t.After(end)) {
		t = end
	}
	return h.ws.SetReadDeadline(t)
}

// Read returns what came in one frame, which can be no unit at all. What it does
// not understand it ignores.
func (h *hub) Read() ([][]byte, error) {
	if !h.greeted {
		return nil, h.welcome()
	}
	messages := h.early
	h.early = nil
	for len(messages) == 0 {
		var err error
		if messages, err = h.receive(); err != nil {
			return nil, err
		}
	}
	units := make([][]byte, 0, len(messages))
	for _, message := range messages {
		unit, err := h.unit(message)
		switch {
		case errors.Is(err, errNotMessage):
			h.log.Debug("message ignored", "peer", h.RemoteAddr(), "bytes", len(message), "error", err)
		case err != nil:
			return nil, err
		case unit != nil:
			units = append(units, unit)
		}
	}
	return units, nil
}

func (h *hub) receive() ([][]byte, error) {
	frame, err := h.read()
	if err != nil {
		return nil, err
	}
	return h.messages(frame)
}

// first returns the first message of the other side.
func (h *hub) first() ([]byte, error) {
	for len(h.early) == 0 {
		messages, err := h.receive()
		if isTimeout(err) {
			return nil, fmt.Errorf("no SignalR handshake in %s: %w", handshakeTimeout, err)
		}
		if err != nil {
			return nil, err
		}
		h.early = messages
	}
	message := h.early[0]
	h.early = h.early[1:]
	return message, nil
}

// welcome answers the client's hello.
func (h *hub) welcome() error {
	message, err := h.first()
	if err != nil {
		return err
	}
	if err := checkHello(message); err != nil {
		_ = h.write([]byte(helloRefused), writeTimeout)
		return err
	}
	return h.begin(serverHello)
}

// hello greets the server and waits for its answer.
func (h *hub) hello() error {
	if err := h.write([]byte(clientHello), writeTimeout); err != nil {
		return err
	}
	message, err := h.first()
	if err != nil {
		return err
	}
	if err := checkWelcome(message); err != nil {
		return err
	}
	return h.begin(keepAlive)
}

// begin sends the last message of the handshake and lets the writers in.
func (h *hub) begin(last string) error {
	h.writing.Lock()
	defer h.writing.Unlock()
	if err := h.send([]byte(last)); err != nil {
		return err
	}
	if !h.closed {
		h.beat = time.AfterFunc(h.pulse(), h.live)
	}
	h.greeted = true
	h.letIn()
	return h.SetReadDeadline(h.deadline)
}

func (h *hub) letIn() { h.opened.Do(func() { close(h.open) }) }

func (h *hub) pulse() time.Duration {
	if h.server {
		return serverBeat
	}
	return clientBeat
}

// live says that this side is there, if it has not said anything for a while.
func (h *hub) live() {
	h.writing.Lock()
	defer h.writing.Unlock()
	if h.closed {
		return
	}
	wait := h.pulse() - time.Since(h.wrote)
	if wait <= 0 {
		word := []byte(keepAlive)
		if h.server { // the number is never 0, which masters do not answer
			n := time.Since(h.began).Milliseconds()
			word = appendToClient(nil, append(strconv.AppendInt([]byte(`["?",`), n, 10), ']'))
		}
		if err := h.send(word); err != nil {
			h.cut() // the reader notices
			return
		}
		wait = h.pulse()
	}
	h.beat.Reset(wait)
}

// Write sends units, those of a server together. A stock LAN manager reads one
// message of a frame, and no pieces; so a client sends each unit whole, in a
// frame of its own.
func (h *hub) Write(units [][]byte) error {
	<-h.open
	h.writing.Lock()
	defer h.writing.Unlock()
	put := h.sendSingly
	if h.server {
		put = h.sendTogether
	}
	h.out = h.out[:0]
	for _, unit := range units {
		if len(unit) == 0 {
			continue
		}
		if err := put(unit); err != nil {
			return err
		}
	}
	err := h.flush()
	h.out = kept(h.out)
	return err
}

func (h *hub) sendSingly(unit []byte) error {
	h.out = appendToServer(h.out, unit)
	return h.flush()
}

func (h *hub) sendTogether(unit []byte) error {
	return cut(unit, func(part []byte) error {
		before := len(h.out)
		h.out = appendToClient(h.out, part)
		if before == 0 || len(h.out) <= frameSize {
			return nil
		}
		if err := h.send(h.out[:before]); err != nil {
			return err
		}
		h.out = append(h.out[:0], h.out[before:]...)
		return nil
	})
}

func (h *hub) flush() error {
	if len(h.out) == 0 {
		return nil
	}
	err := h.send(h.out)
	h.out = h.out[:0]
	return err
}

func (h *hub) send(frame []byte) error {
	h.wrote = time.Now()
	return h.write(frame, writeTimeout)
}

// Close says goodbye if no write is under way, which may be stuck, and if there
// was a handshake. Without a goodbye the connection is cut: a stock master that
// gets the close of the WebSocket only never connects again.
func (h *hub) Close() error {
	var err error
	h.leave.Do(func() {
		end := h.cut // also a write that is stuck
		if h.writing.TryLock() {
			if h.beat != nil && h.write([]byte(hubGoodbye), closeTimeout) == nil {
				end = h.frames.Close
			}
			h.writing.Unlock()
		}
		err = end()
		h.writing.Lock()
		defer h.writing.Unlock()
		h.closed = true
		if h.beat != nil {
			h.beat.Stop()
		}
		h.letIn() // those who wait to write learn that it is over
	})
	return err
}
