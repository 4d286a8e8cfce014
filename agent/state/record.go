package state

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/internal/fault"
	"github.com/allexgo/machine-agent/internal/jsonfile"
	"github.com/allexgo/machine-agent/lan/table"
)

// Phase is how far a process had come when its record was written.
type Phase string

const (
	// Starting is the intent: the process may or may not have been started.
	Starting Phase = "starting"
	// Running is a process that was started, or that registered itself.
	Running Phase = "running"
	// Ended is no process any more. The file is kept for the next one of that
	// name, and removed by Load.
	Ended Phase = "ended"
)

// Record is what an agent must know to take a process over from the one before.
type Record struct {
	Instance, Module string
	ModuleMark       module.Mark // of Module when the process was started; zero: not known
	Phase            Phase
	Identity         process.Identity // while Starting: the cgroup and the boot only
	Main             process.Identity // of the main process if that is another one; else zero
	StartTime        time.Time        // zero while Starting
	Ports            table.Ports
	PortMode         port.Mode // zero for an outside process
	Log              string    // absolute path; empty for an outside process
	LogFrom          int64     // where the output of this process begins in Log
	Origin           string    // the agent's word for how it came to the process
	Ready            bool
	Withdrawn        string      // why it is not offered, if the next agent is to know; else empty
	Stopping         string      // why it is being made to end; empty: it is not
	Stop             module.Stop // as it was when the process was started

	// Gone is set by Load for a record of an earlier boot: whatever the process
	// was, it has ended, and nobody knows how. It is not stored.
	Gone bool
}

// recordFile is a record in version 1 of the format.
type recordFile struct {
	Version     int               `json:"version"`
	BootID      string            `json:"bootid"`
	Instance    string            `json:"instance"`
	Module      string            `json:"module,omitempty"`
	ModuleMark  module.Mark       `json:"modulemark,omitzero"`
	Phase       Phase             `json:"phase"`
	PID         int               `json:"pid,omitempty"`
	StartTicks  uint64            `json:"startticks,omitempty"` // StartTime of process.Identity
	Cgroup      string            `json:"cgroup,omitempty"`
	MainPID     int               `json:"mainpid,omitempty"`        // of Main, which is of the same boot and cgroup
	MainTicks   uint64            `json:"mainstartticks,omitempty"` // likewise
	StartTime   time.Time         `json:"starttime,omitzero"`
	Ports       portsFile         `json:"ports"`
	PortMode    string            `json:"portmode,omitempty"`
	Log         string            `json:"log,omitempty"`
	LogFrom     int64             `json:"logfrom,omitempty"`
	Origin      string            `json:"origin,omitempty"`
	Ready       bool              `json:"ready"`
	Withdrawn   string            `json:"withdrawn,omitempty"`
	Stopping    string            `json:"stopping,omitempty"`
	StopSignal  string            `json:"stopsignal,omitempty"`
	StopTimeout jsonfile.Duration `json:"stoptimeout,omitempty"`
	StopGrace   jsonfile.Duration `json:"stopgrace,omitempty"`
}

type portsFile struct {
	TCP  int `json:"tcp,omitempty"`
	HTTP int `json:"http,omitempty"`
	WS   int `json:"ws,omitempty"`
}

// file is r as it is written. While there is no process yet, the boot is ours.
func (s *Store) file(r Record) recordFile {
	f := recordFile{
		Version:     version,
		BootID:      cmp.Or(r.Identity.BootID, s.boot),
		Instance:    r.Instance,
		Module:      r.Module,
		ModuleMark:  r.ModuleMark,
		Phase:       r.Phase,
		PID:         r.Identity.PID,
		StartTicks:  r.Identity.StartTime,
		Cgroup:      r.Identity.Cgroup,
		MainPID:     r.Main.PID,
		MainTicks:   r.Main.StartTime,
		StartTime:   r.StartTime.UTC(),
		Ports:       portsFile(r.Ports),
		Log:         r.Log,
		LogFrom:     r.LogFrom,
		Origin:      r.Origin,
		Ready:       r.Ready,
		Withdrawn:   r.Withdrawn,
		Stopping:    r.Stopping,
		StopSignal:  r.Stop.Signal,
		StopTimeout: jsonfile.Duration(r.Stop.Timeout),
		StopGrace:   jsonfile.Duration(r.Stop.Grace),
	}
	if r.PortMode != 0 {
		f.PortMode = r.PortMode.String()
	}
	return f
}

