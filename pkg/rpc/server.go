// Package rpc makes gRPC servers and clients that behave alike: who calls is known, every call has a deadline, every
// message is validated, a refusal arrives as the failure it is, an accident as Internal without its text, and a panic
// harms one call alone.
//
// Services find each other by name (Network): in one process over memory, apart over TCP, with the same stubs.
package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/telemetry"
)

// MaxMessage is the largest message either side sends or takes, in bytes: an inline document of 5 MiB in base64 fits
// (decisions 20).
const MaxMessage = 8 << 20

// Defaults of Options and DialOptions.
const (
	DefaultDeadline       = 10 * time.Second
	DefaultStreamDeadline = time.Hour
	DefaultDrain          = 15 * time.Second
)

// workers answer calls one after the other, so that their stacks have grown already; beyond so many at once, a call gets a
// goroutine of its own.
const workers = 64

// window is how many bytes may be on their way between our services. gRPC would find a size out by a ping with every other call, which
// is for lines that are long; and a reader that stands still soon stops its writer.
const window = 64 << 10

// Options say how a server behaves. Auth is required; everything else has a default.
type Options struct {
	Auth      auth.Authenticator   // who calls; without one every call is refused
	Telemetry *telemetry.Telemetry // nil = telemetry.Nop
	TLS       *tls.Config          // nil = plain text, for memory and loopback

	Deadline       time.Duration // of a call whose caller set none; 0 = DefaultDeadline
	StreamDeadline time.Duration // of a stream whose caller set none; 0 = DefaultStreamDeadline
	Drain          time.Duration // how long running calls may take after the stop; 0 = DefaultDrain

	// Scopes names the scope that a caller other than an internal service needs for a method, by "/package.Service/Method"
	// or "/package.Service/" for all of a service. With it, a method without an entry is refused to them. nil = every
	// authenticated caller may call everything, as befits a listener that only services reach.
	Scopes map[string]string

	// Admit refuses a call of the context's caller, such as one too many; internal services are not asked. nil = all may come.
	Admit func(context.Context) error

	Public     bool // a listener for platforms: their trace is linked to, not continued
	Reflection bool // answer grpcurl and the like; not in production
}

// Server is a gRPC server with health. Register services on it, then Serve.
type Server struct {
	*grpc.Server
	Health *health.Server // set a service's own status; the empty name is the whole server, serving from the start

	drain      time.Duration
	cutStreams context.CancelCauseFunc
}

// NewServer makes a server. The error names the option that is wrong.
func NewServer(o Options) (*Server, error) {
	if o.Auth == nil {
		return nil, errors.New("rpc: Options.Auth is not set: nobody could call")
	}
	if o.Deadline < 0 || o.StreamDeadline < 0 || o.Drain < 0 {
		return nil, errors.New("rpc: a negative duration in Options")
	}
	o.defaults()
	validator, err := NewValidator()
	if err != nil {
		return nil, err
	}
	streams, cut := context.WithCancelCause(context.Background())
	s := &Server{Health: health.NewServer(), drain: o.Drain, cutStreams: cut}
	traced, err := newTracing(o.Telemetry, o.Public)
	if err != nil {
		return nil, fmt.Errorf("rpc: make the durations of calls: %w", err)
	}
	e := &edge{options: o, log: o.Telemetry.Log, tracing: traced, validator: validator, draining: streams}
	options := []grpc.ServerOption{
		grpc.NumStreamWorkers(workers),
		grpc.UnaryInterceptor(e.unary),
		grpc.ChainStreamInterceptor(e.followStream, e.mapStream, e.deadlineStream, auth.StreamServer(o.Auth), e.admitStream),
		grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage),
		grpc.MaxConcurrentStreams(1024), grpc.ConnectionTimeout(10 * time.Second), grpc.MaxHeaderListSize(16 << 10),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
	}
	if !o.Public {
		options = append(options, grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window))
	}
	if o.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(o.TLS)))
	}
	s.Server = grpc.NewServer(options...)
	healthv1.RegisterHealthServer(s.Server, s.Health)
	if o.Reflection {
		reflection.Register(s.Server)
	}
	return s, nil
}

func (o *Options) defaults() {
	if o.Telemetry == nil {
		o.Telemetry = telemetry.Nop()
	}
	if o.Deadline == 0 {
		o.Deadline = DefaultDeadline
	}
	if o.StreamDeadline == 0 {
		o.StreamDeadline = DefaultStreamDeadline
	}
	if o.Drain == 0 {
		o.Drain = DefaultDrain
	}
}

// Serve takes calls on every listener until ctx ends, then drains: health turns to not serving, no new call is taken,
// running calls may end. Streams are cut after a third of the drain time, everything after all of it. It closes the
// listeners, and returns nil after a drain. Serve once.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { ended <- s.Server.Serve(l) }()
	}
	running := len(listeners)
	var failed error
	select {
	case <-ctx.Done():
	case err := <-ended:
		running--
		failed = fmt.Errorf("rpc: serve: %w", errors.Join(err, errEnded))
	}
	s.stop()
	for ; running > 0; running-- {
		<-ended //nolint:errcheck // after the stop every listener ends with the same word
	}
	return failed
}

var errEnded = errors.New("the listener ended before the server was stopped")

func (s *Server) stop() {
	s.Health.Shutdown()
	cut := time.AfterFunc(s.drain/3, func() { s.cutStreams(errDraining) })
	defer cut.Stop()
	end := time.AfterFunc(s.drain, s.Stop)
	defer end.Stop()
	s.GracefulStop()
	s.cutStreams(errDraining)
}

// edge holds what the interceptors need.
type edge struct {
	options   Options
	log       *slog.Logger
	tracing   *tracing
	validator *Validator
	draining  context.Context //nolint:containedctx // ends with the server, not with a call
}
