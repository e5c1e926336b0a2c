package clock

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// skewSamples is how often Skew asks. The answer with the shortest round trip is taken: its error is at most half of it.
const skewSamples = 5

// Timekeeper is what Skew needs of a Redis client.
type Timekeeper interface {
	Time(ctx context.Context) *redis.TimeCmd
}

// Skew tells how far this machine's clock is ahead of Redis's; negative means behind. Redis's answer is taken to be of the
// middle of its round trip, so that the result is right to half of the shortest of five.
func Skew(ctx context.Context, rdb Timekeeper) (time.Duration, error) {
	var skew, shortest time.Duration
	for i := range skewSamples {
		sent := time.Now()
		theirs, err := rdb.Time(ctx).Result()
		trip := time.Since(sent)
		if err != nil {
			return 0, fmt.Errorf("clock: ask Redis for its time: %w", err)
		}
		if i == 0 || trip < shortest {
			// Round drops the monotonic readings: the difference of wall clocks is wanted.
			skew, shortest = sent.Add(trip/2).Round(0).Sub(theirs), trip
		}
	}
	return skew, nil
}
