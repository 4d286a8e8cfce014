package server

import (
	"context"
	"fmt"
	"path"
	"strconv"

	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/allexgo/machine-agent/agent"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// class is what a caller is to the agent. A caller inside one of the agent's
// processes is a child first, whatever its uid: among equal uids that guards
// against mistakes, not against malice.
type class int

const (
	anyone   class = iota // on this machine
	child                 // part of one of the agent's processes
	operator              // root, the agent's own user, or a child whose module says so
)

// reach is how far a right goes.
type reach int

const (
	nothing reach = iota
	itself        // only what concerns the caller's own process
	public        // everything that is not private (property hashes)
	full
)

// rights says who may do what (design section 5): method -> how far anyone, a
// child and an operator may go. What is not in it, nobody may call.
var rights = map[string][3]reach{
	// Whether anyone may really register is decided by the agent, which knows
	// the module's "outside" users.
	pb.ProcessService_RegisterProcess_FullMethodName: {anyone: itself, child: itself, operator: full},
	pb.ProcessService_ReportDown_FullMethodName:      {anyone: nothing, child: itself, operator: full},
	pb.ProcessService_GetProcess_FullMethodName:      {anyone: full, child: full, operator: full},
	pb.ProcessService_ListProcesses_FullMethodName:   {anyone: full, child: full, operator: full},
	pb.ProcessService_WatchProcesses_FullMethodName:  {anyone: full, child: full, operator: full},
	pb.ProcessService_StopProcess_FullMethodName:     {anyone: nothing, child: nothing, operator: full},
	pb.ProcessService_StartProcess_FullMethodName:    {anyone: nothing, child: nothing, operator: full},
	pb.ProcessService_RestartProcess_FullMethodName:  {anyone: nothing, child: nothing, operator: full},
	pb.ProcessService_SignalProcess_FullMethodName:   {anyone: nothing, child: nothing, operator: full},
	pb.ProcessService_TailLogs_FullMethodName:        {anyone: nothing, child: itself, operator: full},

	pb.PortService_ListPorts_FullMethodName:   {anyone: full, child: full, operator: full},
	pb.PortService_ReservePort_FullMethodName: {anyone: nothing, child: itself, operator: full},
	pb.PortService_ReleasePort_FullMethodName: {anyone: nothing, child: itself, operator: full},
	pb.PortService_CheckPort_FullMethodName:   {anyone: full, child: full, operator: full},

	pb.NeedService_ListNeeds_FullMethodName:  {anyone: public, child: full, operator: full},
	pb.NeedService_WatchNeeds_FullMethodName: {anyone: public, child: full, operator: full},
	pb.NeedService_AddNeed_FullMethodName:    {anyone: nothing, child: full, operator: full},
	pb.NeedService_RemoveNeed_FullMethodName: {anyone: nothing, child: nothing, operator: full},

	pb.DirectoryService_ListServices_FullMethodName:   {anyone: public, child: full, operator: full},
	pb.DirectoryService_WatchServices_FullMethodName:  {anyone: public, child: full, operator: full},
	pb.DirectoryService_FindService_FullMethodName:    {anyone: public, child: full, operator: full},
	pb.DirectoryService_ResolveAddress_FullMethodName: {anyone: full, child: full, operator: full},

	pb.AgentService_GetStatus_FullMethodName:   {anyone: full, child: full, operator: full},
	pb.AgentService_ListModules_FullMethodName: {anyone: public, child: public, operator: full},
	pb.AgentService_Reload_FullMethodName:      {anyone: nothing, child: nothing, operator: full},
	pb.AgentService_SetLogLevel_FullMethodName: {anyone: nothing, child: nothing, operator: full},
	pb.AgentService_WatchEvents_FullMethodName: {anyone: full, child: full, operator: full},
	pb.AgentService_Drain_FullMethodName:       {anyone: nothing, child: nothing, operator: full},
	pb.AgentService_Resume_FullMethodName:      {anyone: nothing, child: nothing, operator: full},
	pb.AgentService_Shutdown_FullMethodName:    {anyone: nothing, child: nothing, operator: full},
	pb.AgentService_Upgrade_FullMethodName:     {anyone: nothing, child: nothing, operator: full},

	grpc_health_v1.Health_Check_FullMethodName: {anyone: full, child: full, operator: full},
	grpc_health_v1.Health_List_FullMethodName:  {anyone: full, child: full, operator: full},
	grpc_health_v1.Health_Watch_FullMethodName: {anyone: full, child: full, operator: full},

	reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName:      {anyone: full, child: full, operator: full},
	reflectionv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName: {anyone: full, child: full, operator: full},
}

// grant is what one call may do, and for whom. Of a method that everyone may
// call in full, class and owner are not looked up.
type grant struct {
	caller *caller
	owner  agent.Owner
	class  class
	reach  reach
}

type grantKey struct{}

// grantOf is the grant of the call that ctx belongs to.
func grantOf(ctx context.Context) grant {
	g, _ := ctx.Value(grantKey{}).(*grant)
	if g == nil {
		return grant{caller: &caller{uid: -1}} // may do nothing
	}
	return *g
}

// admit decides on a call before its request is looked at; the context that it
// returns carries the grant.
func (s *Server) admit(ctx context.Context, method string) (context.Context, error) {
	c, err := callerOf(ctx)
	if err != nil {
		return ctx, err
	}
	if err := c.alive(); err != nil {
		return ctx, err
	}
	g := &grant{caller: c, reach: full}
	if right := rights[method]; right[anyone] != full {
		if g.owner, err = s.owner(ctx, c); err != nil {
			return ctx, err
		}
		g.class = s.classify(c, g.owner)
		g.reach = right[g.class]
	}
	if g.reach == nothing {
		return ctx, g.refuse(path.Base(method))
	}
	return context.WithValue(ctx, grantKey{}, g), nil
}

// classify tells what a caller is that belongs to owner.
func (s *Server) classify(c *caller, owner agent.Owner) class {
	switch {
	case owner.Operator:
		return operator
	case owner.Instance != "":
		return child
	case c.trusted, c.uid == 0, c.uid >= 0 && c.uid == s.config.AgentUID:
		return operator
	}
	return anyone
}

// refuse says that the caller may not call method at all.
func (g *grant) refuse(method string) error {
	if g.class == child {
		return denied(g.caller, g.owner.Instance, `instance %q may not call %s: what the agent runs is a child first, whatever its uid (%s); `+
			`call from outside of it, or have its module say "operator": true`, g.owner.Instance, method, g.caller.user())
	}
	return denied(g.caller, "", `%s may not call %s: that is for root and the agent's own user; `+
		`call as one of these, or from a module that says "operator": true`, g.caller.user(), method)
}

// own is an error if the caller may deal only with itself and names another
// instance. For one that is not a child, a name says nothing yet.
func (g grant) own(verb, instance string) error {
	if g.class != child || instance == "" || instance == g.owner.Instance {
		return nil
	}
	return denied(g.caller, g.owner.Instance, "instance %q may %s only itself, not %q; "+
		"leave instance out, or call as root or the agent's own user from outside of it", g.owner.Instance, verb, instance)
}

// denied is the error for what a caller may not do; instance is that of a child.
func denied(c *caller, instance, format string, args ...any) error {
	e := &agent.Error{Kind: agent.Denied, Reason: agent.CallerNotAllowed,
		Message:  fmt.Sprintf(format, args...),
		Metadata: map[string]string{"uid": strconv.Itoa(c.uid)}}
	if instance != "" {
		e.Metadata["instance"] = instance
	}
	return e
}
