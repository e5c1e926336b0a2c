package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxDuration is the longest duration a setting takes: ten years.
const MaxDuration = Duration(3650 * day)

const (
	day  = 24 * time.Hour
	week = 7 * day
)

// Duration is a span of time as settings write it: whole numbers with s, m, h, d (24 h) or w (7 d), such as 1h30m or 30d.
type Duration time.Duration

var errDuration = errors.New("a duration such as 90s, 15m, 1h30m, 72h, 7d or 2w is accepted, up to 3650d")

// ParseDuration reads a duration from 0s to MaxDuration. Units may come in any order and repeat; there is no sign, no
// fraction and no blank.
func ParseDuration(text string) (Duration, error) {
	var total Duration
	rest := text
	for first := true; first || rest != ""; first = false {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		if digits == 0 || digits > 9 || digits == len(rest) {
			return 0, fmt.Errorf("config: %q: %w", text, errDuration)
		}
		unit, ok := unitOf(rest[digits])
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		if !ok || err != nil || n > int64(MaxDuration/unit) {
			return 0, fmt.Errorf("config: %q: %w", text, errDuration)
		}
		if total += Duration(n) * unit; total > MaxDuration {
			return 0, fmt.Errorf("config: %q: %w", text, errDuration)
		}
		rest = rest[digits+1:]
	}
	return total, nil
}

func unitOf(letter byte) (Duration, bool) {
	switch letter {
	case 's':
		return Duration(time.Second), true
	case 'm':
		return Duration(time.Minute), true
	case 'h':
		return Duration(time.Hour), true
	case 'd':
		return Duration(day), true
	case 'w':
		return Duration(week), true
	default:
		return 0, false
	}
}

// Std returns d as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes d as ParseDuration reads it, in the largest units: 36h is 1d12h. Parts of a second are cut.
func (d Duration) String() string {
	var out strings.Builder
	rest := time.Duration(d)
	for _, u := range []struct {
		size   time.Duration
		letter byte
	}{{day, 'd'}, {time.Hour, 'h'}, {time.Minute, 'm'}, {time.Second, 's'}} {
		if n := rest / u.size; n > 0 {
			out.WriteString(strconv.FormatInt(int64(n), 10))
			out.WriteByte(u.letter)
			rest %= u.size
		}
	}
	if out.Len() == 0 {
		return "0s"
	}
	return out.String()
}

// MarshalText writes String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads as ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

// TimeOfDay is a wall-clock time, in minutes since midnight.
type TimeOfDay int

// Clock returns hour and minute.
func (t TimeOfDay) Clock() (hour, minute int) { return int(t) / 60, int(t) % 60 }

// String writes it as 21:00.
func (t TimeOfDay) String() string {
	h, m := t.Clock()
	return fmt.Sprintf("%02d:%02d", h, m)
}

// MarshalText writes String.
func (t TimeOfDay) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads 00:00 to 23:59.
func (t *TimeOfDay) UnmarshalText(text []byte) error {
	parsed, err := time.Parse("15:04", string(text))
	if err != nil || len(text) != len("15:04") {
		return fmt.Errorf("config: %q: a time of day from 00:00 to 23:59 is accepted", text)
	}
	*t = TimeOfDay(parsed.Hour()*60 + parsed.Minute())
	return nil
}
