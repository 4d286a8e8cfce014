package lanmanager

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// blackHole is a port that neither accepts nor refuses: the queue of its
// listener is full, so the system drops what asks for more.
func blackHole(t *testing.T) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := name.(*syscall.SockaddrInet4).Port
	for range 8 {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 250*time.Millisecond)
		if err != nil {
			return port
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("the queue of the listener does not fill")
	return 0
}

func TestBlackHoledPortHoldsUpNobodyElse(t *testing.T) {
	lan := start(t, Config{}, needs("A", "B"))
	a := lan.agent("1", "127.0.0.1")
	hole, good := blackHole(t), listener(t)
	stuck := a.on("A")
	ticket := a.bid(stuck)
	began := time.Now()
	id := a.begin(stuck, "!", "respond", ticket, map[string]int{"pid": 1, "tcpport": hole, "httpport": hole, "wsport": good})
	if got := a.value(stuck, "!", "respond", ticket, map[string]int{"pid": 1, "tcpport": good}); got != "RESPONSE_PENDING" {
		t.Errorf("second response during the check of the first: %s", got)
	}
	a.serve(a.needs, "B", good)
	if strings.Contains(a.String(), `["r","`+id+`"`) {
		t.Error("another need of the same agent was served only after the check of the black-holed ports")
	}
	if got := a.answer(id); got.Code != "" { // the third port accepts
		t.Errorf("response behind a black hole: %s", got.AppendJSON(nil))
	}
	if took := time.Since(began); took < 2*connectTimeout {
		t.Errorf("the black-holed ports were given up after %s, want %s", took, 2*connectTimeout)
	}
}

// However many responses of two parties wait at one black hole, a third party is
// served meanwhile, also at the same address, and what is under way is bounded.
func TestBlackHoleOfTwoPartiesHoldsUpNobodyElse(t *testing.T) {
	const each = 3 * checksOfParty
	lan := start(t, Config{}, manyNeeds(2*each+1))
	hole, good := blackHole(t), listener(t)
	var last []string
	stuck := [2]*agent{lan.agent("1", "127.0.0.1"), lan.agent("2", "127.0.0.2")}
	for i, a := range stuck {
		for j := range each {
			n := a.on(fmt.Sprint("n", i*each+j))
			last = append(last, a.begin(n, "!", "respond", a.bid(n),
				map[string]any{"pid": 1, "tcpport": hole, "httpport": hole, "ipaddress": "127.0.0.1"}))
		}
		a.value(a.lan, ".", "notifyModuleEngaged", "m") // so all are in
	}
	count := func() (running, waiting int) {
		if err := lan.m.crew.ask(t.Context(), func() {
			running = lan.m.lan.checks.running
			for _, p := range lan.m.lan.parties {
				waiting += len(p.checks.waiting)
			}
		}); err != nil {
			t.Fatal(err)
		}
		return running, waiting
	}
	if running, waiting := count(); running > 2*checksOfParty || running+waiting == 0 {
		t.Errorf("%d checks run and %d wait", running, waiting)
	}
	lan.agent("3", "127.0.0.1").serveAll(good, fmt.Sprint("n", 2*each))
	if running, waiting := count(); running+waiting == 0 {
		t.Error("the third party was served only after the checks of the black hole")
	}
	stuck[0].conn.Close() // what it waits for need not be tried any more
	stuck[0].gone()
	if got := stuck[1].answer(last[len(last)-1]); got.Code != noPortsReachable {
		t.Errorf("response at a black hole: %s", got.AppendJSON(nil))
	}
}
