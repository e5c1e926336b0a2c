package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/rpc"
	"countersign.dev/pkg/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service answers as its test says.
type service struct {
	testgrpc.UnimplementedTestServiceServer
	unary  func(context.Context, *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error)
	stream func(grpc.ServerStreamingServer[testgrpc.StreamingOutputCallResponse]) error
	upload func(grpc.ClientStreamingServer[testgrpc.StreamingInputCallRequest, testgrpc.StreamingInputCallResponse]) error
}

func (s service) UnaryCall(ctx context.Context, r *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	return s.unary(ctx, r)
}

func (s service) StreamingOutputCall(_ *testgrpc.StreamingOutputCallRequest, ss grpc.ServerStreamingServer[testgrpc.StreamingOutputCallResponse]) error {
	return s.stream(ss)
}

func (s service) StreamingInputCall(ss grpc.ClientStreamingServer[testgrpc.StreamingInputCallRequest, testgrpc.StreamingInputCallResponse]) error {
	return s.upload(ss)
}

// world is one server over memory, and what it logs.
type world struct {
	address string // over TCP
	network *rpc.Network
	log     *buffer
	stop    func() // drains, and waits for it
}

type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func start(t *testing.T, s service, change func(*rpc.Options)) world {
	t.Helper()
	w := world{network: rpc.NewNetwork(), log: &buffer{}}
	tel, err := telemetry.Setup(t.Context(), telemetry.Options{Service: "server", Stderr: w.log})
	if err != nil {
		t.Fatal(err)
	}
	o := rpc.Options{Auth: auth.OnBehalf(auth.InProcess()), Telemetry: tel}
	if change != nil {
		change(&o)
	}
	server, err := rpc.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	testgrpc.RegisterTestServiceServer(server, s)
	lis, err := w.network.Listen("server")
	if err != nil {
		t.Fatal(err)
	}
	apart, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = apart.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, lis, apart) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

func (w world) dial(t *testing.T, change func(*rpc.DialOptions)) *grpc.ClientConn {
	t.Helper()
	o := rpc.DialOptions{Self: "client", Network: w.network}
	if change != nil {
		change(&o)
	}
	conn, err := rpc.Dial("server", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestErrorsOverTheWire(t *testing.T) {
	t.Parallel()
	const private = "ada@acme.test"
	gone := func() error { return status.Error(codes.Unavailable, "dial "+private) }
	for name, tt := range map[string]struct {
		err    error
		code   codes.Code
		reason string // of the registry; empty = no failure of ours
		logged string
	}{
		"a failure":                     {err: failure.LinkExpired, code: codes.FailedPrecondition, reason: "LINK_EXPIRED"},
		"a wrapped failure":             {err: fmt.Errorf("open for %s: %w", private, failure.LinkUsed), code: codes.FailedPrecondition, reason: "LINK_USED"},
		"a failure with a wait":         {err: failure.RateLimited.After(time.Minute), code: codes.ResourceExhausted, reason: "RATE_LIMITED"},
		"a failure of a service behind": {err: fmt.Errorf("ask token for %s: %w", private, failure.LinkRevoked.GRPCStatus().Err()), code: codes.FailedPrecondition, reason: "LINK_REVOKED"},
		"an accident":                   {err: errors.New("no row for " + private), code: codes.Internal, reason: "INTERNAL", logged: "a call failed"},
		"an accident behind":            {err: status.Error(codes.DataLoss, private), code: codes.Internal, reason: "INTERNAL", logged: "a call failed"},
		"a service behind is down":      {err: fmt.Errorf("ask token: %w", gone()), code: codes.Unavailable, reason: "UNAVAILABLE", logged: "could not reach"},
		"a time-out behind":             {err: fmt.Errorf("publish: %w", context.DeadlineExceeded), code: codes.Unavailable, reason: "UNAVAILABLE", logged: "could not reach"},
		"not implemented":               {err: status.Error(codes.Unimplemented, "no such method"), code: codes.Unimplemented},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, service{
				unary:  func(context.Context, *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) { return nil, tt.err },
				stream: func(grpc.ServerStreamingServer[testgrpc.StreamingOutputCallResponse]) error { return tt.err },
			}, nil)
			client := testgrpc.NewTestServiceClient(w.dial(t, nil))
			_, unary := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{})
			s, err := client.StreamingOutputCall(t.Context(), &testgrpc.StreamingOutputCallRequest{})
			if err != nil {
				t.Fatal(err)
			}
			_, streamed := s.Recv()
			w.stop()
			for kind, err := range map[string]error{"unary": unary, "stream": streamed} {
				f := failure.From(err)
				if status.Code(err) != tt.code || (f == nil) != (tt.reason == "") || f != nil && f.Code != tt.reason {
					t.Errorf("%s: got %v", kind, err)
				}
				if strings.Contains(err.Error(), private) {
					t.Errorf("%s tells %v", kind, err)
				}
				if f != nil && f.Code == "RATE_LIMITED" && f.RetryAfter != time.Minute {
					t.Errorf("%s: wait %v", kind, f.RetryAfter)
				}
			}
			if n := strings.Count(w.log.String(), "\n"); tt.logged == "" && n != 0 || tt.logged != "" && n != 2 {
				t.Errorf("%d lines for two calls: %s", n, w.log)
			}
			if !strings.Contains(w.log.String(), tt.logged) || strings.Contains(w.log.String(), private) {
				t.Errorf("logged %s", w.log)
			}
		})
	}
}

