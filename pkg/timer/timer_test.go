package timer_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace/noop"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/timer"
)

func open(t *testing.T, s *eventlogtest.Server, c clock.Clock) *timer.Timers {
	t.Helper()
	nc := s.Connect()
	s.Provision(nc, eventlog.Merge(eventlog.Topology{Streams: eventlog.SharedStreams()}, timer.Topology("test")))
	timers, err := timer.Open(t.Context(), nc, "test", c, slog.New(slog.DiscardHandler), noop.NewTracerProvider().Tracer(""))
	if err != nil {
		t.Fatal(err)
	}
	return timers
}

func key(id string) eventlog.Key { return eventlog.Key{Tenant: "acme", ID: id} }

// fired runs timers and returns how often each aggregate fired, until stop.
func fired(t *testing.T, timers *timer.Timers, next func(eventlog.Key) (time.Time, uint64)) (counts func(string) int, stop func()) {
	var mu sync.Mutex
	seen := map[string]int{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- timers.Run(ctx, func(_ context.Context, k eventlog.Key) (time.Time, uint64, error) {
			mu.Lock()
			defer mu.Unlock()
			seen[k.ID]++
			at, version := next(k)
			return at, version, nil
		})
	}()
	return func(id string) int {
			mu.Lock()
			defer mu.Unlock()
			return seen[id]
		}, func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
}

func never(eventlog.Key) (time.Time, uint64) { return time.Time{}, 0 }

func TestFiresAfterARestartWhatFellDueMeanwhile(t *testing.T) {
	s := eventlogtest.Start(t)
	now := clock.System().Now("")
	timers := open(t, s, clock.System())
	if err := timers.Arm(t.Context(), key("soon"), now.Add(50*time.Millisecond), 1); err != nil {
		t.Fatal(err)
	}
	if err := timers.Arm(t.Context(), key("later"), now.Add(time.Hour), 1); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	count, stop := fired(t, timers, never)
	defer stop()
	eventlogtest.Eventually(t, "the timer fires", func() bool { return count("soon") == 1 })
	if count("later") != 0 {
		t.Error("a timer fired an hour early")
	}
}

func TestAnOlderRecordNeverReplacesANewerOnesTimer(t *testing.T) {
	s := eventlogtest.Start(t)
	now := clock.System().Now("")
	timers := open(t, s, clock.System())
	if err := timers.Arm(t.Context(), key("a"), now, 7); err != nil {
		t.Fatal(err)
	}
	// Version 7 may have fired by now; armed again it must win over version 3, which would put it off for an hour.
	if err := timers.Arm(t.Context(), key("a"), now.Add(time.Second), 7); err != nil {
		t.Fatal(err)
	}
	if err := timers.Arm(t.Context(), key("a"), now.Add(time.Hour), 3); err != nil {
		t.Fatal(err)
	}
	count, stop := fired(t, timers, never)
	defer stop()
	eventlogtest.Eventually(t, "the newer version's timer fires", func() bool { return count("a") >= 1 })
}

func TestArmedByManyAtOnceTheNewestStands(t *testing.T) {
	s := eventlogtest.Start(t)
	now := clock.System().Now("")
	timers := open(t, s, clock.System())
	var wg sync.WaitGroup
	for version := range uint64(20) {
		wg.Go(func() {
			due := now.Add(time.Hour)
			if version == 19 {
				due = now.Add(300 * time.Millisecond)
			}
			if err := timers.Arm(t.Context(), key("a"), due, version+1); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	count, stop := fired(t, timers, never)
	defer stop()
	eventlogtest.Eventually(t, "the newest deadline fires", func() bool { return count("a") >= 1 })
}

func TestFiringArmsTheNext(t *testing.T) {
	s := eventlogtest.Start(t)
	timers := open(t, s, clock.System())
	if err := timers.Arm(t.Context(), key("a"), clock.System().Now(""), 1); err != nil {
		t.Fatal(err)
	}
	left := 3
	count, stop := fired(t, timers, func(eventlog.Key) (time.Time, uint64) {
		if left--; left == 0 {
			return time.Time{}, 0
		}
		return clock.System().Now(""), uint64(10 - left)
	})
	defer stop()
	eventlogtest.Eventually(t, "three firings in a row", func() bool { return count("a") == 3 })
}

func TestATenantAheadOfTheWorldWaitsLess(t *testing.T) {
	s := eventlogtest.Start(t)
	c := clock.NewTenants(clock.System())
	c.Advance("acme", 8*24*time.Hour)
	timers := open(t, s, c)
	if err := timers.Arm(t.Context(), key("a"), clock.System().Now("").Add(8*24*time.Hour), 1); err != nil {
		t.Fatal(err)
	}
	count, stop := fired(t, timers, never)
	defer stop()
	eventlogtest.Eventually(t, "the timer fires by its tenant's clock", func() bool { return count("a") == 1 })
}
