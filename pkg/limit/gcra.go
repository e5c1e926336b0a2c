package limit

import "time"

// bound is a Limit as GCRA sees it. Times are microseconds, as in the script: exact there up to 2^53.
type bound struct {
	interval int64 // between two events at the steady rate
	window   int64 // burst * interval: how far ahead of now events may be spent at once
	longest  int64 // wait that may be asked for
}

// decide is GCRA (ITU-T I.371) for several limits together: the rule that allow.lua carries out, kept here in Go to be read
// and to test it by. tats are the theoretical arrival times of the next events, anything up to now where there were none. It
// returns the decision and what the arrival times become: the same, where one limit refuses.
func decide(now int64, tats []int64, bounds []bound) (Decision, []int64) {
	d := Decision{Allowed: true, Limited: -1}
	after := make([]int64, len(bounds))
	var retry, wait, spent, kept int64
	for i, b := range bounds {
		// Never further ahead than this limit can lead: a clock that fell back or a limit that was lowered locks nobody out.
		tat := min(max(tats[i], now), now+b.window+b.longest)
		after[i] = tat + b.interval
		early := max(after[i]-b.window-now, 0)
		if over := early - b.longest; over > retry {
			d.Allowed, d.Limited, retry = false, i, over
		}
		wait = max(wait, early)
		s, k := left(b, after[i]-now), left(b, tat-now)
		if i == 0 {
			spent, kept = s, k
		}
		spent, kept = min(spent, s), min(kept, k)
	}
	if !d.Allowed {
		d.RetryAfter, d.Remaining = micros(retry), int(kept)
		return d, tats
	}
	d.Wait, d.Remaining = micros(wait), int(spent)
	return d, after
}

// left returns how many events may come at once when those before reach ahead of now.
func left(b bound, ahead int64) int64 { return max(b.window-ahead, 0) / b.interval }

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
