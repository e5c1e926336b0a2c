package telemetry

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// headerCarrier lets the propagator write NATS headers. NATS keeps their case, so traceparent stays lower case.
type headerCarrier nats.Header

func (c headerCarrier) Get(key string) string { return nats.Header(c).Get(key) }
func (c headerCarrier) Set(key, value string) { nats.Header(c).Set(key, value) }
func (c headerCarrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}

// Inject writes the trace context of ctx into h (traceparent, tracestate). h must not be nil.
// Without a span in ctx, h stays as it is: a forwarded message keeps its story.
func Inject(ctx context.Context, h nats.Header) { Propagator().Inject(ctx, headerCarrier(h)) }

// Extract returns ctx with the span of the producer as remote parent. Missing or malformed headers change nothing.
func Extract(ctx context.Context, h nats.Header) context.Context {
	return Propagator().Extract(ctx, headerCarrier(h))
}

// LinkFrom returns the link by which a new trace continues the story that h tells of; false when h tells of none.
func LinkFrom(h nats.Header) (trace.Link, bool) {
	sc := trace.SpanContextFromContext(Extract(context.Background(), h))
	return trace.Link{SpanContext: sc, Attributes: []attribute.KeyValue{linkedKey.Bool(true)}}, sc.IsValid()
}

// StartPublish begins the span of a publish and injects it into h. name is low in cardinality: a stream or a fact's name,
// never a subject with ids.
func StartPublish(ctx context.Context, tracer trace.Tracer, name string, h nats.Header) (context.Context, trace.Span) {
	ctx, span := tracer.Start(ctx, "publish "+name, trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(messaging("send", name)...))
	Inject(ctx, h)
	return ctx, span
}

// StartConsume begins the span under which a message is handled, as a child of the span that published it, however old
// the message is: so one story is one trace.
func StartConsume(ctx context.Context, tracer trace.Tracer, name string, h nats.Header) (context.Context, trace.Span) {
	return tracer.Start(Extract(ctx, h), "consume "+name, trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(messaging("process", name)...))
}

// StartDue begins the span of what happens after a long wait, such as a timer: a new trace, linked to the one that armed
// it, since a trace days long is of no use to anybody. It is recorded when that one was.
func StartDue(ctx context.Context, tracer trace.Tracer, name string, h nats.Header) (context.Context, trace.Span) {
	options := []trace.SpanStartOption{
		trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(messaging("process", name)...),
	}
	if link, ok := LinkFrom(h); ok {
		options = append(options, trace.WithLinks(link))
	}
	return tracer.Start(ctx, "due "+name, options...)
}

func messaging(operation, destination string) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.system", "nats"),
		attribute.String("messaging.operation.type", operation),
		attribute.String("messaging.destination.name", destination),
	}
}
