package rpc_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/rpc"
	"countersign.dev/pkg/telemetry"
	"countersign.dev/pkg/telemetry/telemetrytest"
)

func traced(t *testing.T, service string, sink *telemetrytest.Sink) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.Setup(t.Context(), telemetry.Options{Service: service, OTLPEndpoint: sink.Endpoint()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := tel.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return tel
}

func TestACallIsOneStory(t *testing.T) {
	t.Parallel()
	for name, public := range map[string]bool{"between services": false, "from a platform": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := telemetrytest.NewSink(t)
			server, client := traced(t, "server", sink), traced(t, "client", sink)
			w := start(t, service{unary: func(ctx context.Context, _ *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
				telemetry.WithRequest(ctx, "req_1", "") // what a field request_id does by itself
				return &testgrpc.SimpleResponse{}, nil
			}}, func(o *rpc.Options) { o.Telemetry, o.Public = server, public })
			conn := w.dial(t, func(o *rpc.DialOptions) { o.Telemetry, o.OnBehalf = client, true })
			ctx := auth.With(t.Context(), auth.Caller{ID: "k", Tenant: "acme", Kind: auth.Platform})
			ctx, span := client.Tracer("t").Start(telemetry.WithRequest(ctx, "req_1", "acme"), "platform")
			if _, err := testgrpc.NewTestServiceClient(conn).UnaryCall(ctx, &testgrpc.SimpleRequest{}); err != nil {
				t.Fatal(err)
			}
			span.End()
			w.stop()
			for _, tel := range []*telemetry.Telemetry{server, client} {
				if err := tel.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			spans := sink.Wait(t, 5*time.Second, func(s []telemetrytest.Span) bool { return len(s) == 3 })
			sink.AssertOneStory(t, "req_1", "server", "client")
			for _, sp := range spans {
				if sp.Service == "server" && (sp.Attr("countersign.tenant") != "acme" || (sp.ParentID == "") != public) {
					t.Errorf("server span %+v", sp)
				}
			}
		})
	}
}

// TestWhatSpansTell pins what a recorded call leaves behind on both sides: OpenTelemetry's conventions for rpc, and a failed span where
// they want one.
func TestWhatSpansTell(t *testing.T) {
	t.Parallel()
	const unary, streamed = "grpc.testing.TestService/UnaryCall", "grpc.testing.TestService/StreamingOutputCall"
	for name, tt := range map[string]struct {
		method         string
		err            error
		code           string
		client, server bool // failed
	}{
		"a call":              {unary, nil, "OK", false, false},
		"a refusal":           {unary, failure.LinkExpired, "FAILED_PRECONDITION", true, false},
		"an accident":         {unary, errors.New("boom"), "INTERNAL", true, true},
		"a stream":            {streamed, nil, "OK", false, false},
		"a refused stream":    {streamed, failure.LinkExpired, "FAILED_PRECONDITION", true, false},
		"a stream's accident": {streamed, errors.New("boom"), "INTERNAL", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := telemetrytest.NewSink(t)
			server, client := traced(t, "server", sink), traced(t, "client", sink)
			w := start(t, service{
				unary: func(context.Context, *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
					return &testgrpc.SimpleResponse{}, tt.err
				},
				stream: func(grpc.ServerStreamingServer[testgrpc.StreamingOutputCallResponse]) error { return tt.err },
			}, func(o *rpc.Options) { o.Telemetry, o.Auth = server, auth.Loopback() })
			conn, err := rpc.Dial(w.address, rpc.DialOptions{Telemetry: client})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if tt.method == unary {
				_, _ = testgrpc.NewTestServiceClient(conn).UnaryCall(t.Context(), &testgrpc.SimpleRequest{})
			} else if s, err := testgrpc.NewTestServiceClient(conn).StreamingOutputCall(t.Context(), &testgrpc.StreamingOutputCallRequest{}); err != nil {
				t.Fatal(err)
			} else if _, err := s.Recv(); err == nil {
				t.Fatal("a message that nobody sent")
			}
			w.stop()
			for _, tel := range []*telemetry.Telemetry{server, client} {
				if err := tel.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			host, port, _ := net.SplitHostPort(w.address)
			want := map[string]string{
				"rpc.system.name": "grpc", "rpc.method": tt.method, "rpc.response.status_code": tt.code, "server.address": host, "server.port": port,
			}
			kinds := map[string]tracev1.Span_SpanKind{"server": tracev1.Span_SPAN_KIND_SERVER, "client": tracev1.Span_SPAN_KIND_CLIENT}
			failed := map[string]bool{"server": tt.server, "client": tt.client}
			for _, sp := range sink.Wait(t, 5*time.Second, func(s []telemetrytest.Span) bool { return len(s) == 2 }) {
				if sp.Service == "server" {
					delete(sp.Attributes, "countersign.tenant")
				}
				if sp.Name != tt.method || sp.Kind != kinds[sp.Service] || sp.Failed != failed[sp.Service] || !maps.Equal(sp.Attributes, want) {
					t.Errorf("%s: span %q, kind %v, failed %v (%q), attributes %v", sp.Service, sp.Name, sp.Kind, sp.Failed, sp.Raw.GetStatus().GetMessage(), sp.Attributes)
				}
				if sp.Failed && sp.Raw.GetStatus().GetMessage() == "" {
					t.Errorf("%s: a failed span does not say why", sp.Service)
				}
			}
		})
	}
}

