//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// process is a running program as the system sees it, by its pid. What can not
// be read is 0.
type process int

func (p process) file(name string) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p, name))
	return string(text)
}

// field is the number behind a key of such a file.
func (p process) field(file, key string) int {
	for line := range strings.Lines(p.file(file)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(value)[0])
			return n
		}
	}
	return 0
}

func (p process) threads() int { return p.field("status", "Threads") }

// pss is the proportional share of memory, rss what is resident, and peak the
// most that ever was, in MiB.
func (p process) pss() float64  { return float64(p.field("smaps_rollup", "Pss")) / 1024 }
func (p process) rss() float64  { return float64(p.field("status", "VmRSS")) / 1024 }
func (p process) peak() float64 { return float64(p.field("status", "VmHWM")) / 1024 }

// cpu is the processor time that the threads have used.
func (p process) cpu() time.Duration {
	var sum time.Duration
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		if fields := strings.Fields(string(text)); len(fields) > 0 {
			ns, _ := strconv.ParseInt(fields[0], 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum
}
