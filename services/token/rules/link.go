package rules

import (
	"crypto/subtle"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
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
func expired(l *tokenv1.Link, now time.Time) bool { return !now.Before(l.GetExpiresAt().AsTime()) }

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
		return failure.LinkExpired
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
			return failure.LinkExpired
		}
		return failure.SessionUnknown
	case subtle.ConstantTimeCompare(l.GetSession().GetBrowser(), browser) != 1:
		if expired(l, now) {
			return failure.LinkExpired
		}
		return failure.LinkUsed
	case now.Before(SessionEnd(l)):
		return nil
	case expired(l, now):
		return failure.LinkExpired
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
	case *tokenv1.LinkMinted:
		l.Tokens = append(l.Tokens, &tokenv1.TokenHash{Hash: f.GetHash(), Generation: f.GetGeneration()})
		l.Tokens = l.GetTokens()[max(0, len(l.GetTokens())-keptTokens):]
		l.ExpiresAt = f.GetExpiresAt()
	case *tokenv1.LinkClockStarted:
		l.ClockStarted, l.ExpiresAt = true, f.GetExpiresAt()
	case *tokenv1.LinkRedeemed:
		l.Status, l.Session = tokenv1.LinkStatus_LINK_STATUS_REDEEMED, f.GetSession()
	case *tokenv1.LinkResumed:
		l.Status, l.Session = tokenv1.LinkStatus_LINK_STATUS_REDEEMED, f.GetSession()
	case *tokenv1.LinkReissued:
		nextGeneration(l, f.GetGeneration(), f.GetExpiresAt())
		if f.GetReason() == tokenv1.ReissueReason_REISSUE_REASON_SIGNER {
			l.SignerReissues = append(recent(l, f.GetAt().AsTime()), f.GetAt())
		}
		if f.GetSession() != nil {
			l.Status, l.Session, l.ClockStarted = tokenv1.LinkStatus_LINK_STATUS_REDEEMED, f.GetSession(), true
		}
	case *tokenv1.LinkRerouted:
		nextGeneration(l, f.GetGeneration(), f.GetExpiresAt())
		l.FormerHolderIds, l.HolderId = append(l.FormerHolderIds, f.GetFormerHolderId()), f.GetHolderId()
		l.ReroutedGeneration, l.SignerReissues = f.GetGeneration(), nil
	case *tokenv1.LinkAdmitted:
		l.Admission = f.GetAdmission()
	case *tokenv1.LinkSigned:
		l.Status, l.Admission = tokenv1.LinkStatus_LINK_STATUS_SIGNED, nil
	case *tokenv1.LinkDeclined:
		l.Status, l.Admission = tokenv1.LinkStatus_LINK_STATUS_DECLINED, nil
	case *tokenv1.LinkRevoked:
		l.Status, l.Session, l.EndReason = tokenv1.LinkStatus_LINK_STATUS_REVOKED, nil, f.GetReason()
	case *tokenv1.LinkClosed:
		l.Status, l.Session, l.EndReason = tokenv1.LinkStatus_LINK_STATUS_CLOSED, nil, f.GetReason()
	case *tokenv1.LinkLapsed:
		l.Lapsed = true
	case *tokenv1.LinkDenied:
		l.DeniedAt = f.GetAt()
	}
	return l
}

// nextGeneration rotates a link: what worked before never does again.
func nextGeneration(l *tokenv1.Link, generation uint32, expires *timestamppb.Timestamp) {
	l.Generation, l.ExpiresAt, l.Status = generation, expires, tokenv1.LinkStatus_LINK_STATUS_OPEN
	l.Session, l.Admission, l.ClockStarted, l.Lapsed, l.EndReason = nil, nil, false, false, tokenv1.EndReason_END_REASON_UNSPECIFIED
}

// recent returns the signer's reissues within the profile's window before now.
func recent(l *tokenv1.Link, now time.Time) []*timestamppb.Timestamp {
	since := now.Add(-l.GetProfile().GetReissueWindow().AsDuration())
	var in []*timestamppb.Timestamp
	for _, at := range l.GetSignerReissues() {
		if at.AsTime().After(since) {
			in = append(in, at)
		}
	}
	return in
}

// Unsettled tells whether a signature was admitted on a link of which nothing was heard since. It may have been made: once the
// admission is over, and before the link is rotated, moved or ended, ceremony has to be asked.
func Unsettled(l *tokenv1.Link) bool { return l.GetAdmission() != nil && ended(l) == nil }
