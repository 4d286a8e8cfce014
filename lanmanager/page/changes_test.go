package page

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// stream is what a viewer that follows the changes has been sent.
type stream struct {
	header http.Header
	mu     sync.Mutex
	text   string
	code   int
}

func (s *stream) Header() http.Header              { return s.header }
func (s *stream) WriteHeader(code int)             { s.code = code }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }
func (s *stream) FlushError() error                { return nil }
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text += string(p)
	return len(p), nil
}

// said is what came since it was asked last.
func (s *stream) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.text
	s.text = ""
	return text
}

// follow follows the changes until ctx ends; done is closed when they end.
func follow(ctx context.Context, p *Page) (s *stream, done chan struct{}) {
	s, done = &stream{header: http.Header{}}, make(chan struct{})
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/changes", nil)
	r.Host = "localhost"
	go func() {
		defer close(done)
		p.ServeHTTP(s, r)
	}()
	return s, done
}

func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newSource(lan(1, time.Now()))
		p := New(Config{Source: source})
		defer p.Close()
		viewer, done := follow(t.Context(), p)
		another, anotherDone := follow(t.Context(), p)
		expect := func(what, want string) {
			t.Helper()
			synctest.Wait()
			if got := viewer.said(); got != want {
				t.Errorf("%s: it is said %q, want %q", what, got, want)
			}
		}
		expect("at first", "data: 7\n\n")
		time.Sleep(time.Second)
		expect("nothing happened", "")
		source.change(func(*Snapshot) {})
		expect("a change is said at once", "data: 8\n\n")
		for range 10 {
			source.change(func(*Snapshot) {})
		}
		time.Sleep(pace - 1)
		expect("not before the pace is over", "")
		time.Sleep(1)
		expect("ten changes are one", "data: 18\n\n")
		time.Sleep(beat)
		expect("nothing happened for long", "data: 18\n\n")
		synctest.Wait()
		if another.said() == "" {
			t.Error("nothing was said to another viewer")
		}
		p.Close()
		<-done
		<-anotherDone
		for i, at := range source.asked[1:] {
			if since := at.Sub(source.asked[i]); since < pace {
				t.Errorf("a snapshot was made %v after the one before, want %v at least", since, pace)
			}
		}
		if len(source.asked) != 3 {
			t.Errorf("%d snapshots were made for 2 viewers of 3 revisions", len(source.asked))
		}
	})
}

func TestNobodyLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newSource(lan(1, time.Now()))
		p := New(Config{Source: source})
		defer p.Close()
		ask(p, "/")
		for range 10 {
			time.Sleep(time.Second)
			source.change(func(*Snapshot) {})
		}
		synctest.Wait()
		if len(source.asked) != 1 {
			t.Errorf("%d snapshots were made, want 1: nobody looked any more", len(source.asked))
		}
	})
}

// What was made a second ago is no proof that the core is at work now.
func TestHealthAsksTheCore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newSource(lan(1, time.Now()))
		p := New(Config{Source: source})
		defer p.Close()
		for i, want := range []int{1, 1, 2, 2} { // at 0, 0.75, 1.5 and 2.25 s
			if got := ask(p, "/healthz"); got.Code != 200 || len(source.asked) != want {
				t.Errorf("check %d: %d after %d snapshots, want 200 after %d", i, got.Code, len(source.asked), want)
			}
			time.Sleep(750 * time.Millisecond)
		}
	})
}

func TestTooManyViewers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Config{Source: newSource(lan(1, time.Now()))})
		defer p.Close()
		ctx, leave := context.WithCancel(t.Context())
		var ends []chan struct{}
		for range mostViewers {
			_, done := follow(ctx, p)
			ends = append(ends, done)
		}
		synctest.Wait()
		if got := ask(p, "/api/changes").Code; got != http.StatusServiceUnavailable {
			t.Errorf("viewer %d is answered with %d, want 503", mostViewers+1, got)
		}
		leave()
		for _, done := range ends {
			<-done
		}
		viewer, _ := follow(t.Context(), p)
		synctest.Wait()
		if got, want := viewer.said(), fmt.Sprintf("data: %d\n\n", 7); got != want {
			t.Errorf("when the others have left it is said %q, want %q", got, want)
		}
	})
}
