package lanmanager

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/lan/wire"
)

// timedWatch is a watch in a bubble, with events that the test makes.
type timedWatch struct {
	*watching
	events chan fsnotify.Event
	errors chan error
	began  time.Time

	mu      sync.Mutex
	refused error           // what add says
	added   []string        // directories
	calls   []time.Duration // of changed
}

func watchInTime(t *testing.T, refused error, test func(*timedWatch)) {
	directory := t.TempDir()
	paths := []string{filepath.Join(directory, "needs"), filepath.Join(directory, "sub", "needs.overlay"), filepath.Join(directory, "nat")}
	must(t, os.Mkdir(filepath.Join(directory, "sub"), 0o700))
	synctest.Test(t, func(t *testing.T) {
		x := &timedWatch{events: make(chan fsnotify.Event), errors: make(chan error), refused: refused, began: time.Now()}
		x.watching = &watching{paths: paths, log: hclog.NewNullLogger(), events: x.events, errors: x.errors,
			changed: func() {
				x.mu.Lock()
				defer x.mu.Unlock()
				x.calls = append(x.calls, time.Since(x.began))
			},
			add: func(directory string) error {
				x.mu.Lock()
				defer x.mu.Unlock()
				x.added = append(x.added, directory)
				return x.refused
			}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			x.run(ctx)
		}()
		test(x)
		cancel()
		<-ended
	})
}

func (x *timedWatch) event(name string, op fsnotify.Op) {
	x.events <- fsnotify.Event{Name: name, Op: op}
}

func (x *timedWatch) wantCalls(t *testing.T, want ...time.Duration) {
	t.Helper()
	synctest.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	if diff := cmp.Diff(want, x.calls); diff != "" {
		t.Errorf("changed was called: %s", diff)
	}
}

// addedSince are the directories that were to be watched since it was asked
// last; from now on add says refused.
func (x *timedWatch) addedSince(refused error) []string {
	synctest.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	added := x.added
	x.added, x.refused = nil, refused
	slices.Sort(added)
	return added
}

const ms = time.Millisecond

func TestWatchWaitsForTheLastEvent(t *testing.T) {
	watchInTime(t, nil, func(x *timedWatch) {
		time.Sleep(2 * time.Second)
		x.wantCalls(t, 100*ms) // what may have changed before the watch began
		x.event(x.paths[0], fsnotify.Create)
		time.Sleep(60 * ms)
		x.event(x.paths[0], fsnotify.Write)
		time.Sleep(60 * ms)
		x.event(filepath.Join(filepath.Dir(x.paths[0]), "needs.runtime"), fsnotify.Write) // our own
		time.Sleep(time.Second)
		x.wantCalls(t, 100*ms, 2160*ms)
		for range 50 { // somebody who does not stop
			x.event(x.paths[1], fsnotify.Write)
			time.Sleep(60 * ms)
		}
		time.Sleep(time.Second)
		x.wantCalls(t, 100*ms, 2160*ms, 4120*ms, 5140*ms, 6160*ms)
		x.errors <- errors.New("too many events")
		time.Sleep(time.Second)
		x.wantCalls(t, 100*ms, 2160*ms, 4120*ms, 5140*ms, 6160*ms, 7220*ms)
	})
}

func TestWatchTakesUpADirectoryAgain(t *testing.T) {
	watchInTime(t, nil, func(x *timedWatch) {
		time.Sleep(time.Second)
		directory := filepath.Dir(x.paths[0])
		if diff := cmp.Diff([]string{directory, filepath.Join(directory, "sub")}, x.addedSince(errors.New("not there"))); diff != "" {
			t.Errorf("watched: %s", diff)
		}
		sub := filepath.Dir(x.paths[1])
		x.event(sub, fsnotify.Remove)
		time.Sleep(3500 * ms)
		if diff := cmp.Diff([]string{sub, sub, sub}, x.addedSince(nil)); diff != "" {
			t.Errorf("tries while it is not there: %s", diff)
		}
		x.wantCalls(t, 100*ms)
		time.Sleep(time.Second)
		x.wantCalls(t, 100*ms, 5100*ms)
		time.Sleep(time.Minute)
		if diff := cmp.Diff([]string{sub}, x.addedSince(nil)); diff != "" {
			t.Errorf("tries when it is there again: %s", diff)
		}
		x.wantCalls(t, 100*ms, 5100*ms)
	})
}

