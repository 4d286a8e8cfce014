package server

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/allexgo/machine-agent/agent"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// Every value of the API's enumerations is some value of the agent's, and of one
// only.
func TestEnumerationsAreComplete(t *testing.T) {
	covers(t, states)
	covers(t, places)
	covers(t, origins)
	covers(t, lanManagers)
	covers(t, protocols)
	covers(t, portStates)
	covers(t, decisions)
}

func covers[A ~int, P interface {
	protoreflect.Enum
	comparable
}](t *testing.T, m map[A]P) {
	t.Helper()
	seen := map[protoreflect.EnumNumber]A{}
	var values protoreflect.EnumValueDescriptors
	for a, p := range m {
		if b, twice := seen[p.Number()]; twice {
			t.Errorf("%v and %v are both %v", a, b, p)
		}
		seen[p.Number()] = a
		values = p.Descriptor().Values()
	}
	for i := range values.Len() {
		v := values.Get(i)
		if _, ok := seen[v.Number()]; !ok && v.Number() != 0 {
			t.Errorf("nothing becomes %s", v.Name())
		}
	}
	if len(seen) != values.Len()-1 {
		t.Errorf("%d values become %d", len(seen), values.Len()-1)
	}
	// The agent's values are numbered from 1, so a new one shows here.
	for a := A(1); int(a) <= len(m); a++ {
		if _, ok := m[a]; !ok {
			t.Errorf("%v becomes nothing", a)
		}
	}
}

func TestExitMessage(t *testing.T) {
	for _, test := range []struct {
		exit *process.Exit
		want *pb.ExitStatus
	}{
		{nil, nil},
		{&process.Exit{}, &pb.ExitStatus{Status: &pb.ExitStatus_Code{}}},
		{&process.Exit{Code: 3}, &pb.ExitStatus{Status: &pb.ExitStatus_Code{Code: 3}}},
		{&process.Exit{Signal: "SIGKILL"}, &pb.ExitStatus{Status: &pb.ExitStatus_Signal{Signal: "SIGKILL"}}},
		{&process.Exit{Unknown: true}, &pb.ExitStatus{Status: &pb.ExitStatus_Unknown{Unknown: true}}},
	} {
		if diff := cmp.Diff(test.want, exitMessage(test.exit), protocmp.Transform()); diff != "" {
			t.Errorf("%v (-want +got)\n%s", test.exit, diff)
		}
	}
}

func TestPropertyHash(t *testing.T) {
	for hash, want := range map[string]bool{
		`{"a":[1,{"b":null}]}`: true, `{}`: true,
		``: false, `null`: false, `[]`: false, `"x"`: false, `{"a":`: false, `{"a":1e999}`: false,
		strings.Repeat(`{"a":`, 20000) + "1" + strings.Repeat("}", 20000): false,
	} {
		d := agent.NeedDecision{Need: table.Need{InstanceName: "n", PropertyHash: json.RawMessage(hash)}}
		if got := decisionMessage(d, true).GetNeed().GetPropertyHash() != nil; got != want {
			t.Errorf("%.40q is shown: %v", hash, got)
		}
		if decisionMessage(d, false).GetNeed().GetPropertyHash() != nil {
			t.Errorf("%.40q is shown to anyone", hash)
		}
	}
}
