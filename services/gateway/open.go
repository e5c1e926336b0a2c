package gateway

import (
	"net/http"
	"time"
	"unicode/utf8"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/secret"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/gateway/pages"
)

const (
	maxToken  = 256              // the most characters a token has in token's contract
	actLimit  = 15 * time.Second // for what a signer sets off
	signLimit = 20 * time.Second // for a signature, which is made on the whole document
	nameLimit = 3 * time.Second  // for who holds a link, without which a page speaks the browser's language
)

// openLink shows what is behind a link. It changes nothing, so that whoever looks at links before people do, mail scanners
// and previews, does no harm (spec 2.2).
func (s *Service) openLink(w http.ResponseWriter, r *http.Request) error {
	token, browser := tokenOf(r), s.browserOf(r)
	answer, err := s.resolve(r, token, browser)
	if err != nil {
		return err
	}
	refusal, err := named(answer.GetFailureCode())
	if err != nil {
		return err
	}
	if refusal != nil && refusal.Code == failure.LinkUnknown.Code {
		return s.unknown(w, r)
	}
	v := newVisit(answer.GetLink(), browser, refusal)
	if s.belongsHere(r, v, answer.GetSessionHere()) {
		return seeOther(w, v.at.sign())
	}
	r = s.meet(r, v)
	return s.openPage(w, r, v)
}

// openPage shows the page of a token that is known.
func (s *Service) openPage(w http.ResponseWriter, r *http.Request, v *visit) error {
	path := tokenPrefix + tokenOf(r).Reveal()
	v.frame.Self = path
	if v.refusal != nil {
		v.frame.Nonce = s.looseNonce(v.scope())
		return s.refuse(w, r, v, v.refusal)
	}
	v.frame.Nonce = s.looseNonce(path)
	if v.holder.GetEmail() == "" {
		return s.refuse(w, r, v, failure.PersonErased)
	}
	words, err := s.words(r, v)
	if err != nil {
		return err
	}
	return show(w, pages.Open{
		Frame: v.frame, Sender: v.sender(), Title: words.GetWords().GetTitle(), Recipient: pages.MaskEmail(v.holder.GetEmail()),
		Until: v.link.GetExpiresAt().AsTime(), Review: path,
	})
}

// resolve asks what a token is good for. What cannot be one is as unknown as one that is not there.
func (s *Service) resolve(r *http.Request, token, browser secret.Secret) (*tokenv1.ResolveResponse, error) {
	text := token.Reveal()
	if text == "" || len(text) > maxToken || !utf8.ValidString(text) {
		return &tokenv1.ResolveResponse{FailureCode: failure.LinkUnknown.Code}, nil
	}
	return s.links.Resolve(r.Context(), &tokenv1.ResolveRequest{Token: text, Browser: browser.Reveal()})
}

// belongsHere tells whether /sign has more to say to this browser than the page of the token: its session goes on, or it is
// the one that signed or declined.
func (s *Service) belongsHere(r *http.Request, v *visit, sessionHere bool) bool {
	switch {
	case replaced(v.refusal):
		return false // the session is somebody else's now, maybe in the browser they share
	case sessionHere:
		return true
	case v.browser.IsZero() || v.refusal == nil || !ended(v.refusal):
		return false
	}
	there, err := s.session(r, v.at, v.browser)
	return err == nil && there.here // without an answer the page of the token still says what happened
}

// ended tells whether a link came to its end by its signer.
func ended(f *failure.Error) bool {
	return f != nil && (f.Code == failure.LinkSigned.Code || f.Code == failure.LinkDeclined.Code)
}

// redeem uses a token for the one session of its link, in this browser, and has the first code sent.
func (s *Service) redeem(w http.ResponseWriter, r *http.Request) error {
	token, browser := tokenOf(r), s.browserOf(r)
	seed, ok := s.isLoose(r, tokenPrefix+token.Reveal())
	if !ok {
		return s.staleOrUnknown(w, r)
	}
	if browser.IsZero() {
		browser = s.newBrowser(seed)
	}
	ctx, cancel := act(r, actLimit)
	defer cancel()
	answer, err := s.links.Redeem(ctx, &tokenv1.RedeemRequest{Token: token.Reveal(), Browser: browser.Reveal()})
	if f := failure.From(err); f != nil && !f.Retryable {
		return s.notRedeemed(w, r, f)
	}
	if err != nil {
		return err
	}
	v := newVisit(answer.GetLink(), browser, nil)
	r = s.meet(r, v)
	s.remember(w, r, v)
	s.sendFirst(r, v)
	return seeOther(w, v.at.sign())
}

// staleOrUnknown refuses a form that is from no page of ours; for an unknown token that is no news.
func (s *Service) staleOrUnknown(w http.ResponseWriter, r *http.Request) error {
	answer, err := s.resolve(r, tokenOf(r), secret.Secret{})
	if err != nil {
		return err
	}
	if answer.GetFailureCode() == failure.LinkUnknown.Code {
		return s.unknown(w, r)
	}
	return failure.FormStale
}

// notRedeemed shows why a token was refused, with what GET would show.
func (s *Service) notRedeemed(w http.ResponseWriter, r *http.Request, f *failure.Error) error {
	if f.Code == failure.LinkUnknown.Code {
		return s.unknown(w, r)
	}
	answer, err := s.resolve(r, tokenOf(r), s.browserOf(r))
	if err != nil {
		return err
	}
	if answer.GetLink() == nil {
		return s.unknown(w, r)
	}
	v := newVisit(answer.GetLink(), s.browserOf(r), f)
	r = s.meet(r, v)
	return s.openPage(w, r, v)
}

// sendFirst has the first code sent, so that the signer lands where it is entered. A refusal, such as one a moment ago, is
// shown by the page that comes next.
func (s *Service) sendFirst(r *http.Request, v *visit) {
	a := s.toSign(v)
	c, err := s.check(r, v, a)
	if err == nil && !c.GetSatisfied() && c.GetChallenge() == nil && c.GetMissing() != identityv1.Method_METHOD_UNSPECIFIED {
		err = s.start(r, v, a)
	}
	if err != nil && failure.From(err) == nil {
		s.h.Logger.WarnContext(r.Context(), "the first code was not asked for; the signer can", "error", err)
	}
}

// unknown is the one page for whatever is no link of ours: never issued, somebody else's, malformed. It is the same whatever
// was asked for, until somebody asks too often.
func (s *Service) unknown(_ http.ResponseWriter, r *http.Request) error {
	if err := s.admitUnknown(r); err != nil {
		return err
	}
	return failure.LinkUnknown
}

// words returns what a request is called. They are empty when they were erased.
func (s *Service) words(r *http.Request, v *visit) (*tokenv1.GetRequestResponse, error) {
	return s.directory.GetRequest(r.Context(), &tokenv1.GetRequestRequest{Tenant: v.at.tenant, RequestId: v.link.GetRequestId()})
}
