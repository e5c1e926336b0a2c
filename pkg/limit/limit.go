// Package limit says how often something may happen: GCRA in Redis, several limits decided in one atomic round trip, spent
// only if all allow (spec 3).
package limit

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Policy says what a limit means while Redis cannot be asked.
type Policy int

// The policies. There is no default: not to choose is an error, since one of them is always the wrong one.
const (
	FailOpen   Policy = iota + 1 // allow: the limit only shapes traffic
	FailClosed                   // refuse: the limit protects somebody, such as codes from being guessed or sent in floods
)

const (
	// MaxLimits is how many limits one call may decide.
	MaxLimits = 16
	// MaxKey is the longest Limit.Key in bytes.
	MaxKey = 1024
	// MaxCount is the largest Limit.Count.
	MaxCount = 1_000_000_000
	// maxSpan bounds windows and waits, so that times stay exact in Lua (2^53 µs from 1970 reach into the year 2255).
	maxSpan = 100 * 365 * 24 * time.Hour
)

// ErrInvalid means that a limit makes no sense; it is the programmer's or the configuration's mistake.
var ErrInvalid = errors.New("limit: invalid")

// Limit lets Count events happen in each Period, evenly, and up to Burst of them at once.
type Limit struct {
	Name  string // what is limited, [a-z0-9_-]{1,64}: one of a few, fit for a metric
	Key   string // who is limited; may be personal, it leaves this process as a keyed hash only
	Count int    // events in a Period, 1 or more

	Period time.Duration // up to 100 years with Burst; Period/Count is rounded up to whole microseconds
	Burst  int           // 0 = Count

	// MaxWait makes it shape instead of refuse: an event that is too early by no more than this is granted a later moment,
	// Decision.Wait from now, and has it for itself. 0 = refuse.
	MaxWait time.Duration

	WhenDown Policy
}

// PerMinute returns a limit of count events a minute, all of which may come at once.
func PerMinute(name, key string, count int, whenDown Policy) Limit {
	return Limit{Name: name, Key: key, Count: count, Period: time.Minute, WhenDown: whenDown}
}

var nameOK = regexp.MustCompile(`^[a-z0-9_-]{1,64}$`)

// Validate returns ErrInvalid with what is wrong. It does not repeat the key.
func (l Limit) Validate() error {
	switch {
	case !nameOK.MatchString(l.Name):
		return fmt.Errorf("%w: the name %q is not 1 to 64 of a-z, 0-9, _ and -", ErrInvalid, l.Name)
	case l.Key == "" || len(l.Key) > MaxKey:
		return fmt.Errorf("%w: %s: the key has %d bytes, not 1 to %d", ErrInvalid, l.Name, len(l.Key), MaxKey)
	case l.Count < 1 || l.Count > MaxCount || l.Period < time.Duration(l.Count)*time.Microsecond:
		return fmt.Errorf("%w: %s: %d in %v is not between one in its period and one a microsecond", ErrInvalid, l.Name, l.Count, l.Period)
	case l.Burst < 0:
		return fmt.Errorf("%w: %s: a burst of %d", ErrInvalid, l.Name, l.Burst)
	case l.interval() > maxSpan.Microseconds()/int64(l.burst()):
		return fmt.Errorf("%w: %s: a burst of %d at %d in %v spans more than %v", ErrInvalid, l.Name, l.burst(), l.Count, l.Period, maxSpan)
	case l.MaxWait < 0 || l.MaxWait > maxSpan:
		return fmt.Errorf("%w: %s: a wait of up to %v", ErrInvalid, l.Name, l.MaxWait)
	case l.WhenDown != FailOpen && l.WhenDown != FailClosed:
		return fmt.Errorf("%w: %s: say FailOpen or FailClosed", ErrInvalid, l.Name)
	}
	return nil
}

func (l Limit) burst() int {
	if l.Burst == 0 {
		return l.Count
	}
	return l.Burst
}

// interval is rounded up: rather a little slower than more than was promised.
func (l Limit) interval() int64 {
	count := time.Duration(l.Count) * time.Microsecond
	return int64((l.Period + count - 1) / count)
}

func (l Limit) bound() bound {
	return bound{interval: l.interval(), window: l.interval() * int64(l.burst()), longest: l.MaxWait.Microseconds()}
}

// Decision is the answer to one event.
type Decision struct {
	Allowed bool
	Limited int    // index of the limit that refused, of several the one with the longest RetryAfter; -1 = none did
	Name    string // its name, "" where none did

	// RetryAfter is when the same call can succeed at the earliest, if nobody spends in between; 0 when allowed.
	RetryAfter time.Duration
	// Wait is how long the event is to be held back (MaxWait); 0 = do it now.
	Wait time.Duration
	// Remaining is how many more events would be allowed now without a wait, the least of all limits.
	Remaining int
}
