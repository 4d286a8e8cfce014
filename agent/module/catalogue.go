package module

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/allexgo/machine-agent/agent/process"
)

// Catalogue is all modules of this machine.
type Catalogue struct {
	modules map[string]*Module // by Name, patterns included; nil is empty
}

// Load reads the *.json files of the directory dir, except hidden ones. A
// directory that does not exist is an empty catalogue. The error joins one
// *jsonfile.Error per file with mistakes; there is no catalogue then.
func Load(dir string) (*Catalogue, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &Catalogue{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("can not read the module directory: %w", err)
	}
	c := &Catalogue{modules: map[string]*Module{}}
	var mistakes []error
	for _, entry := range entries {
		if name := entry.Name(); filepath.Ext(name) == ".json" && name[0] != '.' {
			mistakes = append(mistakes, c.read(filepath.Join(dir, name)))
		}
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	return c, nil
}

// read adds the module of one file.
func (c *Catalogue) read(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("can not read a module: %w", err)
	}
	m, doc := parse(file, data)
	if other, ok := c.modules[m.Name]; ok && m.Name != "" {
		doc.Add("modulename", "%q is also in %s; remove one of the two", m.Name, other.File)
	} else {
		c.modules[m.Name] = m
	}
	return doc.Err()
}

// Find returns the module that serves needs of modulename: the one of that very
// name, else that of the longest pattern. What a pattern's star stands for comes
// from the LAN and goes into commands, so it is letters, digits, '.', '_' and
// '-' only and begins with a letter, a digit or '_': no path, no option.
func (c *Catalogue) Find(modulename string) (*Module, bool) {
	if m, ok := c.modules[modulename]; ok && !isPattern(modulename) {
		return m, true
	}
	if len(modulename) > maxName {
		return nil, false
	}
	for i := len(modulename) - 1; i > 0 && isPlain(modulename[i]); i-- {
		m, ok := c.modules[modulename[:i]+star]
		if ok && modulename[i] != '.' && modulename[i] != '-' {
			return m, true
		}
	}
	return nil, false
}

// maxName is the longest name that comes from the LAN, in bytes.
const maxName = 255

const star = "*"

func isPattern(name string) bool { return strings.HasSuffix(name, star) }

func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
}

// Names returns the names and patterns of the catalogue, sorted.
func (c *Catalogue) Names() []string {
	return slices.Sorted(maps.Keys(c.modules))
}

// All returns the modules, in no order.
func (c *Catalogue) All() iter.Seq2[string, *Module] { return maps.All(c.modules) }

// Verify compares the programs that must have a checksum with it. Each error names
// the module's file and what to do; nothing is started of such a module.
func (c *Catalogue) Verify() (mistakes []error) {
	for _, name := range c.Names() {
		m := c.modules[name]
		if m.SHA256 == nil {
			continue
		}
		if err := process.Verify(m.Command[0], m.SHA256); err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: sha256: %w", m.File, err))
		}
	}
	return mistakes
}

// Since tells the names of the modules that are in c and not in before, those that
// are not the same in both, those that are, and those that are in before only; each
// sorted.
func (c *Catalogue) Since(before *Catalogue) (added, changed, unchanged, removed []string) {
	for _, name := range c.Names() {
		switch was := before.modules[name]; {
		case was == nil:
			added = append(added, name)
		case was.Sum != c.modules[name].Sum:
			changed = append(changed, name)
		default:
			unchanged = append(unchanged, name)
		}
	}
	for _, name := range before.Names() {
		if c.modules[name] == nil {
			removed = append(removed, name)
		}
	}
	return added, changed, unchanged, removed
}
