package token

import (
	"context"
	"encoding/base64"
	"errors"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/telemetry"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// continueLevel is what a signer must have proved to get a new link or to move the session (security.md 3.5).
const continueLevel = 1

// linkServer answers the other services about links.
type linkServer struct {
	tokenv1.UnimplementedLinkServiceServer
	s *Service
}

// tokenHash is what is kept of a token.
func (s *Service) tokenHash(t rules.Token) []byte {
	return s.h.Keys.MAC("cs.link.v1", []byte(t.Tenant), []byte(t.LinkID), t.Secret)
}

// browserHash is what is kept of a browser's secret; the same in every service, so that evidence can be compared.
func (s *Service) browserHash(secret string) []byte {
	if secret == "" {
		return nil
	}
	return s.h.Keys.MAC("cs.browser.v1", []byte(secret))
}

// signer returns what a signer's act is recorded with.
func signer(link *tokenv1.Link) eventlog.By {
	return eventlog.By{
		Actor:     &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_SIGNER, Ref: link.GetHolderId()},
		Cause:     &recordv1.Cause{CallId: callID()},
		RequestID: link.GetRequestId(),
	}
}

func callID() string { return uuid.Must(uuid.NewV7()).String() }

func viewOf(l *tokenv1.Link) *tokenv1.LinkView {
	v := &tokenv1.LinkView{
		Tenant: l.GetTenant(), LinkId: l.GetId(), RequestId: l.GetRequestId(), Position: l.GetPosition(), Generation: l.GetGeneration(),
		Status: l.GetStatus(), HolderId: l.GetHolderId(), ExpiresAt: l.GetExpiresAt(), Assurance: l.GetProfile().GetAssurance(),
		Traceparent: l.GetTraceparent(), GraceEndsAt: timestamppb.New(rules.GraceEnd(l)),
	}
	if l.GetSession() != nil {
		v.SessionId, v.SessionEndsAt = l.GetSession().GetId(), timestamppb.New(rules.SessionEnd(l))
	}
	return v
}

// codeOf returns the code of a refusal; "" for none.
func codeOf(err error) string {
	if f := failure.From(err); f != nil {
		return f.Code
	}
	return ""
}

// Resolve reads what a page may show; what decides is decided again by whoever acts.
func (l linkServer) Resolve(ctx context.Context, req *tokenv1.ResolveRequest) (*tokenv1.ResolveResponse, error) {
	t, err := rules.ParseToken(req.GetToken())
	if err != nil {
		return &tokenv1.ResolveResponse{FailureCode: codeOf(err)}, nil
	}
	link, err := l.s.links.Glance(ctx, key(t.Tenant, t.LinkID))
	if err != nil {
		return nil, err
	}
	now, browser := l.s.h.Clock.Now(t.Tenant), l.s.browserHash(req.GetBrowser())
	link = l.s.seen(ctx, link, browser, now).On(link, now)
	refusal := rules.CheckToken(link, l.s.tokenHash(t), browser, now)
	answer := &tokenv1.ResolveResponse{FailureCode: codeOf(refusal)}
	if answer.GetFailureCode() == failure.LinkUnknown.Code {
		return answer, nil
	}
	telemetry.WithRequest(ctx, link.GetRequestId(), t.Tenant)
	answer.Link = viewOf(link)
	answer.SessionHere = browser != nil && link.GetSession() != nil && rules.CheckSession(link, browser, now) == nil
	return answer, nil
}

