package eventlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Topology is what a service needs of the server. `countersign init` makes it; services only open it.
type Topology struct {
	Streams   []jetstream.StreamConfig
	Consumers []ConsumerSpec
}

// ConsumerSpec is a durable pull consumer.
type ConsumerSpec struct {
	Stream  string
	Durable string
	Filters []string // empty: the whole stream
	// MaxAckPending is how many may be in hand at once; 0 is 256. 1 keeps the stream's order.
	MaxAckPending int
}

// Merge returns all of the topologies as one.
func Merge(all ...Topology) Topology {
	var t Topology
	for _, o := range all {
		t.Streams = append(t.Streams, o.Streams...)
		t.Consumers = append(t.Consumers, o.Consumers...)
	}
	return t
}

// FactsConfig returns a service's stream of facts: full means an error to the writer, and nothing can be deleted (mechanisms 2).
func FactsConfig(service string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: FactsStream(service), Subjects: []string{"fact." + service + ".>"},
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy,
		Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 10_000,
		DenyDelete: true, DenyPurge: true, AllowDirect: true, Duplicates: 2 * time.Minute, MaxMsgSize: 64 << 10,
	}
}

// SharedStreams returns the streams that belong to no single service: dead letters, and the server's own advisories of dropped messages.
func SharedStreams() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{
			Name: DeadStream, Subjects: []string{"dead.>"}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew,
			MaxBytes: 1 << 30, DenyDelete: true, Duplicates: 24 * time.Hour,
		},
		{
			Name: "ADVISORIES", Storage: jetstream.FileStorage, MaxAge: 30 * 24 * time.Hour,
			Subjects: []string{"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>", "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>"},
		},
		// One message a service: a write that succeeds is what readiness means (decisions 26).
		{Name: "HEALTH", Subjects: []string{"health.*"}, Storage: jetstream.FileStorage, MaxMsgsPerSubject: 1, AllowDirect: true},
	}
}

// Metadata keys of a stream's birth certificate.
const (
	BirthKey = "countersign-birth" // an id of this very stream: a stream made anew has another
	KeysKey  = "countersign-keys"  // id of the keys its private data are under
	SyncKey  = "countersign-sync"  // whether the server syncs before it acknowledges, as `init` last saw it
)

// DeadStream has what could not be handled, with the error.
const DeadStream = "DEAD"

// SyncAlways is the value of SyncKey that survives a power cut.
const SyncAlways = "always"

// is tells whether an error is the server's of a code.
func is(err error, code jetstream.ErrorCode) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == code
}

// Provision makes the streams and consumers that are missing, each stream with the birth certificate that stamp gives it.
// What is there already keeps its certificate and takes the new settings. It returns the names of the streams it made.
func Provision(ctx context.Context, js jetstream.JetStream, t Topology, replicas int, stamp func(stream string) map[string]string) ([]string, error) {
	var made []string
	for _, cfg := range t.Streams {
		cfg.Replicas = replicas
		old, err := js.Stream(ctx, cfg.Name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			cfg.Metadata = stamp(cfg.Name)
			made = append(made, cfg.Name)
		case err != nil:
			return made, fmt.Errorf("eventlog: look at stream %s: %w", cfg.Name, err)
		default:
			// Its birth stays; how the server syncs is what it is today.
			cfg.Metadata = old.CachedInfo().Config.Metadata
			if cfg.Metadata == nil {
				cfg.Metadata = map[string]string{}
			}
			cfg.Metadata[SyncKey] = stamp(cfg.Name)[SyncKey]
		}
		if _, err := js.CreateOrUpdateStream(ctx, cfg); is(err, codeNoRoom) {
			return made, fmt.Errorf("eventlog: stream %s needs %d MiB, more than the server may still use: that is its max_file_store, or three quarters of what "+
				"was free on its disk when it started; make room there and start it again: %w", cfg.Name, cfg.MaxBytes>>20, err)
		} else if err != nil {
			return made, fmt.Errorf("eventlog: make stream %s: %w", cfg.Name, err)
		}
	}
	for _, spec := range t.Consumers {
		pending := spec.MaxAckPending
		if pending == 0 {
			pending = 256
		}
		// MaxDeliver -1: the server would drop a message silently at a limit; the handler counts instead (mechanisms 6).
		_, err := js.CreateOrUpdateConsumer(ctx, spec.Stream, jetstream.ConsumerConfig{
			Durable: spec.Durable, FilterSubjects: spec.Filters, AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: AckWait, MaxAckPending: pending, MaxDeliver: -1,
		})
		if is(err, codeConsumerStore) {
			return made, fmt.Errorf("eventlog: the server's files of consumer %s of stream %s are damaged, as a power cut leaves them where it did not sync: "+
				"restore the record from a backup: %w", spec.Durable, spec.Stream, err)
		}
		if err != nil {
			return made, fmt.Errorf("eventlog: make consumer %s of %s: %w", spec.Durable, spec.Stream, err)
		}
	}
	return made, nil
}
