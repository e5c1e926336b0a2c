package rpc

import (
	"context"
	"sync"

	// otelgrpc's stats handlers see every call, streams and failures before a handler included.
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"countersign.dev/pkg/telemetry"
)

// durationBounds are the buckets of the call durations in seconds, as OpenTelemetry's conventions advise for rpc.server.call.duration.
var durationBounds = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}

// tracing makes the spans of calls with otelgrpc, and measures how long calls take.
//
// A call whose story is not recorded only carries its trace context on: the spans that nobody would keep take a sixth of a short call
// (docs/performance.md), and otelgrpc makes the labels of its durations anew for every one.
type tracing struct {
	spans    stats.Handler
	known    func(method string) bool // nil = every method
	public   bool                     // the caller's trace is linked to, not continued: whether to record is decided here
	duration metric.Float64Histogram  // nil for a client: the server measures the call
	labels   sync.Map                 // labelKey → metric.MeasurementOption
}

// labelKey names a series of the durations.
type labelKey struct {
	method string
	code   codes.Code
}

// tracedCall is what tracing knows of a running call.
type tracedCall struct {
	method string
	spans  bool
}

type tracedCallKey struct{}

// serverTracing traces what a server answers: the methods that it has, all but probes.
func serverTracing(t *telemetry.Telemetry, public bool, known func(method string) bool) (stats.Handler, error) {
	options := spanOptions(t)
	if public {
		options = append(options, otelgrpc.WithPublicEndpoint())
	}
	duration, err := t.Meters.Meter("countersign.dev/pkg/rpc").Float64Histogram("rpc.server.call.duration",
		metric.WithUnit("s"), metric.WithDescription("how long calls took to be answered"), metric.WithExplicitBucketBoundaries(durationBounds...))
	return &tracing{spans: otelgrpc.NewServerHandler(options...), known: known, public: public, duration: duration}, err
}

// clientTracing traces what a client asks.
func clientTracing(t *telemetry.Telemetry) stats.Handler {
	return &tracing{spans: otelgrpc.NewClientHandler(spanOptions(t)...)}
}

func spanOptions(t *telemetry.Telemetry) []otelgrpc.Option {
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(t.Tracers), otelgrpc.WithMeterProvider(noop.NewMeterProvider()),
		otelgrpc.WithPropagators(telemetry.Propagator()),
	}
}

// TagRPC begins a call.
func (t *tracing) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if t.known != nil && !t.known(info.FullMethodName) {
		return ctx
	}
	call := &tracedCall{method: info.FullMethodName}
	ctx = context.WithValue(ctx, tracedCallKey{}, call)
	story, client := ctx, t.duration == nil
	if !client {
		story = telemetry.Propagator().Extract(ctx, incoming{ctx})
	}
	parent := trace.SpanContextFromContext(story)
	switch {
	case t.public || !parent.IsValid() || parent.IsSampled():
		call.spans = true
		return t.spans.TagRPC(ctx, info)
	case client:
		out := &outgoing{ctx}
		telemetry.Propagator().Inject(ctx, out)
		return out.ctx
	default:
		return story
	}
}

// HandleRPC follows a call to its end.
func (t *tracing) HandleRPC(ctx context.Context, event stats.RPCStats) {
	call, ok := ctx.Value(tracedCallKey{}).(*tracedCall)
	if !ok {
		return
	}
	if call.spans {
		t.spans.HandleRPC(ctx, event)
	}
	if end, ok := event.(*stats.End); ok && t.duration != nil {
		t.duration.Record(ctx, end.EndTime.Sub(end.BeginTime).Seconds(), t.label(call.method, status.Code(end.Error)))
	}
}

// TagConn leaves connections alone.
func (t *tracing) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn leaves connections alone.
func (t *tracing) HandleConn(context.Context, stats.ConnStats) {}

// label returns the labels of a series, made once.
func (t *tracing) label(method string, code codes.Code) metric.MeasurementOption {
	key := labelKey{method, code}
	if made, ok := t.labels.Load(key); ok {
		return made.(metric.MeasurementOption) //nolint:errcheck,forcetypeassert // nothing else is stored
	}
	set := attribute.NewSet(attribute.String("rpc.system.name", "grpc"), attribute.String("rpc.method", method[1:]),
		attribute.String("rpc.response.status_code", code.String()))
	made, _ := t.labels.LoadOrStore(key, metric.WithAttributeSet(set))
	return made.(metric.MeasurementOption) //nolint:errcheck,forcetypeassert // as above
}

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
