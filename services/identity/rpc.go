package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/telemetry"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	"countersign.dev/services/identity/rules"
)

// Check says whether this browser's signer has proved enough for an act, and what is missing. It decides, so it reads the leader.
func (s *Service) Check(ctx context.Context, req *identityv1.CheckRequest) (*identityv1.CheckResponse, error) {
	v, now, err := s.load(ctx, req.GetTenant(), req.GetLinkId())
	if err != nil {
		return nil, err
	}
	browser := s.browser(req.GetBrowser())
	resp := &identityv1.CheckResponse{}
	if rules.LockedFor(v, now) > 0 && v.GetPersonId() == req.GetPersonId() {
		resp.LockedUntil = v.GetLockedUntil()
	}
	resp.Evidence = rules.Proof(v, req.GetPersonId(), browser, req.GetPurpose(), req.GetLevel(), now)
	if resp.Satisfied = resp.GetEvidence() != nil || req.GetLevel() == 0; resp.GetSatisfied() {
		return resp, nil
	}
	resp.Missing = rules.Missing(req.GetLevel())
	if open := s.limits.Asked(v, req.GetPersonId(), browser, req.GetPurpose(), now); open != nil {
		resp.Challenge = s.view(v, open, now)
	}
	return resp, nil
}

// StartChallenge states that a code is to be sent; the one before is void. The code itself is asked for by RenderCode.
func (s *Service) StartChallenge(ctx context.Context, req *identityv1.StartChallengeRequest) (*identityv1.StartChallengeResponse, error) {
	k := s.key(req.GetTenant(), req.GetLinkId())
	res, err := s.verifications.Do(ctx, k, rules.Start{
		Limits: s.limits, ID: "chl_" + rand.Text(), VerificationID: k.ID, Tenant: k.Tenant, RequestID: req.GetRequestId(), LinkID: req.GetLinkId(),
		PersonID: req.GetPersonId(), Purpose: req.GetPurpose(), Browser: s.browser(req.GetBrowser()),
	}, bySigner(req.GetPersonId(), req.GetRequestId()))
	if err != nil {
		return nil, err
	}
	return &identityv1.StartChallengeResponse{Challenge: s.view(res.State, res.State.GetChallenge(), s.h.Clock.Now(k.Tenant))}, nil
}

// Answer tries a code. A wrong one is a fact and a failure: CODE_WRONG while there are tries left, then CODE_EXPIRED, or
// IDENTITY_LOCKED when it was one too many. After CODE_EXPIRED ask Check first: a form that was sent twice has passed already.
func (s *Service) Answer(ctx context.Context, req *identityv1.AnswerRequest) (*identityv1.AnswerResponse, error) {
	evidence, result, err := s.answer(ctx, req)
	s.answers.Add(ctx, 1, metric.WithAttributes(attribute.String("result", result)))
	if err != nil {
		return nil, err
	}
	return &identityv1.AnswerResponse{Evidence: evidence}, nil
}

func (s *Service) answer(ctx context.Context, req *identityv1.AnswerRequest) (*identityv1.Evidence, string, error) {
	k := s.key(req.GetTenant(), req.GetLinkId())
	before, _, err := s.verifications.Read(ctx, k)
	if err != nil {
		return nil, "error", err
	}
	code, ok := rules.NormalizeCode(req.GetCode())
	if !ok {
		return nil, "slip", failure.CodeWrong
	}
	res, err := s.verifications.Do(ctx, k, rules.Answer{
		Limits: s.limits, ChallengeID: req.GetChallengeId(), Browser: s.browser(req.GetBrowser()),
		Given: s.answerMAC(req.GetChallengeId(), code), Expected: s.answerMAC(req.GetChallengeId(), s.code(req.GetChallengeId())),
	}, bySigner(before.GetPersonId(), before.GetRequestId()))
	switch {
	case errors.Is(err, failure.CodeExpired):
		return nil, "expired", err
	case errors.Is(err, failure.IdentityLocked):
		return nil, "locked", err
	case err != nil:
		return nil, "error", err
	}
	return s.outcome(res.Fact, s.h.Clock.Now(k.Tenant))
}

// outcome tells the caller what an answer led to.
func (s *Service) outcome(fact proto.Message, now time.Time) (*identityv1.Evidence, string, error) {
	switch f := fact.(type) {
	case *identityv1.VerificationPassed:
		return f.GetEvidence(), "passed", nil
	case *identityv1.AnswerRefused:
		switch {
		case f.GetLockedUntil() != nil:
			return nil, "wrong", failure.IdentityLocked.After(f.GetLockedUntil().AsTime().Sub(now))
		case int(f.GetTries()) >= s.limits.CodeTries:
			return nil, "wrong", failure.CodeExpired
		default:
			return nil, "wrong", failure.CodeWrong
		}
	default:
		return nil, "error", failure.Internal
	}
}

// RenderCode gives the code to the message that carries it, while it can still be used. The same challenge has the same code.
func (s *Service) RenderCode(ctx context.Context, req *identityv1.RenderCodeRequest) (*identityv1.RenderCodeResponse, error) {
	v, now, err := s.load(ctx, req.GetTenant(), req.GetLinkId())
	if err != nil {
		return nil, err
	}
	open := s.limits.Open(v, now)
	if open == nil || open.GetId() != req.GetChallengeId() {
		return nil, failure.CodeExpired
	}
	return &identityv1.RenderCodeResponse{Code: s.code(open.GetId()), ExpiresAt: open.GetExpiresAt()}, nil
}

// load reads a verification from the leader.
func (s *Service) load(ctx context.Context, tenant, linkID string) (*identityv1.Verification, time.Time, error) {
	v, _, err := s.verifications.Load(telemetry.WithRequest(ctx, "", tenant), s.key(tenant, linkID))
	return v, s.h.Clock.Now(tenant), err
}

// key names the one verification of a link.
func (s *Service) key(tenant, linkID string) eventlog.Key {
	return eventlog.Key{Tenant: tenant, ID: eventlog.DeriveID(s.h.Keys, "vrf", linkID)}
}

// browser is how a browser is known to every service: by a keyed hash of its secret.
func (s *Service) browser(secret string) []byte { return s.h.Keys.MAC("cs.browser.v1", []byte(secret)) }

// code derives the code of a challenge, so that it is stored nowhere.
func (s *Service) code(challengeID string) string {
	return rules.Code(func(round byte) []byte { return s.h.Keys.MAC("cs.code.v1", []byte(challengeID), []byte{round}) })
}

// answerMAC is what is compared instead of codes: equal for equal codes, and of one length whatever was typed.
func (s *Service) answerMAC(challengeID, code string) []byte {
	return s.h.Keys.MAC("cs.answer.v1", []byte(challengeID), []byte(code))
}

func (s *Service) view(v *identityv1.Verification, open *identityv1.Challenge, now time.Time) *identityv1.ChallengeView {
	return &identityv1.ChallengeView{
		Id: open.GetId(), ExpiresAt: open.GetExpiresAt(), ResendAt: timestamppb.New(s.limits.ResendAt(v, now)),
		TriesLeft: uint32(max(0, s.limits.CodeTries-int(open.GetTries()))),
	}
}

// bySigner is who asks, in the role in which they ask: it is not proved yet.
func bySigner(personID, requestID string) eventlog.By {
	return eventlog.By{
		Actor:     &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_SIGNER, Ref: personID},
		Cause:     &recordv1.Cause{CallId: rand.Text()},
		RequestID: requestID,
	}
}