func TestAPanicHarmsOneCall(t *testing.T) {
	t.Parallel()
	calls := 0
	w := start(t, service{
		unary: func(context.Context, *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
			if calls++; calls == 1 {
				panic("boom for ada@acme.test")
			}
			return &testgrpc.SimpleResponse{}, nil
		},
		stream: func(grpc.ServerStreamingServer[testgrpc.StreamingOutputCallResponse]) error { panic("stream boom") },
	}, nil)
	client := testgrpc.NewTestServiceClient(w.dial(t, nil))
	_, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{})
	if status.Code(err) != codes.Internal || failure.From(err) == nil || strings.Contains(err.Error(), "boom") {
		t.Errorf("unary: %v", err)
	}
	s, err := client.StreamingOutputCall(t.Context(), &testgrpc.StreamingOutputCallRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Internal {
		t.Errorf("stream: %v", err)
	}
	if _, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{}); err != nil {
		t.Errorf("the next call: %v", err)
	}
	if log := w.log.String(); !strings.Contains(log, "rpc_test.go") || !strings.Contains(log, "stream boom") || strings.Contains(log, "ada@") {
		t.Errorf("logged %s", log)
	}
}

// wait waits for the end of a call.
func wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("read: %w", ctx.Err())
	case <-time.After(10 * time.Second):
		return errors.New("nobody set a deadline")
	}
}

