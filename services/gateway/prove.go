package gateway

import (
	"net/http"
	"unicode/utf8"

	"countersign.dev/pkg/failure"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	"countersign.dev/services/gateway/pages"
)

// continueLevel is what a signer must have proved to get a new link or to move the session (security.md 3.5).
const continueLevel = 1

// maxCode is the most characters an answer has in identity's contract.
const maxCode = 32

// proof is what somebody has to prove who they are for, and where its forms are.
type proof struct {
	purpose identityv1.Purpose
	level   uint32
	words   pages.Purpose
	base    string
}

// toSign is to see and sign the document.
func (s *Service) toSign(v *visit) proof {
	return proof{identityv1.Purpose_PURPOSE_SIGN, v.link.GetAssurance(), pages.ToSign, v.at.sign()}
}

// toGoOn is to get a new link, or the session into this browser.
func (s *Service) toGoOn(v *visit) proof {
	p := proof{identityv1.Purpose_PURPOSE_CONTINUE, continueLevel, pages.ToRenew, v.at.goOn()}
	if v.refusal != nil && v.refusal.Code == failure.LinkUsed.Code {
		p.words = pages.ToComeBack
	}
	return p
}

// check asks what is missing.
func (s *Service) check(r *http.Request, v *visit, p proof) (*identityv1.CheckResponse, error) {
	return s.identity.Check(r.Context(), &identityv1.CheckRequest{
		Tenant: v.at.tenant, LinkId: v.at.link, Browser: v.browser.Reveal(), Purpose: p.purpose, Level: p.level, PersonId: v.link.GetHolderId(),
	})
}

// start has a code sent to the holder on record.
func (s *Service) start(r *http.Request, v *visit, p proof) error {
	ctx, cancel := act(r, actLimit)
	defer cancel()
	_, err := s.identity.StartChallenge(ctx, &identityv1.StartChallengeRequest{
		Tenant: v.at.tenant, LinkId: v.at.link, RequestId: v.link.GetRequestId(), Browser: v.browser.Reveal(), Purpose: p.purpose, PersonId: v.link.GetHolderId(),
	})
	return err
}

// ask shows where a code is entered, or where it would go. f is what is wrong with the last try; nil is nothing.
func (s *Service) ask(w http.ResponseWriter, r *http.Request, v *visit, p proof, c *identityv1.CheckResponse, f *failure.Error) error {
	switch {
	case c.GetMissing() == identityv1.Method_METHOD_UNSPECIFIED:
		return s.refuse(w, r, v, failure.IdentityRequired) // no way of verifying that exists reaches the level: somebody has to help
	case v.holder.GetEmail() == "":
		return s.refuse(w, r, v, failure.PersonErased)
	}
	now := s.now(v)
	v.frame.Self = p.base
	page := pages.Verify{
		Frame: v.frame, Purpose: p.words, Sender: v.sender(), Submit: p.base + "/code", Failure: f,
		To: pages.Destination{Channel: pages.ByEmail, Masked: pages.MaskEmail(v.holder.GetEmail()), Send: p.base + "/resend"},
	}
	if open := c.GetChallenge(); open != nil {
		page.Sent = true
		page.ValidFor, page.ResendIn = open.GetExpiresAt().AsTime().Sub(now), max(0, open.GetResendAt().AsTime().Sub(now))
		if f != nil && f.Code == failure.CodeWrong.Code {
			page.TriesLeft = int(open.GetTriesLeft())
		}
	}
	if until := c.GetLockedUntil(); until != nil && now.Before(until.AsTime()) {
		page.Failure = failure.IdentityLocked.After(until.AsTime().Sub(now))
	}
	if page.Failure != nil {
		s.countRefusal(r.Context(), page.Failure)
	}
	return show(w, page)
}

// answer tries the code that was sent. passed means that the proof is there; else the page that says why not was shown.
func (s *Service) answer(w http.ResponseWriter, r *http.Request, v *visit, p proof) (passed bool, err error) {
	c, err := s.check(r, v, p)
	if err != nil || c.GetSatisfied() { // a form that was sent twice has passed already
		return err == nil, err
	}
	refused := failure.CodeExpired
	if open := c.GetChallenge(); open != nil {
		if refused, err = s.try(r, v, open.GetId()); err != nil {
			return false, err
		}
		if refused == nil {
			return true, nil
		}
		if c, err = s.check(r, v, p); err != nil || c.GetSatisfied() {
			return err == nil, err
		}
	}
	return false, s.ask(w, r, v, p, c, refused)
}

// try gives an answer to a challenge. A refusal is returned apart from what went wrong.
func (s *Service) try(r *http.Request, v *visit, challenge string) (*failure.Error, error) {
	code := r.PostForm.Get(pages.FieldCode)
	if len(code) > maxCode || !utf8.ValidString(code) {
		return failure.CodeWrong, nil
	}
	ctx, cancel := act(r, actLimit)
	defer cancel()
	_, err := s.identity.Answer(ctx, &identityv1.AnswerRequest{Tenant: v.at.tenant, LinkId: v.at.link, Browser: v.browser.Reveal(), ChallengeId: challenge, Code: code})
	if f := failure.From(err); f != nil && aboutCodes(f) {
		return f, nil
	}
	return nil, err
}

// resend has another code sent, and says so, or why not.
func (s *Service) resend(w http.ResponseWriter, r *http.Request, v *visit, p proof) error {
	err := s.start(r, v, p)
	if err == nil {
		return seeOther(w, p.base)
	}
	f := failure.From(err)
	if f == nil || !aboutCodes(f) {
		return err
	}
	c, err := s.check(r, v, p)
	switch {
	case err != nil:
		return err
	case c.GetSatisfied():
		return seeOther(w, p.base)
	}
	return s.ask(w, r, v, p, c, f)
}

// aboutCodes tells what the page of codes has words for.
func aboutCodes(f *failure.Error) bool {
	switch f.Code {
	case failure.CodeWrong.Code, failure.CodeExpired.Code, failure.CodeTooSoon.Code, failure.CodeLimit.Code, failure.IdentityLocked.Code:
		return true
	}
	return false
}
