// Package server is the gRPC front of the agent: it takes the socket, finds out
// who calls, decides what that caller may do, and turns calls into methods of
// the agent and the agent's answers and errors into messages (design section 5).
//
// It decides nothing about processes, ports or needs: that is agent's. A Server
// owns its connections and every goroutine behind them; Serve returns when all
// have ended. Only cmd and whole-way tests may import this package.
package server

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/allexgo/machine-agent/agent"
	"github.com/allexgo/machine-agent/agent/journal"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// Agent is what the server needs of the agent. All methods are safe for
// concurrent use and return soon after ctx ends. Errors that the caller can act
// on are, or wrap, *agent.Error.
type Agent interface {
	// Owner tells which instance the live process pid belongs to.
	Owner(ctx context.Context, pid int) (agent.Owner, error)
	Roster() uint64 // the answers of Owner stand as long as it is the same

	Register(ctx context.Context, r agent.Registration) (agent.Process, error)
	ReportDown(ctx context.Context, instance, reason string) (agent.Process, error)
	Process(ctx context.Context, instance string) (agent.Process, error)
	Processes(ctx context.Context) (agent.List[agent.Process], error) // ordered by instance
	WatchProcesses(from journal.Start) (*journal.Reader[agent.Process], error)
	Usage(ctx context.Context, instances []string) (map[string]process.Usage, error)
	Stop(ctx context.Context, instance string) (agent.Process, error)
	Start(ctx context.Context, instance string) (agent.Process, error)
	Restart(ctx context.Context, instance string) (agent.Process, error)
	Signal(ctx context.Context, instance, signal string) error
	// TailLogs waits for give as long as it takes.
	TailLogs(ctx context.Context, t agent.Tail, give func(agent.LogPiece) error) error

	Ports(ctx context.Context) ([]agent.PortLease, error) // ordered by port, a port once
	ReservePort(ctx context.Context, r agent.Reservation) (agent.PortLease, error)
	ReleasePort(ctx context.Context, port int, instance string) error
	CheckPort(ctx context.Context, port int) (agent.PortCheck, error)

	Needs(ctx context.Context) (agent.List[agent.NeedDecision], error) // ordered by instance
	WatchNeeds(from journal.Start) (*journal.Reader[agent.NeedDecision], error)
	AddNeed(ctx context.Context, n table.Need) error
	RemoveNeed(ctx context.Context, instance string) error

	Services(ctx context.Context) (agent.List[agent.Service], error) // ordered by instance
	WatchServices(from journal.Start) (*journal.Reader[agent.Service], error)
	ServiceOf(ctx context.Context, instance string) (agent.Service, error)
	Resolve(ctx context.Context, address string, port int) (to string, toPort int, translated bool, err error)

	Status(ctx context.Context) (agent.Status, error)
	Pulse(ctx context.Context) (agent.Status, error) // Status without what is read from files
	Drain(ctx context.Context) (stopping int, err error)
	Resume(ctx context.Context) error
	Modules(ctx context.Context) (all []agent.ModuleState, problem string, err error) // ordered by name
	Reload(ctx context.Context, restart bool) (agent.Change, error)
	SetLogLevel(level string) (before string, err error)
	WatchEvents(from journal.Start) (*journal.Reader[agent.Event], error)
	Shutdown(ctx context.Context) (stopping int, err error)
}

// Upgrader has another program take over in this process.
type Upgrader interface {
	// Upgrade tells the id under which the status of the next agent tells of it,
	// as soon as binary is found good; empty is the one that runs. It has to be
	// ready within that time, 0: the usual one. Errors are, or wrap, *agent.Error.
	Upgrade(ctx context.Context, binary string, within time.Duration) (id string, err error)
}

// Config is what a Server is made of; all fields but Socket must be set.
type Config struct {
	Socket   string // where it listens, for the log
	Agent    Agent
	Upgrader Upgrader
	Logger   hclog.Logger
	AgentUID int // the user that may do all besides root; -1 where there are no uids
}

