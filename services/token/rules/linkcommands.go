package rules

import (
	"crypto/subtle"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// Issue begins a link: its signer's turn has come.
type Issue struct {
	LinkID, Tenant, RequestID, HolderID string
	Position                            uint32
	Profile                             *tokenv1.Profile
	// Traceparent is the W3C trace context of the issue.
	Traceparent string
	// Deadline is the request's, nil for none, and DeadlineNumber the amendment that set it.
	Deadline       *timestamppb.Timestamp
	DeadlineNumber uint32
}

// Decide issues once.
func (c Issue) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	if l.GetStatus() != tokenv1.LinkStatus_LINK_STATUS_UNSPECIFIED {
		return nil, nil
	}
	return &tokenv1.LinkIssued{
		LinkId: c.LinkID, Tenant: c.Tenant, RequestId: c.RequestID, HolderId: c.HolderID, Position: c.Position, Profile: c.Profile,
		IssuedAt: timestamppb.New(now), ExpiresAt: lifetime(&tokenv1.Link{Profile: c.Profile, Deadline: c.Deadline}, now),
		Traceparent: c.Traceparent, Deadline: c.Deadline, DeadlineNumber: c.DeadlineNumber,
	}, nil
}

// Mint adds a token for one message about a generation; earlier messages of it still work (decisions 10).
type Mint struct {
	Generation uint32
	Hash       []byte
	DeliveryID string
}

// Decide refuses a message about a generation that is over, and more tokens than may live at once.
func (c Mint) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	if err := ended(l); err != nil {
		return nil, err
	}
	if c.Generation != l.GetGeneration() {
		return nil, failure.LinkSuperseded
	}
	expires := l.GetExpiresAt()
	switch {
	case overdue(l, now):
		return nil, failure.RequestExpired
	case !l.GetClockStarted() && l.GetStatus() == tokenv1.LinkStatus_LINK_STATUS_OPEN:
		// The lifetime begins when the message is out, not when the turn came (spec 2.6). What was opened is out, heard or not.
		expires = lifetime(l, now)
	case expired(l, now):
		return nil, failure.LinkExpired
	}
	live := 0
	for _, t := range l.GetTokens() {
		if t.GetGeneration() == l.GetGeneration() {
			live++
		}
	}
	if live >= LiveTokens {
		return nil, failure.LinkMintExceeded
	}
	return &tokenv1.LinkMinted{Generation: c.Generation, Hash: c.Hash, DeliveryId: c.DeliveryID, ExpiresAt: expires}, nil
}

// StartClock fixes the expiry of a generation, whose first message is out.
type StartClock struct{ Generation uint32 }

// Decide fixes it once a generation.
func (c StartClock) Decide(l *tokenv1.Link, _ time.Time) (proto.Message, error) {
	if l.GetClockStarted() || c.Generation != l.GetGeneration() || ended(l) != nil {
		return nil, nil
	}
	return &tokenv1.LinkClockStarted{Generation: c.Generation, ExpiresAt: l.GetExpiresAt()}, nil
}

// Redeem uses a token for the one session of its generation.
type Redeem struct {
	Hash, Browser []byte
	SessionID     string
	Seen          Activity
}

// Decide opens a session once; the browser that has it comes back to it.
func (c Redeem) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	l = c.Seen.On(l, now)
	if err := CheckToken(l, c.Hash, c.Browser, now); err != nil {
		return nil, err
	}
	if l.GetStatus() == tokenv1.LinkStatus_LINK_STATUS_REDEEMED {
		return nil, nil
	}
	return &tokenv1.LinkRedeemed{Generation: l.GetGeneration(), Session: newSession(l, c.SessionID, c.Browser, now)}, nil
}

func newSession(l *tokenv1.Link, id string, browser []byte, now time.Time) *tokenv1.Session {
	return &tokenv1.Session{
		Id: id, Browser: browser, StartedAt: timestamppb.New(now),
		EndsAt: timestamppb.New(now.Add(l.GetProfile().GetSession().AsDuration())),
	}
}

