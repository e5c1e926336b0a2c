// Package host is what every service stands on: the connections, keys, clock and telemetry of its process.
package host

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/telemetry"
)

// Host is the process as a service sees it. All fields are set.
type Host struct {
	NATS      *nats.Conn
	Redis     redis.UniversalClient
	Keys      *keys.Ring
	Files     Files // named PEM files beside the keys, such as the authority for PDF signatures
	Clock     clock.Clock
	Telemetry *telemetry.Telemetry
	Logger    *slog.Logger
	Marks     *eventlog.Marks
	Peers     Peers

	// LazySync accepts a record on a server that acknowledges before it syncs: a power cut may lose the last moments.
	LazySync bool
}

// Files are named PEM files: keys.Dir, or keys.Mounted.
type Files interface {
	// Load returns what was stored under name; keys.ErrMissing, ErrMode or ErrFormat where that cannot be used.
	Load(name string) ([]byte, error)
}

// Peers reaches other services: through memory in one process, through TCP apart.
type Peers interface {
	// Dial returns a connection to the named service. It does not wait for it, and it is shared: do not close it.
	Dial(service string) (*grpc.ClientConn, error)
}

// Service is a running part of Countersign.
type Service interface {
	// Register puts the service's gRPC interface on a server.
	Register(grpc.ServiceRegistrar)
	// Run works until ctx ends, then finishes what is in hand and returns.
	Run(ctx context.Context) error
}

// Tracer returns the tracer of a service.
func (h *Host) Tracer(service string) trace.Tracer {
	return h.Telemetry.Tracer("countersign.dev/services/" + service)
}

// Facts opens a service's stream of facts, after checking that it is the one it was and under the keys of this process.
func (h *Host) Facts(ctx context.Context, service string) (*eventlog.Log, error) {
	return h.Open(ctx, eventlog.FactsStream(service))
}

// Open opens a stream whose record must be whole: see Facts.
func (h *Host) Open(ctx context.Context, stream string) (*eventlog.Log, error) {
	log, err := eventlog.OpenLog(ctx, h.NATS, stream)
	if err != nil {
		return nil, err
	}
	if id := log.Stream().CachedInfo().Config.Metadata[eventlog.KeysKey]; id != "" && id != h.Keys.ID() {
		return nil, fmt.Errorf("host: stream %s was made under the keys %s, this process has %s: start with the keys directory it was made with", log.Name(), id, h.Keys.ID())
	}
	if sync := log.Stream().CachedInfo().Config.Metadata[eventlog.SyncKey]; sync != eventlog.SyncAlways && !h.LazySync {
		return nil, fmt.Errorf("host: stream %s is on a server that acknowledges before it syncs (or `init` could not find out): a power cut would lose what was acknowledged. "+
			"Set `sync_interval: always` in its jetstream block and run `countersign init` again, or accept the loss with --allow-lazy-sync", log.Name())
	}
	if err := h.Marks.Check(ctx, log.Stream()); err != nil {
		return nil, err
	}
	log.MarkWith(h.Marks.Note)
	return log, nil
}

// Consumer returns a consumer of one of the streams that a service hears, ready to Run.
func (h *Host) Consumer(service, stream, durable string, handle eventlog.Handler) *eventlog.Consumer {
	return &eventlog.Consumer{
		Service: service, Stream: stream, Durable: durable, Handle: handle,
		Logger: h.Logger, Tracer: h.Tracer(service),
	}
}
