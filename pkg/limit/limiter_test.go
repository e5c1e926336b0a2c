package limit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/redisserver/redistest"
)

const patient = 10 * time.Second // for tests that are not about time-outs, on a machine that may be busy

func ring(t testing.TB) *keys.Ring {
	t.Helper()
	r, err := keys.NewRing(bytes.Repeat([]byte{1}, keys.MasterSize))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// at returns a limiter whose clock stands at *now, microseconds since 1970.
func at(t testing.TB, rdb *redis.Client, now *int64) *Limiter {
	t.Helper()
	return New(rdb, ring(t), Options{Timeout: patient, Now: func() time.Time { return time.UnixMicro(*now) }})
}

// TestScriptIsTheModel runs random calls over several limits, with a clock that jumps both ways, through the script and
// through decide: each answer must be the same.
func TestScriptIsTheModel(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		run := 0
		rapid.Check(t, func(rt *rapid.T) {
			run++
			all := make([]Limit, rapid.IntRange(1, 4).Draw(rt, "limits"))
			for i := range all {
				all[i] = Limit{
					Name: fmt.Sprintf("l%d", i), Key: fmt.Sprint(run),
					Count:    rapid.IntRange(1, 9).Draw(rt, "count"),
					Period:   time.Duration(rapid.Int64Range(9_000, int64(400*24*time.Hour)).Draw(rt, "period")),
					Burst:    rapid.IntRange(0, 5).Draw(rt, "burst"),
					MaxWait:  time.Duration(rapid.SampledFrom([]int64{0, 0, 5_000, int64(time.Hour)}).Draw(rt, "wait")),
					WhenDown: FailOpen,
				}
			}
			now, tats := start, make([]int64, len(all))
			limiter := at(t, rdb, &now)
			for range rapid.IntRange(1, 12).Draw(rt, "calls") {
				now += rapid.OneOf(rapid.Int64Range(0, 3*all[0].interval()), rapid.Int64Range(-2*all[0].interval(), 0)).Draw(rt, "pause")
				var chosen []int
				for _, i := range rapid.Permutation([]int{0, 1, 2, 3}[:len(all)]).Draw(rt, "order") {
					if len(chosen) == 0 || rapid.Bool().Draw(rt, "also") {
						chosen = append(chosen, i)
					}
				}
				compare(rt, limiter, now, all, chosen, tats)
			}
		})
	})
}

func compare(rt *rapid.T, limiter *Limiter, now int64, all []Limit, chosen []int, tats []int64) {
	limits, bounds, before := make([]Limit, len(chosen)), make([]bound, len(chosen)), make([]int64, len(chosen))
	for k, i := range chosen {
		limits[k], bounds[k], before[k] = all[i], all[i].bound(), tats[i]
	}
	want, after := decide(now, before, bounds)
	if want.Limited >= 0 {
		want.Name = limits[want.Limited].Name
	}
	for k, i := range chosen {
		tats[i] = after[k]
	}
	got, err := limiter.Allow(context.Background(), limits...)
	if err != nil || got != want {
		rt.Fatalf("the script says %+v (%v), the model %+v", got, err, want)
	}
}

// TestSpentExactly lets many callers race for two limits: exactly the smaller burst gets through, and what the one limit
// refuses is not spent of the other.
func TestSpentExactly(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		now := start
		limiter := at(t, rdb, &now)
		narrow := Limit{Name: "narrow", Key: "k", Count: 37, Period: time.Hour, WhenDown: FailOpen}
		wide := Limit{Name: "wide", Key: "k", Count: 100, Period: time.Hour, WhenDown: FailOpen}
		var allowed atomic.Int64
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				for range 5 {
					limits := []Limit{narrow, wide}
					if i%2 == 0 {
						limits = []Limit{wide, narrow}
					}
					d, err := limiter.Allow(t.Context(), limits...)
					if err != nil || d.Allowed == (d.Name == "narrow") {
						t.Errorf("%+v, %v", d, err)
					}
					if d.Allowed {
						allowed.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if allowed.Load() != 37 {
			t.Errorf("%d got through, want 37", allowed.Load())
		}
		if d, err := limiter.Allow(t.Context(), wide); err != nil || !d.Allowed || d.Remaining != 100-37-1 {
			t.Errorf("the wide limit has %+v, %v; want 62 left", d, err)
		}
	})
}

func TestRedisKeepsTheTime(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		limiter := New(rdb, ring(t), Options{Timeout: patient})
		l := Limit{Name: "l", Key: "k", Count: 1, Period: 200 * time.Millisecond, WhenDown: FailOpen}
		if d, err := limiter.Allow(t.Context(), l); err != nil || !d.Allowed {
			t.Fatalf("%+v, %v", d, err)
		}
		refused := 0
		for deadline := time.After(patient); ; {
			d, err := limiter.Allow(t.Context(), l)
			if err != nil || d.RetryAfter > 200*time.Millisecond {
				t.Fatalf("%+v, %v", d, err)
			}
			if d.Allowed {
				break
			}
			refused++
			select {
			case <-time.After(d.RetryAfter):
			case <-deadline:
				t.Fatal("never allowed again")
			}
		}
		if refused == 0 {
			t.Error("two events in 200 ms were allowed")
		}
	})
}

