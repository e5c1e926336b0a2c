// Package telemetry gives a process its traces, metrics and logs: one Setup a service, everything handed over explicitly.
//
// Three promises hold whatever is traced or logged: a log line is one JSON object without control or bidirectional
// characters; nothing that looks like one of our tokens, an address or a one-time code leaves the process in a line or a
// span (Scrub); baggage is neither read nor written, since anybody outside may fill it.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"

	// OTLP over gRPC is what Jaeger and every collector take without translation.
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	// The Prometheus exporter lets the same instruments be scraped, with no collector in between.
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Options say what to set up. The zero value of everything but Service is usable.
type Options struct {
	Service string // service.name of spans and log lines; required
	Version string // service.version

	// OTLPEndpoint is where spans go: host:port or http://host:port (plain text), https://host:port (TLS). Empty = nowhere;
	// spans are still made, so that trace ids reach the logs and the next service.
	OTLPEndpoint string

	// SampleRatio is the share of new traces that are recorded, above 0 up to 1. 0 = 1, all; negative = none.
	// A trace begun elsewhere is recorded when its beginning was.
	SampleRatio float64

	Level  slog.Leveler // least level that is logged; nil = Info
	Stderr io.Writer    // where log lines go; nil = nowhere

	// Global also makes the providers otel's process-wide ones, for libraries that take them from nowhere else.
	// Set it once a process, in cmd; without it several Setups live side by side.
	Global bool
}

// Telemetry is what a service traces, measures and logs with. Its fields never are nil.
type Telemetry struct {
	Tracers trace.TracerProvider
	Meters  metric.MeterProvider
	Log     *slog.Logger

	registry *prometheus.Registry
	spans    *sdktrace.TracerProvider
	meters   *sdkmetric.MeterProvider
	shutdown func(context.Context) error
}

// Limits of what one span may hold; what is above is dropped or cut.
const (
	maxSpanAttributes = 64
	maxSpanEvents     = 64
	maxSpanLinks      = 16
	maxAttributeBytes = 1024
)

// Propagator carries trace context, and nothing else, over gRPC, HTTP and NATS.
func Propagator() propagation.TextMapPropagator { return propagation.TraceContext{} }

// Setup makes the telemetry of one service. Unreachable endpoints are no error: spans are retried, then dropped.
// Shutdown must be called, or the last spans are lost.
func Setup(ctx context.Context, o Options) (*Telemetry, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	res := resource.NewSchemaless(attribute.String("service.name", o.Service), attribute.String("service.version", o.Version))
	tracing := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(res),
		sdktrace.WithSampler(newSampler(o.ratio())),
		sdktrace.WithRawSpanLimits(spanLimits()),
		sdktrace.WithSpanProcessor(storyProcessor{}),
	}
	if o.OTLPEndpoint != "" {
		exporter, err := newExporter(ctx, o.OTLPEndpoint)
		if err != nil {
			return nil, err
		}
		tracing = append(tracing, sdktrace.WithBatcher(scrubbingExporter{exporter}))
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reader, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("telemetry: make the Prometheus reader: %w", err)
	}
	t := &Telemetry{
		registry: registry,
		spans:    sdktrace.NewTracerProvider(tracing...),
		meters:   sdkmetric.NewMeterProvider(sdkmetric.WithResource(res), sdkmetric.WithReader(reader)),
		Log:      slog.New(NewHandler(o.Stderr, o.Level)).With("program", o.Service),
	}
	t.Tracers, t.Meters = t.spans, t.meters
	t.shutdown = onceShutdown(t.spans.Shutdown, t.meters.Shutdown)
	if o.Global {
		otel.SetTracerProvider(t.Tracers)
		otel.SetMeterProvider(t.Meters)
		otel.SetTextMapPropagator(Propagator())
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
			t.Log.WarnContext(context.Background(), "telemetry was not sent", "error", err)
		}))
	}
	return t, nil
}

// Nop is telemetry that goes nowhere, for tests and tools. Spans are still made, so that propagation works.
func Nop() *Telemetry {
	t, err := Setup(context.Background(), Options{Service: "nop"})
	if err != nil {
		panic(err) // only wrong options can fail, and these are right
	}
	return t
}

// Tracer returns the tracer of a package; name is its import path.
func (t *Telemetry) Tracer(name string) trace.Tracer { return t.Tracers.Tracer(name) }

// Meter returns the meter of a package; name is its import path.
func (t *Telemetry) Meter(name string) metric.Meter { return t.Meters.Meter(name) }

// MetricsHandler answers a Prometheus scrape with everything measured here, the Go runtime included.
func (t *Telemetry) MetricsHandler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 8, Timeout: 10 * time.Second})
}

// Flush sends every span that has ended, and returns when they have arrived or ctx ends.
func (t *Telemetry) Flush(ctx context.Context) error { return t.spans.ForceFlush(ctx) }

// Shutdown flushes and ends everything; ctx limits the wait. A second call returns what the first one did.
func (t *Telemetry) Shutdown(ctx context.Context) error { return t.shutdown(ctx) }

func (o Options) validate() error {
	if o.Service == "" {
		return errors.New("telemetry: Service is empty; give the name of the service")
	}
	if math.IsNaN(o.SampleRatio) || o.SampleRatio > 1 {
		return fmt.Errorf("telemetry: SampleRatio is %v; give a share from 0 to 1, or a negative one for none", o.SampleRatio)
	}
	return nil
}

func (o Options) ratio() float64 {
	switch {
	case o.SampleRatio == 0:
		return 1
	case o.SampleRatio < 0:
		return 0
	default:
		return o.SampleRatio
	}
}

func spanLimits() sdktrace.SpanLimits {
	l := sdktrace.NewSpanLimits()
	l.AttributeCountLimit, l.AttributeValueLengthLimit = maxSpanAttributes, maxAttributeBytes
	l.EventCountLimit, l.LinkCountLimit = maxSpanEvents, maxSpanLinks
	return l
}

// newExporter reads endpoint as Options.OTLPEndpoint says. It does not wait for a connection.
func newExporter(ctx context.Context, endpoint string) (sdktrace.SpanExporter, error) {
	var options []otlptracegrpc.Option
	if u, err := url.Parse(endpoint); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
		options = append(options, otlptracegrpc.WithEndpointURL(endpoint))
	} else if _, port, err := net.SplitHostPort(endpoint); err == nil && digits(port) {
		options = append(options, otlptracegrpc.WithEndpoint(endpoint), otlptracegrpc.WithInsecure())
	} else {
		return nil, fmt.Errorf("telemetry: OTLPEndpoint %q is neither host:port nor an http or https URL", endpoint)
	}
	exporter, err := otlptracegrpc.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("telemetry: make the OTLP exporter: %w", err)
	}
	return exporter, nil
}

func digits(port string) bool {
	_, err := strconv.ParseUint(port, 10, 16)
	return err == nil
}

func onceShutdown(steps ...func(context.Context) error) func(context.Context) error {
	var once sync.Once
	var result error
	return func(ctx context.Context) error {
		once.Do(func() {
			for _, step := range steps {
				result = errors.Join(result, step(ctx))
			}
		})
		return result
	}
}
