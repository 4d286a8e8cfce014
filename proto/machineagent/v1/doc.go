// Package machineagentv1 is what can be asked of a machine agent: the messages
// and services of the .proto files beside it, as generated code. Its comments
// are the contract; docs and clients in other languages come from the same
// files.
package machineagentv1
