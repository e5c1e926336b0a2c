package rules

import (
	"time"

	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
)

// InQuietHours tells whether t lies in quiet hours by the clock on the wall of zone.
func InQuietHours(q *reminderv1.Quiet, t time.Time, zone *time.Location) bool {
	local := t.In(zone)
	if q.GetWeekends() && weekend(local) {
		return true
	}
	from, until, now := q.GetFrom().AsDuration(), q.GetUntil().AsDuration(), timeOfDay(local)
	if from < until {
		return from <= now && now < until
	}
	return from != until && (now >= from || now < until)
}

// QuietEnd returns the first instant from t on that is not in quiet hours. On a day on which the hour of their end is
// skipped or comes twice it is an instant of that hour's neighbourhood that is outside them.
func QuietEnd(q *reminderv1.Quiet, t time.Time, zone *time.Location) time.Time {
	const step, most = 15 * time.Minute, 1000 // more steps than the longest silence has, should a setting leave no gap
	for range most {
		if !InQuietHours(q, t, zone) {
			return t
		}
		end := nextEnd(q, t.In(zone))
		if !end.After(t) { // a clock that is set back or forward shows some times twice and some never
			end = t.Add(step)
		}
		t = end.UTC()
	}
	return t
}

// nextEnd returns when the silence at local may end: midnight after a day of a weekend, else the next time of day that ends it.
func nextEnd(q *reminderv1.Quiet, local time.Time) time.Time {
	y, m, d := local.Date()
	if q.GetWeekends() && weekend(local) {
		return time.Date(y, m, d+1, 0, 0, 0, 0, local.Location())
	}
	until := q.GetUntil().AsDuration()
	if timeOfDay(local) >= until {
		d++
	}
	return time.Date(y, m, d, int(until/time.Hour), int(until%time.Hour/time.Minute), int(until%time.Minute/time.Second), int(until%time.Second), local.Location())
}

func weekend(local time.Time) bool {
	return local.Weekday() == time.Saturday || local.Weekday() == time.Sunday
}

// timeOfDay is what the clock on the wall shows, counted from midnight.
func timeOfDay(local time.Time) time.Duration {
	h, m, s := local.Clock()
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second + time.Duration(local.Nanosecond())
}
