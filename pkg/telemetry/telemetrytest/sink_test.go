package telemetrytest

import (
	"context"
	"regexp"
	"strings"
	"testing"

	coltracev1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
)

func TestOneStory(t *testing.T) {
	t.Parallel()
	span := func(service, trace, request string, links ...string) Span {
		return Span{Service: service, TraceID: trace, LinksTo: links, Attributes: map[string]string{"countersign.request_id": request}}
	}
	for name, tt := range map[string]struct {
		spans    []Span
		services []string
		problem  string
	}{
		"same trace":                 {spans: []Span{span("a", "1", "r"), span("b", "1", "r")}, services: []string{"a", "b"}},
		"joined by a link":           {spans: []Span{span("a", "1", "r"), span("b", "2", "r", "1")}},
		"joined over another's span": {spans: []Span{span("a", "1", "r"), span("x", "2", "", "1"), span("b", "3", "r", "2")}},
		"joined in a ring":           {spans: []Span{span("a", "1", "r", "2"), span("b", "2", "r", "3"), span("c", "3", "r", "1")}},
		"two stories":                {spans: []Span{span("a", "1", "r"), span("b", "2", "r")}, problem: "2 stories"},
		"other requests do not join": {spans: []Span{span("a", "1", "r"), span("a", "2", "q")}},
		"a service is missing":       {spans: []Span{span("a", "1", "r")}, services: []string{"b"}, problem: "service b"},
		"no span at all":             {problem: "no span names request r"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := oneStory(tt.spans, "r", tt.services)
			if (tt.problem == "") != (got == "") || !strings.Contains(got, tt.problem) {
				t.Errorf("got %q, want %q", got, tt.problem)
			}
		})
	}
}

func TestFindLooksEverywhere(t *testing.T) {
	t.Parallel()
	text := func(s string) *commonv1.AnyValue {
		return &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: s}}
	}
	sink := NewSink(t)
	_, err := sink.Export(context.Background(), &coltracev1.ExportTraceServiceRequest{ResourceSpans: []*tracev1.ResourceSpans{{
		Resource: &resourcev1.Resource{Attributes: []*commonv1.KeyValue{{Key: "service.name", Value: text("in-resource")}}},
		ScopeSpans: []*tracev1.ScopeSpans{{Spans: []*tracev1.Span{{
			Name:       "in-name",
			Attributes: []*commonv1.KeyValue{{Key: "in-key", Value: text("In-Value")}},
			Events:     []*tracev1.Span_Event{{Name: "in-event"}},
			Status:     &tracev1.Status{Message: "in-status"},
			Links:      []*tracev1.Span_Link{{TraceState: "in-state"}},
		}}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{"in-resource", "in-name", "in-key", "in-value", "in-event", "in-status", "in-state"} {
		if sink.find(regexp.MustCompile("(?i)"+place)) == "" {
			t.Errorf("%s was not found", place)
		}
	}
	sink.AssertNone(t, "in-nothing")
	if sp := sink.Spans()[0]; sp.Service != "in-resource" || sp.Attr("in-key") != "In-Value" {
		t.Errorf("got %+v", sp)
	}
}
