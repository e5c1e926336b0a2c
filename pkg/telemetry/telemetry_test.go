package telemetry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"countersign.dev/pkg/telemetry"
	"countersign.dev/pkg/telemetry/telemetrytest"
)

func setup(t *testing.T, o telemetry.Options) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.Setup(t.Context(), o)
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

func flush(t *testing.T, tels ...*telemetry.Telemetry) {
	t.Helper()
	for _, tel := range tels {
		if err := tel.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A platform's publish, a consumer of it, and a timer days later are one story over three services in one process.
func TestOneStoryOverServicesHopsAndDays(t *testing.T) {
	t.Parallel()
	sink := telemetrytest.NewSink(t)
	intake := setup(t, telemetry.Options{Service: "intake", OTLPEndpoint: sink.Endpoint()})
	token := setup(t, telemetry.Options{Service: "token", OTLPEndpoint: "http://" + sink.Endpoint()})
	reminder := setup(t, telemetry.Options{Service: "reminder", OTLPEndpoint: sink.Endpoint(), SampleRatio: -1})

	message := nats.Header{}
	ctx := telemetry.WithRequest(t.Context(), "req_1", "acme")
	_, publish := telemetry.StartPublish(ctx, intake.Tracer("t"), "INTAKE", message)
	publish.End()

	ctx, consume := telemetry.StartConsume(context.Background(), token.Tracer("t"), "INTAKE", message)
	ctx = telemetry.WithRequest(ctx, "req_1", "acme") // known once the message is read
	_, inner := token.Tracer("t").Start(ctx, "decide")
	inner.End()
	timer := nats.Header{}
	telemetry.Inject(ctx, timer)
	consume.End()

	// Its own ratio is none: it is recorded since what it continues was.
	// The loop it is heard in has a span of its own, which is no part of the story.
	loop, polling := reminder.Tracer("t").Start(t.Context(), "poll")
	ctx, due := telemetry.StartDue(loop, reminder.Tracer("t"), "TIMERS", timer)
	telemetry.WithRequest(ctx, "req_1", "")
	due.End()
	polling.End()
	flush(t, intake, token, reminder)

	spans := sink.Wait(t, 5*time.Second, func(s []telemetrytest.Span) bool { return len(s) == 4 })
	sink.AssertOneStory(t, "req_1", "intake", "token", "reminder")
	for _, sp := range spans {
		switch sp.Name {
		case "consume INTAKE":
			if sp.ParentID != publish.SpanContext().SpanID().String() {
				t.Errorf("the consumer's parent is %q", sp.ParentID)
			}
		case "decide":
			if sp.Attr("countersign.tenant") != "acme" {
				t.Errorf("an inner span lacks the tenant: %v", sp.Attributes)
			}
		case "due TIMERS":
			if sp.ParentID != "" || len(sp.LinkSpans) != 1 || sp.LinkSpans[0] != consume.SpanContext().SpanID().String() {
				t.Errorf("the timer's span has parent %q, links %v", sp.ParentID, sp.LinkSpans)
			}
		}
	}
}

func TestAStoryNotRecordedStaysSo(t *testing.T) {
	t.Parallel()
	sink := telemetrytest.NewSink(t)
	off := setup(t, telemetry.Options{Service: "off", SampleRatio: -1})
	on := setup(t, telemetry.Options{Service: "on", OTLPEndpoint: sink.Endpoint()})
	h := nats.Header{}
	_, span := telemetry.StartPublish(t.Context(), off.Tracer("t"), "INTAKE", h)
	span.End()
	for _, start := range []func() trace.Span{
		func() trace.Span {
			_, s := telemetry.StartConsume(context.Background(), on.Tracer("t"), "X", h)
			return s
		},
		func() trace.Span { _, s := telemetry.StartDue(context.Background(), on.Tracer("t"), "X", h); return s },
	} {
		s := start()
		if s.SpanContext().IsSampled() {
			t.Error("recorded, though its beginning was not")
		}
		s.End()
	}
	// A stranger's link, as an edge makes it, does not decide.
	stranger := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled})
	_, s := off.Tracer("t").Start(t.Context(), "edge", trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: stranger}))
	if s.SpanContext().IsSampled() {
		t.Error("a stranger's link switched recording on")
	}
	s.End()
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	tel := setup(t, telemetry.Options{Service: "s"})
	ctx, span := tel.Tracer("t").Start(t.Context(), "x")
	defer span.End()
	h := nats.Header{"baggage": {"who=ada"}}
	telemetry.Inject(ctx, h)
	if got := h.Get("traceparent"); !strings.Contains(got, span.SpanContext().TraceID().String()) {
		t.Errorf("traceparent %q", got)
	}
	kept := h.Get("traceparent")
	telemetry.Inject(context.Background(), h)
	if h.Get("traceparent") != kept {
		t.Error("a forwarded message lost its story")
	}
	for _, bad := range []nats.Header{nil, {}, {"traceparent": {"00-zz"}}, {"traceparent": {"00-" + strings.Repeat("0", 32) + "-0000000000000001-01"}}} {
		if _, ok := telemetry.LinkFrom(bad); ok {
			t.Errorf("a link from %v", bad)
		}
		c, s := telemetry.StartConsume(context.Background(), tel.Tracer("t"), "X", bad)
		if !trace.SpanContextFromContext(c).IsValid() {
			t.Errorf("no new trace after %v", bad)
		}
		s.End()
	}
}

