package token

import (
	"context"
	_ "embed"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/hot"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

//go:embed activity.lua
var activitySource string

// activity notes a sign of life unless the session was idle for too long by then.
var activity = redis.NewScript(activitySource)

// activityKept is how much longer than a session its last sign of life is kept.
const activityKept = time.Hour

// seen notes that the browser of a link's session is there, and returns when it was before. Only the browser that has the session
// gives signs of life. Without an answer from Redis nothing is known, and the session goes on (spec 2.10).
func (s *Service) seen(ctx context.Context, l *tokenv1.Link, browser []byte, now time.Time) rules.Activity {
	idle := l.GetProfile().GetIdle().AsDuration()
	if idle <= 0 || !rules.HeldBy(l, browser) || !now.Before(rules.SessionEnd(l)) {
		return rules.Activity{}
	}
	ctx, cancel := context.WithTimeout(ctx, hot.DefaultTimeout)
	defer cancel()
	keep := rules.SessionEnd(l).Sub(now) + activityKept
	keys := []string{hot.Key(l.GetId(), l.GetTenant(), "seen", l.GetSession().GetId())}
	last, err := activity.Run(ctx, s.h.Redis, keys, now.UnixMilli(), idle.Milliseconds(), keep.Milliseconds()).Int64()
	if err != nil {
		s.h.Logger.DebugContext(ctx, "a session's last sign of life is not known", "error", err)
		return rules.Activity{}
	}
	return rules.Activity{SessionID: l.GetSession().GetId(), At: time.UnixMilli(last)}
}