// Redeem opens the one session of a link, or returns to it. A refusal is stated too, at most once a minute a link.
func (l linkServer) Redeem(ctx context.Context, req *tokenv1.RedeemRequest) (*tokenv1.RedeemResponse, error) {
	t, err := rules.ParseToken(req.GetToken())
	if err != nil {
		return nil, err
	}
	k := key(t.Tenant, t.LinkID)
	seen, err := l.s.links.Look(ctx, k)
	if err != nil {
		return nil, err
	}
	link, browser := seen.State, l.s.browserHash(req.GetBrowser())
	redeem := rules.Redeem{
		Hash: l.s.tokenHash(t), Browser: browser, SessionID: sessionID(), Seen: l.s.seen(ctx, link, browser, l.s.h.Clock.Now(t.Tenant)),
	}
	res, err := l.s.links.DoFrom(ctx, k, seen, redeem, signer(link))
	if refusal := failure.From(err); refusal != nil && refusal.Code != failure.LinkUnknown.Code {
		if _, failed := l.s.links.Do(ctx, k, rules.Deny{Code: refusal.Code}, signer(link)); failed != nil {
			l.s.h.Logger.WarnContext(ctx, "refusal was not stated", "error", failed)
		}
		return nil, refusal
	}
	if err != nil {
		return nil, err
	}
	return &tokenv1.RedeemResponse{Link: viewOf(res.State)}, nil
}

// sessionID is a public name of a session; what opens it is the browser's secret.
func sessionID() string { return "ses_" + base64.RawURLEncoding.EncodeToString(newSalt()[:12]) }

// GetSession says how a session stands in a browser.
func (l linkServer) GetSession(ctx context.Context, req *tokenv1.GetSessionRequest) (*tokenv1.GetSessionResponse, error) {
	read := l.s.links.Read
	if req.GetDecisive() {
		read = l.s.links.Load
	}
	link, _, err := read(ctx, key(req.GetTenant(), req.GetLinkId()))
	if err != nil {
		return nil, err
	}
	if link.GetGeneration() == 0 {
		return nil, failure.SessionUnknown
	}
	browser, now := l.s.browserHash(req.GetBrowser()), l.s.h.Clock.Now(req.GetTenant())
	link = l.s.seen(ctx, link, browser, now).On(link, now)
	refusal := rules.CheckSession(link, browser, now)
	return &tokenv1.GetSessionResponse{Link: viewOf(link), FailureCode: codeOf(refusal), SessionHere: rules.HeldBy(link, browser)}, nil
}

// Continue gives a signer whom identity has just verified, in this browser, a way on.
func (l linkServer) Continue(ctx context.Context, req *tokenv1.ContinueRequest) (*tokenv1.ContinueResponse, error) {
	k := key(req.GetTenant(), req.GetLinkId())
	link, _, err := l.s.links.Load(ctx, k)
	if err != nil {
		return nil, err
	}
	if link.GetGeneration() == 0 {
		return nil, failure.LinkUnknown
	}
	proof, err := l.s.identity.Check(ctx, &identityv1.CheckRequest{
		Tenant: req.GetTenant(), LinkId: req.GetLinkId(), Browser: req.GetBrowser(), Purpose: identityv1.Purpose_PURPOSE_CONTINUE,
		Level: continueLevel, PersonId: link.GetHolderId(),
	})
	if err != nil {
		return nil, err
	}
	if !proof.GetSatisfied() {
		return nil, failure.ReissueUnproved
	}
	browser := l.s.browserHash(req.GetBrowser())
	command := rules.Continue{
		Browser: browser, SessionID: sessionID(), VerificationID: proof.GetEvidence().GetId(), HolderID: link.GetHolderId(),
		Seen: l.s.seen(ctx, link, browser, l.s.h.Clock.Now(req.GetTenant())),
	}
	res, err := l.s.turn(ctx, k, command, signer(link))
	if errors.Is(err, failure.ReissueLimit) {
		if _, failed := l.s.links.Do(ctx, k, rules.Attend{}, signer(link)); failed != nil {
			l.s.h.Logger.WarnContext(ctx, "the sender was not asked for a new link", "error", failed)
		}
	}
	if err != nil {
		return nil, err
	}
	_, reissued := res.Fact.(*tokenv1.LinkReissued)
	return &tokenv1.ContinueResponse{Link: viewOf(res.State), Reissued: reissued}, nil
}

