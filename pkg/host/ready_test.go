package host_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/rpc"
	"countersign.dev/pkg/telemetry"
)

func ring(t *testing.T) *keys.Ring {
	t.Helper()
	r, err := keys.NewRing(bytes.Repeat([]byte{1}, keys.MasterSize))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestReadyWithinTwoSecondsOfRedis: a process whose clock is more than 2 s off that of Redis is not ready, and says why.
func TestReadyWithinTwoSecondsOfRedis(t *testing.T) {
	ns := eventlogtest.Start(t)
	ns.Provision(ns.Connect(), eventlog.Topology{Streams: eventlog.SharedStreams()})
	rs := miniredis.RunT(t)
	base, err := host.Open(host.Options{
		NATS: ns.URL(), Redis: rs.Addr(), MarksDir: t.TempDir(), Keys: ring(t), Clock: clock.System(),
		Telemetry: telemetry.Nop(), Logger: telemetry.Nop().Log, Network: rpc.NewNetwork(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	for _, tt := range []struct {
		off   time.Duration // by how much Redis is ahead of us
		ready bool
	}{
		{0, true},
		{1500 * time.Millisecond, true},
		{-1500 * time.Millisecond, true},
		{2500 * time.Millisecond, false},
		{-2500 * time.Millisecond, false},
		{24 * time.Hour, false},
		{0, true},
	} {
		rs.SetTime(clock.System().Now("").Add(tt.off))
		err := base.Ready(t.Context(), "token")
		if (err == nil) != tt.ready || err != nil && !strings.Contains(err.Error(), "the clock is") {
			t.Errorf("Redis's clock is %v from ours: %v", tt.off, err)
		}
	}
	rs.Close()
	if err := base.Ready(t.Context(), "token"); err != nil {
		t.Errorf("without Redis: %v", err)
	}
	ns.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := base.Ready(ctx, "token"); err == nil {
		t.Error("ready without a record")
	}
}
