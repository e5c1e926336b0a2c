package clock

import (
	"context"
	"time"
)

// Every calls do at once and then each interval, until ctx ends or do fails. The end of ctx is no error, even when do met it.
func Every(ctx context.Context, interval time.Duration, do func() error) error {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		if err := do(); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