const (
	callLimit      = 30 * time.Second // a unary call but Upgrade never takes longer
	upgradeLimit   = 11 * time.Minute // nor does Upgrade: readyLimit, and what comes after the check
	stopLimit      = 3 * time.Second  // for calls in flight when the server leaves
	handshakeLimit = 10 * time.Second // from connect to the first HTTP/2 frames
	requestLimit   = 1 << 20          // bytes; the largest request is AddNeed with its property hash
	streamLimit    = 100              // calls at a time on one connection
	bufferSize     = 8 << 10          // bytes a connection and direction: there may be a connection a child
)

// Server answers the calls of machineagent.v1, health and reflection.
type Server struct {
	config  Config
	log     hclog.Logger
	door    *door
	grpc    *grpc.Server
	leaving chan struct{} // closed when the server begins to leave
	streams atomic.Int64  // streaming calls under way
	grace   time.Duration

	watches  watches
	patience time.Duration // with a caller of a watch who does not read
	silence  time.Duration // on a watch, until it says so
}

// New makes a Server; Serve starts it.
func New(c Config) *Server {
	s := &Server{config: c, log: c.Logger, door: newDoor(c.Logger), leaving: make(chan struct{}), grace: stopLimit, patience: takeLimit, silence: bookmarkPeriod}
	s.grpc = grpc.NewServer(
		grpc.Creds(s.door),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(requestLimit),
		grpc.MaxConcurrentStreams(streamLimit),
		grpc.ConnectionTimeout(handshakeLimit),
		grpc.ReadBufferSize(bufferSize),
		grpc.WriteBufferSize(bufferSize),
		grpc.SharedWriteBuffer(true),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: 10 * time.Second, PermitWithoutStream: true,
		}),
	)
	pb.RegisterProcessServiceServer(s.grpc, &processService{server: s})
	pb.RegisterPortServiceServer(s.grpc, &portService{server: s})
	pb.RegisterNeedServiceServer(s.grpc, &needService{server: s})
	pb.RegisterDirectoryServiceServer(s.grpc, &directoryService{server: s})
	pb.RegisterAgentServiceServer(s.grpc, &agentService{server: s})
	grpc_health_v1.RegisterHealthServer(s.grpc, &healthService{server: s})
	reflection.Register(s.grpc)
	return s
}

// Serve answers callers of l until ctx ends; it closes l, which removes the
// socket. It may be called once. The end, in this order: health says
// NOT_SERVING, watches tell what there is and end, no connection is accepted any
// more, calls in flight get three seconds, what is left is cut. An error means
// that l failed.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(l) }()
	s.log.Info("serving", "socket", s.config.Socket)

	var err error
	select {
	case <-ctx.Done():
		if kept, ok := l.(interface{ park() }); ok {
			kept.park()
		}
		s.stop()
		<-served // ErrServerStopped, or nil: we did that
	case err = <-served:
		s.stop()
	}
	return err
}

// stop ends the server, gracefully as long as its callers let it.
func (s *Server) stop() {
	close(s.leaving)
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		s.grpc.GracefulStop()
	}()
	deadline := time.NewTimer(s.grace)
	defer deadline.Stop()
	select {
	case <-graceful:
	case <-deadline.C:
		s.log.Warn("callers did not finish in time; cutting them off", "after", s.grace)
		// Also connections on which nothing was ever said, for which
		// grpc.Server.Stop would wait out the handshake limit.
		s.door.shut()
		s.grpc.Stop()
		<-graceful
	}
	s.watches.senders.Wait()
}

// Connections is how many connections of callers are open.
func (s *Server) Connections() int { return s.door.count() }

// Streams is how many streaming calls, such as watches, are under way.
func (s *Server) Streams() int { return int(s.streams.Load()) }

// left tells whether the server is leaving.
func (s *Server) left() bool {
	select {
	case <-s.leaving:
		return true
	default:
		return false
	}
}
