package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Attributes by which a story is searched (spec 12). Both hold ids, never names.
const (
	RequestKey = attribute.Key("countersign.request_id")
	TenantKey  = attribute.Key("countersign.tenant")
)

// story is which request, of which tenant, a context works for.
type story struct{ request, tenant string }

type storyContextKey struct{}

// WithRequest says which signing request ctx works for: the current span, every span begun under the returned context
// in this process, and every log line written with it carry the ids. An empty argument keeps what was said before.
func WithRequest(ctx context.Context, requestID, tenant string) context.Context {
	was := storyOf(ctx)
	s := was
	if requestID != "" {
		s.request = requestID
	}
	if tenant != "" {
		s.tenant = tenant
	}
	if s == (story{}) {
		return ctx
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(s.attributes()...)
	}
	if s == was {
		return ctx
	}
	return context.WithValue(ctx, storyContextKey{}, s)
}

func storyOf(ctx context.Context) story {
	s, _ := ctx.Value(storyContextKey{}).(story)
	return s
}

func (s story) attributes() []attribute.KeyValue {
	var kv []attribute.KeyValue
	if s.request != "" {
		kv = append(kv, RequestKey.String(s.request))
	}
	if s.tenant != "" {
		kv = append(kv, TenantKey.String(s.tenant))
	}
	return kv
}

// storyProcessor writes the ids of its context on every span that starts.
type storyProcessor struct{}

func (storyProcessor) OnStart(ctx context.Context, s sdktrace.ReadWriteSpan) {
	if kv := storyOf(ctx).attributes(); len(kv) > 0 {
		s.SetAttributes(kv...)
	}
}
func (storyProcessor) OnEnd(sdktrace.ReadOnlySpan)      {}
func (storyProcessor) Shutdown(context.Context) error   { return nil }
func (storyProcessor) ForceFlush(context.Context) error { return nil }

// Traceparent returns the trace context of ctx's span as W3C writes it; "" without a span. It may be stored.
func Traceparent(ctx context.Context) string {
	c := propagation.MapCarrier{}
	Propagator().Inject(ctx, c)
	return c.Get("traceparent")
}

// LinkTo says of ctx's span, which began on its own, that it continues the story that traceparent tells of. An empty or
// malformed one changes nothing.
func LinkTo(ctx context.Context, traceparent string) {
	from := Propagator().Extract(context.Background(), propagation.MapCarrier{"traceparent": traceparent})
	if sc := trace.SpanContextFromContext(from); sc.IsValid() {
		trace.SpanFromContext(ctx).AddLink(trace.Link{SpanContext: sc, Attributes: []attribute.KeyValue{linkedKey.Bool(true)}})
	}
}
