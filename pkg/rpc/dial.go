package rpc

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/telemetry"
)

// DialOptions say how a client behaves.
type DialOptions struct {
	Self      string               // the name of the service that dials; required to reach one in this process
	Network   *Network             // where names are looked up; nil = targets are addresses alone
	Telemetry *telemetry.Telemetry // nil = telemetry.Nop
	TLS       *tls.Config          // with our certificate, for a service apart; not used over memory
	Plaintext bool                 // reach another machine without TLS all the same
	Deadline  time.Duration        // of a call whose context has none; 0 = DefaultDeadline

	// Retry lists "/package.Service/Method" of reads that may be asked again, up to three times, while the answer is
	// Unavailable. ReadsOf takes them from the contract.
	Retry []string

	OnBehalf bool          // pass on the platform for which a call is made (auth.Outgoing)
	Token    func() string // credentials to send as Authorization: Bearer, but to a service of this process; nil = none
}

// Dial returns a connection to target: a service's name, or host:port. It does not connect yet. A call
// waits, up to its deadline, for a service of this process that has not begun to listen; a service that cannot be reached
// is Unavailable at once. Close it.
func Dial(target string, o DialOptions) (*grpc.ClientConn, error) {
	if o.Telemetry == nil {
		o.Telemetry = telemetry.Nop()
	}
	if o.Deadline == 0 {
		o.Deadline = DefaultDeadline
	}
	transport, err := o.transport(target)
	if err != nil {
		return nil, err
	}
	if o.Token != nil && !o.overMemory(target) {
		transport = append(transport, grpc.WithPerRPCCredentials(bearer{o.Token}))
	}
	c := &caller{deadline: o.Deadline, untold: isName(target) && o.Deadline <= DefaultDeadline, onBehalf: o.OnBehalf, tracer: o.Telemetry.Tracer(scope)}
	options := append(transport,
		grpc.WithUnaryInterceptor(c.unary),
		grpc.WithStreamInterceptor(c.stream),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithDefaultServiceConfig(serviceConfig(o.Retry)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			MinConnectTimeout: 20 * time.Second,
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
		}),
	)
	conn, err := grpc.NewClient("passthrough:///"+target, options...)
	if err != nil {
		return nil, fmt.Errorf("rpc: dial %s: %w", target, err)
	}
	return conn, nil
}

// transport says how bytes get to target: over memory to a name in this process, with TLS or on loopback apart.
func (o DialOptions) transport(target string) ([]grpc.DialOption, error) {
	address := target
	if isName(target) {
		if o.Network == nil {
			return nil, fmt.Errorf("rpc: %q is a name, and there is no Network to look it up in", target)
		}
		if o.overMemory(target) {
			if o.Self == "" {
				return nil, errors.New("rpc: DialOptions.Self is not set: a service in this process asks who calls")
			}
			return []grpc.DialOption{
				grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return o.Network.dial(ctx, o.Self, target) }),
				grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window),
			}, nil
		}
		p, _, _ := o.Network.find(target)
		address = p.address
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("rpc: %q is no address, give host:port: %w", address, err)
	}
	dialer := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address) // gRPC says where
	})
	authority := grpc.WithAuthority(address)
	if o.TLS != nil {
		config := o.TLS.Clone()
		if config.ServerName == "" {
			config.ServerName = host // gRPC would check the certificate against the service's name
		}
		return []grpc.DialOption{dialer, grpc.WithTransportCredentials(credentials.NewTLS(config))}, nil
	}
	if err := auth.CheckListener(address, o.Plaintext); err != nil {
		return nil, fmt.Errorf("rpc: %s is on another machine: give TLS, or allow plain text", address)
	}
	return []grpc.DialOption{dialer, authority, grpc.WithTransportCredentials(insecure.NewCredentials())}, nil
}

// overMemory tells whether target is a service of this process, which knows who dials.
func (o DialOptions) overMemory(target string) bool {
	if !isName(target) || o.Network == nil {
		return false
	}
	p, ok, _ := o.Network.find(target)
	return !ok || p.address == ""
}

// caller makes the calls of a connection.
type caller struct {
	deadline time.Duration
	untold   bool // the default deadline is kept here alone
	onBehalf bool
	tracer   trace.Tracer
}

func (c *caller) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if _, set := ctx.Deadline(); !set {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.deadline)
		defer cancel()
		if c.untold {
			ctx = untold{ctx}
		}
	}
	ctx, more := c.outgoing(ctx, method)
	return next(ctx, method, req, reply, cc, append(slices.Clip(opts), more...)...)
}

// untold ends at its deadline and does not say when that is, so that gRPC sends no header for it. Our servers have the same default of
// their own, and hear of a caller who leaves sooner; a header that is new in every call costs both sides more than all others, which
// HPACK refers to by a number (docs/performance.md).
type untold struct{ context.Context } //nolint:containedctx // it is a context

func (untold) Deadline() (time.Time, bool) { return time.Time{}, false }

// stream sets no deadline: the server has one for it.
func (c *caller) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, more := c.outgoing(ctx, method)
	return next(ctx, desc, cc, method, append(slices.Clip(opts), more...)...)
}

// outgoing puts into a call's metadata for whom it is made, and of which story it is a part.
func (c *caller) outgoing(ctx context.Context, method string) (context.Context, []grpc.CallOption) {
	if c.onBehalf {
		ctx = auth.Outgoing(ctx)
	}
	return traceOutgoing(ctx, c.tracer, method)
}

// bearer sends a token; over plain text too, which transport allows on loopback and where told to.
type bearer struct{ token func() string }

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token()}, nil
}
func (b bearer) RequireTransportSecurity() bool { return false }

// ReadsOf returns the methods of a service that its contract marks as free of side effects
// (option idempotency_level = NO_SIDE_EFFECTS), as DialOptions.Retry takes them.
func ReadsOf(services ...protoreflect.ServiceDescriptor) []string {
	var reads []string
	for _, s := range services {
		for i := range s.Methods().Len() {
			m := s.Methods().Get(i)
			if o, ok := m.Options().(*descriptorpb.MethodOptions); ok && o.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
				reads = append(reads, "/"+string(s.FullName())+"/"+string(m.Name()))
			}
		}
	}
	return reads
}

// serviceConfig lets reads be asked again.
func serviceConfig(reads []string) string {
	type name struct {
		Service string `json:"service"`
		Method  string `json:"method"`
	}
	type policy struct {
		MaxAttempts          int      `json:"maxAttempts"`
		InitialBackoff       string   `json:"initialBackoff"`
		MaxBackoff           string   `json:"maxBackoff"`
		BackoffMultiplier    float64  `json:"backoffMultiplier"`
		RetryableStatusCodes []string `json:"retryableStatusCodes"`
	}
	type method struct {
		Name        []name `json:"name"`
		RetryPolicy policy `json:"retryPolicy"`
	}
	config := struct {
		MethodConfig []method `json:"methodConfig,omitempty"`
	}{}
	if len(reads) > 0 {
		m := method{RetryPolicy: policy{3, "0.05s", "1s", 3, []string{"UNAVAILABLE"}}}
		for _, r := range reads {
			service, short, _ := strings.Cut(strings.TrimPrefix(r, "/"), "/")
			m.Name = append(m.Name, name{service, short})
		}
		config.MethodConfig = append(config.MethodConfig, m)
	}
	text, err := json.Marshal(config)
	if err != nil {
		panic(err) // strings and numbers alone
	}
	return string(text)
}
