package rules

import (
	"bytes"
	"crypto/subtle"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
)

// keepEvidence is how many proofs a state remembers.
const keepEvidence = 16

// levelOfMailbox is what a code to the link's own mailbox is worth (decisions 11).
const levelOfMailbox = 1

// Start asks for a code. The one before is void from then on.
//
// It is refused while the signer is locked (IDENTITY_LOCKED), within the cool-down (CODE_TOO_SOON) and above the limits
// (CODE_LIMIT); each says how long to wait.
type Start struct {
	Limits Limits
	// ID of the challenge, never used before.
	ID string
	// VerificationID, Tenant, RequestID, LinkID and PersonID say whose verification it is; the code goes to the person.
	VerificationID, Tenant, RequestID, LinkID, PersonID string
	Purpose                                             identityv1.Purpose
	// Browser is the keyed hash of the secret of the browser that asks.
	Browser []byte
}

// Decide states ChallengeStarted.
func (c Start) Decide(v *identityv1.Verification, now time.Time) (proto.Message, error) {
	if v.GetPersonId() != c.PersonID {
		v = nil // counters are about the former holder
	}
	if wait := LockedFor(v, now); wait > 0 {
		return nil, failure.IdentityLocked.After(wait)
	}
	if wait := c.Limits.cooling(v, now); wait > 0 {
		return nil, failure.CodeTooSoon.After(wait)
	}
	if wait := c.Limits.limited(v, now); wait > 0 {
		return nil, failure.CodeLimit.After(wait)
	}
	return &identityv1.ChallengeStarted{
		VerificationId: c.VerificationID, LinkId: c.LinkID, Tenant: c.Tenant, RequestId: c.RequestID,
		Challenge: &identityv1.Challenge{
			Id: c.ID, Method: identityv1.Method_METHOD_EMAIL_CODE, Purpose: c.Purpose, Browser: c.Browser, PersonId: c.PersonID,
			StartedAt: timestamppb.New(now), ExpiresAt: timestamppb.New(now.Add(c.Limits.CodeLife)),
		},
	}, nil
}

// Answer tries a code. Given and Expected are keyed hashes of the code that was typed and of the right one.
//
// It states VerificationPassed or AnswerRefused. It is refused without being judged, and states nothing, while the signer
// is locked (IDENTITY_LOCKED) and where the challenge is not open: void, used, timed out, or out of tries (CODE_EXPIRED).
type Answer struct {
	Limits          Limits
	ChallengeID     string
	Browser         []byte
	Given, Expected []byte
}

// Decide judges the answer. The right code in another browser than the one that asked is a wrong one: it was relayed.
func (c Answer) Decide(v *identityv1.Verification, now time.Time) (proto.Message, error) {
	if wait := LockedFor(v, now); wait > 0 {
		return nil, failure.IdentityLocked.After(wait)
	}
	open := c.Limits.Open(v, now)
	if open == nil || open.GetId() != c.ChallengeID {
		return nil, failure.CodeExpired
	}
	right := subtle.ConstantTimeCompare(c.Given, c.Expected)
	right &= subtle.ConstantTimeCompare(c.Browser, open.GetBrowser())
	if right == 1 && len(c.Expected) > 0 {
		return &identityv1.VerificationPassed{LinkId: v.GetLinkId(), Evidence: &identityv1.Evidence{
			Id: evidenceID(open.GetId()), Method: open.GetMethod(), Purpose: open.GetPurpose(), Level: levelOfMailbox,
			Browser: open.GetBrowser(), PersonId: open.GetPersonId(),
			At: timestamppb.New(now), ExpiresAt: timestamppb.New(now.Add(c.Limits.EvidenceLife)),
		}}, nil
	}
	refused := &identityv1.AnswerRefused{ChallengeId: open.GetId(), Tries: open.GetTries() + 1, LinkId: v.GetLinkId(), At: timestamppb.New(now)}
	if within(v.GetFailedAt(), now, c.Limits.LockWindow)+1 >= c.Limits.LockAfter || int(v.GetFailures())+1 >= c.Limits.Ceiling {
		refused.LockedUntil = timestamppb.New(now.Add(c.Limits.lock(v)))
	}
	return refused, nil
}

// evidenceID names the evidence after the one challenge that can lead to it.
func evidenceID(challengeID string) string { return "evd_" + strings.TrimPrefix(challengeID, "chl_") }

// Evolve returns the verification after a fact; an unknown one changes nothing. It may change v.
func Evolve(v *identityv1.Verification, fact proto.Message) *identityv1.Verification {
	switch f := fact.(type) {
	case *identityv1.ChallengeStarted:
		started(v, f)
	case *identityv1.AnswerRefused:
		v.Failures++
		v.FailedAt = newest(append(v.FailedAt, f.GetAt()), keep)
		if open := v.GetChallenge(); open.GetId() == f.GetChallengeId() && open != nil {
			open.Tries = f.GetTries()
		}
		if f.GetLockedUntil() != nil {
			// The next lock takes as many failures again; they are counted from here.
			v.LockedUntil, v.Locks, v.FailedAt, v.Challenge = f.GetLockedUntil(), v.GetLocks()+1, nil, nil
		}
	case *identityv1.VerificationPassed:
		v.Evidence = newest(append(v.Evidence, f.GetEvidence()), keepEvidence)
		v.Challenge, v.Failures, v.FailedAt, v.Locks, v.LockedUntil = nil, 0, nil, 0, nil
	}
	return v
}