// Mint makes a token for one message. The secret leaves with the answer and is kept nowhere.
func (l linkServer) Mint(ctx context.Context, req *tokenv1.MintRequest) (*tokenv1.MintResponse, error) {
	seen, err := l.s.links.Look(ctx, key(req.GetTenant(), req.GetLinkId()))
	if err != nil {
		return nil, err
	}
	by := eventlog.By{
		Actor: &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_SYSTEM, Ref: "delivery"},
		Cause: &recordv1.Cause{CallId: callID()}, RequestID: seen.State.GetRequestId(),
	}
	t := rules.Token{Tenant: req.GetTenant(), LinkID: req.GetLinkId(), Secret: newSalt()[:rules.SecretSize]}
	minted, err := l.s.mint(ctx, t, seen, req.GetGeneration(), req.GetDeliveryId(), by)
	if err != nil {
		return nil, err
	}
	text, err := rules.FormatToken(t)
	return &tokenv1.MintResponse{Token: text, ExpiresAt: minted.GetExpiresAt()}, err
}

// mint makes t a token of a link's generation, for one delivery, and returns the link as it then is. from may be nil.
func (s *Service) mint(ctx context.Context, t rules.Token, from *eventlog.View[*tokenv1.Link], generation uint32, deliveryID string, by eventlog.By) (*tokenv1.Link, error) {
	if _, err := rules.FormatToken(t); err != nil {
		return nil, err
	}
	res, err := s.links.DoFrom(ctx, key(t.Tenant, t.LinkID), from, rules.Mint{Generation: generation, Hash: s.tokenHash(t), DeliveryID: deliveryID}, by)
	return res.State, err
}

// AdmitSigning holds a link still for a signature. It writes the admission first and reads the request after, as a cancellation
// writes its intent first and reads the links after: so one of the two sees the other. It looks at the request before, too, so that
// what is refused anyway holds nothing up.
func (l linkServer) AdmitSigning(ctx context.Context, req *tokenv1.AdmitSigningRequest) (*tokenv1.AdmitSigningResponse, error) {
	k := key(req.GetTenant(), req.GetLinkId())
	link, _, err := l.s.links.Load(ctx, k)
	if err != nil {
		return nil, err
	}
	browser, now := l.s.browserHash(req.GetBrowser()), l.s.h.Clock.Now(req.GetTenant())
	admit := rules.Admit{Browser: browser, AdmissionID: req.GetAdmissionId(), Seen: l.s.seen(ctx, link, browser, now)}
	if _, err := admit.Decide(link, now); err != nil {
		return nil, err
	}
	mayAdmit := func() error {
		request, _, err := l.s.requests.Load(ctx, key(req.GetTenant(), link.GetRequestId()))
		if err != nil {
			return err
		}
		return rules.MayAdmit(request, l.s.h.Clock.Now(req.GetTenant()))
	}
	if err := mayAdmit(); err != nil {
		return nil, err
	}
	res, err := l.s.links.Do(ctx, k, admit, signer(link))
	if err != nil {
		return nil, err
	}
	if err := mayAdmit(); err != nil {
		return nil, err
	}
	return &tokenv1.AdmitSigningResponse{Admission: res.State.GetAdmission(), Link: viewOf(res.State)}, nil
}

// GetLink returns a link as the record has it.
func (l linkServer) GetLink(ctx context.Context, req *tokenv1.GetLinkRequest) (*tokenv1.GetLinkResponse, error) {
	link, _, err := l.s.links.Load(ctx, key(req.GetTenant(), req.GetLinkId()))
	if err != nil {
		return nil, err
	}
	if link.GetStatus() == tokenv1.LinkStatus_LINK_STATUS_UNSPECIFIED {
		return nil, failure.LinkUnknown
	}
	return &tokenv1.GetLinkResponse{Link: link}, nil
}
