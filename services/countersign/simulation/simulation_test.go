package simulation

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

var (
	seed   = flag.Uint64("seed", 0, "play this world alone; 0 is several")
	events = flag.Int("events", 1_000_000, "how many events there are at least, in all worlds together")
)

const worlds = 8

// TestSimulation plays a million events in several worlds, as many at a time as there are processors: 11 s of one processor's time, a
// tenth of it with -short.
func TestSimulation(t *testing.T) {
	if *seed != 0 {
		play(t, *seed, *events)
		return
	}
	total := *events
	if testing.Short() {
		total /= 10
	}
	for i := range worlds {
		t.Run(fmt.Sprint("world ", i+1), func(t *testing.T) {
			t.Parallel()
			play(t, uint64(i+1), total/worlds)
		})
	}
}

// TestSoak plays worlds nobody has seen yet for as long as COUNTERSIGN_SOAK says.
func TestSoak(t *testing.T) {
	long := os.Getenv("COUNTERSIGN_SOAK")
	if long == "" {
		t.Skip("COUNTERSIGN_SOAK is not set: give it a duration, such as 10m")
	}
	d, err := time.ParseDuration(long)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(d)
	first := uint64(time.Now().UnixNano())
	for i := range runtime.GOMAXPROCS(0) {
		t.Run(fmt.Sprint("worker ", i), func(t *testing.T) {
			t.Parallel()
			for s := first + uint64(i)<<32; time.Now().Before(deadline); s++ {
				play(t, s, 100_000)
			}
		})
	}
}

func play(t *testing.T, seed uint64, events int) {
	t.Helper()
	r, err := Run(Options{Seed: seed, Events: events})
	if err != nil {
		t.Fatal(err)
	}
	if !testing.Verbose() {
		return
	}
	t.Logf("seed %d: %d events in %d days, %d requests: %v; faults %v", seed, r.Events, int(r.Lived.Hours()/24), r.Requests, r.Ends, r.Faults)
	t.Logf("stated %v", r.Facts)
}