// Where the system does not tell of changes, somebody has to look.
func TestWatchWithoutEvents(t *testing.T) {
	watchInTime(t, errors.New("no space left on device"), func(x *timedWatch) {
		write := func(text string) {
			if err := os.WriteFile(x.paths[0], []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10500 * ms)
		x.wantCalls(t)
		write("[]")
		time.Sleep(time.Minute)
		x.wantCalls(t, 11100*ms)
		write("[1]")
		time.Sleep(time.Minute)
		x.wantCalls(t, 11100*ms, 71200*ms)
		if err := os.Remove(x.paths[0]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		x.wantCalls(t, 11100*ms, 71200*ms, 131300*ms)
	})
}

// ways are how programs change a file.
var ways = map[string]func(t *testing.T, path, text string){
	"write in place": func(t *testing.T, path, text string) { must(t, os.WriteFile(path, []byte(text), 0o600)) },
	"rename over": func(t *testing.T, path, text string) {
		must(t, os.WriteFile(path+".new", []byte(text), 0o600))
		must(t, os.Rename(path+".new", path))
	},
	"rename from elsewhere": func(t *testing.T, path, text string) {
		other := filepath.Join(filepath.Dir(filepath.Dir(path)), "other")
		must(t, os.WriteFile(other, []byte(text), 0o600))
		must(t, os.Rename(other, path))
	},
	"remove and create": func(t *testing.T, path, text string) {
		must(t, os.Remove(path))
		must(t, os.WriteFile(path, []byte(text), 0o600))
	},
	"keep a backup": func(t *testing.T, path, text string) {
		must(t, os.Rename(path, path+"~"))
		must(t, os.WriteFile(path, []byte(text), 0o600))
		must(t, os.Remove(path+"~"))
	},
	"in pieces": func(t *testing.T, path, text string) {
		f, err := os.Create(path)
		must(t, err)
		for i := range len(text) {
			_, err = f.WriteString(text[i : i+1])
			must(t, err)
		}
		must(t, f.Close())
	},
	"a new directory": func(t *testing.T, path, text string) {
		directory := filepath.Dir(path)
		must(t, os.Rename(directory, directory+".old"))
		must(t, os.CopyFS(directory, os.DirFS(directory+".old")))
		must(t, os.RemoveAll(directory+".old"))
		must(t, os.WriteFile(path, []byte(text), 0o600))
	},
	"the directory removed": func(t *testing.T, path, text string) {
		directory := filepath.Dir(path)
		must(t, os.CopyFS(directory+".copy", os.DirFS(directory)))
		must(t, os.RemoveAll(directory))
		must(t, os.Rename(directory+".copy", directory))
		must(t, os.WriteFile(path, []byte(text), 0o600))
	},
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWatchEditors(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			directory := t.TempDir()
			writeFile(t, filepath.Join(directory, "runtime"), "needs.overlay", "[]")
			writeFile(t, directory, "boot", `{"runtimedirectory":"runtime"}`)
			writeFile(t, directory, "needs", "[]")
			writeFile(t, directory, "nat", "[]")
			f, _, _, err := openFiles(directory, "")
			must(t, err)
			defer f.close()
			loaded := make(chan contents)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				watch(ctx, f, hclog.NewNullLogger(), func() {
					c, _ := f.load()
					select {
					case loaded <- c:
					case <-ctx.Done():
					}
				})
			}()
			defer func() {
				cancel()
				<-ended
			}()
			until := func(what string, is func(contents) bool) {
				t.Helper()
				for deadline := time.After(patience); ; {
					select {
					case c := <-loaded:
						if is(c) {
							return
						}
					case <-deadline:
						t.Fatalf("%s is not taken up", what)
					}
				}
			}
			until("the beginning", func(c contents) bool { return c.nats != nil })
			way(t, f.overlay, `[{"instancename":"A","timeout":5}]`)
			way(t, f.nat, `[{"iaddress":"A","iport":1}]`)
			way(t, f.needs, `[{"instancename":"A"}]`)
			until("all of it", func(c contents) bool {
				return len(c.static) == 1 && len(c.overlay) == 1 && len(c.nats) == 1 && c.nats[0].Text("iaddress") == "A"
			})
			way(t, f.needs, `[{"instancename":"BB"}]`)
			until("needs", func(c contents) bool { return len(c.static) == 1 && c.static[0].name() == "BB" })
			way(t, f.overlay, `[{"instancename":"BB"}]`)
			until("needs.overlay", func(c contents) bool { return len(c.overlay) == 1 && c.overlay[0].name() == "BB" })
		})
	}
}

