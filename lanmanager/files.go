package lanmanager

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/allexgo/machine-agent/internal/jsonfile"
	"github.com/allexgo/machine-agent/lan/table"
)

// folder holds the files, in the directory of the LAN manager and in the runtime
// directory.
const folder = ".allexlanmanager"

// files are the paths of the files that are read after the start (PROTOCOL
// section 11), and what was good in them. Whoever has them, has the directories
// for himself until close.
type files struct {
	needs, overlay, runtime, nat string

	locks []*os.File
	held  contents // when they were loaded last
}

// contents is what the files say that may change while the LAN manager runs.
type contents struct {
	static, overlay []fields
	nats            []table.Record
}

// problem is what is wrong with a file; err is nil if nothing is. Its text has
// file, line and column of every mistake.
type problem struct {
	file        string
	consequence string
	err         error
}

// openFiles takes the directory, which must be there, and the runtime directory
// that boot or the project map names, makes those of the files that are absent,
// and reads how the LAN manager is set up. The error is for a directory that can
// not be used, or that another LAN manager has.
func openFiles(directory, projectMap string) (_ *files, _ settings, _ []problem, err error) {
	f := &files{}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	base, err := filepath.Abs(directory)
	if err == nil {
		err = f.occupy(base)
	}
	if err == nil {
		err = provide(base, map[string]string{
			"boot":    `{"portcorrection":0,"httpmonitorport":23580}`,
			"subnets": `[]`,
			"needs":   `[{"modulename":"allex_timeservice","instancename":"Time","propertyhash":{}}]`,
			"nat":     `[{"iaddress":"192.168.1.1","iport":12345,"eaddress":"1.2.3.4","eport":80}]`,
		})
	}
	if err != nil {
		return nil, settings{}, nil, fmt.Errorf("the LAN manager can not have its directory: %w; "+
			"start it in a directory of its own that it may write", err)
	}
	set := setup{base: base, runtime: base, boot: defaultBoot()}
	set.read(projectMap)
	if set.runtime != base {
		err = f.occupy(set.runtime)
	}
	if err == nil {
		err = provide(set.runtime, map[string]string{"needs.overlay": `[]`, "needs.runtime": `[]`})
	}
	if err != nil {
		return nil, settings{}, nil, fmt.Errorf("the LAN manager can not have its runtime directory: %w; "+
			"name one of its own, that it may write, in boot", err)
	}
	f.needs = filepath.Join(base, folder, "needs")
	f.overlay = filepath.Join(set.runtime, folder, "needs.overlay")
	f.runtime = filepath.Join(set.runtime, folder, "needs.runtime")
	f.nat = set.override("nat")
	return f, set.settings(), set.problems, nil
}

// occupy makes the folder in a directory and locks it.
func (f *files) occupy(directory string) error {
	directory = filepath.Join(directory, folder)
	if err := os.Mkdir(directory, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := f.lock(directory); err != nil {
		return err
	}
	entries, err := os.ReadDir(directory)
	for _, entry := range entries {
		if jsonfile.IsTemporary(entry.Name()) { // from a crash, since nobody else writes here
			os.Remove(filepath.Join(directory, entry.Name()))
		}
	}
	return err
}

// provide makes those of the files of a directory that are absent.
func provide(directory string, defaults map[string]string) error {
	for name, content := range defaults {
		path := filepath.Join(directory, folder, name)
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		if err := jsonfile.Create(path, []byte(content+"\n"), true); err != nil {
			return err
		}
	}
	return nil
}

// readPlain reads a plain file. Of a pipe it would never see the end.
func readPlain(path string) ([]byte, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "can not read", Path: path, Err: errors.New("it is no file")}
	}
	return os.ReadFile(path)
}

// close lets go of the directories.
func (f *files) close() {
	for _, lock := range f.locks {
		lock.Close()
	}
	f.locks = nil
}

// load reads the files that may change while the LAN manager runs. It returns a
// problem for each, with a nil error where there is none. What a file held
// before holds on while it can not be read. It waits for the disk, so it runs
// outside of the core, and never twice at a time.
func (f *files) load() (contents, []problem) {
	complete := sync.OnceValue(f.complete)
	needs := loadNeeds(f.needs, "there are no needs from it", &f.held.static, parseNeeds,
		func(need string, _ json.RawMessage) bool { return !complete()[need] })
	overlay := loadNeeds(f.overlay, "needs are not extended", &f.held.overlay, f.held.parseLayer,
		func(_ string, value json.RawMessage) bool { return value != nil })
	nats := loadFile(f.nat, "addresses are not translated", &f.held.nats, parseNATs)
	return f.held, []problem{needs, overlay, nats}
}

// loadFile puts what the file says into held, unless it says nothing at all;
// nothing is what it means if nothing is held either.
func loadFile[T any](path, nothing string, held *[]T, parse func(string, []byte) ([]T, error)) problem {
	var now []T
	text, err := readPlain(path)
	if err == nil {
		now, err = parse(path, text)
	}
	switch {
	case !isBroken(err):
		*held = now
		return problem{path, "the entries with a mistake are skipped", err}
	case *held == nil:
		return problem{path, nothing, err}
	default:
		return problem{path, "what it held before holds on", err}
	}
}

// isBroken tells whether an error in a file concerns all of it.
func isBroken(err error) bool {
	var mistakes *jsonfile.Error
	if !errors.As(err, &mistakes) {
		return err != nil
	}
	return mistakes.Mistakes[0].Path == ""
}

// loadRuntime reads needs.runtime, which nobody but the LAN manager writes. With
// an error, in whatever entry, it must not be overwritten. Where it is no more,
// somebody took it away.
func (f *files) loadRuntime() ([]fields, problem) {
	var entries []fields
	p := loadFile(f.runtime, "", &entries, parseNeeds)
	if errors.Is(p.err, fs.ErrNotExist) {
		p.err = nil
	}
	p.consequence = "needs that were added or removed are missing from it, and none can be for good until it is repaired"
	return entries, p
}
