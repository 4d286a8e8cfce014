//go:build faults

package fault

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// plan is what is to happen in this process.
var plan = sync.OnceValue(func() map[Point][]*event {
	events := make(map[Point][]*event)
	for text := range strings.SplitSeq(os.Getenv(Variable), ",") {
		if text == "" {
			continue
		}
		point, e, err := parse(text)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", Variable, err)
			os.Exit(2)
		}
		events[point] = append(events[point], e)
	}
	return events
})

// event is what happens when a point is passed so many more times.
type event struct {
	left   atomic.Int64
	action string
	wait   time.Duration
}

func parse(text string) (Point, *event, error) {
	point, rest, _ := strings.Cut(text, "=")
	action, number, _ := strings.Cut(rest, "@")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 {
		return "", nil, fmt.Errorf("%q: wanted POINT=ACTION@N with N from 1", text)
	}
	e := &event{action: action}
	e.left.Store(n)
	if action != "kill" && action != "fail" {
		if e.wait, err = time.ParseDuration(action); err != nil {
			return "", nil, fmt.Errorf("%q: wanted kill, fail or a time as action", text)
		}
	}
	return Point(point), e, nil
}

// At passes a point. The error is one that was asked for.
func At(p Point) error {
	for _, e := range plan()[p] {
		if e.left.Add(-1) != 0 {
			continue
		}
		fmt.Fprintf(os.Stderr, "fault: %s at %s\n", e.action, p)
		switch e.action {
		case "kill":
			self, err := os.FindProcess(os.Getpid())
			if err == nil {
				err = self.Kill()
			}
			if err != nil {
				panic(err)
			}
			select {} // the signal comes at once
		case "fail":
			return fmt.Errorf("a fault that was asked for at %s", p)
		default:
			time.Sleep(e.wait)
		}
	}
	return nil
}
