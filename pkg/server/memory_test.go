package server_test

import (
	"log/slog"
	"math"
	"runtime/debug"
	"testing"

	"countersign.dev/pkg/server"
)

// TestMemory is not parallel: what it sets is the whole process's.
func TestMemory(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetGCPercent(percent); debug.SetMemoryLimit(limit) })
	t.Setenv("GOGC", "150")
	server.Memory(slog.New(slog.DiscardHandler))
	if got := debug.SetGCPercent(100); got != 100 {
		t.Errorf("GOGC was set by the operator, and %d is used", got)
	}
	if got := debug.SetMemoryLimit(-1); got == math.MaxInt64 || got < 64<<20 {
		t.Errorf("the limit is %d bytes", got)
	}
	t.Setenv("GOGC", "")
	server.Memory(slog.New(slog.DiscardHandler))
	if got := debug.SetGCPercent(100); got != 400 {
		t.Errorf("the heap is collected at %d %%", got)
	}
}
