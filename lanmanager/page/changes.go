package page

import (
	"fmt"
	"net/http"
	"time"
)

const (
	mostViewers = 64               // that follow the changes at once
	beat        = 10 * time.Second // after which a revision is said again: the viewer hears that it still hears
	writeLimit  = 10 * time.Second // for a viewer to take what is written
)

// changes says, as server-sent events, which revision there is to see: the
// present one, and every further one as it comes, at most one in a pace. What is
// new in it the viewer asks for. A viewer that does not read is dropped.
func (p *Page) changes(w http.ResponseWriter, r *http.Request) {
	select {
	case p.viewers <- struct{}{}:
		defer func() { <-p.viewers }()
	default:
		http.Error(w, fmt.Sprintf("%d viewers follow the changes already; load the page again to see what is new.", mostViewers),
			http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	if r.Method == http.MethodHead {
		return
	}
	out := http.NewResponseController(w)
	defer out.SetWriteDeadline(time.Time{})
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	var said uint64
	due := true
	for {
		current, err := p.keeper.get(r.Context())
		if err != nil {
			return
		}
		if revision := current.moment.Revision; due || revision != said {
			out.SetWriteDeadline(time.Now().Add(writeLimit))
			fmt.Fprintf(w, "data: %d\n\n", revision)
			if out.Flush() != nil {
				return
			}
			said, due = revision, false
		}
		select {
		case <-r.Context().Done():
			return
		case <-current.valid.Done():
		case <-ticker.C:
			due = true
		}
	}
}
