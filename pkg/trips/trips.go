// Package trips carries together the commands to Redis that come at the same time: what a command costs, here and there, is mostly the trip.
package trips

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
)

// atOnce is how many trips are under way: Redis works on what one brought while the others are on their way, also where that is long.
const atOnce = 4

// Most is how many commands go on one trip, so that no answer holds up the others on its connection.
const Most = 256

// Trips carries commands to one Redis. Those that come while some trips are under way go together on the next. Make one with New; it is
// safe for concurrent use.
type Trips struct {
	rdb     redis.UniversalClient
	timeout time.Duration
	// alone has every command travel alone. On a Cluster a master that does not answer would hold up the commands to the others.
	alone bool

	mu       sync.Mutex
	waiting  []*passenger
	underWay int // trips, at most atOnce
}

// passenger is a command that waits for its answer. board puts it on a trip.
type passenger struct {
	ctx   context.Context //nolint:containedctx // of whoever waits
	board func(context.Context, redis.Cmdable)
	back  chan struct{}
}

// New returns trips that several commands share for at most timeout each.
func New(rdb redis.UniversalClient, timeout time.Duration) *Trips {
	_, cluster := rdb.(*redis.ClusterClient)
	return &Trips{rdb: rdb, timeout: timeout, alone: cluster}
}

// Carry has a command carried out: board issues it, one and no more, by what it is given, and keeps what it returns. Carry returns nil
// when the command has its answer or its own error, and otherwise ctx's error: the command may be carried out all the same, and board be
// called by then, so nobody may look at what it keeps. A command of a recorded story travels alone, so that the story shows how long it
// took.
func (t *Trips) Carry(ctx context.Context, board func(context.Context, redis.Cmdable)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if t.alone || trace.SpanContextFromContext(ctx).IsSampled() {
		board(ctx, t.rdb)
		return nil
	}
	t.mu.Lock()
	if t.underWay < atOnce {
		t.underWay++
		t.mu.Unlock()
		defer t.next()
		board(ctx, t.rdb)
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

// Run is a script's Run: by its hash, and with its source where Redis does not know it. Its error is Redis's, the connection's or that of ctx; after the last two the script may be carried out
// all the same, once or twice.
func (t *Trips) Run(ctx context.Context, script *redis.Script, keys []string, args ...any) *redis.Cmd {
	var done *redis.Cmd
	if err := t.Carry(ctx, func(ctx context.Context, c redis.Cmdable) { done = script.EvalSha(ctx, c, keys, args...) }); err != nil {
		left := redis.NewCmd(ctx)
		left.SetErr(err)
		return left
	}
	if redis.HasErrorPrefix(done.Err(), "NOSCRIPT") {
		return script.Run(ctx, t.rdb, keys, args...)
	}
	return done
}

// next sends off those who still wait, when a trip has come to its end.
func (t *Trips) next() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting = slices.DeleteFunc(t.waiting, func(p *passenger) bool { return p.ctx.Err() != nil })
	n := min(len(t.waiting), Most)
	if n == 0 {
		t.underWay--
		return
	}
	go t.trip(slices.Clone(t.waiting[:n]))
	t.waiting = slices.Delete(t.waiting, 0, n)
}

func (t *Trips) trip(aboard []*passenger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(aboard[0].ctx), t.timeout)
	defer cancel()
	// The pipeline's error is that of one of its commands: each has its own. Where the connection breaks, all are sent once more, and fail
	// together.
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
