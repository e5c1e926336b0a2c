package redisserver

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"strings"
	"time"

	// miniredis: a Redis in pure Go with Lua, kept well; the only one that needs no second program.
	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"

	"countersign.dev/pkg/clock"
)

// expireEvery is how late the stand-in's keys may expire. Its own ClockTTL looks at every key on every command.
const expireEvery = 100 * time.Millisecond

func startEmbedded(addr netip.AddrPort) (*Server, error) {
	m := miniredis.NewMiniRedis()
	if err := m.StartAddr(addr.String()); err != nil {
		return nil, fmt.Errorf("redisserver: start the embedded stand-in: %w", err)
	}
	m.Server().SetPreHook(infoReplication())
	quit := make(chan struct{})
	s := &Server{addr: m.Addr(), kind: Embedded, stop: func() { close(quit) }, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		defer m.Close()
		age(m, quit)
	}()
	return s, nil
}

// infoReplication answers INFO replication as a master without replicas does, which miniredis does not know.
func infoReplication() server.Hook {
	text := "# Replication\r\nrole:master\r\nconnected_slaves:0\r\nmaster_replid:" + rand.Text() + "\r\n"
	return func(c *server.Peer, cmd string, args ...string) bool {
		if cmd != "INFO" || len(args) != 1 || !strings.EqualFold(args[0], "replication") {
			return false
		}
		c.WriteBulk(text)
		return true
	}
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
