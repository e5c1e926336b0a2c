package eventlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// followAhead is how many messages the server may send before they are asked for: what a follower holds at most.
	followAhead = 64
	// followExpiry is how long the server keeps what nobody waits for any more.
	followExpiry = 10 * time.Second
	// quietFor is how long it may take to find out that nothing was missed.
	quietFor = 5 * time.Second
)

// ErrQuiet means that nothing came for as long as one wanted to wait.
var ErrQuiet = errors.New("eventlog: nothing new")

// Follower reads a stream as it grows, in order. It takes from the server only what it is asked for. Not for concurrent use.
type Follower struct {
	log      *Log
	filter   string
	at       uint64
	messages jetstream.MessagesContext
}

// Bounds returns the first and the last sequence that a stream has, as its leader knows.
func (l *Log) Bounds(ctx context.Context) (first, last uint64, err error) {
	info, err := ask(ctx, func(try context.Context) (*jetstream.StreamInfo, error) { return l.stream.Info(try) })
	if err != nil {
		return 0, 0, fmt.Errorf("eventlog: look at %s: %w", l.name, err)
	}
	return info.State.FirstSeq, info.State.LastSeq, nil
}

// Follow begins behind a sequence, which may be one that is still to come. Stop it.
func (l *Log) Follow(ctx context.Context, filter string, after uint64) (*Follower, error) {
	consumer, err := l.js.OrderedConsumer(ctx, l.name, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{filter}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1,
	})
	if err != nil {
		return nil, fmt.Errorf("eventlog: follow %s: %w", l.name, err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(followAhead), jetstream.PullExpiry(followExpiry), jetstream.PullHeartbeat(heartbeat))
	if err != nil {
		return nil, fmt.Errorf("eventlog: follow %s: %w", l.name, err)
	}
	return &Follower{log: l, filter: filter, at: after, messages: messages}, nil
}

// At is up to where everything was returned: going on behind it misses nothing.
func (f *Follower) At() uint64 { return f.at }

// Stop lets go of the stream.
func (f *Follower) Stop() { f.messages.Stop() }

// Next waits for the next message, or returns ErrQuiet after wait: then At is where the stream ends, as far as that could be found out.
func (f *Follower) Next(ctx context.Context, wait time.Duration) (Entry, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	e, err := nextOf(waiting, f.messages)
	cancel()
	switch {
	case err == nil:
		f.at = e.Sequence
		return e, nil
	case ctx.Err() != nil:
		return Entry{}, ctx.Err()
	case !errors.Is(err, context.DeadlineExceeded):
		return Entry{}, fmt.Errorf("eventlog: follow %s: %w", f.log.name, err)
	}
	asking, cancel := context.WithTimeout(ctx, quietFor)
	defer cancel()
	if at, err := f.log.quiet(asking, f.filter, f.at); err == nil {
		f.at = at
	}
	return Entry{}, ErrQuiet
}

// quiet returns up to where nothing is stored under a filter after a sequence: the end of the stream, or where something is, the
// sequence itself.
func (l *Log) quiet(ctx context.Context, filter string, after uint64) (uint64, error) {
	// The end is asked for first: what is stored between the two questions lies behind it.
	_, last, err := l.Bounds(ctx)
	if err != nil || last <= after {
		return after, err
	}
	if _, err := l.LeaderNext(ctx, filter, after+1); !errors.Is(err, ErrNotFound) {
		return after, err
	}
	return last, nil
}
