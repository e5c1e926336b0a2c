package eventlog_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace/noop"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
)

// fallen is a cache that went back in time: it gives the first record it was given, and takes no other.
type fallen struct {
	mu       sync.Mutex
	sequence uint64
	record   []byte
}

func (c *fallen) Get(context.Context, eventlog.Key) (uint64, []byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.record == nil {
		return 0, nil, errors.New("empty")
	}
	return c.sequence, c.record, nil
}

func (c *fallen) Put(_ context.Context, _ eventlog.Key, sequence uint64, record []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.record == nil {
		c.sequence, c.record = sequence, record
	}
}

// TestAnOldCacheDecidesNothing: what a cache of before says neither forbids what the record allows nor allows what it forbids.
func TestAnOldCacheDecidesNothing(t *testing.T) {
	s := eventlogtest.Start(t)
	nc := s.Connect()
	s.Provision(nc, topology)
	log, err := eventlog.OpenLog(t.Context(), nc, "FACTS_TEST")
	if err != nil {
		t.Fatal(err)
	}
	a := eventlog.NewAggregate(log, "test", evolve, clock.System(), noop.NewTracerProvider().Tracer(""), &fallen{})
	do := func(n, limit int64) error {
		_, err := a.Do(t.Context(), one, add{n: n, limit: limit}, eventlog.By{})
		return err
	}
	for _, n := range []int64{5, -5} { // the cache stays at 5
		if err := do(n, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := do(3, 5); err != nil {
		t.Errorf("the record is at 0, the cache at 5: to add 3 of at most 5 is refused with %v", err)
	}
	if err := do(4, 9); err != nil {
		t.Errorf("the record is at 3, the cache at 5: to add 4 of at most 9 is refused with %v", err)
	}
	if err := do(3, 9); !errors.Is(err, failure.RequestClosed) {
		t.Errorf("the record is at 7, the cache at 5: to add 3 of at most 9 gives %v", err)
	}
	if got := value(t, a, one); got != 7 {
		t.Errorf("the record is at %d", got)
	}
}

// TestNothingIsAnsweredBeforeItIsRecorded: while the record is away nothing succeeds.
func TestNothingIsAnsweredBeforeItIsRecorded(t *testing.T) {
	s := eventlogtest.Start(t)
	nc := s.Connect()
	s.Provision(nc, topology)
	a := counters(t, nc)
	if _, err := a.Do(t.Context(), one, add{n: 1}, eventlog.By{}); err != nil {
		t.Fatal(err)
	}
	log, err := eventlog.OpenLog(t.Context(), nc, "FACTS_TEST")
	if err != nil {
		t.Fatal(err)
	}
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	m := nats.NewMsg(eventlog.FactSubject("test", one))
	if _, err := log.Append(ctx, m, "id-1", 1); !errors.Is(err, eventlog.ErrUnknown) {
		t.Errorf("without a record a write gives %v", err)
	}
	s.Restart()
}
