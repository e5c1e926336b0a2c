package eventlog

import (
	"context"
	"sync"
	"time"

	// golang-lru: a bounded cache with locks whose entries expire.
	"github.com/hashicorp/golang-lru/v2/expirable"
	"google.golang.org/protobuf/proto"
)

// What Glance answers is at most this old, and kept for so many aggregates.
const (
	glanceFor   = time.Second
	glancedMost = 16384
)

// Glance returns an aggregate for showing alone: up to a second old where another process changed it, never behind what this one
// recorded. The state is shared and must not be changed. What is asked many times a second is answered without a way to any server.
func (a *Aggregate[S]) Glance(ctx context.Context, k Key) (S, error) {
	if v, ok := a.glances.kept.Get(k); ok {
		return v.state, nil
	}
	v, _, err := a.near(ctx, k)
	if err == nil && v.sequence > 0 {
		a.glances.put(k, v)
	}
	return v.state, err
}

// glances are states as they were read or recorded within the last second.
type glances[S proto.Message] struct {
	mu   sync.Mutex // of those who put
	kept *expirable.LRU[Key, version[S]]
}

// put keeps a state unless a newer one is kept: who read before a write may come after it.
func (g *glances[S]) put(k Key, v version[S]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if kept, ok := g.kept.Peek(k); !ok || kept.sequence < v.sequence {
		g.kept.Add(k, v)
	}
}
