package clock_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/clock"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func TestSystemIsTheMachinesClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clock.System()
		first, elapsed := c.Now("acme"), clock.Stopwatch()
		if first.Location() != time.UTC || strings.Contains(first.String(), "m=") {
			t.Errorf("Now gave %v: not UTC, or with a monotonic reading", first)
		}
		time.Sleep(time.Hour) // the bubble's time, not ours
		if got := c.Now("other").Sub(first); got != time.Hour {
			t.Errorf("an hour later Now is %v ahead", got)
		}
		if elapsed() != time.Hour {
			t.Errorf("the stopwatch says %v", elapsed())
		}
	})
}

func TestFixedStands(t *testing.T) {
	c := clock.Fixed(noon.In(time.FixedZone("x", 3600)))
	if got := c.Now("a"); !got.Equal(noon) || got.Location() != time.UTC {
		t.Errorf("Now is %v", got)
	}
}

func TestManualMovesAllOrOne(t *testing.T) {
	c := clock.NewManual(noon)
	var _ clock.Clock = c
	check := func(tenant string, want time.Time) {
		t.Helper()
		if got := c.Now(tenant); !got.Equal(want) {
			t.Errorf("Now(%q) is %v, want %v", tenant, got, want)
		}
	}
	check("a", noon)
	if got := c.Advance(time.Hour); !got.Equal(noon.Add(time.Hour)) {
		t.Errorf("Advance returned %v", got)
	}
	c.AdvanceTenant("sandbox", 8*24*time.Hour)
	check("a", noon.Add(time.Hour))
	check("sandbox", noon.Add(time.Hour+8*24*time.Hour))
	c.Set(noon)
	check("", noon)
	check("sandbox", noon.Add(8*24*time.Hour))
	c.SetOffset("sandbox", 0)
	check("sandbox", noon)
}

func TestTenantsShiftAgainstTheirBase(t *testing.T) {
	c := clock.NewTenants(clock.Fixed(noon))
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { c.Advance("s", time.Minute); c.Now("s"); c.Offset("other") })
	}
	wg.Wait()
	if c.Offset("s") != 50*time.Minute || c.Offset("other") != 0 || !c.Now("other").Equal(noon) {
		t.Errorf("offsets are %v and %v", c.Offset("s"), c.Offset("other"))
	}
	c.SetOffset("s", -time.Hour)
	c.SetOffset("s", -time.Hour)
	if got := c.Now("s"); !got.Equal(noon.Add(-time.Hour)) {
		t.Errorf("an hour behind is %v", got)
	}
}

// keeper answers like a Redis whose clock is off, over a line that takes trip each time.
type keeper struct {
	ahead time.Duration
	trips []time.Duration
	lean  float64 // which part of the trip is the way there
	err   error
}

func (k *keeper) Time(ctx context.Context) *redis.TimeCmd {
	cmd := redis.NewTimeCmd(ctx, "time")
	if k.err != nil {
		cmd.SetErr(k.err)
		return cmd
	}
	trip := k.trips[0]
	k.trips = k.trips[1:]
	there := time.Duration(float64(trip) * k.lean)
	time.Sleep(there) // the bubble's time
	cmd.SetVal(time.Now().Add(k.ahead))
	time.Sleep(trip - there) // the bubble's time
	return cmd
}

func TestSkewTakesTheShortestTripsMiddle(t *testing.T) {
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		keeper keeper
		want   time.Duration
	}{
		"equal":             {keeper{0, []time.Duration{2 * ms, 2 * ms, 2 * ms, 2 * ms, 2 * ms}, 0.5, nil}, 0},
		"we are behind":     {keeper{3 * time.Second, []time.Duration{8 * ms, 2 * ms, 40 * ms, 2 * ms, 2 * ms}, 0.5, nil}, -3 * time.Second},
		"we are ahead":      {keeper{-time.Hour, []time.Duration{8 * ms, 2 * ms, 40 * ms, 2 * ms, 2 * ms}, 0.5, nil}, time.Hour},
		"a lopsided line":   {keeper{0, []time.Duration{100 * ms, 100 * ms, 4 * ms, 100 * ms, 100 * ms}, 1, nil}, -2 * ms}, // half of the shortest
		"slow on first try": {keeper{0, []time.Duration{900 * ms, 2 * ms, 2 * ms, 2 * ms, 2 * ms}, 0, nil}, ms},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got, err := clock.Skew(t.Context(), &tt.keeper)
				if err != nil || got != tt.want {
					t.Errorf("Skew is %v, %v; want %v", got, err, tt.want)
				}
			})
		})
	}
	down := errors.New("down")
	if _, err := clock.Skew(t.Context(), &keeper{err: down}); !errors.Is(err, down) {
		t.Errorf("error is %v", err)
	}
}
