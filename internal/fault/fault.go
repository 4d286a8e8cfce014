// Package fault has the named points at which a test build can kill, hold up or
// fail a program, so that what must survive a crash anywhere is tried anywhere
// (design section 9). In every other build a point does nothing and costs
// nothing: only with the build tag faults does At look at the environment.
//
// The variable MACHINEAGENT_FAULT there says what is to happen, as
// POINT=ACTION@N: at the N-th time (from 1) that the point is passed. ACTION is
// kill, fail, or a time to wait, such as 50ms. Several are separated by commas.
//
// All points are listed here. The rooms agent, lanmanager and internal pass them;
// e2e names them.
package fault

// Variable is the environment variable that a test build reads.
const Variable = "MACHINEAGENT_FAULT"

// Point is a place in a program.
type Point string

// The points of agentd, in the order of a life. Those of which Fails tells that
// they can are followed by what an operating system could refuse.
const (
	Adopting     Point = "adopting"      // a recorded process is about to be taken over
	StateWrite   Point = "state-write"   // the record of a process is about to be written
	StateWritten Point = "state-written" // it has been written
	Forked       Point = "forked"        // a child runs, and nobody has been told
	Ready        Point = "ready"         // a child was found ready, and nobody has been told
	Responding   Point = "responding"    // a challenge is about to be answered
	Responded    Point = "responded"     // it was answered and accepted, and nobody has been told
	LeaderGone   Point = "leader-gone"   // a child has ended, and nobody has been told
	Emptied      Point = "emptied"       // its tree is gone, it is not reaped
	LogCopied    Point = "log-copied"    // the head of a log was copied, and the copy has no name yet
	LogNamed     Point = "log-named"     // the copy has its name, and the head is still there
	Gathering    Point = "gathering"     // a descriptor is about to be put with what the next program gets
	HandingOver  Point = "handing-over"  // the next program is about to be executed
	TakenOver    Point = "taken-over"    // it has taken over, and can still be gone back from
)

// The points of both programs.
const (
	FileWritten Point = "file-written" // a new file is about to take the place of the old one
)

// The points of lanmanager.
const (
	PortChecked Point = "port-checked" // a port was tried, and nobody has been told
)

// Points are those of agentd and those of lanmanager.
func Points() (agentd, lanmanager []Point) {
	return []Point{Adopting, StateWrite, StateWritten, Forked, Ready, Responding, Responded, LeaderGone, Emptied,
			LogCopied, LogNamed, Gathering, HandingOver, TakenOver, FileWritten},
		[]Point{FileWritten, PortChecked}
}

// Rare tells whether a program comes to a point once in a while only.
func (p Point) Rare() bool {
	return p == LogCopied || p == LogNamed || p == Gathering || p == HandingOver || p == TakenOver
}

// Fails tells whether a program has an answer to a failure at the point; at the
// others it can only be killed and held up.
func (p Point) Fails() bool {
	return p == StateWrite || p == FileWritten || p == Gathering || p == HandingOver
}
