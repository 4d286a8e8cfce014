package process

import "time"

// Usage is what a process and all of its tree use; of an outside process it is the
// leader alone. What the system does not show is left out of the sums.
type Usage struct {
	CPU         time.Duration // processor time, with that of those of the tree that have ended
	Memory      uint64        // bytes in main memory (RSS); what several processes share is counted for each
	Descriptors int
	Threads     int
	Processes   int
}
