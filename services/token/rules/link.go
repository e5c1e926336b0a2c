package rules

import (
	"crypto/subtle"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/mutant"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

const (
	// AdmissionHold is how long a link is held still for a signature (decisions 8).
	AdmissionHold = 2 * time.Minute
	// LiveTokens is how many tokens of one generation may work at once (decisions 10).
	LiveTokens = 32
	// keptTokens bounds what is remembered of former generations, so that their holders get words instead of a blank.
	keptTokens = 64
	// denyEvery is how often refusals of one link are stated at most (decisions 6).
	denyEvery = time.Minute
	// denyShare makes them rarer the longer a link lives: at most one in this part of its age.
	denyShare = 64
)

// ended returns the failure that says why a link no longer opens anything for anybody; nil while it may.
func ended(l *tokenv1.Link) error {
	switch l.GetStatus() {
	case tokenv1.LinkStatus_LINK_STATUS_OPEN, tokenv1.LinkStatus_LINK_STATUS_REDEEMED:
		return nil
	case tokenv1.LinkStatus_LINK_STATUS_REVOKED:
		return failure.LinkRevoked
	case tokenv1.LinkStatus_LINK_STATUS_SIGNED:
		return failure.LinkSigned
	case tokenv1.LinkStatus_LINK_STATUS_DECLINED:
		return failure.LinkDeclined
	case tokenv1.LinkStatus_LINK_STATUS_CLOSED:
		if l.GetEndReason() == tokenv1.EndReason_END_REASON_DEADLINE {
			return failure.RequestExpired
		}
		return failure.LinkCancelled
	default:
		return failure.LinkUnknown
	}
}

// final tells whether nothing leads on from a link's status.
func final(l *tokenv1.Link) bool {
	err := ended(l)
	return err != nil && l.GetStatus() != tokenv1.LinkStatus_LINK_STATUS_REVOKED
}

// held refuses while a signature is being made.
func held(l *tokenv1.Link, now time.Time) error {
	if until := l.GetAdmission().GetUntil(); until != nil && now.Before(until.AsTime()) {
		return failure.LinkBusy.After(until.AsTime().Sub(now))
	}
	return nil
}

// expired tells whether a link opens nothing new at now.
func expired(l *tokenv1.Link, now time.Time) bool {
	if mutant.ExpiryReversed {
		return now.Before(l.GetExpiresAt().AsTime())
	}
	return !now.Before(l.GetExpiresAt().AsTime()) || overdue(l, now)
}

// overdue tells whether the request's deadline has passed: no new link opens anything either.
func overdue(l *tokenv1.Link, now time.Time) bool {
	return l.GetDeadline() != nil && !now.Before(l.GetDeadline().AsTime())
}

// tooLate is what the holder of an expired link is told.
func tooLate(l *tokenv1.Link, now time.Time) error {
	if overdue(l, now) {
		return failure.RequestExpired
	}
	return failure.LinkExpired
}

// lifetime is when a generation that is made at now expires: after its lifetime, and no later than the request's deadline.
func lifetime(l *tokenv1.Link, now time.Time) *timestamppb.Timestamp {
	end := now.Add(l.GetProfile().GetLifetime().AsDuration())
	if l.GetDeadline() != nil && l.GetDeadline().AsTime().Before(end) {
		return l.GetDeadline()
	}
	return timestamppb.New(end)
}

// GraceEnd is when a link's grace is over (spec 2.4).
func GraceEnd(l *tokenv1.Link) time.Time {
	return l.GetExpiresAt().AsTime().Add(l.GetProfile().GetGrace().AsDuration())
}

// HeldBy tells whether the link's session is, or was when the link came to its end, the one of a browser.
func HeldBy(l *tokenv1.Link, browser []byte) bool {
	return l.GetSession() != nil && subtle.ConstantTimeCompare(l.GetSession().GetBrowser(), browser) == 1
}

// SessionEnd is when a link's session is over: at its own end, or when grace ends, whichever comes first (spec 2.4).
// The zero time when there is no session.
func SessionEnd(l *tokenv1.Link) time.Time {
	if l.GetSession() == nil {
		return time.Time{}
	}
	end, grace := l.GetSession().GetEndsAt().AsTime(), GraceEnd(l)
	if grace.Before(end) {
		return grace
	}
	return end
}

// CheckToken says whether a token with this hash opens the link at now in this browser: nil, or the failure that names the page to show.
func CheckToken(l *tokenv1.Link, hash, browser []byte, now time.Time) error {
	generation, known := generationOf(l, hash)
	switch {
	case !known:
		return failure.LinkUnknown
	case generation < l.GetReroutedGeneration():
		return failure.LinkDelegated
	case generation < l.GetReaddressedGeneration():
		return failure.LinkReaddressed
	}
	if err := ended(l); err != nil {
		return err
	}
	switch {
	case generation < l.GetGeneration():
		return failure.LinkSuperseded
	case l.GetStatus() == tokenv1.LinkStatus_LINK_STATUS_REDEEMED:
		return CheckSession(l, browser, now)
	case expired(l, now):
		return tooLate(l, now)
	}
	return nil
}

// generationOf finds the generation that a token's hash belongs to. Every hash is compared, in constant time.
func generationOf(l *tokenv1.Link, hash []byte) (generation uint32, known bool) {
	for _, t := range l.GetTokens() {
		if subtle.ConstantTimeCompare(t.GetHash(), hash) == 1 {
			generation, known = t.GetGeneration(), true
		}
	}
	return generation, known
}

// CheckSession says whether the session of a link goes on at now in this browser (spec 2.2, 2.4).
func CheckSession(l *tokenv1.Link, browser []byte, now time.Time) error {
	if err := ended(l); err != nil {
		return err
	}
	switch {
	case l.GetSession() == nil:
		if expired(l, now) {
			return tooLate(l, now)
		}
		return failure.SessionUnknown
	case subtle.ConstantTimeCompare(l.GetSession().GetBrowser(), browser) != 1:
		if expired(l, now) {
			return tooLate(l, now)
		}
		return failure.LinkUsed
	case now.Before(SessionEnd(l)):
		return nil
	case expired(l, now):
		return tooLate(l, now)
	default:
		return failure.SessionExpired
	}
}

// Deadline is when the link's lapse falls due: at its expiry, or when the session and a signature that is being made are over,
// whichever comes last. The zero time when nothing waits.
func Deadline(l *tokenv1.Link) time.Time {
	due := l.GetExpiresAt().AsTime()
	switch {
	case l.GetLapsed():
	case l.GetStatus() == tokenv1.LinkStatus_LINK_STATUS_OPEN && l.GetClockStarted():
		return due
	case l.GetStatus() == tokenv1.LinkStatus_LINK_STATUS_REDEEMED:
		if end := SessionEnd(l); end.After(due) {
			due = end
		}
		if until := l.GetAdmission().GetUntil(); until != nil && until.AsTime().After(due) {
			due = until.AsTime()
		}
		return due
	}
	return time.Time{}
}

// EvolveLink returns the link after fact; it may change l. A fact of a newer release is passed over.
func EvolveLink(l *tokenv1.Link, fact proto.Message) *tokenv1.Link {
	switch f := fact.(type) {
	case *tokenv1.LinkIssued:
		l.Id, l.Tenant, l.Position, l.HolderId, l.Profile = f.GetLinkId(), f.GetTenant(), f.GetPosition(), f.GetHolderId(), f.GetProfile()
		l.RequestId, l.Status, l.Generation = f.GetRequestId(), tokenv1.LinkStatus_LINK_STATUS_OPEN, 1
		l.IssuedAt, l.ExpiresAt, l.Traceparent = f.GetIssuedAt(), f.GetExpiresAt(), f.GetTraceparent()
		l.Deadline, l.DeadlineNumber = f.GetDeadline(), f.GetDeadlineNumber()
		beginGeneration(l, &tokenv1.Generation{Origin: tokenv1.Origin_ORIGIN_ISSUED, At: f.GetIssuedAt()})
	case *tokenv1.LinkMinted:
		l.Tokens = append(l.Tokens, &tokenv1.TokenHash{Hash: f.GetHash(), Generation: f.GetGeneration()})
		l.Tokens = l.GetTokens()[max(0, len(l.GetTokens())-keptTokens):]
		l.ExpiresAt = f.GetExpiresAt()
	case *tokenv1.LinkClockStarted:
		l.ClockStarted, l.ExpiresAt = true, f.GetExpiresAt()
	case *tokenv1.LinkRedeemed:
		begun(l, f.GetSession())
	case *tokenv1.LinkResumed:
		begun(l, f.GetSession())
	case *tokenv1.LinkReissued:
		reissued(l, f)
	case *tokenv1.LinkRerouted:
		nextGeneration(l, f.GetGeneration(), f.GetExpiresAt(), &tokenv1.Generation{Origin: tokenv1.Origin_ORIGIN_REROUTED, At: f.GetAt()})
		changeHolder(l, f.GetHolderId(), f.GetFormerHolderId())
		l.ReroutedGeneration = f.GetGeneration()
	case *tokenv1.LinkDeadlineMoved:
		l.Deadline, l.DeadlineNumber, l.ExpiresAt = f.GetDeadline(), f.GetNumber(), f.GetExpiresAt()
	case *tokenv1.LinkAdmitted:
		l.Admission = f.GetAdmission()
	case *tokenv1.LinkSigned:
		l.Status, l.Admission = tokenv1.LinkStatus_LINK_STATUS_SIGNED, nil
		endGeneration(l, tokenv1.GenerationEnd_GENERATION_END_USED, f.GetAt(), "")
	case *tokenv1.LinkDeclined:
		l.Status, l.Admission = tokenv1.LinkStatus_LINK_STATUS_DECLINED, nil
		endGeneration(l, tokenv1.GenerationEnd_GENERATION_END_USED, f.GetAt(), "")
	case *tokenv1.LinkRevoked:
		l.Status, l.Session, l.EndReason = tokenv1.LinkStatus_LINK_STATUS_REVOKED, nil, f.GetReason()
		endGeneration(l, tokenv1.GenerationEnd_GENERATION_END_REVOKED, f.GetAt(), f.GetReasonId())
	case *tokenv1.LinkClosed:
		l.Status, l.Session, l.EndReason = tokenv1.LinkStatus_LINK_STATUS_CLOSED, nil, f.GetReason()
		endGeneration(l, tokenv1.GenerationEnd_GENERATION_END_CLOSED, f.GetAt(), "")
	case *tokenv1.LinkLapsed:
		l.Lapsed = true
		endGeneration(l, tokenv1.GenerationEnd_GENERATION_END_LAPSED, f.GetAt(), "")
	case *tokenv1.LinkDenied:
		l.DeniedAt = f.GetAt()
	case *tokenv1.LinkAttention:
		l.AttentionGeneration = f.GetGeneration()
	case *tokenv1.LinkReprofiled:
		l.Profile, l.ExpiresAt = f.GetProfile(), f.GetExpiresAt()
		if l.GetSession() != nil && f.GetSessionEndsAt() != nil {
			l.Session.EndsAt = f.GetSessionEndsAt()
		}
	}
	return l
}

// begun binds a link to the session of somebody who is there.
func begun(l *tokenv1.Link, s *tokenv1.Session) {
	l.Status, l.Session, l.Unattended = tokenv1.LinkStatus_LINK_STATUS_REDEEMED, s, 0
	if g := newest(l); g != nil && g.GetOpenedAt() == nil {
		g.OpenedAt = s.GetStartedAt()
	}
}

// recent returns those of some times that are within the profile's reissue window before now.
func recent(l *tokenv1.Link, times []*timestamppb.Timestamp, now time.Time) []*timestamppb.Timestamp {
	since := now.Add(-l.GetProfile().GetReissueWindow().AsDuration())
	var in []*timestamppb.Timestamp
	for _, at := range times {
		if at.AsTime().After(since) {
			in = append(in, at)
		}
	}
	return in
}

// Unsettled tells whether a signature was admitted on a link of which nothing was heard since. It may have been made: once the
// admission is over, and before the link is rotated, moved or ended, ceremony has to be asked.
func Unsettled(l *tokenv1.Link) bool { return l.GetAdmission() != nil && ended(l) == nil }

// BusyUntil is when nobody can be at work on a link any more: its session and a signature that is being made are over. The zero time
// when nobody is.
func BusyUntil(l *tokenv1.Link) time.Time {
	if ended(l) != nil {
		return time.Time{}
	}
	end := SessionEnd(l)
	if until := l.GetAdmission().GetUntil(); until != nil && until.AsTime().After(end) {
		end = until.AsTime()
	}
	return end
}
