package port

import (
	"testing"

	"pgregory.net/rapid"
)

func TestSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s set
		model := map[int]bool{}
		first := rapid.IntRange(0, maxPort).Draw(t, "first")
		near := rapid.IntRange(first, min(first+200, maxPort))
		for _, n := range rapid.SliceOf(near).Draw(t, "added") {
			s.add(n)
			model[n] = true
		}
		for _, n := range rapid.SliceOf(near).Draw(t, "removed") {
			s.remove(n)
			delete(model, n)
		}
		want := first
		for model[want] {
			want++
		}
		if got := s.next(first); got != want {
			t.Fatalf("next(%d) = %d, want %d", first, got, want)
		}
		if n := near.Draw(t, "n"); s.has(n) != model[n] {
			t.Fatalf("has(%d) = %v", n, s.has(n))
		}
	})
}

func TestSetFull(t *testing.T) {
	var s set
	for n := range maxPort + 1 {
		s.add(n)
	}
	if got := s.next(0); got != maxPort+1 {
		t.Errorf("next in a full set is %d", got)
	}
	s.remove(maxPort)
	if got := s.next(15000); got != maxPort {
		t.Errorf("next is %d, want the only free one", got)
	}
}