// TestTheCallersDefaultDeadline: the server is not told of it and has one of its own, but hears when the caller leaves; a deadline that the
// caller set it is told.
func TestTheCallersDefaultDeadline(t *testing.T) {
	t.Parallel()
	type end struct {
		err   error
		after time.Duration // that the server gave the call
	}
	ended := make(chan end, 1)
	long := start(t, service{unary: func(ctx context.Context, _ *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
		at, _ := ctx.Deadline()
		after := time.Until(at)
		err := wait(ctx)
		ended <- end{err, after}
		return nil, err
	}}, nil)
	conn := long.dial(t, func(o *rpc.DialOptions) { o.Deadline = 30 * time.Millisecond })
	if _, err := testgrpc.NewTestServiceClient(conn).UnaryCall(t.Context(), &testgrpc.SimpleRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	if e := <-ended; !errors.Is(e.err, context.Canceled) || e.after < rpc.DefaultDeadline/2 {
		t.Errorf("the server heard %v, and had given it %v", e.err, e.after)
	}
	told, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := testgrpc.NewTestServiceClient(conn).UnaryCall(told, &testgrpc.SimpleRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	if e := <-ended; e.err == nil || e.after > time.Second {
		t.Errorf("of a deadline that the caller set the server heard %v, and had given it %v", e.err, e.after)
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	s := service{
		unary: func(ctx context.Context, _ *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
			return nil, wait(ctx)
		},
		stream: func(ss grpc.ServerStreamingServer[testgrpc.StreamingOutputCallResponse]) error {
			return wait(ss.Context())
		},
	}
	w := start(t, s, func(o *rpc.Options) { o.Deadline, o.StreamDeadline = 30*time.Millisecond, 30*time.Millisecond })
	t.Run("the server's, where the caller sets none", func(t *testing.T) {
		// A plain client, with no deadline of its own.
		conn, err := grpc.NewClient("passthrough:///x", plainTo(t, w.network)...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = testgrpc.NewTestServiceClient(conn).UnaryCall(t.Context(), &testgrpc.SimpleRequest{})
		if status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "longer than the call allowed") {
			t.Errorf("unary: %v", err)
		}
		ss, err := testgrpc.NewTestServiceClient(conn).StreamingOutputCall(t.Context(), &testgrpc.StreamingOutputCallRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ss.Recv(); status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "longer than the call allowed") {
			t.Errorf("stream: %v", err)
		}
	})
	t.Run("a caller who goes away", func(t *testing.T) {
		entered := make(chan struct{})
		left := start(t, service{unary: func(ctx context.Context, _ *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
			close(entered)
			return nil, wait(ctx)
		}}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-entered; cancel() }()
		if _, err := testgrpc.NewTestServiceClient(left.dial(t, nil)).UnaryCall(ctx, &testgrpc.SimpleRequest{}); status.Code(err) != codes.Canceled {
			t.Errorf("got %v", err)
		}
		left.stop()
		if left.log.String() != "" {
			t.Errorf("logged %s", left.log)
		}
	})
}

func TestScopes(t *testing.T) {
	t.Parallel()
	who := make(chan auth.Caller, 16)
	s := service{
		unary: func(ctx context.Context, _ *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
			who <- auth.From(ctx)
			return &testgrpc.SimpleResponse{}, nil
		},
		stream: func(grpc.ServerStreamingServer[testgrpc.StreamingOutputCallResponse]) error { return nil },
	}
	platform := auth.Caller{ID: "k", Tenant: "acme", Scopes: []string{auth.RequestsWrite}, Kind: auth.Platform}
	const unary = "/grpc.testing.TestService/UnaryCall"
	for name, tt := range map[string]struct {
		scopes map[string]string
		caller auth.Caller
		code   codes.Code
	}{
		"internal needs none":       {map[string]string{}, auth.Caller{}, codes.OK},
		"the method's":              {map[string]string{unary: auth.RequestsWrite}, platform, codes.OK},
		"the service's":             {map[string]string{"/grpc.testing.TestService/": auth.RequestsWrite}, platform, codes.OK},
		"another than it has":       {map[string]string{unary: auth.AuditRead}, platform, codes.PermissionDenied},
		"the method's goes first":   {map[string]string{unary: auth.AuditRead, "/grpc.testing.TestService/": auth.RequestsWrite}, platform, codes.PermissionDenied},
		"no entry is no":            {map[string]string{"/other.Service/": auth.RequestsWrite}, platform, codes.PermissionDenied},
		"no table, everything goes": {nil, platform, codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, s, func(o *rpc.Options) { o.Scopes = tt.scopes })
			client := testgrpc.NewTestServiceClient(w.dial(t, func(o *rpc.DialOptions) { o.OnBehalf = true }))
			ctx := auth.With(t.Context(), tt.caller)
			_, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{})
			if status.Code(err) != tt.code {
				t.Fatalf("got %v, want %v", err, tt.code)
			}
			if err == nil {
				if c := <-who; tt.caller.Kind == auth.Platform && (c.Tenant != "acme" || c.Via != "client") || tt.caller.Kind == auth.Nobody && c.ID != "client" {
					t.Errorf("called by %+v", c)
				}
			}
		})
	}
}

