package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// linkedKey marks a link of ours (LinkFrom): only such a link decides about sampling. A link that an edge made from a
// stranger's traceparent does not, or any stranger could have everything recorded.
const linkedKey = attribute.Key("countersign.continues")

// newSampler records what its parent recorded, continues a recorded story in a new trace, and else takes its share.
func newSampler(ratio float64) sdktrace.Sampler {
	return sdktrace.ParentBased(storySampler{fresh: sdktrace.TraceIDRatioBased(ratio)})
}

type storySampler struct{ fresh sdktrace.Sampler }

func (s storySampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	for _, l := range p.Links {
		if !continues(l) {
			continue
		}
		if l.SpanContext.IsSampled() {
			return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample}
		}
		return sdktrace.SamplingResult{Decision: sdktrace.Drop}
	}
	return s.fresh.ShouldSample(p)
}

func (s storySampler) Description() string { return "Story{" + s.fresh.Description() + "}" }

func continues(l trace.Link) bool {
	for _, kv := range l.Attributes {
		if kv.Key == linkedKey && kv.Value.AsBool() {
			return true
		}
	}
	return false
}

// scrubbingExporter is the last net under the rule that spans hold no secret and no personal data: instrumentation of
// libraries records paths and error texts that we did not write.
type scrubbingExporter struct{ sdktrace.SpanExporter }

func (e scrubbingExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	clean := make([]sdktrace.ReadOnlySpan, len(spans))
	for i, s := range spans {
		clean[i] = scrubbedSpan{s}
	}
	return e.SpanExporter.ExportSpans(ctx, clean)
}

type scrubbedSpan struct{ sdktrace.ReadOnlySpan }

func (s scrubbedSpan) Name() string { return Scrub(s.ReadOnlySpan.Name()) }
func (s scrubbedSpan) Attributes() []attribute.KeyValue {
	return scrubAttributes(s.ReadOnlySpan.Attributes())
}

func (s scrubbedSpan) Status() sdktrace.Status {
	st := s.ReadOnlySpan.Status()
	st.Description = Scrub(st.Description)
	return st
}

func (s scrubbedSpan) Events() []sdktrace.Event {
	events := append([]sdktrace.Event(nil), s.ReadOnlySpan.Events()...)
	for i := range events {
		events[i].Name = Scrub(events[i].Name)
		events[i].Attributes = scrubAttributes(events[i].Attributes)
	}
	return events
}

func (s scrubbedSpan) Links() []sdktrace.Link {
	links := append([]sdktrace.Link(nil), s.ReadOnlySpan.Links()...)
	for i := range links {
		links[i].Attributes = scrubAttributes(links[i].Attributes)
	}
	return links
}

func scrubAttributes(kvs []attribute.KeyValue) []attribute.KeyValue {
	out := make([]attribute.KeyValue, len(kvs))
	for i, kv := range kvs {
		key := string(kv.Key)
		switch kv.Value.Type() {
		case attribute.STRING:
			kv.Value = attribute.StringValue(scrubUnder(key, kv.Value.AsString()))
		case attribute.STRINGSLICE:
			texts := kv.Value.AsStringSlice()
			for j := range texts {
				texts[j] = scrubUnder(key, texts[j])
			}
			kv.Value = attribute.StringSliceValue(texts)
		case attribute.BYTESLICE:
			kv.Value = attribute.StringValue(Redacted) // nobody can tell what is in it
		case attribute.SLICE, attribute.MAP:
			kv.Value = attribute.StringValue(scrubUnder(key, kv.Value.String())) // none of ours; kept as text, so that nothing hides inside
		default: // numbers and truth values
		}
		out[i] = kv
	}
	return out
}
