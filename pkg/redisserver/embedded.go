package redisserver

import (
	"fmt"
	"net/netip"
	"time"

	// miniredis: a Redis in pure Go with Lua, kept well; the only one that needs no second program.
	"github.com/alicebob/miniredis/v2"

	"countersign.dev/pkg/clock"
)

// expireEvery is how late the stand-in's keys may expire. Its own ClockTTL looks at every key on every command.
const expireEvery = 100 * time.Millisecond

func startEmbedded(addr netip.AddrPort) (*Server, error) {
	m := miniredis.NewMiniRedis()
	if err := m.StartAddr(addr.String()); err != nil {
		return nil, fmt.Errorf("redisserver: start the embedded stand-in: %w", err)
	}
	quit := make(chan struct{})
	s := &Server{addr: m.Addr(), kind: Embedded, stop: func() { close(quit) }, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		defer m.Close()
		age(m, quit)
	}()
	return s, nil
}

// age lets keys expire, which miniredis does not do by itself: it moves their clock by what really passed.
func age(m *miniredis.Miniredis, quit <-chan struct{}) {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	elapsed, seen := clock.Stopwatch(), time.Duration(0)
	for {
		select {
		case <-tick.C:
			now := elapsed()
			m.FastForward(now - seen)
			seen = now
		case <-quit:
			return
		}
	}
}