// Probes and a stranger's method names become neither spans nor series of metrics.
func TestProbesAndUnknownMethodsLeaveNoTrace(t *testing.T) {
	t.Parallel()
	sink := telemetrytest.NewSink(t)
	tel := traced(t, "server", sink)
	w := start(t, service{unary: func(context.Context, *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
		return &testgrpc.SimpleResponse{}, nil
	}}, func(o *rpc.Options) { o.Telemetry = tel })
	conn := w.dial(t, nil)
	if err := conn.Invoke(t.Context(), "/evil.Service/Zzz123", &testgrpc.Empty{}, &testgrpc.Empty{}); status.Code(err) != codes.Unimplemented {
		t.Fatal(err)
	}
	if _, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := testgrpc.NewTestServiceClient(conn).UnaryCall(t.Context(), &testgrpc.SimpleRequest{}); err != nil {
		t.Fatal(err)
	}
	w.stop()
	if err := tel.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	sink.Wait(t, 5*time.Second, func(s []telemetrytest.Span) bool { return len(s) > 0 })
	sink.AssertNone(t, "Zzz123", "grpc.health")
	rec := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	body, _ := io.ReadAll(rec.Body)
	if strings.Contains(string(body), "Zzz123") || strings.Contains(string(body), "grpc.health") || !strings.Contains(string(body), "UnaryCall") {
		t.Errorf("metrics: %s", body)
	}
}

// TestAStoryThatIsNotRecorded goes on without spans: whoever comes after knows the trace and that nobody keeps it, and the call is
// measured all the same. A platform's decision binds nobody: its call is recorded as any new story is.
func TestAStoryThatIsNotRecorded(t *testing.T) {
	t.Parallel()
	for name, public := range map[string]bool{"between services": false, "from a platform": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := telemetrytest.NewSink(t)
			tel := traced(t, "server", sink)
			var seen trace.SpanContext
			w := start(t, service{unary: func(ctx context.Context, _ *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
				seen = trace.SpanContextFromContext(ctx)
				return &testgrpc.SimpleResponse{}, nil
			}}, func(o *rpc.Options) { o.Telemetry, o.Public = tel, public })
			conn := w.dial(t, func(o *rpc.DialOptions) { o.Telemetry = tel })
			state, err := trace.ParseTraceState("vendor=1")
			if err != nil {
				t.Fatal(err)
			}
			story := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceState: state})
			ctx := trace.ContextWithSpanContext(t.Context(), story)
			if _, err := testgrpc.NewTestServiceClient(conn).UnaryCall(ctx, &testgrpc.SimpleRequest{}); err != nil {
				t.Fatal(err)
			}
			w.stop()
			if err := tel.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if public {
				if seen.TraceID() == story.TraceID() || !seen.IsSampled() {
					t.Errorf("the handler's span is %v of trace %v, sampled %v", seen.SpanID(), seen.TraceID(), seen.IsSampled())
				}
				sink.Wait(t, 5*time.Second, func(s []telemetrytest.Span) bool { return len(s) == 1 })
			} else if !seen.Equal(story.WithRemote(true)) {
				t.Errorf("the handler knows %v, want %v", seen, story)
			} else if n := len(sink.Spans()); n > 0 {
				t.Errorf("%d spans of a story that nobody keeps", n)
			}
			rec := httptest.NewRecorder()
			tel.MetricsHandler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
			if !strings.Contains(rec.Body.String(), `rpc_method="grpc.testing.TestService/UnaryCall",rpc_response_status_code="OK",rpc_system_name="grpc"} 1`) {
				t.Errorf("the call is not measured once: %s", rec.Body)
			}
		})
	}
}
