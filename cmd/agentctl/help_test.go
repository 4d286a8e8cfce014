//go:build !windows

package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// explained matches a word that a help explains in a line of its own.
var explained = regexp.MustCompile(`(?m)^  ([A-Z_]+)  `)

// A help that explains the words of a column explains all that can be there, and no
// others.
func TestHelpExplainsEveryWord(t *testing.T) {
	columns := map[string][]protoreflect.EnumDescriptor{
		"needs": {pb.Decision(0).Descriptor()},
		"ps":    {pb.ProcessState(0).Descriptor(), pb.ProcessPlace(0).Descriptor()},
		"ports": {pb.PortState(0).Descriptor(), pb.PortListener(0).Descriptor()},
	}
	for _, cmd := range (&commandLine{}).root().Commands() {
		var got, want []string
		for _, word := range explained.FindAllStringSubmatch(cmd.Long, -1) {
			if !slices.Contains(usageHead, word[1]) {
				got = append(got, word[1])
			}
		}
		for _, enum := range columns[cmd.Name()] {
			values := enum.Values()
			prefix := strings.TrimSuffix(string(values.Get(0).Name()), "UNSPECIFIED")
			for i := 1; i < values.Len(); i++ {
				want = append(want, strings.TrimPrefix(string(values.Get(i).Name()), prefix))
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("the help of %s explains\n%q, and there are\n%q", cmd.Name(), got, want)
		}
	}
}