func started(v *identityv1.Verification, f *identityv1.ChallengeStarted) {
	open := f.GetChallenge()
	if v.GetPersonId() != open.GetPersonId() {
		v.Failures, v.FailedAt, v.Locks, v.LockedUntil, v.SentAt = 0, nil, 0, nil, nil
	}
	v.Id, v.Tenant, v.RequestId, v.LinkId, v.PersonId = f.GetVerificationId(), f.GetTenant(), f.GetRequestId(), f.GetLinkId(), open.GetPersonId()
	v.Challenge = proto.CloneOf(open)
	v.SentAt = newest(append(v.SentAt, open.GetStartedAt()), keep)
}

func newest[T any](all []T, most int) []T { return all[max(0, len(all)-most):] }

// Open returns the challenge that may still be answered, or nil.
func (l Limits) Open(v *identityv1.Verification, now time.Time) *identityv1.Challenge {
	open := v.GetChallenge()
	if open == nil || !now.Before(open.GetExpiresAt().AsTime()) || int(open.GetTries()) >= l.CodeTries {
		return nil
	}
	return open
}

// LockedFor returns how long the signer is still locked; 0 when they are not.
func LockedFor(v *identityv1.Verification, now time.Time) time.Duration {
	if v.GetLockedUntil() == nil {
		return 0
	}
	return max(0, v.GetLockedUntil().AsTime().Sub(now))
}

// Proof returns the evidence by which a person has proved enough for an act in a browser, or nil. See the package comment
// for what evidence serves.
func Proof(v *identityv1.Verification, person string, browser []byte, act identityv1.Purpose, level uint32, now time.Time) *identityv1.Evidence {
	var best *identityv1.Evidence
	for _, e := range v.GetEvidence() {
		if e.GetPersonId() == person && bytes.Equal(e.GetBrowser(), browser) && e.GetLevel() >= level &&
			serves(e, act) && now.Before(e.GetExpiresAt().AsTime()) {
			best = e // the newest lasts longest
		}
	}
	return best
}

func serves(e *identityv1.Evidence, act identityv1.Purpose) bool {
	return e.GetPurpose() == act || e.GetPurpose() == identityv1.Purpose_PURPOSE_CONTINUE &&
		act == identityv1.Purpose_PURPOSE_SIGN && e.GetLevel() == levelOfMailbox
}

// Missing returns the method that leads to a level; unspecified where none that we have does. Never one of a lower level.
func Missing(level uint32) identityv1.Method {
	if level > levelOfMailbox {
		return identityv1.Method_METHOD_UNSPECIFIED
	}
	return identityv1.Method_METHOD_EMAIL_CODE
}

// ResendAt returns from when on another code may be asked for, as far as codes sent so far say.
func (l Limits) ResendAt(v *identityv1.Verification, now time.Time) time.Time {
	return now.Add(max(l.cooling(v, now), l.limited(v, now)))
}

// cooling returns how long the cool-down still lasts.
func (l Limits) cooling(v *identityv1.Verification, now time.Time) time.Duration {
	sent := v.GetSentAt()
	if len(sent) == 0 {
		return 0
	}
	return max(0, sent[len(sent)-1].AsTime().Add(l.Cooldown).Sub(now))
}

// limited returns how long to wait until both windows have room for another code.
func (l Limits) limited(v *identityv1.Verification, now time.Time) time.Duration {
	return max(room(v.GetSentAt(), now, l.ShortWindow, l.ShortSends), room(v.GetSentAt(), now, l.LongWindow, l.LongSends))
}

// room returns how long it takes until fewer than most of the times, oldest first, lie within the window before now.
func room(times []*timestamppb.Timestamp, now time.Time, window time.Duration, most int) time.Duration {
	if within(times, now, window) < most {
		return 0
	}
	return times[len(times)-most].AsTime().Add(window).Sub(now)
}

// within counts the times that lie less than a window before now.
func within(times []*timestamppb.Timestamp, now time.Time, window time.Duration) int {
	n := 0
	for _, t := range times {
		if now.Sub(t.AsTime()) < window {
			n++
		}
	}
	return n
}

// lock returns how long the next lock lasts.
func (l Limits) lock(v *identityv1.Verification) time.Duration {
	if int(v.GetFailures())+1 >= l.Ceiling {
		return l.LockMost
	}
	d := l.Lock
	for range v.GetLocks() {
		if d *= 2; d >= l.LockMost {
			return l.LockMost
		}
	}
	return d
}

// Asked returns the challenge that this person was asked in this browser for this act and may still answer, or nil.
func (l Limits) Asked(v *identityv1.Verification, person string, browser []byte, act identityv1.Purpose, now time.Time) *identityv1.Challenge {
	open := l.Open(v, now)
	if open.GetPersonId() != person || open.GetPurpose() != act || !bytes.Equal(open.GetBrowser(), browser) {
		return nil
	}
	return open
}
