package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"unicode"
)

// line logs through a fresh logger and returns the one JSON object that came of it.
func line(t *testing.T, log func(*slog.Logger)) (map[string]any, string) {
	t.Helper()
	var out bytes.Buffer
	log(slog.New(NewHandler(&out, slog.LevelDebug)))
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Fatalf("%d lines: %q", n, out.String())
	}
	var m map[string]any
	if err := json.Unmarshal(out.Bytes(), &m); err != nil {
		t.Fatalf("%v: %q", err, out.String())
	}
	return m, out.String()
}

func TestALineCannotBeForged(t *testing.T) {
	t.Parallel()
	evil := "x\n{\"level\":\"ERROR\"}\u202e\x1b[2J\u2066"
	got, raw := line(t, func(l *slog.Logger) {
		l.Info(evil, "agent", evil, "err", errors.New(evil), "any", map[string]any{evil: []string{evil}})
	})
	if got["level"] != "INFO" {
		t.Errorf("level %v", got["level"])
	}
	for _, text := range []string{raw, got["msg"].(string), got["agent"].(string), got["err"].(string)} {
		for _, r := range strings.TrimSuffix(text, "\n") {
			if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
				t.Errorf("%q keeps %U", text, r)
			}
		}
	}
	for k, v := range got["any"].(map[string]any) {
		if strings.ContainsAny(k, "\n\x1b\u202e") || strings.ContainsAny(v.([]any)[0].(string), "\n\x1b\u202e") {
			t.Errorf("%q: %q keeps control characters", k, v)
		}
	}
}

func TestALineHoldsNoSecret(t *testing.T) {
	t.Parallel()
	const token, mail = "cs1_AbCdEfGh0123456789AbCdEfGh", "ada@acme.test"
	type nested struct {
		To   string `json:"to"`
		Code int    `json:"code"`
	}
	got, raw := line(t, func(l *slog.Logger) {
		l.With("preset", token).WithGroup("call").Warn("open "+token, "err", errors.New("550 "+mail), "code", 123456,
			"big", uint64(12345678), slog.Group("in", "otp", "654321", "who", mail), "any", nested{mail, 222333}, "list", []string{token})
	})
	for _, secret := range []string{token, mail, "123456,", "654321", "222333"} {
		if strings.Contains(raw, secret) {
			t.Errorf("%q stands in %s", secret, raw)
		}
	}
	if call := got["call"].(map[string]any); call["big"] != float64(12345678) {
		t.Errorf("a plain number was changed: %v", call["big"])
	}
}

func TestALineNamesItsTraceAndRequest(t *testing.T) {
	t.Parallel()
	tel := Nop()
	ctx, span := tel.Tracer("t").Start(WithRequest(t.Context(), "req_1", "acme"), "work")
	defer span.End()
	got, _ := line(t, func(l *slog.Logger) { l.With("a", 1).WithGroup("g").With("b", 2).InfoContext(ctx, "hello", "c", 3) })
	group := got["g"].(map[string]any)
	if got["trace_id"] != span.SpanContext().TraceID().String() || got["span_id"] != span.SpanContext().SpanID().String() ||
		got["request_id"] != "req_1" || got["tenant"] != "acme" || got["a"] != 1.0 || group["b"] != 2.0 || group["c"] != 3.0 {
		t.Errorf("got %v", got)
	}
	got, _ = line(t, func(l *slog.Logger) { l.InfoContext(context.Background(), "hello") })
	if _, there := got["trace_id"]; there {
		t.Errorf("a trace out of nowhere: %v", got)
	}
}

func TestLevelAndSilence(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	slog.New(NewHandler(&out, slog.LevelWarn)).Info("quiet")
	slog.New(NewHandler(nil, nil)).Error("nowhere")
	if out.Len() > 0 {
		t.Errorf("logged %q", out.String())
	}
}
