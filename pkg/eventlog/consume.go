package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"countersign.dev/pkg/crash"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/telemetry"
)

// AckWait is how long the server waits for an acknowledgement or a heart-beat before it delivers again: how long what was in hand rests
// when a process is killed.
const AckWait = 10 * time.Second

// heartbeat is how often the server says that it still knows of whoever waits for messages; one that is silent for twice as long is
// asked again. Nothing else makes up for a server that was killed: what was asked of it is lost, and the client, which may be connected
// to another, is not told. The new leader does tell those of whom the old one told it, but the servers keep in common only who waits
// and not for how much: a client that asks for more before it has all that it asked for is forgotten when it has that. And what is asked
// while nobody leads is dropped without a word. By default the heartbeat is 15 s, and a killed server silences a consumer for 30 s, or
// for 60 s when another one is killed then.
const heartbeat = 2 * time.Second

// buryAfter is how many deliveries an unexpected error gets before the message goes to the dead letters. Errors that say
// "not now" (Unavailable, time-outs) are tried for ever: an outage is not the message's fault.
const buryAfter = 20

// Message is one delivery of a stream's message.
type Message struct {
	Stream   string
	Subject  string
	Sequence uint64
	Header   nats.Header
	Data     []byte
	Stored   time.Time // when the server took it, by its clock
	// Deliveries is 1 at the first delivery.
	Deliveries uint64
	// Reply is where the publisher wants an answer; empty when it does not.
	Reply string
}

// Handler does what a message asks. nil acknowledges; a poisoned message goes to the dead letters; anything else comes back later.
// It must be idempotent: a message is delivered at least once.
type Handler func(ctx context.Context, m Message) error

// errPoison marks an error that no repetition mends.
type errPoison struct{ error }

func (e errPoison) Unwrap() error { return e.error }

// Poison marks an error that no repetition mends, so that its message goes to the dead letters at once.
func Poison(err error) error { return errPoison{err} }

// Consumer hands the messages of one durable consumer to a handler.
type Consumer struct {
	Service string
	Stream  string
	Durable string
	Handle  Handler
	// Workers is how many messages are handled at once; 0 is 16.
	Workers int
	// Due marks messages that come after a long wait: their spans are linked to the story, not part of the trace.
	Due bool
	// Seal encrypts what is put among the dead letters; nil where messages hold nothing private.
	Seal   func([]byte) ([]byte, error)
	Logger *slog.Logger
	Tracer trace.Tracer
}

// Run hands messages over until ctx ends, then waits for those in hand. The consumer must exist: `init` makes it.
func (c *Consumer) Run(ctx context.Context, js jetstream.JetStream) error {
	cons, err := js.Consumer(ctx, c.Stream, c.Durable)
	if err != nil {
		return fmt.Errorf("eventlog: consumer %s of %s (made by `countersign init`): %w", c.Durable, c.Stream, err)
	}
	workers := c.Workers
	if workers == 0 {
		workers = 16
	}
	// Not more than one waiting message a worker: what waits here ages against AckWait.
	messages, err := cons.Messages(jetstream.PullMaxMessages(2*workers), jetstream.PullHeartbeat(heartbeat))
	if err != nil {
		return fmt.Errorf("eventlog: consume %s of %s: %w", c.Durable, c.Stream, err)
	}
	stop := context.AfterFunc(ctx, messages.Stop)
	defer stop()
	// What is in hand when ctx ends is finished: its effects may be half done.
	work := context.WithoutCancel(ctx)
	slots := make(chan struct{}, workers)
	var inHand sync.WaitGroup
	defer inHand.Wait()
	for {
		msg, err := messages.Next()
		switch {
		case errors.Is(err, jetstream.ErrMsgIteratorClosed):
			return nil
		case err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			// A missed heart-beat or a reconnect: the iterator goes on by itself.
			c.Logger.WarnContext(ctx, "consumer is waiting for the server", "stream", c.Stream, "durable", c.Durable, "error", err)
			if pause(ctx, 100*time.Millisecond, 200*time.Millisecond) != nil {
				return nil
			}
			continue
		}
		slots <- struct{}{}
		inHand.Go(func() {
			defer func() { <-slots }()
			c.one(work, js, msg)
		})
	}
}

