// Package telemetrytest receives spans as a collector would, and asks of them what a person in front of Jaeger asks:
// is this request one story, and does anything in it not belong there.
package telemetrytest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coltracev1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// Span is one received span.
type Span struct {
	Service    string
	Scope      string // the instrumented package
	Name       string
	Kind       tracev1.Span_SpanKind
	TraceID    string // lower-case hex
	SpanID     string
	ParentID   string // empty for a root
	LinksTo    []string
	LinkSpans  []string // span ids of LinksTo, in the same order
	Attributes map[string]string
	Failed     bool
	Raw        *tracev1.Span
}

// Attr returns an attribute as text, or "".
func (s Span) Attr(key string) string { return s.Attributes[key] }

// Sink is a collector on a loopback port, for as long as its test lasts.
type Sink struct {
	coltracev1.UnimplementedTraceServiceServer
	endpoint string

	mu    sync.Mutex
	spans []Span
	raw   [][]byte // every resource and span as it came over the wire
	more  chan struct{}
}

// NewSink starts a sink that ends with the test.
func NewSink(t testing.TB) *Sink {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("telemetrytest: listen: %v", err)
	}
	s := &Sink{endpoint: lis.Addr().String(), more: make(chan struct{})}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	coltracev1.RegisterTraceServiceServer(server, s)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(lis)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	return s
}

// Endpoint is what to give as telemetry.Options.OTLPEndpoint.
func (s *Sink) Endpoint() string { return s.endpoint }

// Export takes in spans; the collector's protocol calls it.
func (s *Sink) Export(_ context.Context, req *coltracev1.ExportTraceServiceRequest) (*coltracev1.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	raw, err := proto.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("telemetrytest: marshal spans again: %w", err)
	}
	s.raw = append(s.raw, raw)
	for _, rs := range req.GetResourceSpans() {
		service := attributes(rs.GetResource().GetAttributes())["service.name"]
		for _, ss := range rs.GetScopeSpans() {
			for _, sp := range ss.GetSpans() {
				s.spans = append(s.spans, spanOf(service, ss.GetScope().GetName(), sp))
			}
		}
	}
	close(s.more)
	s.more = make(chan struct{})
	return &coltracev1.ExportTraceServiceResponse{}, nil
}

// Spans returns everything received so far, in the order it came.
func (s *Sink) Spans() []Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.spans)
}

// Wait returns the spans as soon as enough holds of them; after limit the test fails, and the names received are told.
func (s *Sink) Wait(t testing.TB, limit time.Duration, enough func([]Span) bool) []Span {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		s.mu.Lock()
		spans, more := slices.Clone(s.spans), s.more
		s.mu.Unlock()
		if enough(spans) {
			return spans
		}
		select {
		case <-more:
		case <-ctx.Done():
			t.Fatalf("telemetrytest: not enough spans after %v; received %s", limit, names(spans))
		}
	}
}

// Request returns the spans that name this request.
func Request(spans []Span, requestID string) []Span {
	var found []Span
	for _, sp := range spans {
		if sp.Attr("countersign.request_id") == requestID {
			found = append(found, sp)
		}
	}
	return found
}

// AssertOneStory fails unless every span that names requestID can be reached from every other through traces and links,
// and at least these services took part.
func (s *Sink) AssertOneStory(t testing.TB, requestID string, services ...string) {
	t.Helper()
	if problem := oneStory(s.Spans(), requestID, services); problem != "" {
		t.Error("telemetrytest: " + problem)
	}
}

// AssertNone fails where any byte of any received span, resource or scope holds one of the strings, whatever its case,
// also percent-encoded.
func (s *Sink) AssertNone(t testing.TB, forbidden ...string) {
	t.Helper()
	for _, f := range forbidden {
		for _, form := range slices.Compact([]string{f, url.QueryEscape(f), url.PathEscape(f)}) {
			if at := s.find(regexp.MustCompile("(?i)" + regexp.QuoteMeta(form))); at != "" {
				t.Errorf("telemetrytest: %q stands in a span: %q", form, at)
			}
		}
	}
}

// AssertNoMatch fails where a pattern matches anywhere in what was received.
func (s *Sink) AssertNoMatch(t testing.TB, patterns ...*regexp.Regexp) {
	t.Helper()
	for _, p := range patterns {
		if at := s.find(p); at != "" {
			t.Errorf("telemetrytest: %v matches in a span: %q", p, at)
		}
	}
}

// find returns the surroundings of the first match.
func (s *Sink) find(p *regexp.Regexp) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, raw := range s.raw {
		if loc := p.FindIndex(raw); loc != nil {
			return string(bytes.ToValidUTF8(raw[max(0, loc[0]-40):min(len(raw), loc[1]+40)], []byte(".")))
		}
	}
	return ""
}

func spanOf(service, scope string, sp *tracev1.Span) Span {
	out := Span{
		Service: service, Scope: scope, Name: sp.GetName(), Kind: sp.GetKind(),
		TraceID: fmt.Sprintf("%x", sp.GetTraceId()), SpanID: fmt.Sprintf("%x", sp.GetSpanId()), ParentID: fmt.Sprintf("%x", sp.GetParentSpanId()),
		Attributes: attributes(sp.GetAttributes()),
		Failed:     sp.GetStatus().GetCode() == tracev1.Status_STATUS_CODE_ERROR,
		Raw:        sp,
	}
	for _, l := range sp.GetLinks() {
		out.LinksTo = append(out.LinksTo, fmt.Sprintf("%x", l.GetTraceId()))
		out.LinkSpans = append(out.LinkSpans, fmt.Sprintf("%x", l.GetSpanId()))
	}
	return out
}

func attributes(kvs []*commonv1.KeyValue) map[string]string {
	out := make(map[string]string, len(kvs))
	for _, kv := range kvs {
		switch v := kv.GetValue().GetValue().(type) {
		case *commonv1.AnyValue_StringValue:
			out[kv.GetKey()] = v.StringValue
		case *commonv1.AnyValue_IntValue:
			out[kv.GetKey()] = fmt.Sprint(v.IntValue)
		case *commonv1.AnyValue_BoolValue:
			out[kv.GetKey()] = fmt.Sprint(v.BoolValue)
		case *commonv1.AnyValue_DoubleValue:
			out[kv.GetKey()] = fmt.Sprint(v.DoubleValue)
		default:
			out[kv.GetKey()] = kv.GetValue().String()
		}
	}
	return out
}

func names(spans []Span) string {
	all := make([]string, 0, len(spans))
	for _, sp := range spans {
		all = append(all, sp.Service+"/"+sp.Name)
	}
	return fmt.Sprintf("%d: %s", len(all), strings.Join(all, ", "))
}
