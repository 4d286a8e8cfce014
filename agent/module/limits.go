package module

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/process/launch"
	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// User is the account that the processes of a module run as.
type User struct {
	process.User
	Name, Home string
}

// limitsFile is the limits as they are written. The resources have their own
// names in it, which only launch knows.
type limitsFile struct {
	values map[string]json.RawMessage
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *limitsFile) UnmarshalJSON(data []byte) error {
	if err := json.Unmarshal(data, &l.values); err != nil || l.values == nil {
		return fmt.Errorf("found %.40s, wanted an object such as {\"nofile\": 1024, \"umask\": \"027\"}", data)
	}
	return nil
}

// limits checks what bounds a process, in the order of names.
func (c *check) limits() {
	if c.file.Limits == nil {
		return
	}
	if runtime.GOOS != "linux" {
		c.doc.Add("limits", "this system has none that the agent could set; leave the key out")
		return
	}
	l := process.Limits{Resources: map[string]process.Resource{}}
	for name, value := range c.file.Limits.values {
		var err error
		switch {
		case name == "nice":
			l.Nice, err = number(value, -20, 19)
		case name == "oomscore":
			l.OOMScore, err = number(value, -1000, 1000)
		case name == "memory":
			l.Memory, err = memory(value)
		case name == "cpu":
			l.CPU, err = processors(value)
		case name == "pids":
			var n *int
			if n, err = number(value, 1, math.MaxInt32); err == nil {
				l.PIDs = int64(*n)
			}
		case name == "umask":
			l.Umask, err = umask(value)
		case slices.Contains(launch.Resources(), name):
			l.Resources[name], err = resource(value)
		default:
			err = fmt.Errorf("unknown limit; allowed are memory, cpu, pids, nice, oomscore, umask, %s", strings.Join(launch.Resources(), ", "))
		}
		if err != nil {
			c.doc.Add("limits."+name, "%s", err)
		}
	}
	c.module.Limits = l
}

func number(value json.RawMessage, least, most int) (*int, error) {
	var n int
	if json.Unmarshal(value, &n) != nil || n < least || n > most {
		return nil, fmt.Errorf("found %.40s, allowed are %d to %d", value, least, most)
	}
	return &n, nil
}

// memory reads bytes. With less than a MiB no program starts.
func memory(value json.RawMessage) (int64, error) {
	var n jsonfile.Size
	if err := n.UnmarshalJSON(value); err != nil {
		return 0, err
	}
	if n < 1<<20 {
		return 0, fmt.Errorf("found %.40s, allowed are 1MiB and more", value)
	}
	return int64(n), nil
}

// processors reads how many of them may be used, which may be a part of one.
func processors(value json.RawMessage) (float64, error) {
	const least, most = 0.01, 1024 // less than the least the kernel does not take
	var n float64
	if json.Unmarshal(value, &n) != nil || n < least || n > most {
		return 0, fmt.Errorf("found %.40s, allowed are %v to %d processors, such as 0.5; seconds of processor time are limited by cputime", value, least, most)
	}
	return n, nil
}

func umask(value json.RawMessage) (*int, error) {
	var text string
	if json.Unmarshal(value, &text) == nil {
		if n, err := strconv.ParseUint(text, 8, 32); err == nil && n <= 0o777 {
			mask := int(n)
			return &mask, nil
		}
	}
	return nil, fmt.Errorf("found %.40s, wanted an octal number as a string, such as \"027\"", value)
}

// resource reads one amount, for both limits, or [soft, hard].
func resource(value json.RawMessage) (process.Resource, error) {
	var both []json.RawMessage
	switch {
	case json.Unmarshal(value, &both) != nil:
		both = []json.RawMessage{value, value}
	case len(both) != 2:
		return process.Resource{}, fmt.Errorf("found %.40s, wanted [soft, hard]", value)
	}
	soft, err := amount(both[0])
	if err != nil {
		return process.Resource{}, err
	}
	hard, err := amount(both[1])
	if err == nil && soft > hard {
		err = fmt.Errorf("the soft limit is higher than the hard one")
	}
	return process.Resource{Soft: soft, Hard: hard}, err
}

// amount is a whole number, or a string with a unit of 1024s, or infinity.
func amount(value json.RawMessage) (uint64, error) {
	var text string
	if json.Unmarshal(value, &text) != nil {
		text = string(value)
	}
	if text == "infinity" {
		return launch.Infinity, nil
	}
	n, err := jsonfile.ParseSize(text)
	if err != nil {
		return 0, fmt.Errorf("found %.40s, wanted a number such as 1024 or \"64MiB\", or \"infinity\"", value)
	}
	return n, nil
}

// user finds the account that processes run as.
func (c *check) user() {
	f := c.file
	if f.User == nil {
		if f.Groups != nil {
			c.doc.Add("groups", "are those of a user; name the user, too")
		}
		return
	}
	if runtime.GOOS != "linux" {
		c.doc.Add("user", "on this system processes run as the agent's own user; leave the key out")
		return
	}
	account, err := user.Lookup(*f.User)
	if err != nil {
		c.doc.Add("user", "there is no user %q on this machine; make it, or name another one", *f.User)
		return
	}
	u := &User{Name: account.Username, Home: account.HomeDir}
	u.UID, _ = strconv.Atoi(account.Uid) // they are numbers on Linux
	u.GID, _ = strconv.Atoi(account.Gid)
	if os.Geteuid() != 0 && u.UID != os.Geteuid() {
		c.doc.Add("user", "only root can start processes as another user; run agentd as root, or leave the key out")
	}
	c.module.User = u
	if f.Groups == nil {
		ids, _ := account.GroupIds() // none, if they can not be known
		for _, id := range ids {
			gid, _ := strconv.Atoi(id)
			u.Groups = append(u.Groups, gid)
		}
		return
	}
	for i, name := range f.Groups {
		group, err := user.LookupGroup(name)
		if err != nil {
			c.doc.Add(fmt.Sprintf("groups[%d]", i), "there is no group %q on this machine; make it, or name another one", name)
			continue
		}
		gid, _ := strconv.Atoi(group.Gid)
		u.Groups = append(u.Groups, gid)
	}
}

// checksum reads the one that the executable must have.
func (c *check) checksum() {
	if c.file.SHA256 == nil {
		return
	}
	sum, err := hex.DecodeString(*c.file.SHA256)
	if err != nil || len(sum) != 32 {
		c.doc.Add("sha256", "found %.80q, wanted 64 hexadecimal digits, as sha256sum prints them", *c.file.SHA256)
		return
	}
	c.module.SHA256 = (*[32]byte)(sum)
}
