package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// NewHandler returns the handler of our logs: JSON lines on w, every value scrubbed, trace and request named.
// A nil w discards; a nil level is Info.
func NewHandler(w io.Writer, level slog.Leveler) slog.Handler {
	if w == nil {
		return slog.DiscardHandler
	}
	if level == nil {
		level = slog.LevelInfo
	}
	return &handler{base: slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: scrubAttr})}
}

// handler adds trace_id, span_id and the request of a context at the top level of the line. A group opened by the
// caller would swallow them, so what comes after the first group waits in later until a record is written.
type handler struct {
	base  slog.Handler
	later []func(slog.Handler) slog.Handler
}

func (h *handler) Enabled(ctx context.Context, l slog.Level) bool { return h.base.Enabled(ctx, l) }

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	out := h.base
	if attrs := contextAttrs(ctx); len(attrs) > 0 {
		out = out.WithAttrs(attrs)
	}
	for _, apply := range h.later {
		out = apply(out)
	}
	return out.Handle(ctx, r)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	if len(h.later) == 0 {
		return &handler{base: h.base.WithAttrs(attrs)}
	}
	return h.after(func(b slog.Handler) slog.Handler { return b.WithAttrs(attrs) })
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.after(func(b slog.Handler) slog.Handler { return b.WithGroup(name) })
}

func (h *handler) after(step func(slog.Handler) slog.Handler) *handler {
	return &handler{base: h.base, later: append(h.later[:len(h.later):len(h.later)], step)}
}

func contextAttrs(ctx context.Context) []slog.Attr {
	var attrs []slog.Attr
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		attrs = append(attrs, slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String()))
	}
	if s := storyOf(ctx); s != (story{}) {
		if s.request != "" {
			attrs = append(attrs, slog.String("request_id", s.request))
		}
		if s.tenant != "" {
			attrs = append(attrs, slog.String("tenant", s.tenant))
		}
	}
	return attrs
}

// scrubAttr scrubs one attribute, whatever its kind. Numbers count too: a code logged as an integer is a code.
func scrubAttr(_ []string, a slog.Attr) slog.Attr {
	a.Key = Scrub(a.Key)
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(scrubUnder(a.Key, a.Value.String()))
	case slog.KindInt64, slog.KindUint64:
		if kindOf(a.Key) != plainKey {
			if text := a.Value.String(); scrubUnder(a.Key, text) != text {
				a.Value = slog.StringValue(Redacted)
			}
		}
	case slog.KindAny:
		a.Value = scrubAny(a.Key, a.Value.Any())
	default: // times, durations, truth values and fractions hold neither words nor codes; members of groups come one by one
	}
	return a
}

// scrubAny turns a value into what the JSON handler would print of it, every string in it scrubbed.
func scrubAny(key string, v any) slog.Value {
	switch v := v.(type) {
	case nil, *slog.Source, slog.Level, time.Time:
		return slog.AnyValue(v)
	case error:
		return slog.StringValue(scrubUnder(key, v.Error()))
	}
	printed, err := json.Marshal(v)
	if err != nil {
		return slog.StringValue(scrubUnder(key, fmt.Sprintf("%+v", v)))
	}
	var tree any
	dec := json.NewDecoder(bytes.NewReader(printed))
	dec.UseNumber()
	if err := dec.Decode(&tree); err != nil {
		return slog.StringValue(scrubUnder(key, string(printed)))
	}
	return slog.AnyValue(scrubTree(key, tree))
}

func scrubTree(key string, v any) any {
	switch v := v.(type) {
	case string:
		return scrubUnder(key, v)
	case json.Number:
		if clean := scrubUnder(key, v.String()); clean != v.String() {
			return clean
		}
	case []any:
		for i := range v {
			v[i] = scrubTree(key, v[i])
		}
	case map[string]any:
		clean := make(map[string]any, len(v))
		for k, inner := range v {
			clean[Scrub(k)] = scrubTree(k, inner)
		}
		return clean
	}
	return v
}
