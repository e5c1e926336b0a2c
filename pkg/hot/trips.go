package hot

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
)

// trips carries commands to Redis. Those that come while one is under way go together on the next, at most manyPerTrip of them: what a
// command costs, here and there, is mostly the trip.
type trips struct {
	rdb     redis.UniversalClient
	timeout time.Duration
	// alone has every command travel alone. On a Cluster a master that does not answer would hold up the commands to the others.
	alone bool

	mu       sync.Mutex
	waiting  []*passenger
	underWay bool
}

// passenger is a command that waits for its answer. board puts it on a trip.
type passenger struct {
	ctx   context.Context //nolint:containedctx // of whoever waits
	board func(context.Context, redis.Cmdable)
	back  chan struct{}
}

func newTrips(rdb redis.UniversalClient, timeout time.Duration) *trips {
	_, cluster := rdb.(*redis.ClusterClient)
	return &trips{rdb: rdb, timeout: timeout, alone: cluster}
}

// carry has a command carried out, which keeps its own answer and error. An error is that of ctx, which ended before: the command may
// be carried out all the same. A command of a recorded story travels alone, so that the story shows how long it took.
func (t *trips) carry(ctx context.Context, board func(context.Context, redis.Cmdable)) error {
	if t.alone || trace.SpanContextFromContext(ctx).IsSampled() {
		board(ctx, t.rdb)
		return nil
	}
	t.mu.Lock()
	if !t.underWay {
		t.underWay = true
		t.mu.Unlock()
		board(ctx, t.rdb)
		t.next()
		return nil
	}
	p := &passenger{ctx: ctx, board: board, back: make(chan struct{})}
	t.waiting = append(t.waiting, p)
	t.mu.Unlock()
	select {
	case <-p.back:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// next sends off those who wait, when a trip has come to its end.
func (t *trips) next() {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(t.waiting), manyPerTrip)
	if t.underWay = n > 0; t.underWay {
		go t.trip(t.waiting[:n:n])
	}
	t.waiting = t.waiting[n:]
}

func (t *trips) trip(aboard []*passenger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(aboard[0].ctx), t.timeout)
	defer cancel()
	// The pipeline's error is that of one of its commands: each has its own.
	_, _ = t.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, one := range aboard {
			one.board(ctx, p)
		}
		return nil
	})
	for _, one := range aboard {
		close(one.back)
	}
	t.next()
}
