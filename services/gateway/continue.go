package gateway

import (
	"net/http"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/secret"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// mayGoOn tells whether a verified signer can have a new link, or the session in their browser. What else ends a link is not
// the signer's to mend.
func mayGoOn(f *failure.Error) bool {
	switch f.Code {
	case failure.LinkExpired.Code, failure.LinkUsed.Code, failure.LinkSuperseded.Code, failure.SessionExpired.Code:
		return true
	case failure.SessionUnknown.Code: // the sender had a new link sent, and nobody has opened it yet
		return true
	}
	return false
}

// beginContinue is the one action on the page of a link or session that is over: it has a code sent to the holder on record.
// It takes the form of a page that came from a token, which any browser may send, and the form of a page of this browser.
func (s *Service) beginContinue(w http.ResponseWriter, r *http.Request) error {
	v, err := s.bySomePage(r)
	if err != nil {
		return err
	}
	r = s.meet(r, v)
	v.frame.Nonce, v.frame.Self = s.boundNonce(v.browser, v.scope()), v.at.goOn()
	switch {
	case v.refusal == nil:
		return seeOther(w, v.at.sign())
	case !mayGoOn(v.refusal):
		return s.refuse(w, r, v, v.refusal)
	}
	s.remember(w, r, v)
	p := s.toGoOn(v)
	c, err := s.check(r, v, p)
	switch {
	case err != nil:
		return err
	case c.GetSatisfied():
		return s.goOn(w, r, v)
	case c.GetChallenge() != nil:
		return seeOther(w, p.base)
	}
	return s.resend(w, r, v, p)
}

// bySomePage finds the visit of a form that is from a page of ours: one shown to whoever had a token, or one of this browser.
func (s *Service) bySomePage(r *http.Request) (*visit, error) {
	at, ok := placeOf(r)
	if !ok {
		return nil, failure.SessionUnknown
	}
	browser := s.browserOf(r)
	asked := browser
	if asked.IsZero() {
		asked = secret.Random(secretBytes) // nobody's: only whose link it is has to be known here
	}
	v, err := s.session(r, at, asked)
	if err != nil {
		return nil, err
	}
	if s.isBound(r, browser, v.scope()) {
		return v, nil
	}
	seed, ok := s.isLoose(r, v.scope())
	switch {
	case ok:
	case !browser.IsZero() && s.knows(r, v):
		return nil, failure.FormStale
	default:
		return nil, failure.SessionUnknown
	}
	if browser.IsZero() {
		v.browser = s.newBrowser(seed)
	}
	return v, nil
}

// continuePage asks for the code; it changes nothing.
func (s *Service) continuePage(w http.ResponseWriter, r *http.Request) error {
	r, v, err := s.enterToGoOn(w, r, s.enter)
	if err != nil || v == nil {
		return err
	}
	p := s.toGoOn(v)
	c, err := s.check(r, v, p)
	if err != nil {
		return err
	}
	if c.GetSatisfied() { // and yet not gone on: one press does it, without another code
		return s.refuse(w, r, v, stateToGoOn(v.refusal))
	}
	return s.ask(w, r, v, p, c, nil)
}

// continueCode tries the code, and goes on in this browser when it is right.
func (s *Service) continueCode(w http.ResponseWriter, r *http.Request) error {
	r, v, err := s.enterToGoOn(w, r, s.enterForm)
	if err != nil || v == nil {
		return err
	}
	passed, err := s.answer(w, r, v, s.toGoOn(v))
	if err != nil || !passed {
		return err
	}
	return s.goOn(w, r, v)
}

// continueResend has another code sent.
func (s *Service) continueResend(w http.ResponseWriter, r *http.Request) error {
	r, v, err := s.enterToGoOn(w, r, s.enterForm)
	if err != nil || v == nil {
		return err
	}
	return s.resend(w, r, v, s.toGoOn(v))
}

// enterToGoOn enters under /continue. Without a visit and without an error the answer was given: there is nothing to go on
// with, or the session goes on already.
func (s *Service) enterToGoOn(w http.ResponseWriter, r *http.Request, enter func(*http.Request) (*http.Request, *visit, error)) (*http.Request, *visit, error) {
	r, v, err := enter(r)
	if err != nil {
		return r, nil, err
	}
	v.frame.Self = v.at.goOn()
	switch {
	case v.refusal == nil:
		return r, nil, seeOther(w, v.at.sign())
	case !mayGoOn(v.refusal):
		return r, nil, s.refuse(w, r, v, v.refusal)
	}
	return r, v, nil
}

// goOn gives a verified signer the session in this browser, under a new link where the old one is over.
func (s *Service) goOn(w http.ResponseWriter, r *http.Request, v *visit) error {
	ctx, cancel := act(r, actLimit)
	defer cancel()
	_, err := s.links.Continue(ctx, &tokenv1.ContinueRequest{Tenant: v.at.tenant, LinkId: v.at.link, Browser: v.browser.Reveal()})
	f := failure.From(err)
	switch {
	case err == nil:
		return seeOther(w, v.at.sign())
	case f == nil:
		return err
	case f.Code == failure.ReissueUnproved.Code:
		return seeOther(w, v.at.goOn()) // the proof lapsed between the two: there the next code is asked for
	}
	return s.refuse(w, r, v, f)
}

// stateToGoOn is the state to show to who knows a link that is open nowhere: a newer one was sent.
func stateToGoOn(f *failure.Error) *failure.Error {
	if f.Code == failure.SessionUnknown.Code {
		return failure.LinkSuperseded
	}
	return f
}
