package hot_test

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

	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/redisserver/redistest"
)

// gate holds up the first script, and counts what each pipeline carries.
type gate struct {
	reached, open chan struct{}
	first         sync.Once
	carried       chan int
}

func (g *gate) DialHook(next redis.DialHook) redis.DialHook { return next }
func (g *gate) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" {
			g.first.Do(func() {
				close(g.reached)
				<-g.open
			})
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

// TestCommandsTravelTogether: those that come while a trip is under way go on the next, and each gets its own answer.
func TestCommandsTravelTogether(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		const many = 40
		before := hot.New(rdb, patient)
		for i := range many {
			for _, name := range []string{"read", "written"} {
				if _, err := before.Put(t.Context(), fmt.Sprint(name, i), uint64(i+1), fmt.Append(nil, i), time.Minute); err != nil {
					t.Fatal(err)
				}
			}
		}
		g := &gate{reached: make(chan struct{}), open: make(chan struct{}), carried: make(chan int, many)}
		rdb.AddHook(g)
		s := hot.New(rdb, patient)
		var all sync.WaitGroup
		all.Go(func() {
			if stored, err := s.Put(t.Context(), "first", 1, nil, time.Minute); err != nil || !stored {
				t.Errorf("the first: %v, %v", stored, err)
			}
		})
		<-g.reached
		for i := range many {
			all.Go(func() {
				if seq, value, err := s.Get(t.Context(), fmt.Sprint("read", i)); err != nil || seq != uint64(i+1) || string(value) != fmt.Sprint(i) {
					t.Errorf("Get %d: %d, %q, %v", i, seq, value, err)
				}
			})
			all.Go(func() {
				// Every second is older than what is kept.
				if stored, err := s.Put(t.Context(), fmt.Sprint("written", i), uint64(i+1+i%2), nil, time.Minute); err != nil || stored != (i%2 == 1) {
					t.Errorf("Put %d: %v, %v", i, stored, err)
				}
			})
			all.Go(func() {
				if _, _, err := s.Get(t.Context(), fmt.Sprint("nothing", i)); !errors.Is(err, hot.ErrMiss) {
					t.Errorf("Get of nothing: %v", err)
				}
			})
		}
		limit, cancel := context.WithTimeout(t.Context(), patient)
		defer cancel()
		for s.Waiting() < 3*many && limit.Err() == nil {
			runtime.Gosched()
		}
		recorded := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
		}))
		if _, _, err := s.Get(recorded, "read0"); err != nil {
			t.Errorf("a command of a recorded story: %v", err)
		}
		gone, leave := context.WithCancel(t.Context())
		leave()
		if _, _, err := s.Get(gone, "read0"); !errors.Is(err, context.Canceled) {
			t.Errorf("whoever left: %v", err)
		}
		close(g.open)
		all.Wait()
		if n := <-g.carried; n != 3*many+1 || len(g.carried) > 0 { // who left had boarded
			t.Errorf("a trip of %d, and %d more", n, len(g.carried))
		}
	})
}
