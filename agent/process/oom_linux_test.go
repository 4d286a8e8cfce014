package process

import "testing"

func TestParseVictim(t *testing.T) {
	for record, want := range map[string]victim{
		"3,434,3885292144,-;Memory cgroup out of memory: Killed process 1607 (e2e.test) total-vm:2048236kB, anon-rss:132864kB\n": {1607, true},
		"3,9,1,-;Out of memory: Killed process 12 (a b) total-vm:1kB\n SUBSYSTEM=x\n":                                            {12, false},
		"3,9,1,-;Out of memory: Killed process ":                                                                                 {},
		"6,433,3885292095,-;oom-kill:constraint=CONSTRAINT_MEMCG,task=e2e.test,pid=1607,uid=0":                                   {},
		"": {},
	} {
		got, ok := parseVictim([]byte(record))
		if ok != (want.pid != 0) || ok && got != want {
			t.Errorf("%q: got %v, %v", record, got, ok)
		}
	}
}

// Who was killed by somebody else was not ended for want of memory, nor does anybody
// know it who can not read the log.
func TestKernelLog(t *testing.T) {
	l, err := OpenKernelLog()
	if err != nil {
		t.Log(err)
	}
	defer l.Close()
	if said := l.OutOfMemory(1); said != "" {
		t.Errorf("of the first process it is said that %s", said)
	}
}
