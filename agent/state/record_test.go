package state

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
)

const goldenBoot = "0a1b2c3d-1111-2222-3333-444455556666"

// golden is what testdata/v1 holds: one record in each phase, one of an outside
// process, and one with what the first agents did not write.
func golden() []Record {
	return []Record{
		{Instance: "../../x", Module: "sleep", Phase: Running, Origin: "outside", Ready: true,
			Identity:  process.Identity{PID: 77, StartTime: 5, BootID: goldenBoot},
			StartTime: time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC), Ports: table.Ports{TCP: 22}},
		{Instance: "Echo", Module: "dotnet:Echo", Phase: Running, Origin: "started", Ready: true,
			Identity:  process.Identity{PID: 4711, StartTime: 1234567, BootID: goldenBoot, Cgroup: "/sys/fs/cgroup/agent/Echo"},
			StartTime: time.Date(2026, 11, 22, 20, 8, 1, 123456789, time.UTC),
			Ports:     table.Ports{TCP: 15000, HTTP: 16000, WS: 17000}, PortMode: port.Reserved,
			Log: "/state/log/Echo.log", Stop: module.Stop{Signal: "SIGTERM", Timeout: 10 * time.Second}},
		{Instance: "Later", Module: "allex_later", Phase: Running, Origin: "started", Ready: true,
			ModuleMark: module.Mark{0, 1, 2, 3, 0xfc, 0xfd, 0xfe, 0xff},
			Identity:   process.Identity{PID: 4711, StartTime: 1234567, BootID: goldenBoot, Cgroup: "/sys/fs/cgroup/agent/Later"},
			Main:       process.Identity{PID: 4712, StartTime: 1234568, BootID: goldenBoot, Cgroup: "/sys/fs/cgroup/agent/Later"},
			StartTime:  time.Date(2026, 11, 29, 8, 0, 0, 0, time.UTC), PortMode: port.Passed,
			Log: "/state/log/Later.log", LogFrom: 4096, Stop: module.Stop{Grace: 3 * time.Second, Signal: "SIGTERM", Timeout: 10 * time.Second}},
		{Instance: "Time", Module: "allex_timeservice", Phase: Starting, Origin: "started",
			Identity: process.Identity{BootID: goldenBoot, Cgroup: "/sys/fs/cgroup/agent/Time"},
			Ports:    table.Ports{HTTP: 16001}, PortMode: port.Released,
			Log: "/state/log/Time.log", Stop: module.Stop{Signal: "SIGINT", Timeout: 1500 * time.Millisecond}},
	}
}

// Version 1 is read for ever, and this agent writes it.
func TestGoldenVersion1(t *testing.T) {
	const testdata = "testdata/v1"
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(testdata)); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir)
	s.boot = goldenBoot
	records, damaged, err := s.Load()
	if diff := cmp.Diff(golden(), records); diff != "" || len(damaged) != 0 || err != nil {
		t.Errorf("%v, %v\n%s", damaged, err, diff)
	}
	if k, err := s.Kept(); err != nil || cmp.Diff([]string{"../../x", "Time"}, k.Holds) != "" {
		t.Errorf("kept %v, %v", k, err)
	}
	if got, want := s.AgentID(), "000102030405060708090a0b0c0d0e0f"; got != want {
		t.Errorf("agent id %s, want %s", got, want)
	}

	fresh := openStore(t, t.TempDir())
	fresh.boot = goldenBoot
	for _, r := range golden() {
		if r.Phase == Starting {
			r.Identity.BootID = "" // nobody knows it yet; Put fills in the store's
		}
		if err := fresh.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := fresh.Keep(Kept{Holds: []string{"../../x", "Time"}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kept.json", "run/%2E.%2F..%2Fx.json", "run/Echo.json", "run/Later.json", "run/Time.json"} {
		got, _ := os.ReadFile(filepath.Join(fresh.dir, name))
		want, err := os.ReadFile(filepath.Join(testdata, name))
		if err != nil || cmp.Diff(string(want), string(got)) != "" {
			t.Errorf("%s: %v\n%s", name, err, cmp.Diff(string(want), string(got)))
		}
	}
}

func TestPutAndDelete(t *testing.T) {
	s := openStore(t, t.TempDir())
	r := golden()[1]
	r.Identity.BootID = s.boot
	r.Stop.Grace = 3 * time.Second // version 1 had none at first

	r.Main = process.Identity{PID: 4712, StartTime: 1234568, BootID: s.boot, Cgroup: r.Identity.Cgroup}
	for _, ready := range []bool{false, true} {
		r.Ready = ready
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Record{r}, loadAll(t, s)); diff != "" {
			t.Error(diff)
		}
	}
	for range 2 {
		if err := s.Delete(r.Instance); err != nil {
			t.Error(err)
		}
		if got := loadAll(t, s); len(got) != 0 {
			t.Errorf("got %v", got)
		}
	}
}

