package rules

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// Live tells whether a link may still be signed by without another one being issued: it is open, or its session goes on.
func Live(l *tokenv1.Link, now time.Time) bool {
	return ended(l) == nil && (!expired(l, now) || sessionOpen(l, now))
}

func sessionOpen(l *tokenv1.Link, now time.Time) bool {
	return l.GetSession() != nil && now.Before(SessionEnd(l))
}

// Reprofile gives a link that was sent the values of a newer version of its profile, where the one who changed it asked for that
// (spec 2.3).
type Reprofile struct {
	Profile *tokenv1.Profile
	Reach   tokenv1.ProfileReach
}

// Decide does nothing to a link that has this version or a newer one, or that is not live: a link that lapsed stays lapsed. With
// EXTEND_SENT nothing becomes shorter, and a link that lives no longer by it is left alone. With ALL_SENT a session that is open keeps
// its end. It waits for a signature that is being made.
func (c Reprofile) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	old := l.GetProfile()
	if c.Profile.GetName() != old.GetName() || c.Profile.GetVersion() <= old.GetVersion() || !Live(l, now) {
		return nil, nil
	}
	if c.Reach != tokenv1.ProfileReach_PROFILE_REACH_EXTEND_SENT && c.Reach != tokenv1.ProfileReach_PROFILE_REACH_ALL_SENT {
		return nil, nil
	}
	if err := held(l, now); err != nil {
		return nil, err
	}
	next, shorter := proto.CloneOf(c.Profile), c.Reach == tokenv1.ProfileReach_PROFILE_REACH_ALL_SENT
	if !shorter {
		next = longest(old, next)
	}
	expires := l.GetExpiresAt().AsTime()
	if !expired(l, now) {
		expires = moved(l, next)
	}
	fact := &tokenv1.LinkReprofiled{Profile: next}
	if sessionOpen(l, now) {
		end := SessionEnd(l)
		if least := end.Add(-next.GetGrace().AsDuration()); expires.Before(least) {
			expires = least
		}
		ends := l.GetSession().GetEndsAt().AsTime()
		if longer := l.GetSession().GetStartedAt().AsTime().Add(next.GetSession().AsDuration()); longer.After(ends) {
			ends = longer
		}
		fact.SessionEndsAt = timestamppb.New(ends)
	} else if expires.Before(now) {
		expires = now // it ends here, not in a past in which it worked
	}
	fact.ExpiresAt = timestamppb.New(expires)
	if !shorter && !expires.After(l.GetExpiresAt().AsTime()) && !expires.Add(next.GetGrace().AsDuration()).After(GraceEnd(l)) {
		return nil, nil
	}
	return fact, nil
}

// moved returns when the present generation of a link expires by another profile. What its lifetime began from is what it ended at,
// less what it was: a turn, a mint or a message (decisions 9). Where the request's deadline had cut it short it began later than that,
// yet not before it was made.
func moved(l *tokenv1.Link, next *tokenv1.Profile) time.Time {
	lifetime := next.GetLifetime().AsDuration()
	expires := l.GetExpiresAt().AsTime().Add(lifetime - l.GetProfile().GetLifetime().AsDuration())
	if made := newest(l).GetAt(); made != nil && expires.Before(made.AsTime().Add(lifetime)) {
		expires = made.AsTime().Add(lifetime)
	}
	if deadline := l.GetDeadline(); deadline != nil && expires.After(deadline.AsTime()) {
		expires = deadline.AsTime()
	}
	return expires
}

// longest returns next with nothing shorter, fewer or harder than in old.
func longest(old, next *tokenv1.Profile) *tokenv1.Profile {
	keep := func(was, is *durationpb.Duration) *durationpb.Duration {
		if was.AsDuration() > is.AsDuration() {
			return was
		}
		return is
	}
	next.Lifetime, next.Grace, next.Session = keep(old.GetLifetime(), next.GetLifetime()), keep(old.GetGrace(), next.GetGrace()), keep(old.GetSession(), next.GetSession())
	if old.GetIdle().AsDuration() == 0 {
		next.Idle = old.GetIdle() // none is for ever
	} else {
		next.Idle = keep(old.GetIdle(), next.GetIdle())
	}
	next.ReissueLimit, next.Assurance = max(old.GetReissueLimit(), next.GetReissueLimit()), min(old.GetAssurance(), next.GetAssurance())
	return next
}

// Shortens tells whether a link ends earlier after a fact than it would without.
func Shortens(l *tokenv1.Link, f *tokenv1.LinkReprofiled) bool {
	expires := f.GetExpiresAt().AsTime()
	return expires.Before(l.GetExpiresAt().AsTime()) || expires.Add(f.GetProfile().GetGrace().AsDuration()).Before(GraceEnd(l))
}
