// Package clock is the one place that asks what time it is.
//
// Rules get their time as an argument; shells get it from a Clock. Every tenant may have a time of its own, so that a
// sandbox can live through weeks in seconds while the others keep the world's time.
package clock

import (
	"sync"
	"time"
)

// Clock tells the time of a tenant, in UTC and without a monotonic reading: what is stored and read back compares equal.
// The tenant "" is the world's time. Clocks are safe for concurrent use.
type Clock interface {
	Now(tenant string) time.Time
}

type system struct{}

// System returns the machine's clock; it is the same for every tenant.
func System() Clock { return system{} }

func (system) Now(string) time.Time { return wall() }

// wall drops the monotonic reading: it would make a time before storing differ from the same time after.
func wall() time.Time { return time.Now().UTC().Round(0) }

// Stopwatch starts to measure, on the monotonic clock; the function it returns tells how long ago that was.
func Stopwatch() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}

// Tenants is a clock under which single tenants may be shifted against the rest. Make one with NewTenants.
type Tenants struct {
	base    Clock
	mu      sync.RWMutex
	offsets map[string]time.Duration
}

// NewTenants returns base with no tenant shifted.
func NewTenants(base Clock) *Tenants {
	return &Tenants{base: base, offsets: map[string]time.Duration{}}
}

// Now returns the base's time plus the tenant's offset.
func (c *Tenants) Now(tenant string) time.Time {
	return c.base.Now(tenant).Add(c.Offset(tenant))
}

// Offset returns how far the tenant is ahead of the base; 0 for a tenant that was never shifted.
func (c *Tenants) Offset(tenant string) time.Duration {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.offsets[tenant]
}

// SetOffset puts the tenant ahead of the base by d, or behind it where d is negative. Setting it twice is harmless, which
// makes it fit to follow a stored value.
func (c *Tenants) SetOffset(tenant string, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d == 0 {
		delete(c.offsets, tenant)
		return
	}
	c.offsets[tenant] = d
}

// Advance moves the tenant's time by d and returns the offset that this leads to.
func (c *Tenants) Advance(tenant string, d time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offsets[tenant] += d
	return c.offsets[tenant]
}

// Fixed returns a clock that stands at t for every tenant.
func Fixed(t time.Time) Clock { return fixed(t.UTC().Round(0)) }

type fixed time.Time

func (f fixed) Now(string) time.Time { return time.Time(f) }

// Manual is a clock for tests: it stands still until it is moved. Single tenants may be shifted against the others.
type Manual struct {
	*Tenants
	hand *hand
}

// NewManual returns a clock that stands at start.
func NewManual(start time.Time) *Manual {
	h := &hand{now: start.UTC().Round(0)}
	return &Manual{Tenants: NewTenants(h), hand: h}
}

// Set puts all tenants to t, each plus its offset.
func (m *Manual) Set(t time.Time) {
	m.hand.mu.Lock()
	defer m.hand.mu.Unlock()
	m.hand.now = t.UTC().Round(0)
}

// Advance moves all tenants by d and returns the world's new time.
func (m *Manual) Advance(d time.Duration) time.Time {
	m.hand.mu.Lock()
	defer m.hand.mu.Unlock()
	m.hand.now = m.hand.now.Add(d)
	return m.hand.now
}

// AdvanceTenant moves a single tenant by d.
func (m *Manual) AdvanceTenant(tenant string, d time.Duration) { m.Tenants.Advance(tenant, d) }

type hand struct {
	mu  sync.RWMutex
	now time.Time
}

func (h *hand) Now(string) time.Time {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.now
}