func TestAToken(t *testing.T) {
	t.Parallel()
	w := start(t, service{unary: func(ctx context.Context, _ *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
		return &testgrpc.SimpleResponse{Username: auth.From(ctx).ID}, nil
	}}, func(o *rpc.Options) {
		o.Auth = auth.Func(func(_ context.Context, e auth.Evidence) (auth.Caller, error) {
			return auth.Caller{ID: e.Authorization, Kind: auth.Internal}, nil
		})
	})
	token := func(o *rpc.DialOptions) { o.Token = func() string { return "abc" } }
	if got, err := call(t.Context(), w.dial(t, token)); err != nil || got != "" {
		t.Errorf("in this process, where who dials is known: got %q, %v", got, err)
	}
	conn, err := rpc.Dial(w.address, rpc.DialOptions{Token: func() string { return "abc" }})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := call(t.Context(), conn); err != nil || got != "Bearer abc" {
		t.Errorf("apart: got %q, %v", got, err)
	}
}

func TestSizeLimit(t *testing.T) {
	t.Parallel()
	w := start(t, service{
		unary: func(_ context.Context, r *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
			return &testgrpc.SimpleResponse{Payload: r.GetPayload()}, nil
		},
		upload: func(ss grpc.ClientStreamingServer[testgrpc.StreamingInputCallRequest, testgrpc.StreamingInputCallResponse]) error {
			for {
				if _, err := ss.Recv(); errors.Is(err, io.EOF) {
					return ss.SendAndClose(&testgrpc.StreamingInputCallResponse{})
				} else if err != nil {
					return fmt.Errorf("receive: %w", err)
				}
			}
		},
	}, nil)
	conn := w.dial(t, nil)
	client := testgrpc.NewTestServiceClient(conn)
	payload := func(n int) *testgrpc.Payload { return &testgrpc.Payload{Body: make([]byte, n)} }
	if _, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{Payload: payload(rpc.MaxMessage - 64)}); err != nil {
		t.Errorf("just below: %v", err)
	}
	// The client's own limit refuses first; a stranger has none.
	big := grpc.MaxCallSendMsgSize(1 << 30)
	if _, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{Payload: payload(rpc.MaxMessage + 1)}, big); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("above: %v", err)
	}
	up, err := client.StreamingInputCall(t.Context(), big)
	if err != nil {
		t.Fatal(err)
	}
	_ = up.Send(&testgrpc.StreamingInputCallRequest{Payload: payload(rpc.MaxMessage + 1)})
	if _, err := up.CloseAndRecv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("streamed, above: %v", err)
	}
}

