package limit

import (
	"context"
	_ "embed"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/mutant"
	"countersign.dev/pkg/trips"
)

const (
	// DefaultTimeout is how long a decision may take, a wait for others included, before Redis counts as down.
	DefaultTimeout = 100 * time.Millisecond
	// RetryWhenDown is the RetryAfter of a refusal for want of Redis: a failover with Sentinel takes some seconds.
	RetryWhenDown = 10 * time.Second

	// macLabel keeps these hashes apart from all others of the ring.
	macLabel = "limit.key.v1"
	macUsed  = 16 // bytes of the MAC in a key: no two of 2^40 keys meet
)

//go:embed allow.lua
var allowSource string

var allow = redis.NewScript(allowSource)

// Hasher makes a keyed hash; keys.Ring is one.
type Hasher interface {
	MAC(label string, parts ...[]byte) []byte
}

// Options of a Limiter; the zero Options are those of production.
type Options struct {
	// Slot is the hash tag of all keys. Limits decided in one call must lie in one slot of a Redis Cluster. "" = "limits"
	Slot    string
	Timeout time.Duration // 0 = DefaultTimeout
	// Now brings a clock for tests and sandboxes; nil = Redis's own, one for all callers.
	Now func() time.Time
}

// Limiter decides limits in one Redis. It is safe for concurrent use.
type Limiter struct {
	trips   *trips.Trips
	hasher  Hasher
	options Options
}

// New returns a limiter. Who is limited never stands in Redis in clear: hasher hides the keys.
func New(rdb redis.UniversalClient, hasher Hasher, o Options) *Limiter {
	if o.Slot == "" {
		o.Slot = "limits"
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	return &Limiter{trips: trips.New(rdb, o.Timeout), hasher: hasher, options: o}
}

// Unavailable is the error of Allow when Redis did not decide. Count it, and go on with Decision.
type Unavailable struct {
	Cause  error
	closed int    // index of the first limit that fails closed, -1 = none
	name   string // its name
}

// Error says what happened; it names no key.
func (e *Unavailable) Error() string { return "limit: Redis did not decide: " + e.Cause.Error() }

// Unwrap returns the cause.
func (e *Unavailable) Unwrap() error { return e.Cause }

// Decision is what the limits' own policies say: refused for RetryWhenDown where one of them fails closed, allowed otherwise.
func (e *Unavailable) Decision() Decision {
	if e.closed < 0 {
		return Decision{Allowed: true, Limited: -1}
	}
	return Decision{Limited: e.closed, Name: e.name, RetryAfter: RetryWhenDown}
}

// Allow spends one event of each of the limits, if all of them allow it, and nothing otherwise, in one round trip that it may share with
// others. The error is ErrInvalid, the context's, or *Unavailable; it may have been spent then, and twice where a connection broke.
func (l *Limiter) Allow(ctx context.Context, limits ...Limit) (Decision, error) {
	keys, args, err := l.arguments(limits)
	if err != nil {
		return Decision{}, err
	}
	call, cancel := context.WithTimeout(ctx, l.options.Timeout)
	defer cancel()
	got, err := l.trips.Run(call, allow, keys, args...).Int64Slice()
	switch {
	case ctx.Err() != nil && err != nil:
		return Decision{}, fmt.Errorf("limit: %w", context.Cause(ctx)) // the caller left: that says nothing about Redis
	case err != nil:
		return Decision{}, unavailable(limits, err)
	case len(got) != 4 || got[0] < 0 || got[0] > int64(len(limits)):
		return Decision{}, unavailable(limits, fmt.Errorf("the script answered %v", got))
	}
	d := Decision{Allowed: got[0] == 0, Limited: int(got[0]) - 1, RetryAfter: micros(got[1]), Wait: micros(got[2]), Remaining: int(got[3])}
	if !d.Allowed {
		d.Name = limits[d.Limited].Name
	}
	return d, nil
}

func (l *Limiter) arguments(limits []Limit) (keys []string, args []any, err error) {
	if len(limits) == 0 || len(limits) > MaxLimits {
		return nil, nil, fmt.Errorf("%w: %d limits in one call, 1 to %d are possible", ErrInvalid, len(limits), MaxLimits)
	}
	now := ""
	if l.options.Now != nil {
		now = strconv.FormatInt(l.options.Now().UnixMicro(), 10)
	}
	args = append(make([]any, 0, 1+3*len(limits)), now)
	seen := make(map[string]bool, len(limits))
	for _, limit := range limits {
		if err := limit.Validate(); err != nil {
			return nil, nil, err
		}
		key := l.key(limit)
		if seen[key] {
			return nil, nil, fmt.Errorf("%w: %s stands twice in one call for the same key", ErrInvalid, limit.Name)
		}
		seen[key] = true
		b := limit.bound()
		keys, args = append(keys, key), append(args, b.interval, b.window, b.longest)
	}
	return keys, args, nil
}

func (l *Limiter) key(limit Limit) string {
	mac := mutant.Forget(l.hasher.MAC(macLabel, []byte(limit.Name), []byte(limit.Key)))
	return "{" + l.options.Slot + "}:" + limit.Name + ":" + base64.RawURLEncoding.EncodeToString(mac[:macUsed])
}

func unavailable(limits []Limit, cause error) *Unavailable {
	for i, limit := range limits {
		if limit.WhenDown == FailClosed {
			return &Unavailable{Cause: cause, closed: i, name: limit.Name}
		}
	}
	return &Unavailable{Cause: cause, closed: -1}
}
