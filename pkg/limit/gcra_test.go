package limit

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

const start = int64(1_772_452_800_000_000) // 2026-03-02 12:00 UTC in microseconds

func TestOneLimitOverTime(t *testing.T) {
	second := time.Second.Microseconds()
	type event struct {
		at         int64 // microseconds after the start
		allowed    bool
		retryAfter time.Duration
		wait       time.Duration
		remaining  int
	}
	for name, tt := range map[string]struct {
		limit  Limit
		events []event
	}{
		"3 in 10 minutes": {Limit{Count: 3, Period: 10 * time.Minute}, []event{
			{0, true, 0, 0, 2},
			{0, true, 0, 0, 1},
			{0, true, 0, 0, 0},
			{0, false, 200 * time.Second, 0, 0},
			{200*second - 1, false, time.Microsecond, 0, 0},
			{200 * second, true, 0, 0, 0},
			{3600 * second, true, 0, 0, 2},
		}},
		"a burst smaller than the count": {Limit{Count: 60, Period: time.Minute, Burst: 1}, []event{
			{0, true, 0, 0, 0},
			{0, false, time.Second, 0, 0},
			{second, true, 0, 0, 0},
		}},
		"a burst larger than the count": {Limit{Count: 1, Period: time.Second, Burst: 2}, []event{
			{0, true, 0, 0, 1},
			{0, true, 0, 0, 0},
			{0, false, time.Second, 0, 0},
		}},
		"shaped": {Limit{Count: 1, Period: time.Second, MaxWait: 2 * time.Second}, []event{
			{0, true, 0, 0, 0},
			{0, true, 0, time.Second, 0},
			{0, true, 0, 2 * time.Second, 0},
			{0, false, time.Second, 0, 0},
			{second, true, 0, 2 * time.Second, 0},
			{100 * second, true, 0, 0, 0},
		}},
		"a clock that falls back": {Limit{Count: 2, Period: 2 * time.Second}, []event{
			{0, true, 0, 0, 1},
			{-3600 * second, false, time.Second, 0, 0}, // an hour back costs a second, not an hour
			{-3599 * second, false, time.Second, 0, 0}, // nothing was spent, so nothing was written
		}},
		"an odd rate rounds up": {Limit{Count: 7, Period: time.Minute, Burst: 1}, []event{
			{0, true, 0, 0, 0},
			{0, false, 8571429 * time.Microsecond, 0, 0},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			tats := []int64{0}
			for i, e := range tt.events {
				var d Decision
				d, tats = decide(start+e.at, tats, []bound{tt.limit.bound()})
				want := Decision{Allowed: e.allowed, Limited: -1, RetryAfter: e.retryAfter, Wait: e.wait, Remaining: e.remaining}
				if !e.allowed {
					want.Limited = 0
				}
				if d != want {
					t.Errorf("event %d: %+v, want %+v", i, d, want)
				}
			}
		})
	}
}

// TestPromises checks what GCRA is chosen for, over random limits and times.
func TestPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limit{
			Count:  rapid.IntRange(1, 50).Draw(t, "count"),
			Period: time.Duration(rapid.Int64Range(50_000, int64(time.Hour)).Draw(t, "period")),
			Burst:  rapid.IntRange(0, 20).Draw(t, "burst"),
		}
		b, now, tats := l.bound(), start, []int64{0}
		var allowed []int64
		for range rapid.IntRange(1, 200).Draw(t, "events") {
			now += rapid.Int64Range(0, 2*b.interval).Draw(t, "pause")
			d, next := decide(now, tats, []bound{b})
			if d.Allowed {
				allowed = append(allowed, now)
			} else {
				retry := now + d.RetryAfter.Microseconds()
				if early, _ := decide(retry-1, tats, []bound{b}); early.Allowed {
					t.Fatal("allowed before RetryAfter was over")
				}
				if due, _ := decide(retry, tats, []bound{b}); !due.Allowed {
					t.Fatal("refused after RetryAfter")
				}
			}
			for tail, left := next, d.Remaining; left >= 0; left-- {
				var more Decision
				more, tail = decide(now, tail, []bound{b})
				if more.Allowed != (left > 0) {
					t.Fatalf("%d remain, but the next is %+v", left, more)
				}
			}
			tats = next
		}
		// Between any two of them: no more than the burst and what the rate brought meanwhile.
		for i := range allowed {
			for j := i; j < len(allowed); j++ {
				if most := int64(l.burst()) + (allowed[j]-allowed[i])/b.interval; int64(j-i+1) > most {
					t.Fatalf("%d events in %d µs, at most %d are promised", j-i+1, allowed[j]-allowed[i], most)
				}
			}
		}
	})
}
