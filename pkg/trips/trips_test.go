package trips_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"

	"countersign.dev/pkg/redisserver/redistest"
	"countersign.dev/pkg/trips"
)

// patient is long enough for a busy machine.
const patient = 30 * time.Second

// gate holds up scripts that travel alone, and counts what each pipeline carries.
type gate struct {
	reached chan struct{} // by each
	open    chan struct{}
	carried chan int
}

func newGate() *gate {
	return &gate{reached: make(chan struct{}), open: make(chan struct{}), carried: make(chan int, 8)}
}

func (g *gate) DialHook(next redis.DialHook) redis.DialHook { return next }
func (g *gate) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" {
			select {
			case g.reached <- struct{}{}:
				<-g.open
			case <-g.open:
			}
		}
		return next(ctx, cmd)
	}
}

func (g *gate) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		g.carried <- len(cmds)
		return next(ctx, cmds)
	}
}

// get reads a key by a trip.
func get(ctx context.Context, t *trips.Trips, key string) (string, error) {
	var cmd *redis.StringCmd
	if err := t.Carry(ctx, func(ctx context.Context, c redis.Cmdable) { cmd = c.Get(ctx, key) }); err != nil {
		return "", err
	}
	return cmd.Result()
}

// TestCommandsTravelTogether: those that come while a trip is under way go on the next, and each gets its own answer; also a script that
// Redis does not know. Whoever left meanwhile is not carried.
func TestCommandsTravelTogether(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		const many = 40
		double, fails := redis.NewScript(`return redis.call('GET', KEYS[1]) * ARGV[1]`), redis.NewScript(`return redis.error_reply('no ' .. KEYS[1])`)
		for i := range many {
			if err := rdb.Set(t.Context(), fmt.Sprint("key", i), i, time.Minute).Err(); err != nil {
				t.Fatal(err)
			}
		}
		g := newGate()
		rdb.AddHook(g)
		s := trips.New(rdb, patient)
		var all sync.WaitGroup
		for range trips.AtOnce {
			all.Go(func() {
				if n, err := s.Run(t.Context(), double, []string{"key1"}, 2).Int(); err != nil || n != 2 {
					t.Errorf("one that is under way: %d, %v", n, err)
				}
			})
			<-g.reached
		}
		for i := range many {
			all.Go(func() {
				if got, err := get(t.Context(), s, fmt.Sprint("key", i)); err != nil || got != fmt.Sprint(i) {
					t.Errorf("read %d: %q, %v", i, got, err)
				}
			})
			all.Go(func() {
				if n, err := s.Run(t.Context(), double, []string{fmt.Sprint("key", i)}, 3).Int(); err != nil || n != 3*i {
					t.Errorf("run %d: %d, %v", i, n, err)
				}
			})
			all.Go(func() {
				if _, err := get(t.Context(), s, fmt.Sprint("nothing", i)); !errors.Is(err, redis.Nil) {
					t.Errorf("read of nothing: %v", err)
				}
			})
			all.Go(func() {
				if err := s.Run(t.Context(), fails, []string{fmt.Sprint("key", i)}).Err(); err == nil || err.Error() != fmt.Sprint("no key", i) {
					t.Errorf("a script that fails: %v", err)
				}
			})
		}
		limit, cancel := context.WithTimeout(t.Context(), patient)
		defer cancel()
		for s.Waiting() < 4*many && limit.Err() == nil {
			runtime.Gosched()
		}
		recorded := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
		}))
		if _, err := get(recorded, s, "key0"); err != nil {
			t.Errorf("a command of a recorded story: %v", err)
		}
		waits, leave := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() { gone <- s.Run(waits, double, []string{"key0"}, 1).Err() }()
		for s.Waiting() < 4*many+1 && limit.Err() == nil {
			runtime.Gosched()
		}
		leave()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("whoever left while waiting: %v", err)
		}
		if err := s.Run(waits, double, []string{"key0"}, 1).Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("whoever had left before: %v", err)
		}
		close(g.open)
		all.Wait()
		if n := <-g.carried; n != 4*many || len(g.carried) > 0 {
			t.Errorf("a trip of %d, and %d more", n, len(g.carried))
		}
	})
}

// TestTripsAreBounded: more than Most go on two trips.
func TestTripsAreBounded(t *testing.T) {
	rdb := redistest.Client(t, redistest.StartReal(t).Addr())
	g := newGate()
	rdb.AddHook(g)
	s, one := trips.New(rdb, patient), redis.NewScript(`return 1`)
	var all sync.WaitGroup
	run := func() {
		if n, err := s.Run(t.Context(), one, []string{"key"}).Int(); err != nil || n != 1 {
			t.Errorf("%d, %v", n, err)
		}
	}
	for range trips.AtOnce {
		all.Go(run)
		<-g.reached
	}
	for range trips.Most + 10 {
		all.Go(run)
	}
	limit, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	for s.Waiting() < trips.Most+10 && limit.Err() == nil {
		runtime.Gosched()
	}
	close(g.open)
	all.Wait()
	if one, other := <-g.carried, <-g.carried; max(one, other) != trips.Most || min(one, other) != 10 {
		t.Errorf("trips of %d and %d", one, other)
	}
}
