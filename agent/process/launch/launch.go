// Package launch is what happens between fork and exec where Go's fork has no
// hook: cmd/agentexec sets limits and identity of itself and then becomes the
// command, in the same process. Package process writes an Order, agentexec
// carries it out.
//
// It uses the standard library only, so that agentexec is small and quick. Only
// process and cmd/agentexec import it.
package launch

import "encoding/json"

// Order is what to do before the command runs.
type Order struct {
	Resources map[string]Resource `json:"resources,omitempty"` // by the names of Resources
	Nice      *int                `json:"nice,omitempty"`
	Umask     *int                `json:"umask,omitempty"`
	OOMScore  *int                `json:"oomscore,omitempty"` // /proc/self/oom_score_adj
	User      *User               `json:"user,omitempty"`
	// Sockets are the names of the descriptors from 3 on, which the command gets
	// as sd_listen_fds(3) describes.
	Sockets []string `json:"sockets,omitempty"`
	// Executable is the descriptor of the executable; 0: the command names it.
	Executable int `json:"executable,omitempty"`
	// Status is the descriptor on which a failure is told. It is closed by the
	// beginning of the command.
	Status int `json:"status"`
}

// Resource is a limit of the kernel (setrlimit(2)).
type Resource struct {
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// Infinity is the Resource that is none.
const Infinity = ^uint64(0)

// User is the account that the command runs as.
type User struct {
	UID    int   `json:"uid"`
	GID    int   `json:"gid"`
	Groups []int `json:"groups"`
}

// Args is the command line with which agentexec, whose path is launcher, carries
// out the order and becomes the command argv.
func (o Order) Args(argv []string) []string {
	text, err := json.Marshal(o)
	if err != nil {
		panic("launch: an order that is no JSON: " + err.Error())
	}
	return append([]string{"agentexec", string(text)}, argv...)
}

// Resources are the names of the limits that there are, as prlimit(1) has them, but
// for cputime, which is cpu there; those of priorities are left to Nice.
func Resources() []string {
	return []string{"as", "core", "cputime", "data", "fsize", "locks", "memlock", "msgqueue",
		"nofile", "nproc", "rss", "rttime", "sigpending", "stack"}
}