func TestSpansAreScrubbed(t *testing.T) {
	t.Parallel()
	const token, mail = "cs1_AbCdEfGh0123456789AbCdEfGh", "ada@acme.test"
	sink := telemetrytest.NewSink(t)
	tel := setup(t, telemetry.Options{Service: "s", OTLPEndpoint: sink.Endpoint()})
	_, span := tel.Tracer("t").Start(t.Context(), "GET /s/"+token, trace.WithAttributes(
		attribute.String("url.path", "/s/"+token), attribute.StringSlice("to", []string{mail}), attribute.String("otp", "123456"),
		attribute.Map("deep", attribute.String("to", mail))))
	span.RecordError(errors.New("refused " + mail))
	span.SetStatus(codes.Error, "refused "+mail)
	span.AddEvent("sent to " + mail)
	span.End()
	flush(t, tel)
	spans := sink.Wait(t, 5*time.Second, func(s []telemetrytest.Span) bool { return len(s) == 1 })
	sink.AssertNone(t, token, mail, "123456")
	if spans[0].Name != "GET /s/[redacted]" || !spans[0].Failed {
		t.Errorf("got %q, failed %v", spans[0].Name, spans[0].Failed)
	}
}

func TestMetricsAreScraped(t *testing.T) {
	t.Parallel()
	tel, other := setup(t, telemetry.Options{Service: "s"}), setup(t, telemetry.Options{Service: "s"})
	c, err := tel.Meter("t").Int64Counter("countersign.links.opened")
	if err != nil {
		t.Fatal(err)
	}
	c.Add(t.Context(), 3)
	scrape := func(tel *telemetry.Telemetry) string {
		w := httptest.NewRecorder()
		tel.MetricsHandler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
		body, err := io.ReadAll(w.Result().Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	if got := scrape(tel); !strings.Contains(got, "countersign_links_opened_total 3") || !strings.Contains(got, "go_goroutines") {
		t.Errorf("got %s", got)
	}
	if strings.Contains(scrape(other), "countersign_links") {
		t.Error("two services in one process share their metrics")
	}
}

func TestSetupRefuses(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]telemetry.Options{
		"no service":      {},
		"ratio above one": {Service: "s", SampleRatio: 1.1},
		"ratio no number": {Service: "s", SampleRatio: math.NaN()},
		"endpoint":        {Service: "s", OTLPEndpoint: "collector"},
		"endpoint scheme": {Service: "s", OTLPEndpoint: "ftp://collector"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := telemetry.Setup(t.Context(), o); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestShutdownTwiceAndWithoutACollector(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tel, err := telemetry.Setup(t.Context(), telemetry.Options{Service: "s", OTLPEndpoint: "127.0.0.1:1", Stderr: &out})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tel.Tracer("t").Start(t.Context(), "x")
	span.End()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	first := tel.Shutdown(ctx)
	if first == nil {
		t.Error("lost spans, and said nothing")
	}
	if again := tel.Shutdown(t.Context()); !errors.Is(again, first) {
		t.Errorf("second shutdown: %v", again)
	}
}