// Continue gives a signer who has just been verified a way on in this browser: the session moves here, or a new
// generation is issued in place when the lifetime is over (spec 2.4, 2.5).
type Continue struct {
	Browser                   []byte
	SessionID, VerificationID string
	// HolderID is whom the verification was of.
	HolderID string
	Seen     Activity
}

// Decide refuses when the signer has had as many new links as the profile allows.
func (c Continue) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	l = c.Seen.On(l, now)
	if err := ended(l); err != nil {
		return nil, err
	}
	if c.HolderID != l.GetHolderId() {
		if l.GetReaddressedGeneration() > l.GetReroutedGeneration() {
			return nil, failure.LinkReaddressed
		}
		return nil, failure.LinkDelegated
	}
	if l.GetSession() != nil && CheckSession(l, c.Browser, now) == nil {
		return nil, nil
	}
	if err := held(l, now); err != nil {
		return nil, err
	}
	if !expired(l, now) {
		return &tokenv1.LinkResumed{Generation: l.GetGeneration(), Session: newSession(l, c.SessionID, c.Browser, now), VerificationId: c.VerificationID}, nil
	}
	if overdue(l, now) {
		return nil, failure.RequestExpired
	}
	asked := recent(l, l.GetSignerReissues(), now)
	if uint32(len(asked)) >= l.GetProfile().GetReissueLimit() {
		wait := l.GetProfile().GetReissueWindow().AsDuration()
		if len(asked) > 0 {
			wait = asked[0].AsTime().Add(wait).Sub(now)
		}
		return nil, failure.ReissueLimit.After(wait)
	}
	return &tokenv1.LinkReissued{
		FromGeneration: l.GetGeneration(), Generation: l.GetGeneration() + 1, Reason: tokenv1.ReissueReason_REISSUE_REASON_SIGNER,
		At: timestamppb.New(now), ExpiresAt: lifetime(l, now),
		Session: newSession(l, c.SessionID, c.Browser, now), VerificationId: c.VerificationID,
	}, nil
}

// Reissue rotates a link for somebody other than the signer; the new one goes to the address on record.
type Reissue struct {
	Reason tokenv1.ReissueReason
	// Generation is the one to replace; 0 is whichever is there.
	Generation uint32
	// ReasonID is the vault's id of the platform's words.
	ReasonID string
}

// Decide rotates in one step, whatever the link's state, unless it is final. A reminder does not throw out who is at work.
func (c Reissue) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	if final(l) {
		return nil, ended(l)
	}
	if c.Generation != 0 && c.Generation != l.GetGeneration() {
		return nil, nil
	}
	if c.Reason == tokenv1.ReissueReason_REISSUE_REASON_REMINDER && now.Before(SessionEnd(l)) {
		return nil, nil
	}
	if err := held(l, now); err != nil {
		return nil, err
	}
	if overdue(l, now) {
		return nil, failure.RequestExpired
	}
	return &tokenv1.LinkReissued{
		FromGeneration: l.GetGeneration(), Generation: l.GetGeneration() + 1, Reason: c.Reason,
		At: timestamppb.New(now), ExpiresAt: lifetime(l, now), ReasonId: c.ReasonID,
	}, nil
}

// Reroute gives the position to an alternate; the former holder's tokens end in the same step (spec 7.2).
type Reroute struct {
	HolderID, EscalationID string
	// Generation is the one that was escalated: a link that moved on meanwhile is left alone.
	Generation uint32
}

