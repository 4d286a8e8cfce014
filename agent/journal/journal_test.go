package journal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

// told is what a reader tells now, in short: "3:key=value", "4:key gone", and "|"
// where the present ends.
func told[T any](t *testing.T, r *Reader[T]) string {
	t.Helper()
	var all []string
	for {
		initial := r.Initial()
		within, stop := context.WithCancel(t.Context())
		stop() // what is there, is there at once
		batch, err := r.Next(within)
		if errors.Is(err, context.Canceled) {
			return strings.Join(all, " ")
		}
		if err != nil {
			return strings.Join(append(all, err.Error()), " ")
		}
		for _, e := range batch {
			if e.Gone {
				if v := fmt.Sprint(e.Value); v != "" && v != "0" {
					t.Errorf("%s is gone and still has %q", e.Key, v)
				}
				all = append(all, fmt.Sprintf("%d:%s gone", e.Revision, e.Key))
			} else {
				all = append(all, fmt.Sprintf("%d:%s=%v", e.Revision, e.Key, e.Value))
			}
		}
		if initial && !r.Initial() {
			all = append(all, "|")
		}
	}
}

func open[T any](t *testing.T, f interface {
	Open(Start) (*Reader[T], error)
}, s Start) *Reader[T] {
	t.Helper()
	r, err := f.Open(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func from(j *Journal, revision uint64) Start {
	return Start{Position: Position{Epoch: j.Position().Epoch, Revision: revision}}
}

func check(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func equal(a, b int) bool { return a == b }

func TestLog(t *testing.T) {
	j := New()
	l := NewLog[int](j, 3)
	check(t, "nothing", told(t, open(t, l, Start{})), "")
	l.Add("a", 1)
	l.Add("b", 2)
	all, later, one := open(t, l, Start{}), open(t, l, Start{Skip: true}), open(t, l, Start{Key: "b"})
	check(t, "all", told(t, all), "1:a=1 2:b=2 |")
	check(t, "what comes", told(t, later), "")
	check(t, "one", told(t, one), "2:b=2 |")
	l.Add("a", 3)
	l.Add("b", 4)
	check(t, "all", told(t, all), "3:a=3 4:b=4")
	check(t, "what comes", told(t, later), "3:a=3 4:b=4")
	check(t, "one", told(t, one), "4:b=4")
	check(t, "what is kept", told(t, open(t, l, Start{})), "2:b=2 3:a=3 4:b=4 |")
	check(t, "from 3", told(t, open(t, l, from(j, 3))), "3:a=3 4:b=4")
	check(t, "from the next on", told(t, open(t, l, from(j, 5))), "")
}

func TestTable(t *testing.T) {
	j := New()
	table := NewTable(j, 2, equal)
	early := open(t, table, Start{})
	table.Set("a", 1)
	table.Set("b", 1)
	table.Set("a", 1) // no change
	check(t, "early", told(t, early), "1:a=1 2:b=1")
	table.Set("a", 2)
	table.Delete("c") // never was
	table.Set("c", 1)
	table.Delete("b")
	check(t, "what is", told(t, open(t, table, Start{})), "3:a=2 4:c=1 |")
	check(t, "what changed", told(t, early), "3:a=2 4:c=1 5:b gone")
	check(t, "from 2", told(t, open(t, table, from(j, 2))), "3:a=2 4:c=1 5:b gone")
	table.Set("b", 3)
	check(t, "one", told(t, open(t, table, Start{Key: "b"})), "6:b=3 |")
	check(t, "b is back", told(t, early), "6:b=3")
	table.Set("a", 4)
	table.Set("a", 5)
	check(t, "the newest only", told(t, early), "8:a=5")
}

// What goes between the opening of a reader and its reading is told of, and what
// went before is not.
func TestGoneWhileTheInitialStateIsRead(t *testing.T) {
	table := NewTable(New(), 10, equal)
	table.Set("a", 1)
	table.Set("b", 1)
	table.Set("old", 1)
	table.Delete("old")
	r := open(t, table, Start{})
	table.Delete("a")
	table.Set("c", 1)
	check(t, "told", told(t, r), "2:b=1 | 5:a gone 6:c=1")
}

func TestStartThatIsNotKept(t *testing.T) {
	j := New()
	l := NewLog[int](j, 2)
	for n := range 5 {
		l.Add("a", n)
	}
	table := NewTable(j, 1, equal)
	for _, key := range []string{"a", "b", "c"} { // revisions 6 to 11
		table.Set(key, 1)
		table.Delete(key)
	}
	for what, test := range map[string]struct {
		open func(Start) error
		from Start
		want error
	}{
		"thrown away":       {opening(l), from(j, 3), &CompactedError{Oldest: 4, Epoch: j.epoch}},
		"the oldest":        {opening(l), from(j, 4), nil},
		"another epoch":     {opening(l), Start{Position: Position{"x", 5}}, &CompactedError{Oldest: 4, Epoch: j.epoch}},
		"the future":        {opening(l), from(j, 13), ErrAhead},
		"the next":          {opening(l), from(j, 12), nil},
		"a key was lost":    {opening(table), from(j, 9), &CompactedError{Oldest: 10, Epoch: j.epoch}},
		"no key was lost":   {opening(table), from(j, 10), nil},
		"an epoch, no more": {opening(table), Start{Position: Position{Epoch: "x"}}, nil},
	} {
		if err := test.open(test.from); fmt.Sprint(err) != fmt.Sprint(test.want) {
			t.Errorf("%s: %v, want %v", what, err, test.want)
		}
	}
}

func opening[T any](f interface {
	Open(Start) (*Reader[T], error)
}) func(Start) error {
	return func(s Start) error {
		r, err := f.Open(s)
		if err == nil {
			r.Close()
		}
		return err
	}
}

func isOvertaken[T any](r *Reader[T]) bool {
	select {
	case <-r.Overtaken():
		return true
	default:
		return false
	}
}

// Who does not read is overtaken as soon as something is thrown away that it has
// not read, and told so; who has read it is not.
func TestOvertaken(t *testing.T) {
	l := NewLog[int](New(), 2)
	slow, quick := open(t, l, Start{}), open(t, l, Start{})
	for n := range 2 {
		l.Add("a", n)
	}
	told(t, quick)
	if isOvertaken(slow) {
		t.Error("overtaken while all is kept")
	}
	l.Add("a", 2)
	if !isOvertaken(slow) || isOvertaken(quick) {
		t.Errorf("overtaken: %v, %v; want true, false", isOvertaken(slow), isOvertaken(quick))
	}
	check(t, "slow", told(t, slow), ErrOvertaken.Error())
	check(t, "quick", told(t, quick), "3:a=2")
}

// A Table overtakes nobody with states, only with keys that are gone.
func TestOvertakenByTheGone(t *testing.T) {
	table := NewTable(New(), 1, equal)
	table.Set("a", 0)
	initial := open(t, table, Start{})
	resumed := open(t, table, from(table.Journal, 1))
	for n := range 100 {
		table.Set("a", n)
	}
	table.Set("b", 1)
	table.Delete("b")
	if isOvertaken(initial) || isOvertaken(resumed) {
		t.Error("overtaken while all keys are known")
	}
	table.Set("c", 1)
	table.Delete("c")
	if !isOvertaken(initial) || !isOvertaken(resumed) {
		t.Error("not overtaken although a key is lost")
	}
}

// A batch ends where the reader's room does, and the next goes on there.
func TestManyBatches(t *testing.T) {
	j := New()
	l, table := NewLog[int](j, 5*batchSize), NewTable(j, 10, equal)
	var events, states []uint64
	for n := range 3*batchSize + 7 {
		l.Add("a", n)
		table.Set(fmt.Sprint("k", n), n)
		events, states = append(events, uint64(2*n+1)), append(states, uint64(2*n+2))
	}
	for _, test := range []struct {
		reader *Reader[int]
		want   []uint64
	}{{open(t, l, Start{}), events}, {open(t, table, Start{}), states}} {
		var got []uint64
		for test.reader.Initial() {
			batch, err := test.reader.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range batch {
				got = append(got, e.Revision)
			}
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}

func TestNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := New()
		l, other := NewLog[int](j, 10), NewLog[int](j, 10)
		waiting, finished := open(t, l, Start{}), open(t, l, Start{})
		next := func(r *Reader[int]) <-chan string {
			answer := make(chan string, 1)
			go func() {
				batch, err := r.Next(context.Background())
				answer <- fmt.Sprint(len(batch), err)
			}()
			synctest.Wait()
			return answer
		}
		silent := func(answer <-chan string) {
			t.Helper()
			synctest.Wait()
			select {
			case got := <-answer:
				t.Errorf("Next returned %s although nothing had happened", got)
			default:
			}
		}
		answer, last := next(waiting), next(finished)
		other.Add("a", 1)
		silent(answer)
		finished.Finish()
		check(t, "finished", <-last, fmt.Sprint(0, ErrEnded))
		silent(answer)
		l.Add("a", 1)
		check(t, "after an event", <-answer, "1 <nil>")
		answer = next(waiting)
		j.End()
		check(t, "after the end", <-answer, fmt.Sprint(0, ErrEnded))
		check(t, "what there was", told(t, open(t, l, Start{})), "2:a=1 | "+ErrEnded.Error())
	})
}

// What a loop pays for a change that nobody watches.
func BenchmarkUnwatched(b *testing.B) {
	j := New()
	l, table := NewLog[[8]int](j, 4096), NewTable(j, 4096, func(a, b [8]int) bool { return a == b })
	for n := range b.N {
		l.Add("a", [8]int{n})
		table.Set("a", [8]int{n})
	}
}