func TestReadsAreRetried(t *testing.T) {
	t.Parallel()
	const method = "/grpc.testing.TestService/UnaryCall"
	for name, tt := range map[string]struct {
		retry []string
		err   error
		calls int
		code  codes.Code
	}{
		"a read that recovers":     {[]string{method}, failure.Unavailable, 3, codes.OK},
		"a write is asked once":    {nil, failure.Unavailable, 1, codes.Unavailable},
		"a refusal is final":       {[]string{method}, failure.LinkExpired, 1, codes.FailedPrecondition},
		"an accident is not tried": {[]string{method}, errors.New("x"), 1, codes.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			w := start(t, service{unary: func(context.Context, *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
				if calls++; calls < 3 {
					return nil, tt.err
				}
				return &testgrpc.SimpleResponse{}, nil
			}}, nil)
			client := testgrpc.NewTestServiceClient(w.dial(t, func(o *rpc.DialOptions) { o.Retry = tt.retry }))
			_, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{})
			w.stop()
			if status.Code(err) != tt.code || calls != tt.calls {
				t.Errorf("%d calls, %v", calls, err)
			}
		})
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	entered, finish := make(chan struct{}, 2), make(chan struct{})
	w := start(t, service{
		unary: func(context.Context, *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
			entered <- struct{}{}
			<-finish
			return &testgrpc.SimpleResponse{}, nil
		},
		stream: func(ss grpc.ServerStreamingServer[testgrpc.StreamingOutputCallResponse]) error {
			entered <- struct{}{}
			<-ss.Context().Done()
			return ss.Context().Err()
		},
	}, func(o *rpc.Options) { o.Drain = 6 * time.Second }) // streams are cut after 2 s; far apart, for a busy machine
	conn := w.dial(t, nil)
	client := testgrpc.NewTestServiceClient(conn)
	unary, streamed := make(chan error, 1), make(chan error, 1)
	go func() { _, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{}); unary <- err }()
	go func() {
		ss, err := client.StreamingOutputCall(t.Context(), &testgrpc.StreamingOutputCallRequest{})
		if err == nil {
			_, err = ss.Recv()
		}
		streamed <- err
	}()
	<-entered
	<-entered
	stopped := make(chan struct{})
	go func() { defer close(stopped); w.stop() }()
	// The stream is cut, and told that another try will do; the call that runs may end.
	if err := <-streamed; failure.From(err) == nil || failure.From(err).Code != "UNAVAILABLE" {
		t.Errorf("stream: %v", err)
	}
	close(finish)
	if err := <-unary; err != nil {
		t.Errorf("unary: %v", err)
	}
	<-stopped
	if _, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("after the stop: %v", err)
	}
}

func TestACallThatHangsDoesNotHoldTheStop(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	w := start(t, service{unary: func(context.Context, *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
		close(entered)
		<-release
		return &testgrpc.SimpleResponse{}, nil
	}}, func(o *rpc.Options) { o.Drain = 50 * time.Millisecond })
	client := testgrpc.NewTestServiceClient(w.dial(t, nil))
	got := make(chan error, 1)
	go func() { _, err := client.UnaryCall(t.Context(), &testgrpc.SimpleRequest{}); got <- err }()
	<-entered
	stopped := make(chan struct{})
	go func() { defer close(stopped); w.stop() }()
	if err := <-got; status.Code(err) != codes.Unavailable { // its connection is cut
		t.Errorf("got %v", err)
	}
	close(release)
	<-stopped
}

func TestServeEndsWithItsListener(t *testing.T) {
	t.Parallel()
	server, err := rpc.NewServer(rpc.Options{Auth: auth.InProcess()})
	if err != nil {
		t.Fatal(err)
	}
	broken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	broken.Close()
	whole, err := rpc.NewNetwork().Listen("x")
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(t.Context(), broken, whole); err == nil {
		t.Error("a listener that does not listen was no error")
	}
}

func TestHealthAndReflectionAndOptions(t *testing.T) {
	t.Parallel()
	w := start(t, service{}, func(o *rpc.Options) { o.Reflection = true })
	conn := w.dial(t, nil)
	h := healthv1.NewHealthClient(conn)
	if r, err := h.Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil || r.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", r, err)
	}
	if _, err := h.Check(t.Context(), &healthv1.HealthCheckRequest{Service: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown service: %v", err)
	}
	ref, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
	if err != nil {
		t.Fatal(err)
	}
	_ = ref.CloseSend()
	if err := ref.RecvMsg(&testgrpc.Empty{}); !errors.Is(err, io.EOF) {
		t.Errorf("reflection: %v", err)
	}
	if _, err := rpc.NewServer(rpc.Options{}); err == nil {
		t.Error("a server that knows no callers")
	}
	if _, err := rpc.NewServer(rpc.Options{Auth: auth.InProcess(), Drain: -1}); err == nil {
		t.Error("a negative drain")
	}
}