// Decide does nothing where the signer was faster.
func (c Reroute) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	if final(l) || c.Generation != l.GetGeneration() || c.HolderID == l.GetHolderId() || overdue(l, now) {
		return nil, nil
	}
	if err := held(l, now); err != nil {
		return nil, err
	}
	return &tokenv1.LinkRerouted{
		Generation: l.GetGeneration() + 1, HolderId: c.HolderID, FormerHolderId: l.GetHolderId(), EscalationId: c.EscalationID,
		At: timestamppb.New(now), ExpiresAt: lifetime(l, now),
	}, nil
}

// Admit holds a link still for a signature.
type Admit struct {
	Browser     []byte
	AdmissionID string
	Seen        Activity
}

// Decide admits the browser that has the session, within its time or grace. Asking again with the same id is the same admission.
func (c Admit) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	l = c.Seen.On(l, now)
	if a := l.GetAdmission(); a.GetId() == c.AdmissionID && held(l, now) != nil && subtle.ConstantTimeCompare(l.GetSession().GetBrowser(), c.Browser) == 1 {
		return nil, nil
	}
	if err := CheckSession(l, c.Browser, now); err != nil {
		return nil, err
	}
	if err := held(l, now); err != nil {
		return nil, err
	}
	return &tokenv1.LinkAdmitted{
		Admission: &tokenv1.Admission{Id: c.AdmissionID, Until: timestamppb.New(now.Add(AdmissionHold))},
		SessionId: l.GetSession().GetId(), Grace: expired(l, now),
	}, nil
}

// MarkSigned follows a signature that was made.
type MarkSigned struct{}

// Decide believes it: the signature was admitted before it was made.
func (MarkSigned) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	if final(l) {
		return nil, nil
	}
	return &tokenv1.LinkSigned{Generation: l.GetGeneration(), At: timestamppb.New(now)}, nil
}

// MarkDeclined follows a refusal to sign.
type MarkDeclined struct{ ReasonID string }

// Decide believes it.
func (c MarkDeclined) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	if final(l) {
		return nil, nil
	}
	return &tokenv1.LinkDeclined{Generation: l.GetGeneration(), ReasonId: c.ReasonID, At: timestamppb.New(now)}, nil
}

// Revoke withdraws a link until it is reissued.
type Revoke struct {
	Reason tokenv1.EndReason
	// ReasonID is the vault's id of the platform's words.
	ReasonID string
}

// Decide waits for a signature that is being made.
func (c Revoke) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	if l.GetStatus() == tokenv1.LinkStatus_LINK_STATUS_REVOKED {
		return nil, nil
	}
	if err := ended(l); err != nil {
		return nil, err
	}
	if err := held(l, now); err != nil {
		return nil, err
	}
	return &tokenv1.LinkRevoked{Reason: c.Reason, At: timestamppb.New(now), ReasonId: c.ReasonID}, nil
}

// Close ends a link whose request ended without it.
type Close struct{ Reason tokenv1.EndReason }

// Decide closes even a link that was never issued, so that an issue heard late makes nothing; it waits for a signature that is being made.
func (c Close) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	if final(l) && l.GetStatus() != tokenv1.LinkStatus_LINK_STATUS_UNSPECIFIED {
		return nil, nil
	}
	if err := held(l, now); err != nil {
		return nil, err
	}
	return &tokenv1.LinkClosed{Reason: c.Reason, At: timestamppb.New(now)}, nil
}

// Deny states that somebody was refused.
type Deny struct{ Code string }

// Decide states at most one refusal a minute, and on an old link fewer, so that a robot cannot fill the record: its subject takes
// 10 000 messages, and one a minute would shut the signer out within a week. Within a year it makes some hundreds.
func (c Deny) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	if l.GetGeneration() == 0 {
		return nil, nil
	}
	every := max(denyEvery, now.Sub(l.GetIssuedAt().AsTime())/denyShare)
	if at := l.GetDeniedAt(); at != nil && now.Before(at.AsTime().Add(every)) {
		return nil, nil
	}
	return &tokenv1.LinkDenied{Code: c.Code, Generation: l.GetGeneration(), At: timestamppb.New(now)}, nil
}