// A LAN manager at work follows its files.
func TestNeedsChangeOnDisk(t *testing.T) {
	lan := start(t, Config{}, map[string]string{"needs": `[{"instancename":"stays"},{"instancename":"goes"},{"instancename":"changes"},{"instancename":"served"}]`})
	a := lan.agent("one", "127.0.0.1")
	a.serveAll(listener(t), "served")
	nats := a.sub(a.lan, "nat")
	query := a.begin(nats, "!", "query", map[string]any{"continuous": true})
	on := a.on("changes")
	a.bid(on)

	writeFile(t, lan.directory, "needs", `[{"instancename":"stays"},{"instancename":"changes","timeout":7},{"instancename":"served","timeout":8},{"instancename":"comes"}]`)
	a.item(a.needsQuery, `"c"`, `"comes"`)
	a.soon(a.needs, "stays", "changes", "comes")
	a.item(a.needsQuery, `"d"`, `"goes"`)
	a.item(a.needsQuery, `"c"`, `"changes"`, `"timeout":7`)
	a.soon(a.services, "served")
	a.find("end of the session on a need that changed", func(u wire.Unit) bool {
		return u.Kind == wire.OutOfBand && u.Channel == wire.EndChannel && u.Session == on
	})

	// Broken, it is as if nothing had happened.
	writeFile(t, lan.directory, "needs", `[{"instancename":"stays"},`)
	writeFile(t, lan.directory, "nat", `[{"iaddress":"1.1.1.1","iport":1},{"iaddress":"2.2.2.2","iport":[1,9]}]`)
	a.item(query, `"c"`, `"2.2.2.2"`)
	a.soon(a.needs, "stays", "changes", "comes")
	for deadline := time.Now().Add(patience); !strings.Contains(lan.log.String(), "what it held before holds on"); time.Sleep(ms) {
		if time.Now().After(deadline) {
			t.Fatalf("the log does not tell of it:\n%s", lan.log)
		}
	}
	writeFile(t, lan.directory, "nat", `[{"iaddress":"1.1.1.1","iport":1,"eport":5}]`)
	a.item(query, `"u"`, `"eport":5`)
	a.item(query, `"d"`, `"2.2.2.2"`)

	// What is served comes back as it is now, and what is gone does not.
	a.value(a.lan, ".", "notifyServiceDown", "served")
	a.item(a.needsQuery, `"c"`, `"served"`, `"timeout":8`)
	a.serveAll(listener(t), "comes")
	writeFile(t, lan.directory, "needs", `[{"instancename":"stays"}]`)
	a.soon(a.needs, "stays")
	a.soon(a.services, "comes")
	a.value(a.lan, ".", "notifyServiceDown", "comes")
	writeFile(t, lan.directory, "needs", `[{"instancename":"stays"},{"instancename":"last"}]`)
	a.item(a.needsQuery, `"c"`, `"last"`)
	a.soon(a.needs, "stays", "last")
}