// record is what f says, or why it can not be true.
func (s *Store) record(f recordFile) (Record, error) {
	if f.Version != version {
		return Record{}, versionError(f.Version)
	}
	r := Record{
		Instance:   f.Instance,
		Module:     f.Module,
		ModuleMark: f.ModuleMark,
		Phase:      f.Phase,
		Identity:   process.Identity{PID: f.PID, StartTime: f.StartTicks, BootID: f.BootID, Cgroup: f.Cgroup},
		StartTime:  f.StartTime,
		Ports:      table.Ports(f.Ports),
		Log:        f.Log,
		LogFrom:    max(0, f.LogFrom),
		Origin:     f.Origin,
		Ready:      f.Ready,
		Withdrawn:  f.Withdrawn,
		Stopping:   f.Stopping,
		Stop:       module.Stop{Grace: time.Duration(f.StopGrace), Signal: f.StopSignal, Timeout: time.Duration(f.StopTimeout)},
		Gone:       f.BootID != s.boot,
	}
	if f.MainPID != 0 {
		r.Main = process.Identity{PID: f.MainPID, StartTime: f.MainTicks, BootID: f.BootID, Cgroup: f.Cgroup}
	}
	if f.PortMode != "" {
		mode, err := port.ParseMode(f.PortMode)
		if err != nil {
			return Record{}, err
		}
		r.PortMode = mode
	}
	return r, r.check()
}

// check sees to it that no record names what can not be, whatever wrote it.
func (r *Record) check() error {
	if _, err := FileName(r.Instance); err != nil {
		return err
	}
	for _, p := range []int{r.Ports.TCP, r.Ports.HTTP, r.Ports.WS} {
		if p < 0 || p > 65535 {
			return fmt.Errorf("instance %q: %d is no port", r.Instance, p)
		}
	}
	if r.Main.PID < 0 {
		return fmt.Errorf("instance %q: %d is no pid", r.Instance, r.Main.PID)
	}
	switch {
	case r.Phase == Starting && r.Identity.PID == 0, r.Phase == Running && r.Identity.PID > 0, r.Phase == Ended:
		return nil
	default:
		return fmt.Errorf("instance %q: phase %q does not go with pid %d", r.Instance, r.Phase, r.Identity.PID)
	}
}

// Put writes the record of r.Instance over the one before. It is there for the
// next agent when Put returns, though not after a loss of power, which ends the
// process anyway. After an error it is owed to the disk (Run), unless it is an
// intent, of which nothing comes then.
func (s *Store) Put(r Record) error {
	if err := r.check(); err != nil {
		return err
	}
	data, err := seal(s.file(r))
	if err != nil {
		return err
	}
	path := s.recordPath(r.Instance)
	return s.write(s.records, path, r.Phase != Starting, func() error { return writeRecord(path, data) })
}

// writeRecord writes a record into its file by one write at its beginning, where it
// is a line: what a longer record before has left behind it does not count. A kill
// can not tear a write within a page, which a record is shorter than
// (docs/adr/0001). Nor can a full disk, which has that page already.
func writeRecord(path string, data []byte) error {
	if err := fault.At(fault.StateWrite); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(data, 0); err != nil {
		if info, _ := f.Stat(); info != nil && info.Size() == 0 {
			os.Remove(path) // it is new: no record is as good as an empty one
		}
	}
	return errors.Join(err, f.Close(), fault.At(fault.StateWritten))
}

// Delete removes the record of an instance; none is no error.
func (s *Store) Delete(instance string) error {
	path := s.recordPath(instance)
	s.mu.Lock()
	delete(s.owed, path)
	s.mu.Unlock()
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

const recordSuffix = ".json"

func (s *Store) recordPath(instance string) string {
	return filepath.Join(s.dir, "run", fileName(instance)+recordSuffix)
}

// Load returns the records of all processes that are not known to have ended,
// ordered by file name. Files that hold no record are set aside and returned as
// damaged; so is an agent.id that Open had to replace. The error is only of the
// directory. Load is for the start, before the first Put: one that is being
// written at that moment would look damaged.
func (s *Store) Load() (records []Record, damaged []Damaged, err error) {
	damaged = slices.Clone(s.damaged)
	dir := filepath.Join(s.dir, "run")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, damaged, fmt.Errorf("can not read the records of running processes: %w", err)
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if filepath.Ext(path) != recordSuffix {
			continue
		}
		switch r, err := s.load(path); {
		case err == nil && r.Phase == Ended, errors.Is(err, errUnwritten):
			os.Remove(path) // if it can not be, it does no harm
		case err == nil:
			records = append(records, r)
		case !errors.Is(err, fs.ErrNotExist): // else it was deleted meanwhile
			damaged = append(damaged, setAside(path, err))
		}
	}
	return records, damaged, nil
}

// errUnwritten: the agent was killed between making the file and writing into
// it, which is before the process was started.
var errUnwritten = errors.New("it is empty")

func (s *Store) load(path string) (Record, error) {
	data, err := readFile(path)
	switch {
	case err != nil:
		return Record{}, err
	case len(data) == 0:
		return Record{}, errUnwritten
	}
	r, err := s.parse(data)
	if err == nil && s.recordPath(r.Instance) != path {
		err = fmt.Errorf("it is the record of instance %q, which belongs into %s",
			r.Instance, filepath.Base(s.recordPath(r.Instance)))
	}
	return r, err
}

// parse is the inverse of what Put writes.
func (s *Store) parse(data []byte) (Record, error) {
	var f recordFile
	if end := bytes.IndexByte(data, '\n'); end >= 0 {
		data = data[:end+1]
	}
	if err := unseal(data, &f); err != nil {
		return Record{}, err
	}
	return s.record(f)
}