// one handles a delivery and settles it.
func (c *Consumer) one(ctx context.Context, js jetstream.JetStream, msg jetstream.Msg) {
	meta, err := msg.Metadata()
	if err != nil {
		c.Logger.ErrorContext(ctx, "delivery without metadata", "stream", c.Stream, "error", err)
		return
	}
	m := Message{
		Stream: meta.Stream, Subject: msg.Subject(), Sequence: meta.Sequence.Stream, Header: msg.Headers(), Data: msg.Data(),
		Stored: meta.Timestamp, Deliveries: meta.NumDelivered, Reply: msg.Headers().Get(ReplyHeader),
	}
	if m.Header == nil {
		m.Header = nats.Header{}
	}
	ctx, span := c.start(ctx, m.Header)
	defer span.End()
	beating, stop := context.WithCancel(ctx)
	defer stop()
	go beat(beating, msg)

	crash.Point("consume.before")
	err = c.guarded(ctx, m)
	stop()
	crash.Point("consume.handled")
	if err == nil {
		c.settled(ctx, msg.Ack())
		crash.Point("consume.acked")
		return
	}
	span.SetStatus(otelcodes.Error, "not handled")
	if !dead(err, m.Deliveries) {
		level := slog.LevelWarn
		if m.Deliveries == 1 {
			level = slog.LevelInfo
		}
		c.Logger.Log(ctx, level, "message comes back later", "stream", m.Stream, "sequence", m.Sequence, "deliveries", m.Deliveries, "error", err)
		c.settled(ctx, msg.NakWithDelay(backoff(m.Deliveries)))
		return
	}
	c.Logger.ErrorContext(ctx, "message goes to the dead letters", "stream", m.Stream, "sequence", m.Sequence, "deliveries", m.Deliveries, "error", err)
	if err := c.bury(ctx, js, m, err); err != nil {
		c.Logger.ErrorContext(ctx, "dead letter was not stored; message comes back", "stream", m.Stream, "sequence", m.Sequence, "error", err)
		c.settled(ctx, msg.NakWithDelay(time.Minute))
		return
	}
	crash.Point("consume.buried")
	c.settled(ctx, msg.TermWithReason("buried"))
}

func (c *Consumer) start(ctx context.Context, h nats.Header) (context.Context, trace.Span) {
	if c.Due {
		return telemetry.StartDue(ctx, c.Tracer, c.Stream, h)
	}
	return telemetry.StartConsume(ctx, c.Tracer, c.Stream, h)
}

// settled logs an acknowledgement that did not go out: the message will be delivered again, which handlers bear.
func (c *Consumer) settled(ctx context.Context, err error) {
	if err != nil {
		c.Logger.WarnContext(ctx, "acknowledgement was not sent", "stream", c.Stream, "error", err)
	}
}

// guarded calls the handler and makes an error of a panic.
func (c *Consumer) guarded(ctx context.Context, m Message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.Logger.ErrorContext(ctx, "handler panicked", "stream", m.Stream, "sequence", m.Sequence, "stack", string(debug.Stack()))
			err = fmt.Errorf("handler panicked: %v", p)
		}
	}()
	return c.Handle(ctx, m)
}

// beat tells the server that the message is in hand, so that a long effect is not started twice.
func beat(ctx context.Context, msg jetstream.Msg) {
	t := time.NewTicker(AckWait / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if msg.InProgress() != nil {
				return
			}
		}
	}
}

// dead tells whether an error ends a message.
func dead(err error, deliveries uint64) bool {
	var poison errPoison
	if errors.As(err, &poison) {
		return true
	}
	if notNow(err) {
		return false
	}
	return deliveries >= buryAfter
}

// notNow tells whether an error says that the world, not the message, is to blame.
func notNow(err error) bool {
	if f := failure.From(err); f != nil {
		return f.Retryable
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Aborted:
		return true
	default:
	}
	return errors.Is(err, ErrUnknown) || errors.Is(err, ErrBehind) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, nats.ErrDisconnected)
}

// backoff is how long a message waits before its next delivery: 100 ms doubled each time, at most 30 s.
func backoff(deliveries uint64) time.Duration {
	return min(30*time.Second, 100*time.Millisecond<<min(deliveries-1, 10))
}

// Headers of a dead letter and of an intake message.
const (
	DeadStreamHeader     = "dead-stream"
	DeadSequenceHeader   = "dead-seq"
	DeadSubjectHeader    = "dead-subject"
	DeadErrorHeader      = "dead-error"
	DeadDeliveriesHeader = "dead-deliveries"
	DeadSealedHeader     = "dead-sealed"
	ReplyHeader          = "countersign-reply"
)

// bury stores a message among the dead letters, without the headers by which the server would act on it again.
func (c *Consumer) bury(ctx context.Context, js jetstream.JetStream, m Message, cause error) error {
	d := nats.NewMsg("dead." + c.Service + "." + m.Stream)
	for k, v := range m.Header {
		if !strings.HasPrefix(k, "Nats-") {
			d.Header[k] = v
		}
	}
	d.Data = m.Data
	if c.Seal != nil {
		sealed, err := c.Seal(m.Data)
		if err != nil {
			return fmt.Errorf("seal: %w", err)
		}
		d.Data = sealed
		d.Header.Set(DeadSealedHeader, "vault")
	}
	text := telemetry.Scrub(cause.Error())
	d.Header.Set(DeadStreamHeader, m.Stream)
	d.Header.Set(DeadSequenceHeader, fmt.Sprint(m.Sequence))
	d.Header.Set(DeadSubjectHeader, m.Subject)
	d.Header.Set(DeadErrorHeader, text[:min(len(text), 500)])
	d.Header.Set(DeadDeliveriesHeader, fmt.Sprint(m.Deliveries))
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := js.PublishMsg(ctx, d, jetstream.WithMsgID(fmt.Sprintf("%s/%s/%d", c.Service, m.Stream, m.Sequence)))
	return err
}