func TestKeysAreHiddenAndExpire(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		ctx, limiter := t.Context(), New(rdb, ring(t), Options{Timeout: patient, Slot: "acme"})
		for _, key := range []string{"192.0.2.77", "192.0.2.78"} {
			if d, err := limiter.Allow(ctx, PerMinute("ip", key, 20, FailOpen)); err != nil || !d.Allowed || d.Remaining != 19 {
				t.Fatalf("%s: %+v, %v: keys share a budget", key, d, err)
			}
		}
		kept := rdb.Keys(ctx, "*").Val()
		if len(kept) != 2 {
			t.Errorf("kept are %v", kept)
		}
		for _, key := range kept {
			if strings.Contains(key, "192.0") || !strings.HasPrefix(key, "{acme}:ip:") {
				t.Errorf("a key is %q", key)
			}
			if ttl := rdb.PTTL(ctx, key).Val(); ttl <= 0 || ttl > 2*time.Minute {
				t.Errorf("%s lives %v", key, ttl)
			}
		}
		rdb.ScriptFlush(ctx)
		if d, err := limiter.Allow(ctx, PerMinute("ip", "192.0.2.77", 20, FailOpen)); err != nil || d.Remaining != 18 {
			t.Errorf("after SCRIPT FLUSH: %+v, %v", d, err)
		}
	})
}

func TestWithRedisDown(t *testing.T) {
	s := redistest.StartReal(t)
	rdb := redistest.Client(t, s.Addr())
	s.Stop()
	limiter := New(rdb, ring(t), Options{})
	open, closed := PerMinute("traffic", "k", 20, FailOpen), PerMinute("codes", "k", 3, FailClosed)
	for name, tt := range map[string]struct {
		limits []Limit
		want   Decision
	}{
		"open":   {[]Limit{open}, Decision{Allowed: true, Limited: -1}},
		"closed": {[]Limit{closed}, Decision{Limited: 0, Name: "codes", RetryAfter: RetryWhenDown}},
		"both":   {[]Limit{open, closed}, Decision{Limited: 1, Name: "codes", RetryAfter: RetryWhenDown}},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := limiter.Allow(t.Context(), tt.limits...)
			var down *Unavailable
			if !errors.As(err, &down) || d.Allowed || down.Unwrap() == nil {
				t.Fatalf("%+v, %v", d, err)
			}
			if got := down.Decision(); got != tt.want {
				t.Errorf("policies say %+v, want %+v", got, tt.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var down *Unavailable
	if _, err := limiter.Allow(ctx, open); !errors.Is(err, context.Canceled) || errors.As(err, &down) {
		t.Errorf("a caller who left: %v", err)
	}
}

func TestInvalid(t *testing.T) {
	good := Limit{Name: "l", Key: "k", Count: 1, Period: time.Second, WhenDown: FailOpen}
	limiter := New(nil, ring(t), Options{}) // reaches no Redis
	check := func(what string, limits ...Limit) {
		t.Helper()
		_, err := limiter.Allow(t.Context(), limits...)
		if !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "personal") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, change := range map[string]func(*Limit){
		"no name":                func(l *Limit) { l.Name = "" },
		"a name with :":          func(l *Limit) { l.Name = "a:b" },
		"no key":                 func(l *Limit) { l.Key = "" },
		"a long key":             func(l *Limit) { l.Key = strings.Repeat("personal", 200) },
		"no count":               func(l *Limit) { l.Count = 0 },
		"a count that overflows": func(l *Limit) { l.Count = 1 << 62 },
		"no period":              func(l *Limit) { l.Period = 0 },
		"too fast":               func(l *Limit) { l.Count, l.Period = 1001, time.Millisecond },
		"a negative burst":       func(l *Limit) { l.Burst = -1 },
		"a huge window":          func(l *Limit) { l.Burst, l.Period = 1000, 365*24*time.Hour },
		"a negative wait":        func(l *Limit) { l.MaxWait = -1 },
		"a huge wait":            func(l *Limit) { l.MaxWait = maxSpan + 1 },
		"no policy":              func(l *Limit) { l.WhenDown = 0 },
	} {
		bad := good
		change(&bad)
		check(what, bad)
		if what != "no key" && what != "a long key" {
			check("second: "+what, good, bad)
		}
	}
	check("none")
	check("the same twice", good, good)
	check("too many", make([]Limit, MaxLimits+1)...)
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	if err := (Limit{Name: "l", Key: "k", Count: 3, Period: 24 * time.Hour, WhenDown: FailClosed}).Validate(); err != nil {
		t.Error(err)
	}
}

// The metric is the rate relative to a bare GET in the same run: machines differ, the ratio hardly.
func BenchmarkAllow(b *testing.B) {
	rdb := redistest.Real(b)
	limiter := New(rdb, ring(b), Options{Timeout: patient})
	rdb.Set(b.Context(), "bare", strings.Repeat("x", 300), 0)
	for _, k := range []int{1, 4} {
		limits := make([]Limit, k)
		for i := range limits {
			limits[i] = Limit{Name: fmt.Sprintf("l%d", i), Key: "k", Count: 1_000_000, Period: time.Second, WhenDown: FailOpen}
		}
		b.Run(fmt.Sprintf("limits=%d", k), func(b *testing.B) {
			var calls, bares time.Duration
			for range b.N {
				took := clock.Stopwatch()
				_, err := limiter.Allow(b.Context(), limits...)
				calls += took()
				took = clock.Stopwatch()
				err2 := rdb.Get(b.Context(), "bare").Err()
				bares += took()
				if err != nil || err2 != nil {
					b.Fatal(err, err2)
				}
			}
			b.ReportMetric(float64(bares)/float64(calls), "x-GET")
			b.ReportMetric(float64(calls.Nanoseconds())/float64(b.N), "ns/call")
		})
	}
}
