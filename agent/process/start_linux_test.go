package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestStart(t *testing.T) {
	trees(t, func(t *testing.T, cgroup string) {
		s := as(t, "tell", "one", "two words")
		s.Cgroup = cgroup
		if err := os.WriteFile(s.Log, []byte("a line of the one before\n"), 0o640); err != nil {
			t.Fatal(err)
		}
		p := start(t, s)
		if got := takeEnd(t, p); got != (Exit{}) {
			t.Fatalf("got %v", got)
		}
		log := lines(t, s.Log, 3)
		if log[0] != "a line of the one before\n" || log[2] != "and this is an error\n" {
			t.Errorf("the log is not appended to: %q", log)
		}
		var got told
		if err := json.Unmarshal([]byte(log[1]), &got); err != nil {
			t.Fatal(err)
		}
		pid := p.Identity().PID
		want := told{Env: s.Env, Args: s.Argv[1:], Directory: s.Directory, PID: pid, Session: pid, Group: pid, Input: "/dev/null"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestStartLog(t *testing.T) {
	s := as(t, "tell")
	takeEnd(t, start(t, s))
	info, err := os.Stat(s.Log)
	if err != nil || info.Mode().Perm()&^0o640 != 0 {
		t.Errorf("got mode %v, %v; want at most 0640", info.Mode(), err)
	}
	s.Log = ""
	if got := takeEnd(t, start(t, s)); got != (Exit{}) {
		t.Errorf("without a log: %v", got)
	}
}

func TestIdentity(t *testing.T) {
	trees(t, func(t *testing.T, cgroup string) {
		s := as(t, "wait")
		s.Cgroup = cgroup
		id := start(t, s).Identity()
		boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
		uptime, _ := os.ReadFile("/proc/uptime")
		var now float64
		fmt.Sscan(string(uptime), &now)
		if age := now - float64(id.StartTime)/100; age < -0.1 || age > 20 {
			t.Errorf("it started %v s ago", age)
		}
		if id.BootID != strings.TrimSpace(string(boot)) || id.Cgroup != cgroup {
			t.Errorf("got %+v", id)
		}
		text, err := json.Marshal(id)
		var back Identity
		if err := errors.Join(err, json.Unmarshal(text, &back)); err != nil || back != id {
			t.Errorf("%s: got %+v, %v", text, back, err)
		}
		if dir, err := cgroupOf(id.PID); cgroup != "" && (dir != cgroup || err != nil) {
			t.Errorf("it is in %s, %v", dir, err)
		}
	})
}

func TestStartErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := lookPath(t, "true")
	plain := file("plain", "x", 0o644)
	tests := map[string]struct {
		change func(*Spec)
		errno  error
		says   []string
	}{
		"nothing":        {func(s *Spec) { s.Argv = nil }, unix.EINVAL, []string{"absolute"}},
		"relative":       {func(s *Spec) { s.Argv = []string{"true"} }, unix.EINVAL, []string{"true", "absolute"}},
		"missing":        {func(s *Spec) { s.Argv = []string{dir + "/none"} }, unix.ENOENT, []string{dir + "/none", "no such file", "install"}},
		"below a file":   {func(s *Spec) { s.Argv = []string{plain + "/none"} }, unix.ENOTDIR, []string{"not a directory"}},
		"directory":      {func(s *Spec) { s.Argv = []string{dir} }, unix.EACCES, []string{"is a directory"}},
		"device":         {func(s *Spec) { s.Argv = []string{"/dev/null"} }, unix.EACCES, []string{"not a regular file"}},
		"not executable": {func(s *Spec) { s.Argv = []string{plain} }, unix.EACCES, []string{"not executable", "chmod +x " + plain}},
		"empty":          {func(s *Spec) { s.Argv = []string{file("empty", "", 0o755)} }, unix.ENOEXEC, []string{"empty"}},
		"text":           {func(s *Spec) { s.Argv = []string{file("text", "hello", 0o755)} }, unix.ENOEXEC, []string{"neither a program nor", "#!/bin/sh"}},
		"no interpreter": {func(s *Spec) { s.Argv = []string{file("script", "#! /opt/none/python -u\n", 0o755)} }, unix.ENOENT,
			[]string{`"/opt/none/python"`, "no such file", "first line"}},
		"windows script": {func(s *Spec) { s.Argv = []string{file("dos", "#!/bin/sh\r\n", 0o755)} }, unix.ENOENT,
			[]string{`"/bin/sh\r"`, "Windows line ends"}},
		"interpreter not executable": {func(s *Spec) { s.Argv = []string{file("script2", "#!"+plain+"\n", 0o755)} }, unix.EACCES,
			[]string{plain, "permission denied"}},
		"other machine":      {func(s *Spec) { s.Argv = []string{file("elf", "\x7fELFnonsense", 0o755)} }, unix.ENOEXEC, []string{"no program of this machine", "build it"}},
		"no directory":       {func(s *Spec) { s.Directory = dir + "/none" }, unix.ENOENT, []string{"directory " + dir + "/none does not exist", "make it"}},
		"directory is file":  {func(s *Spec) { s.Directory = plain }, unix.ENOTDIR, []string{plain + " is not a directory"}},
		"log":                {func(s *Spec) { s.Log = dir + "/none/log" }, unix.ENOENT, []string{"log file " + dir + "/none/log", "directory"}},
		"long arguments":     {func(s *Spec) { s.Argv = append(s.Argv, strings.Repeat("x", 1<<20)) }, unix.E2BIG, []string{"too long"}},
		"cgroup without one": {func(s *Spec) { s.Cgroup = dir + "/none/cgroup" }, unix.ENOENT, []string{"cgroup " + dir + "/none/cgroup", "Delegate"}},
		"no cgroup":          {func(s *Spec) { s.Cgroup = dir + "/cgroup" }, nil, []string{"cgroup " + dir + "/cgroup"}},
	}
	before := descriptors(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := Spec{Instance: "web", Argv: []string{good}, Directory: dir, Log: filepath.Join(dir, "log")}
			test.change(&s)
			p, err := Start(s)
			if err == nil {
				finish(t, p)
				t.Fatal("it started")
			}
			var e *StartError
			if !errors.As(err, &e) || test.errno != nil && !errors.Is(err, test.errno) {
				t.Errorf("got %#v, want a StartError of %v", err, test.errno)
			}
			for _, want := range append(test.says, `instance "web"`) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if _, err := os.Stat(dir + "/cgroup"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failed start left its cgroup: %v", err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// What can not be brought about here without harm to others, in words.
func TestSystemFault(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		unix.EAGAIN: "TasksMax", unix.EMFILE: "LimitNOFILE", unix.ENFILE: "LimitNOFILE", unix.ENOMEM: "memory", unix.EIO: "input/output",
	} {
		err := explain(Spec{Argv: []string{lookPath(t, "true")}}, errno)
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %q, want %q in it", errno, err, want)
		}
	}
	err := explain(Spec{Argv: []string{lookPath(t, "true")}, Cgroup: "/some/cgroup"}, unix.EOPNOTSUPP)
	if !strings.Contains(err.Error(), "/some/cgroup") {
		t.Errorf("got %q", err)
	}
}

// A program whose writer has not closed it yet starts as soon as it has.
func TestStartBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	text, err := os.ReadFile(lookPath(t, "true"))
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(text); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Spec{Instance: "web", Argv: []string{path}}); !errors.Is(err, unix.ETXTBSY) || !strings.Contains(err.Error(), "writing to it") {
		t.Fatalf("got %v, want ETXTBSY in words", err)
	}
	timer := time.AfterFunc(10*time.Millisecond, func() { file.Close() })
	defer timer.Stop()
	if got := takeEnd(t, start(t, Spec{Instance: "web", Argv: []string{path}})); got != (Exit{}) {
		t.Errorf("got %v", got)
	}
}
