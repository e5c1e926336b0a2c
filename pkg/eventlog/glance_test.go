package eventlog_test

import (
	"testing"
	"time"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
)

// TestGlance: a glance is never behind what its own process recorded, and takes notice of another process.
func TestGlance(t *testing.T) {
	s := eventlogtest.Start(t)
	nc := s.Connect()
	s.Provision(nc, topology)
	ours, theirs := counters(t, nc), counters(t, nc)
	glance := func() int64 {
		state, err := ours.Glance(t.Context(), one)
		if err != nil {
			t.Fatal(err)
		}
		return state.GetValue()
	}
	if got := glance(); got != 0 {
		t.Fatalf("of nothing: %d", got)
	}
	for n := range int64(20) {
		if _, err := ours.Do(t.Context(), one, add{n: 1}, eventlog.By{}); err != nil {
			t.Fatal(err)
		}
		if got := glance(); got != n+1 {
			t.Fatalf("after %d were recorded here: %d", n+1, got)
		}
	}
	if _, err := theirs.Do(t.Context(), one, add{n: 1000}, eventlog.By{}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); glance() != 1020; {
		if time.Now().After(deadline) {
			t.Fatal("what another process recorded is never seen")
		}
	}
}