// A kill can not tear what is written within a page (docs/adr/0001), so no name is
// too long for that, in directories that are not.
func TestRecordsAreShorterThanAPage(t *testing.T) {
	longest := strings.Repeat("<", 255) // six bytes each
	directory := "/" + strings.Repeat("d", 100)
	id := process.Identity{PID: 1 << 22, StartTime: 1<<64 - 1, BootID: goldenBoot, Cgroup: directory + "/" + fileName(longest)}
	r := Record{Instance: longest, Module: longest, ModuleMark: module.Mark{1}, Phase: Starting, Identity: id, Main: id,
		StartTime: time.Date(2026, 11, 22, 20, 8, 1, 123456789, time.UTC), Ports: table.Ports{TCP: 65535, HTTP: 65535, WS: 65535},
		PortMode: port.Reserved, Log: directory + "/" + fileName(longest) + ".log", LogFrom: 1<<63 - 1, Origin: "outside",
		Stop: module.Stop{Grace: 59*time.Minute + 59999999999, Signal: "SIGTERM", Timeout: 59*time.Minute + 59999999999}}
	text, err := seal((&Store{}).file(r))
	if err != nil || len(text) >= 4096 {
		t.Errorf("%d bytes, %v:\n%s", len(text), err, text)
	}
}

func TestRecordsOfAnEarlierBootAreGone(t *testing.T) {
	s := openStore(t, t.TempDir())
	for _, boot := range []string{goldenBoot, "", s.boot} {
		r := golden()[1]
		r.Identity.BootID = boot
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
		got := loadAll(t, s)
		if wantGone := boot == goldenBoot; len(got) != 1 || got[0].Gone != wantGone {
			t.Errorf("boot %q: got %v", boot, got)
		}
	}
}

