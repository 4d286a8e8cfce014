// Package state is the crash-safe record of what runs on this machine: the
// files of statedirectory in design section 7.
//
//	lock               held by the one agent that works here; has its pid
//	agent.id           random, made once
//	kept.json          what the operator wants kept, over boots as well
//	run/<name>.json    one per process
//	log/<name>.log     what the processes say; written by themselves, kept by agent/output
//
// <name> is FileName of the instance. A file is replaced as a whole, so that a
// crash leaves the old or the new one; each has a checksum, and one that is
// damaged all the same is set aside (*.damaged) and costs one instance.
//
// Only agent and cmd may import this package.
package state

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// Store is the state directory of this agent. It is safe for concurrent use;
// of concurrent calls for one instance any may be the last.
type Store struct {
	dir     string
	agentID string
	boot    string // the boot id of the machine; empty where there is none
	lock    *os.File
	damaged []Damaged // found by Open, told by Load
	kept    lane      // kept.json
	records lane
	onStuck func(more int, since time.Time) // see OnStuck

	mu   sync.Mutex
	owed owed
	owes chan struct{} // has an element when something is owed
}

// writesAtOnce is how many records are written at a time: each holds a thread while
// the disk is slow, and after a mass kill they come in hundreds.
const writesAtOnce = 2

// Damaged is a file whose content is not what was once written. As an error it
// says what was done about it.
type Damaged struct {
	File  string
	Aside string // what it is called now; empty if it could not be renamed
	Err   error  // what is wrong with it
}

func (d *Damaged) Error() string {
	if d.Aside == "" {
		return fmt.Sprintf("%s is damaged and could not be set aside: %s", d.File, d.Err)
	}
	return fmt.Sprintf("%s is damaged: %s; it is set aside as %s", d.File, d.Err, filepath.Base(d.Aside))
}

func (d *Damaged) Unwrap() error { return d.Err }

// LockedError says that another agent works in the state directory.
type LockedError struct {
	Path string // of the lock
	PID  int    // of the agent that holds it; 0: not known
}

func (e *LockedError) Error() string {
	holder := "another agent"
	if e.PID != 0 {
		holder += fmt.Sprintf(" (pid %d)", e.PID)
	}
	return fmt.Sprintf("%s holds %s: stop it first, or give this one a statedirectory of its own", holder, e.Path)
}

// OwnerError says that a directory belongs to another user than the agent's.
type OwnerError struct {
	Directory  string
	Owner, UID int
}

func (e *OwnerError) Error() string {
	return fmt.Sprintf("%s belongs to the user with uid %d, agentd runs as uid %d; name another directory, or give it away with chown", e.Directory, e.Owner, e.UID)
}

// Open makes the state directory dir if it is not there and locks it until
// Close. It returns a *LockedError while another agent has it.
func Open(dir string) (*Store, error) { return opened(open(dir, lock)) }

// Inherit is Open by a program that another one has become while it had dir open,
// with the file that its Lock returned. It takes over lock, also if it fails.
func Inherit(dir string, lock *os.File) (*Store, error) {
	s, err := opened(open(dir, func(path string) (*os.File, error) { return inherit(path, lock) }))
	if err != nil {
		lock.Close()
	}
	return s, err
}

func open(dir string, lock func(path string) (*os.File, error)) (*Store, error) {
	directories := directories(dir)
	for _, d := range directories {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
		if err := checkOwner(d, os.Geteuid()); err != nil {
			return nil, err
		}
	}
	held, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, lock: held,
		kept: lane{make(chan struct{}, 1), keptStuckAfter}, records: lane{make(chan struct{}, writesAtOnce), stuckAfter},
		onStuck: func(int, time.Time) {}, owed: owed{}, owes: make(chan struct{}, 1)}
	sweep(directories[:2])
	if err := s.identify(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func directories(dir string) []string {
	return []string{dir, filepath.Join(dir, "run"), filepath.Join(dir, "log")}
}

// sweep removes what writers that crashed have left behind. What can not be
// removed does no harm.
func sweep(directories []string) {
	for _, dir := range directories {
		entries, _ := os.ReadDir(dir)
		for _, entry := range entries {
			if jsonfile.IsTemporary(entry.Name()) {
				os.Remove(filepath.Join(dir, entry.Name()))
			}
		}
	}
}

// identify finds out which boot this is, and which agent.
func (s *Store) identify() (err error) {
	if s.boot, err = bootID(); err != nil {
		return err
	}
	path := filepath.Join(s.dir, "agent.id")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s.makeAgentID(path)
	}
	if err != nil {
		return err
	}
	id := strings.TrimSuffix(string(data), "\n")
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != agentIDBytes {
		// A new id costs a flap of the services; none at all would cost the agent.
		s.damaged = append(s.damaged, setAside(path, fmt.Errorf("wanted %d hexadecimal digits", 2*agentIDBytes)))
		return s.makeAgentID(path)
	}
	s.agentID = id
	return nil
}

const agentIDBytes = 16

func (s *Store) makeAgentID(path string) error {
	raw := make([]byte, agentIDBytes)
	rand.Read(raw) // never fails
	s.agentID = hex.EncodeToString(raw)
	return jsonfile.Write(path, []byte(s.agentID+"\n"), true)
}

// Close lets another agent in. It may be called twice.
func (s *Store) Close() error {
	if err := s.lock.Close(); !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}

// Lock is the file whose lock keeps others out, for as long as anybody has it open.
func (s *Store) Lock() *os.File { return s.lock }

// AgentID is 32 hexadecimal digits that name this agent to LAN managers. They
// stay the same as long as the state directory does.
func (s *Store) AgentID() string { return s.agentID }

// LogPath is where the output of an instance goes; any name has one.
func (s *Store) LogPath(instance string) string {
	return filepath.Join(s.LogDirectory(), fileName(instance)+".log")
}

// LogDirectory is where all of that output is.
func (s *Store) LogDirectory() string { return filepath.Join(s.dir, "log") }

// setAside renames a damaged file, so that it is out of the way and can be
// looked at. An older one of that name gives way.
func setAside(path string, err error) Damaged {
	d := Damaged{File: path, Aside: path + ".damaged", Err: err}
	if err := os.Rename(path, d.Aside); err != nil {
		d.Aside, d.Err = "", errors.Join(d.Err, err)
	}
	return d
}
