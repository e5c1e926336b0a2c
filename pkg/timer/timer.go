// Package timer is durable timers on JetStream message schedules.
//
// A timer carries nothing but an id. It fires at least once, up to a second late, and perhaps when it no longer should: what is
// due is decided from the record at that moment, so a late, doubled or cancelled timer is harmless (architecture 3).
package timer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/crash"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/telemetry"
)

// versionHeader is the sequence of the record whose deadline a timer stands for: an older record never replaces a newer one's timer.
const versionHeader = "countersign-version"

const codeWrongLastSequence = 10071

// Topology returns the stream and the consumer of a service's timers.
func Topology(service string) eventlog.Topology {
	return eventlog.Topology{
		Streams: []jetstream.StreamConfig{{
			Name: streamName(service), Subjects: []string{"timer." + service + ".>", "due." + service + ".>"},
			// A work queue: what is armed stays, what fired goes when it is acknowledged. Schedules allow no DiscardNew, so there are no limits.
			Storage: jetstream.FileStorage, Retention: jetstream.WorkQueuePolicy,
			AllowMsgSchedules: true, AllowRollup: true, AllowMsgTTL: true, AllowDirect: true, Duplicates: 2 * time.Minute,
		}},
		Consumers: []eventlog.ConsumerSpec{{Stream: streamName(service), Durable: durable, Filters: []string{"due." + service + ".>"}}},
	}
}

const durable = "due"

func streamName(service string) string { return "TIMERS_" + strings.ToUpper(service) }

// Timers arms and fires the timers of one service: one for each aggregate.
type Timers struct {
	service string
	log     *eventlog.Log
	clock   clock.Clock
	logger  *slog.Logger
	tracer  trace.Tracer
}

// Open opens the timers that `init` made.
func Open(ctx context.Context, nc *nats.Conn, service string, c clock.Clock, logger *slog.Logger, tracer trace.Tracer) (*Timers, error) {
	log, err := eventlog.OpenLog(ctx, nc, streamName(service))
	if err != nil {
		return nil, err
	}
	return &Timers{service: service, log: log, clock: c, logger: logger, tracer: tracer}, nil
}

// Arm has the timer of an aggregate fire at due, by the clock of its tenant; one in the past fires at once. version is the sequence
// of the record that the deadline comes from. A timer that a newer record armed is left alone. Arming twice is harmless.
func (t *Timers) Arm(ctx context.Context, k eventlog.Key, due time.Time, version uint64) error {
	if err := k.Validate(); err != nil {
		return err
	}
	subject := "timer." + t.service + "." + k.Tenant + "." + k.ID
	for {
		armed, err := t.log.LeaderLast(ctx, subject)
		switch {
		case errors.Is(err, eventlog.ErrNotFound):
			armed = eventlog.Entry{}
		case err != nil:
			return err
		default:
			if seen, err := strconv.ParseUint(armed.Header.Get(versionHeader), 10, 64); err == nil && seen > version {
				return nil
			}
		}
		// Schedules run on the server's clock: a tenant that lives ahead of the world waits less of it.
		world := due.Add(-t.clock.Now(k.Tenant).Sub(t.clock.Now("")))
		m := nats.NewMsg(subject)
		m.Header.Set("Nats-Schedule", "@at "+world.UTC().Format(time.RFC3339Nano))
		m.Header.Set("Nats-Schedule-Target", "due."+t.service+"."+k.Tenant+"."+k.ID)
		m.Header.Set(versionHeader, strconv.FormatUint(version, 10))
		telemetry.Inject(ctx, m.Header)
		crash.Point("timer.arm")
		_, err = t.log.JetStream().PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(armed.Sequence))
		var api *jetstream.APIError
		if errors.As(err, &api) && api.ErrorCode == codeWrongLastSequence {
			continue // armed or fired in between: look again
		}
		if err != nil {
			return fmt.Errorf("timer: arm: %w", err)
		}
		crash.Point("timer.armed")
		return nil
	}
}

// Fire does what is due for an aggregate, decided from the record, and returns the next deadline with the sequence of the record
// that it comes from; the zero time when nothing waits any more.
type Fire func(ctx context.Context, k eventlog.Key) (next time.Time, version uint64, err error)

// Run fires timers until ctx ends. A timer is acknowledged after its effect stands and the next one is armed.
func (t *Timers) Run(ctx context.Context, fire Fire) error {
	c := eventlog.Consumer{
		Service: t.service, Stream: t.log.Name(), Durable: durable, Due: true, Logger: t.logger, Tracer: t.tracer,
		Handle: func(ctx context.Context, m eventlog.Message) error {
			_, _, k, err := eventlog.ParseSubject(m.Subject)
			if err != nil {
				return eventlog.Poison(err)
			}
			crash.Point("timer.fire")
			next, version, err := fire(ctx, k)
			if err != nil || next.IsZero() {
				return err
			}
			return t.Arm(ctx, k, next, version)
		},
	}
	return c.Run(ctx, t.log.JetStream())
}