func TestPutRefuses(t *testing.T) {
	s := openStore(t, t.TempDir())
	for want, change := range map[string]func(*Record){
		"an instance has no name; wanted 1 to 255 bytes":              func(r *Record) { r.Instance = "" },
		`the instance name "\xff" is not UTF-8`:                       func(r *Record) { r.Instance = "\xff" },
		`instance "Echo": 65536 is no port`:                           func(r *Record) { r.Ports.WS = 65536 },
		`instance "Echo": -1 is no port`:                              func(r *Record) { r.Ports.TCP = -1 },
		`instance "Echo": phase "running" does not go with pid 0`:     func(r *Record) { r.Identity.PID = 0 },
		`instance "Echo": phase "starting" does not go with pid 4711`: func(r *Record) { r.Phase = Starting },
		`instance "Echo": phase "" does not go with pid 4711`:         func(r *Record) { r.Phase = "" },
	} {
		r := golden()[1]
		change(&r)
		if err := s.Put(r); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if entries, _ := os.ReadDir(filepath.Join(s.dir, "run")); len(entries) != 0 {
		t.Errorf("left %v", entries)
	}
}

// A record that was cut or changed anywhere is set aside with its name, and the
// others load.
func TestDamagedRecords(t *testing.T) {
	s := openStore(t, t.TempDir())
	for _, r := range golden() {
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	path := s.recordPath("Echo")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, broken := range damages(string(whole))[1:] { // the first is empty, see below
		write(t, path, broken)
		records, damaged, err := s.Load()
		if err != nil || len(records) != len(golden())-1 || len(damaged) != 1 || damaged[0].File != path || damaged[0].Aside != path+".damaged" {
			t.Fatalf("%q: got %d records, %v, %v", broken, len(records), damaged, err)
		}
		if got, _ := os.ReadFile(damaged[0].Aside); string(got) != broken {
			t.Fatalf("set aside %q, want %q", got, broken)
		}
		if _, damaged, _ := s.Load(); len(damaged) != 0 {
			t.Fatalf("found again: %v", damaged)
		}
	}
	write(t, path, "{}")
	want := path + " is damaged: its checksum does not fit its content; it is set aside as Echo.json.damaged"
	if _, damaged, _ := s.Load(); len(damaged) != 1 || damaged[0].Error() != want {
		t.Errorf("got %v, want %s", damaged, want)
	}
}

// A file without a byte is that of an agent that was killed before its first
// write, and of no process.
func TestRecordNeverWritten(t *testing.T) {
	s := openStore(t, t.TempDir())
	path := s.recordPath("Echo")
	write(t, path, "")
	if records, damaged, err := s.Load(); len(records) != 0 || len(damaged) != 0 || err != nil {
		t.Errorf("got %v, %v, %v", records, damaged, err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is left: %v", err)
	}
}

// No other byte anywhere makes a record.
func TestEveryByteCounts(t *testing.T) {
	s := openStore(t, t.TempDir())
	whole, err := seal(s.file(golden()[1]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.parse(whole); err != nil {
		t.Fatal(err)
	}
	for i, right := range whole {
		for b := range 256 {
			whole[i] = byte(b)
			if r, err := s.parse(whole); err == nil && byte(b) != right {
				t.Fatalf("byte %d as %d: got %v", i, b, r)
			}
		}
		whole[i] = right
	}
}

func TestFilesThatAreNoRecords(t *testing.T) {
	s := openStore(t, t.TempDir())
	run := filepath.Join(s.dir, "run")
	good, err := seal(s.file(golden()[1]))
	if err != nil {
		t.Fatal(err)
	}
	later, err := seal(recordFile{Version: 2, Instance: "later"})
	if err != nil {
		t.Fatal(err)
	}
	number, err := seal(5)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(run, "copy.json"), string(good))
	write(t, filepath.Join(run, "later.json"), string(later))
	write(t, filepath.Join(run, "number.json"), string(number))
	write(t, filepath.Join(run, "huge.json"), strings.Repeat(" ", maxFile+1))
	write(t, filepath.Join(run, "directory.json", "x"), "")
	write(t, filepath.Join(run, "README"), "not ours")
	write(t, filepath.Join(run, "Echo.json"), string(good))
	if err := os.Symlink("Echo.json", filepath.Join(run, "link.json")); err != nil {
		t.Fatal(err)
	}
	records, damaged, err := s.Load()
	if err != nil || len(records) != 1 || records[0].Instance != "Echo" {
		t.Errorf("got %v, %v", records, err)
	}
	var got []string
	for _, d := range damaged {
		got = append(got, fmt.Sprintf("%s: %s", filepath.Base(d.File), d.Err))
	}
	want := []string{
		`copy.json: it is the record of instance "Echo", which belongs into Echo.json`,
		"directory.json: it is no regular file",
		"huge.json: it has 1048577 bytes, more than it can have",
		"later.json: it has version 2 of the format, this agent knows 1",
		"link.json: it is no regular file",
		"number.json: json: cannot unmarshal number into Go value of type state.recordFile",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDamagedThatCanNotBeSetAside(t *testing.T) {
	s := openStore(t, t.TempDir())
	path := s.recordPath("x")
	write(t, path, "rubbish")
	write(t, filepath.Join(path+".damaged", "in the way"), "")
	_, damaged, err := s.Load()
	if err != nil || len(damaged) != 1 || damaged[0].Aside != "" ||
		!strings.HasPrefix(damaged[0].Error(), path+" is damaged and could not be set aside: its checksum does not fit its content\nrename ") {
		t.Errorf("got %v, %v", damaged, err)
	}
}

func TestLoadWithoutDirectory(t *testing.T) {
	s := openStore(t, t.TempDir())
	if err := os.Remove(filepath.Join(s.dir, "run")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Load(); err == nil || !strings.HasPrefix(err.Error(), "can not read the records of running processes: ") {
		t.Errorf("got %v", err)
	}
}

// Writers of different instances do not disturb each other.
func TestConcurrentPutAndDelete(t *testing.T) {
	s := openStore(t, t.TempDir())
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			r := golden()[1]
			r.Instance = fmt.Sprintf("instance %d", w)
			for n := range 40 {
				r.Identity.PID = n + 1
				if err := s.Put(r); err != nil {
					t.Error(err)
				}
				if n%4 == 3 && n < 39 {
					if err := s.Delete(r.Instance); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	writers.Wait()
	records := loadAll(t, s)
	if len(records) != 8 {
		t.Errorf("got %d records, want 8", len(records))
	}
	for _, r := range records {
		if r.Identity.PID != 40 {
			t.Errorf("%s: pid %d, want the last, 40", r.Instance, r.Identity.PID)
		}
	}
	if entries, _ := os.ReadDir(filepath.Join(s.dir, "run")); len(entries) != 8 {
		t.Errorf("the directory has %v", entries)
	}
}

func loadAll(t *testing.T, s *Store) []Record {
	t.Helper()
	records, damaged, err := s.Load()
	if err != nil || len(damaged) != 0 {
		t.Fatalf("%v, %v", damaged, err)
	}
	return records
}

// FuzzRecord: whatever a file holds, and whatever is sealed, is a record that
// Put writes back as the same one, or an error.
func FuzzRecord(f *testing.F) {
	s := &Store{dir: "/state", boot: goldenBoot}
	for _, r := range golden() {
		whole, err := seal(s.file(r))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(whole)
		body := whole[len(sealHead)+64+len(sealNeck) : len(whole)-len(sealTail)]
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		whole, err := seal(rawJSON(data))
		for _, text := range [][]byte{data, whole} {
			r, parseErr := s.parse(text)
			if err != nil || parseErr != nil {
				continue
			}
			again, err := seal(s.file(r))
			if err != nil {
				t.Fatalf("%v can not be written: %s", r, err)
			}
			other, err := s.parse(again)
			r.Gone = r.Identity.BootID != "" && r.Gone // an empty boot is written as ours
			r.Identity.BootID = other.Identity.BootID
			if diff := cmp.Diff(r, other); err != nil || diff != "" {
				t.Fatalf("%v\n%s", err, diff)
			}
		}
	})
}

// rawJSON is sealed as it is.
type rawJSON []byte

func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }

// What a longer record has left in the file does not count.
func TestShorterOverLonger(t *testing.T) {
	s := openStore(t, t.TempDir())
	r := golden()[1]
	r.Log = "/" + strings.Repeat("long/", 200)
	if err := s.Put(r); err != nil {
		t.Fatal(err)
	}
	r.Log = "/short"
	if err := s.Put(r); err != nil {
		t.Fatal(err)
	}
	if records := loadAll(t, s); len(records) != 1 || records[0].Log != "/short" {
		t.Errorf("got %v", records)
	}
}

// The file of an ended process waits for the next one of that name, and goes
// with the next agent.
func TestEndedRecordsAreRemoved(t *testing.T) {
	s := openStore(t, t.TempDir())
	r := golden()[1]
	for _, phase := range []Phase{Running, Ended} {
		r.Phase = phase
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	if records := loadAll(t, s); len(records) != 0 {
		t.Errorf("got %v", records)
	}
	if entries, _ := os.ReadDir(filepath.Join(s.dir, "run")); len(entries) != 0 {
		t.Errorf("the directory still has %v", entries)
	}
}

// A kill at any moment leaves the record before or the new one.
func TestKilledWriterLeavesAWholeRecord(t *testing.T) {
	dir := t.TempDir()
	for range 10 {
		writer := exec.Command(os.Args[0])
		writer.Env = append(os.Environ(), writeIn+"="+dir)
		out, err := writer.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := writer.Start(); err != nil {
			t.Fatal(err)
		}
		// Each line says that some hundred records have been written.
		for range 1 + rand.N(3) {
			if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		if err := writer.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = writer.Wait() // killed
		s := openStore(t, dir)
		if records := loadAll(t, s); len(records) != 1 || records[0].Instance != golden()[1].Instance {
			t.Fatalf("got %v", records)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// keepWriting is the role of the writer that is killed.
func keepWriting(dir string) {
	s, err := Open(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	r := golden()[1]
	for n := 0; ; n++ {
		r.Log = "/" + strings.Repeat("x", n%3000)
		if err := s.Put(r); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if n%500 == 499 {
			fmt.Println(n)
		}
	}
}
