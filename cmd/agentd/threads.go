package main

import (
	"runtime"
	"sync"
)

// spareThreads are as many as the agent needs beside those of the runtime, whatever
// happens to it (design section 10).
const spareThreads = 8

// haveThreads makes them now. A Go program ends when it can not have another thread,
// which is where the limit of processes is reached; those that it has had it keeps.
func haveThreads() {
	var there sync.WaitGroup
	there.Add(spareThreads)
	enough := make(chan struct{})
	for range spareThreads {
		go func() {
			runtime.LockOSThread() // nobody else runs on this one until all are there
			there.Done()
			<-enough
			runtime.UnlockOSThread()
		}()
	}
	there.Wait()
	close(enough)
}
