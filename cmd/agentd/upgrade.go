package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/agent"
	"github.com/allexgo/machine-agent/agent/handover"
	"github.com/allexgo/machine-agent/agent/notify"
	"github.com/allexgo/machine-agent/agent/state"
	"github.com/allexgo/machine-agent/server"
)

// What is handed over beside the port sockets, which are portPrefix and a number.
const (
	stateLock    = "state.lock"
	apiSocket    = "socket"
	apiLock      = "socket.lock"
	notifySocket = "notify"
	portPrefix   = "port/"
	readyWithin  = 10 * time.Second // how long a new program may take, and its --check before, if nobody says
	readyAtLeast = 100 * time.Millisecond
)

// upgrade is one that has been asked for and looks good.
type upgrade struct {
	id, binary string
	within     time.Duration
	handover   *handover.Handover // nil until it is prepared
}

// Upgrade checks the program and has run begin to become it (server.Upgrader).
func (m *machine) Upgrade(ctx context.Context, binary string, within time.Duration) (id string, err error) {
	u := upgrade{id: rand.Text(), binary: binary, within: max(within, readyAtLeast)}
	if within == 0 {
		u.within = readyWithin
	}
	if binary == "" {
		if u.binary, err = os.Executable(); err != nil {
			return "", err
		}
	}
	if m.dev {
		return "", refused(u, "agentd --dev begins anew each time: end it and start it again")
	}
	select {
	case m.upgrading <- struct{}{}:
	default:
		return "", refused(u, "another upgrade is under way")
	}
	if err = m.prepare(ctx, &u); err != nil {
		<-m.upgrading
		m.log.Error("an upgrade is refused", "binary", u.binary, "error", err)
		return "", refused(u, err.Error())
	}
	m.upgrades <- u
	return u.id, nil
}

func refused(u upgrade, why string) error {
	return &agent.Error{Kind: agent.WrongState, Reason: agent.UpgradeRefused, Message: why, Metadata: map[string]string{"binary": u.binary}}
}

// prepare checks the program and hands over what is there as long as the agent runs,
// not before it is sure that this one stays. From then on the sockets outlive us; with
// an error nothing has changed.
func (m *machine) prepare(ctx context.Context, u *upgrade) error {
	ctx, stop := context.WithTimeout(ctx, u.within)
	defer stop()
	select {
	case <-m.ready:
	case <-ctx.Done():
		return errors.New("the agent has not yet taken over what runs, and nothing has changed; ask again")
	}
	if err := handover.Check(ctx, u.binary, os.Args[1:]); err != nil {
		return err
	}
	h, err := handover.New(handover.Note{ID: u.id, From: version, Within: u.within})
	if err == nil {
		err = m.hand(h)
	}
	if err != nil {
		return fmt.Errorf("the agent can not hand over, and nothing has changed: %w; ask again", err)
	}
	u.handover = h
	return nil
}

// hand keeps the sockets when nothing can fail any more.
func (m *machine) hand(h *handover.Handover) error {
	socket, lock, err := server.Files(m.listener)
	if err == nil {
		err = errors.Join(h.Add(stateLock, m.store.Lock()), h.Add(apiSocket, socket), h.Add(apiLock, lock))
	}
	if err == nil && m.notices != nil {
		err = h.Add(notifySocket, m.notices.Conn())
	}
	if err != nil {
		h.Ready()
		return err
	}
	server.Keep(m.listener)
	if m.notices != nil {
		m.notices.Keep()
	}
	return nil
}

// handPorts hands over the sockets of the ports, so that none is free for a moment. It
// is false if the agent is about to end anyway, with no other one after it.
func (m *machine) handPorts(ctx context.Context, h *handover.Handover) bool {
	sockets, err := m.agent.PortSockets(ctx)
	if err != nil {
		return false
	}
	for number, socket := range sockets {
		if err := h.Add(portPrefix+strconv.Itoa(number), socket); err != nil {
			m.log.Warn("a port is not held while the agent becomes another one", "port", number, "error", err)
		}
		socket.Close()
	}
	return true
}

// become executes the next program, or itself anew if that fails. It returns only if
// neither works.
func (m *machine) become(u upgrade) error {
	m.log.Info("agent becomes another one", "binary", u.binary)
	return fmt.Errorf("the upgrade can not go on, and the agent can not go back: %w; start it anew, its processes run on", u.handover.Exec(u.binary))
}

// takeBack removes the socket that was kept for a program that does not come.
func (m *machine) takeBack(h *handover.Handover) {
	if l, err := server.Inherit(m.socket, h.File(apiSocket), h.File(apiLock)); err == nil {
		l.Close()
	}
	if s, err := (inherited{h}).notices(m.socket+notifySuffix, m.log); err == nil {
		s.Close()
	}
	h.Ready()
}

// inherited is what the program before has handed over; with nothing, an agent
// starts from nothing.
type inherited struct{ *handover.Handover }

// open takes over the state and the socket, or opens them.
func (in inherited) open(directory, socket string) (m *machine, err error) {
	m = &machine{handed: in, socket: socket}
	if in.Handover == nil {
		if m.store, err = state.Open(directory); err == nil {
			m.listener, err = server.Listen(socket)
		}
	} else if m.store, err = state.Inherit(directory, in.File(stateLock)); err == nil {
		m.listener, err = server.Inherit(socket, in.File(apiSocket), in.File(apiLock))
	}
	if err != nil && m.store != nil {
		m.store.Close()
	}
	return m, err
}

// notifySuffix follows the path of the API's socket.
const notifySuffix = ".notify"

// notices takes over, or opens, the socket on which processes say how they are.
func (in inherited) notices(path string, log hclog.Logger) (*notify.Socket, error) {
	var file *os.File
	if in.Handover != nil {
		file = in.File(notifySocket)
	}
	return notify.Inherit(path, file, log)
}

// sockets are those of the ports, by number: from the program before us, or from the
// service manager, which has kept some of them.
func (in inherited) sockets() map[int]*os.File {
	if in.Handover == nil {
		return stored()
	}
	all := make(map[int]*os.File)
	for _, name := range in.Names() {
		if number, ok := strings.CutPrefix(name, portPrefix); ok {
			if n, err := strconv.Atoi(number); err == nil {
				all[n] = in.File(name)
			}
		}
	}
	return all
}

// upgraded is how this agent came to be.
func (in inherited) upgraded() agent.Upgrade {
	if in.Handover == nil {
		return agent.Upgrade{}
	}
	return agent.Upgrade{ID: in.ID, From: in.From, Time: time.Now(), Problem: in.Problem}
}
