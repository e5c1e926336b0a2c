package rpc

import (
	"context"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	rpccode "google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/telemetry"
)

// scope names who made spans and measurements.
const scope = "countersign.dev/pkg/rpc"

// durationBounds are the buckets of the call durations in seconds, as OpenTelemetry's conventions advise for rpc.server.call.duration.
var durationBounds = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}

// tracing makes the spans of a server's calls by OpenTelemetry's conventions, and measures how long they take.
//
// It works in interceptors: for a stats handler gRPC copies the headers of every call and makes an object of each of its phases, also of
// calls that nobody records (docs/performance.md). What gRPC answers by itself, before an interceptor, is therefore neither traced nor
// measured: a method that we do not have, and a message that is too large or cannot be read. A call whose story is not recorded only
// carries its trace context on.
type tracing struct {
	tracer   trace.Tracer
	public   bool // the caller's trace is linked to, not continued: whether to record is decided here
	elapsed  func() time.Duration
	duration metric.Float64Histogram
	labels   sync.Map // labelKey → []metric.RecordOption
}

// labelKey names a series of the durations.
type labelKey struct {
	method string
	code   codes.Code
}

func newTracing(t *telemetry.Telemetry, public bool) (*tracing, error) {
	duration, err := t.Meter(scope).Float64Histogram("rpc.server.call.duration",
		metric.WithUnit("s"), metric.WithDescription("how long calls took to be answered"), metric.WithExplicitBucketBoundaries(durationBounds...))
	return &tracing{tracer: t.Tracer(scope), public: public, elapsed: clock.Stopwatch(), duration: duration}, err
}

// tracedCall is a call that is being answered.
type tracedCall struct {
	method string
	began  time.Duration
	span   trace.Span // nil where the story is not recorded
}

// begin returns the context in which a call is answered. Probes, which come every second and tell nothing, have no trace.
func (t *tracing) begin(ctx context.Context, method string) (context.Context, tracedCall) {
	if isProbe(method) {
		return ctx, tracedCall{}
	}
	call := tracedCall{method: method, began: t.elapsed()}
	ctx = telemetry.Propagator().Extract(ctx, incoming{ctx})
	parent := trace.SpanContextFromContext(ctx)
	if !t.public && parent.IsValid() && !parent.IsSampled() {
		return ctx, call
	}
	options := spanOptions(method, trace.SpanKindServer)
	if t.public {
		options = append(options, trace.WithNewRoot())
		if parent.IsRemote() {
			options = append(options, trace.WithLinks(trace.Link{SpanContext: parent}))
		}
	}
	ctx, call.span = t.tracer.Start(ctx, method[1:], options...) //nolint:spancheck // end ends it
	if p, ok := peer.FromContext(ctx); ok {
		call.span.SetAttributes(serverAddress(p.LocalAddr)...)
	}
	return ctx, call
}

// end says how a call was answered.
func (t *tracing) end(ctx context.Context, call tracedCall, err error) {
	if call.method == "" {
		return
	}
	if call.span != nil {
		endSpan(call.span, err, serverFailed(status.Code(err)))
	}
	t.duration.Record(ctx, (t.elapsed() - call.began).Seconds(), t.label(call.method, status.Code(err))...)
}

// label returns the labels of a series, made once.
func (t *tracing) label(method string, code codes.Code) []metric.RecordOption {
	key := labelKey{method, code}
	made, ok := t.labels.Load(key)
	if !ok {
		set := attribute.NewSet(semconv.RPCSystemNameGRPC, semconv.RPCMethod(method[1:]), semconv.RPCResponseStatusCode(code.String()))
		made, _ = t.labels.LoadOrStore(key, []metric.RecordOption{metric.WithAttributeSet(set)})
	}
	return made.([]metric.RecordOption) //nolint:errcheck,forcetypeassert // nothing else is stored
}

// traceOutgoing returns the context in which to make a call, with its trace context in the metadata, and the options that end its span;
// none where the story is not recorded.
func traceOutgoing(ctx context.Context, tracer trace.Tracer, method string) (context.Context, []grpc.CallOption) {
	var options []grpc.CallOption
	if story := trace.SpanContextFromContext(ctx); !story.IsValid() || story.IsSampled() {
		var span trace.Span
		ctx, span = tracer.Start(ctx, method[1:], spanOptions(method, trace.SpanKindClient)...)
		server := &peer.Peer{}
		options = []grpc.CallOption{grpc.Peer(server), grpc.OnFinish(func(err error) {
			span.SetAttributes(serverAddress(server.Addr)...)
			endSpan(span, err, err != nil)
		})}
	}
	out := &outgoing{ctx}
	telemetry.Propagator().Inject(ctx, out)
	return out.ctx, options
}

func spanOptions(method string, kind trace.SpanKind) []trace.SpanStartOption {
	return []trace.SpanStartOption{trace.WithSpanKind(kind), trace.WithAttributes(semconv.RPCSystemNameGRPC, semconv.RPCMethod(method[1:]))}
}

func serverAddress(a net.Addr) []attribute.KeyValue {
	if a == nil {
		return nil // nobody was reached
	}
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return []attribute.KeyValue{semconv.ServerAddress(a.String())}
	}
	at := []attribute.KeyValue{semconv.ServerAddress(host)}
	if n, err := strconv.Atoi(port); err == nil {
		at = append(at, semconv.ServerPort(n))
	}
	return at
}

func endSpan(span trace.Span, err error, failed bool) {
	st := status.Convert(err)
	if failed {
		span.SetStatus(otelcodes.Error, st.Message())
	}
	span.SetAttributes(semconv.RPCResponseStatusCode(rpccode.Code(st.Code()).String()))
	span.End()
}

// serverFailed tells which answers are the server's fault, by OpenTelemetry's conventions.
func serverFailed(code codes.Code) bool {
	switch code {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		return true
	default:
		return false
	}
}

func isProbe(method string) bool { return strings.HasPrefix(method, "/grpc.health.") }

// incoming reads the trace context of a call without copying its metadata.
type incoming struct{ ctx context.Context } //nolint:containedctx // a carrier lives as long as one Extract

func (c incoming) Get(key string) string {
	if values := metadata.ValueFromIncomingContext(c.ctx, key); len(values) > 0 {
		return values[0]
	}
	return ""
}
func (incoming) Set(string, string) {}
func (incoming) Keys() []string     { return nil }

// outgoing writes the trace context into a call's metadata.
type outgoing struct{ ctx context.Context } //nolint:containedctx // a carrier lives as long as one Inject

func (outgoing) Get(string) string { return "" }
func (c *outgoing) Set(key, value string) {
	c.ctx = metadata.AppendToOutgoingContext(c.ctx, key, value)
}
func (outgoing) Keys() []string { return nil }
