//go:build linux

package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// Every call can be made by hand, and answers with what it is for.
func TestEveryCallByHand(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	_, _, a := s.serving(1)
	s.settled(a, 1)
	nap := exec.Command("sleep", "1000")
	s.must(nap.Start())
	t.Cleanup(func() { _ = nap.Process.Kill(); _ = nap.Wait() }) // it may have ended
	pid := nap.Process.Pid
	port, err := s.lab.Ports(1)
	s.must(err)

	made := map[string]bool{}
	// call makes a call, which has to say all of these.
	call := func(method, request string, says ...string) {
		t.Helper()
		made[method] = true
		command := fmt.Sprintf("grpcurl -plaintext -unix -d '%s' %s machineagent.v1.%s 2>&1 || true\n", request, a.Socket, method)
		if strings.Contains(method, "/Watch") { // which does not end by itself
			command = strings.Replace(command, "2>&1 || true", ">$W 2>&1 & until grep -q -e initialEnd -e ERROR $W; do sleep 0.05; done; kill $! || true; cat $W", 1)
			command = strings.ReplaceAll(command, "$W", filepath.Join(s.lab.Dir, "watched"))
		}
		answer := s.shell(s.lab.Bin, []string{command})[0]
		for _, want := range says {
			if !strings.Contains(answer, want) {
				t.Errorf("%s %s does not say %q:\n%s", method, request, want, answer)
			}
		}
	}
	const hello = `{"instance": "hello-0"}`

	call("ProcessService/RegisterProcess", fmt.Sprintf(`{"instance": "Nap", "pid": %d}`, pid), `"pid": `+strconv.Itoa(pid))
	call("ProcessService/GetProcess", hello, `"state": "PROCESS_STATE_READY"`, `"place": "PROCESS_PLACE_SERVED"`)
	call("ProcessService/ListProcesses", "{}", `"instance": "hello-0"`, `"instance": "Nap"`, `"epoch": "`)
	call("ProcessService/WatchProcesses", hello, `"instance": "hello-0"`, `"initialEnd": {`)
	call("ProcessService/TailLogs", hello, `"data": "`)
	call("NeedService/ListNeeds", "{}", `"DECISION_SERVED_HERE"`, `"revision": "`)
	call("NeedService/WatchNeeds", "{}", `"DECISION_SERVED_HERE"`, `"initialEnd": {`)
	call("DirectoryService/ListServices", "{}", `"instance": "hello-0"`, `"servedHere": true`)
	call("DirectoryService/WatchServices", "{}", `"servedHere": true`, `"initialEnd": {`)
	call("DirectoryService/FindService", hello, `"servedHere": true`)
	call("DirectoryService/FindService", `{"module": "hello"}`, `"instance": "hello-0"`)
	call("DirectoryService/FindService", `{"module": "nobodys"}`, "{}")
	call("DirectoryService/FindService", `{"instance": "nobody"}`, "Code: NotFound", `"reason": "SERVICE_NOT_FOUND"`)
	call("DirectoryService/FindService", "{}", "Code: InvalidArgument")
	call("DirectoryService/ResolveAddress", `{"ip_address": "192.168.1.1", "port": 12345}`, `"ipAddress": "1.2.3.4"`, `"port": 80`, `"translated": true`)
	call("DirectoryService/ResolveAddress", `{"ip_address": "192.168.1.1", "port": 1}`, `"ipAddress": "192.168.1.1"`, `"port": 1`)
	call("AgentService/GetStatus", "{}", `"connected": true`)
	call("AgentService/WatchEvents", "{}", `"EVENT_KIND_LINK_UP"`, `"EVENT_KIND_PROCESS_STARTED"`, `"initialEnd": {`)
	call("AgentService/ListModules", "{}", `"name": "hello"`, `"processes": 1`, `"ready": "port"`)
	call("AgentService/SetLogLevel", `{"level": "debug"}`, `"before": "info"`)
	call("AgentService/SetLogLevel", `{"level": "loud"}`, "Code: InvalidArgument", `"field": "level"`)

	reserve := fmt.Sprintf(`{"protocol": "PROTOCOL_HTTP", "port": %d, "pid": %d}`, port, pid)
	number := fmt.Sprintf(`{"port": %d}`, port)
	call("PortService/CheckPort", number, `"free": true`)
	call("PortService/ReservePort", reserve, `"port": `+strconv.Itoa(port), `"pid": `+strconv.Itoa(pid), `"PORT_STATE_RESERVED"`)
	call("PortService/ReservePort", reserve, "Code: FailedPrecondition", `"reason": "PORT_TAKEN"`)
	call("PortService/CheckPort", number, `"pid": `+strconv.Itoa(pid), `"detail": "leased to (pid `+strconv.Itoa(pid)+`)"`)
	call("PortService/ListPorts", "{}", `"port": `+strconv.Itoa(port), `"instance": "hello-0"`)
	call("PortService/ReleasePort", number, "{}")
	call("PortService/ReleasePort", number, "Code: NotFound", `"reason": "PORT_NOT_RESERVED"`)
	call("PortService/CheckPort", number, `"free": true`)
	call("PortService/ReservePort", reserve, `"PORT_STATE_RESERVED"`)

	s.must(lab.WriteJSON(filepath.Join(a.Directory, "modules", "hello.json"), s.hello()))
	call("AgentService/Reload", "{}", `"modulesUnchanged": [`, `"hello"`, `"modulesUnchangedCount": 1`)
	call("NeedService/AddNeed", `{"need": {"instance": "late", "module": "late"}}`, "{}")
	s.decided(a, "late", pb.Decision_DECISION_NOT_CATALOGUED)
	call("NeedService/RemoveNeed", `{"instance": "late"}`, "{}")
	call("ProcessService/SignalProcess", `{"instance": "hello-0", "signal": "SIGCONT"}`, "{}")
	call("ProcessService/RestartProcess", hello, `"PROCESS_STATE_STOPPING"`)
	call("ProcessService/StopProcess", hello, `"held": true`)
	call("ProcessService/StartProcess", hello, `"instance": "hello-0"`)
	call("AgentService/Drain", "{}", "{")
	call("AgentService/Resume", "{}", "{}")

	// The port comes back with the end of the process that had it.
	call("ProcessService/ReportDown", `{"instance": "Nap"}`, `"PROCESS_STATE_STOPPING"`)
	s.until(func() string {
		c, err := a.Client.Ports.CheckPort(s.ctx, &pb.CheckPortRequest{Port: int32(port)})
		s.must(err)
		if c.Free {
			return ""
		}
		return "the port is " + c.String()
	})
	call("AgentService/Upgrade", `{"binary": "/bin/true"}`, `"reason": "UPGRADE_REFUSED"`)
	call("AgentService/Shutdown", "{}", "{")
	<-a.Ended()

	for _, service := range []grpc.ServiceDesc{
		pb.ProcessService_ServiceDesc, pb.AgentService_ServiceDesc, pb.NeedService_ServiceDesc, pb.PortService_ServiceDesc, pb.DirectoryService_ServiceDesc,
	} {
		name := strings.TrimPrefix(service.ServiceName, "machineagent.v1.")
		for _, m := range service.Methods {
			if !made[name+"/"+m.MethodName] {
				t.Errorf("%s/%s was not called", name, m.MethodName)
			}
		}
		for _, m := range service.Streams {
			if !made[name+"/"+m.StreamName] {
				t.Errorf("%s/%s was not called", name, m.StreamName)
			}
		}
	}
}
