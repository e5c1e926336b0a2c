package rules

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// Activity is when the browser of a session was last heard of. It is known from hot state alone, so it may be missing, and then
// the session counts as active: a Redis that was emptied ends nobody's work (spec 2.10). The zero Activity is one that is not known.
type Activity struct {
	SessionID string
	At        time.Time
}

// On returns the link as it is in the light of a: one whose session did nothing for as long as its profile allows has a session
// that is over (spec 2.3, security.md 3.4). The link itself is left as it is. A signature that is being made is activity.
func (a Activity) On(l *tokenv1.Link, now time.Time) *tokenv1.Link {
	idle := l.GetProfile().GetIdle().AsDuration()
	if idle <= 0 || a.SessionID == "" || a.SessionID != l.GetSession().GetId() || held(l, now) != nil {
		return l
	}
	end := a.At.Add(idle)
	if now.Before(end) || !end.Before(l.GetSession().GetEndsAt().AsTime()) {
		return l
	}
	seen := proto.CloneOf(l)
	seen.Session.EndsAt = timestamppb.New(end)
	return seen
}
