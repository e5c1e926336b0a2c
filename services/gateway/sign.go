package gateway

import (
	"encoding/hex"
	"net/http"
	"unicode/utf8"

	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/gateway/pages"
)

const (
	maxName   = 200 // characters of a typed name, in ceremony's contract
	maxReason = 500 // of a reason to decline
	maxAgent  = 500 // of a browser's description
)

// signPage shows where a signer stands: the code to enter, the document to sign, or what became of it.
func (s *Service) signPage(w http.ResponseWriter, r *http.Request) error {
	r, v, err := s.enter(r)
	if err != nil {
		return err
	}
	if v.refusal != nil && (!ended(v.refusal) || !v.here) {
		return s.refuse(w, r, v, stateToGoOn(v.refusal))
	}
	c, err := s.ceremonyOf(r, v)
	if err != nil {
		return s.refuseOr(w, r, v, err)
	}
	switch seat := seatOf(c, v); {
	case seat.GetStatus() == ceremonyv1.SeatStatus_SEAT_STATUS_SIGNED:
		return s.signedPage(w, r, v, seat)
	case seat.GetStatus() == ceremonyv1.SeatStatus_SEAT_STATUS_DECLINED:
		return s.declinedPage(w, r, v, seat)
	case v.refusal != nil:
		return s.refuse(w, r, v, v.refusal)
	}
	p := s.toSign(v)
	proved, err := s.check(r, v, p)
	if err != nil {
		return err
	}
	if !proved.GetSatisfied() {
		return s.ask(w, r, v, p, proved, nil)
	}
	if r.Method != http.MethodHead { // which shows nothing
		if err := s.shown(r, v); err != nil {
			return s.refuseOr(w, r, v, err)
		}
	}
	return s.documentPage(w, r, v, c, typed{})
}

// refuseOr shows a failure as a state of the link, and passes on what is none.
func (s *Service) refuseOr(w http.ResponseWriter, r *http.Request, v *visit, err error) error {
	if f := failure.From(err); f != nil {
		return s.refuse(w, r, v, f)
	}
	return err
}

func (s *Service) ceremonyOf(r *http.Request, v *visit) (*ceremonyv1.Ceremony, error) {
	answer, err := s.ceremony.GetCeremony(r.Context(), &ceremonyv1.GetCeremonyRequest{Tenant: v.at.tenant, RequestId: v.link.GetRequestId()})
	return answer.GetCeremony(), err
}

// seatOf returns a link's seat; an empty one when it has not begun.
func seatOf(c *ceremonyv1.Ceremony, v *visit) *ceremonyv1.Seat {
	for _, seat := range c.GetSeats() {
		if seat.GetLinkId() == v.at.link {
			return seat
		}
	}
	return &ceremonyv1.Seat{}
}

// shown has it recorded, once a session, that the document was served.
func (s *Service) shown(r *http.Request, v *visit) error {
	_, err := s.ceremony.Show(r.Context(), &ceremonyv1.ShowRequest{Tenant: v.at.tenant, RequestId: v.link.GetRequestId(), LinkId: v.at.link, Browser: v.browser.Reveal()})
	return err
}

// signCode tries the code.
func (s *Service) signCode(w http.ResponseWriter, r *http.Request) error {
	return s.inSession(w, r, func(r *http.Request, v *visit) error {
		passed, err := s.answer(w, r, v, s.toSign(v))
		if err != nil || !passed {
			return err
		}
		return seeOther(w, v.at.sign())
	})
}

// signResend has another code sent.
func (s *Service) signResend(w http.ResponseWriter, r *http.Request) error {
	return s.inSession(w, r, func(r *http.Request, v *visit) error { return s.resend(w, r, v, s.toSign(v)) })
}

// inSession does what a form asks in a session that goes on. Where it does not, the page says where things stand.
func (s *Service) inSession(w http.ResponseWriter, r *http.Request, do func(r *http.Request, v *visit) error) error {
	r, v, err := s.enterForm(r)
	switch {
	case err != nil:
		return err
	case v.refusal != nil:
		return seeOther(w, v.at.sign())
	}
	return do(r, v)
}

// typed is what a signer put into the form of the document.
type typed struct {
	name    string
	agreed  bool
	failure *failure.Error
}

// sign has the signature made. What is missing in the form is said in place; everything else is decided by ceremony, which
// checks session, identity and consent again from the record.
func (s *Service) sign(w http.ResponseWriter, r *http.Request) error {
	return s.inSession(w, r, func(r *http.Request, v *visit) error {
		form := typed{name: pages.Clean(r.PostForm.Get(pages.FieldName), maxName), agreed: r.PostForm.Get(pages.FieldAgree) == "yes"}
		req, refused := s.signRequest(r, v, form)
		if refused == nil {
			ctx, cancel := act(r, signLimit)
			defer cancel()
			_, err := s.ceremony.Sign(ctx, req)
			if err == nil {
				return seeOther(w, v.at.sign())
			}
			if refused = failure.From(err); refused == nil {
				return err
			}
		}
		return s.notSigned(w, r, v, form, refused)
	})
}

// notSigned says why a signature was not made, where it can be mended.
func (s *Service) notSigned(w http.ResponseWriter, r *http.Request, v *visit, form typed, f *failure.Error) error {
	switch f.Code {
	case failure.ConsentRequired.Code, failure.SignatureInvalid.Code, failure.RequestInvalid.Code:
		c, err := s.ceremonyOf(r, v)
		if err != nil {
			return s.refuseOr(w, r, v, err)
		}
		form.failure = f
		return s.documentPage(w, r, v, c, form)
	case failure.IdentityRequired.Code, failure.LinkSigned.Code, failure.LinkDeclined.Code:
		return seeOther(w, v.at.sign())
	}
	return s.refuse(w, r, v, f)
}

// signRequest is what the form asks of ceremony. Consent and intent count only in the very words that this release shows:
// of a page from before another release they are asked for again.
func (s *Service) signRequest(r *http.Request, v *visit, form typed) (*ceremonyv1.SignRequest, *failure.Error) {
	consent, intent, ok := statementsOf(r)
	if !form.agreed || !ok {
		return nil, failure.ConsentRequired
	}
	if form.name == "" || utf8.RuneCountInString(form.name) > maxName {
		return nil, failure.SignatureInvalid
	}
	presented, err := hex.DecodeString(r.PostForm.Get(pages.FieldPresented))
	if err != nil || len(presented) != 32 {
		return nil, failure.FormStale
	}
	return &ceremonyv1.SignRequest{
		Tenant: v.at.tenant, RequestId: v.link.GetRequestId(), LinkId: v.at.link, Browser: v.browser.Reveal(),
		Name: form.name, Consent: consent, PresentedSha256: presented, IntentSha256: intent,
		NetworkAddress: s.address(r).String(), UserAgent: cut(pages.Clean(r.UserAgent(), maxAgent), maxAgent),
	}, nil
}

// statementsOf finds the texts that a form says were shown; false unless they are ours, word for word.
func statementsOf(r *http.Request) (consent *ceremonyv1.Consent, intent []byte, ok bool) {
	for _, locale := range pages.Locales() {
		disclosure := pages.Disclosure(locale)
		if r.PostForm.Get(pages.FieldDisclosure) != disclosure.Name() || r.PostForm.Get(pages.FieldConsentSum) != disclosure.SHA256 ||
			r.PostForm.Get(pages.FieldIntentSum) != pages.Intent(locale).SHA256 {
			continue
		}
		text, err := hex.DecodeString(disclosure.SHA256)
		if err != nil {
			return nil, nil, false
		}
		intent, err = hex.DecodeString(pages.Intent(locale).SHA256)
		return &ceremonyv1.Consent{DisclosureId: disclosure.ID, Version: disclosure.Version, Locale: disclosure.Locale, TextSha256: text}, intent, err == nil
	}
	return nil, nil, false
}

// decline records that the signer will not sign.
func (s *Service) decline(w http.ResponseWriter, r *http.Request) error {
	return s.inSession(w, r, func(r *http.Request, v *visit) error {
		ctx, cancel := act(r, actLimit)
		defer cancel()
		_, err := s.ceremony.Decline(ctx, &ceremonyv1.DeclineRequest{
			Tenant: v.at.tenant, RequestId: v.link.GetRequestId(), LinkId: v.at.link, Browser: v.browser.Reveal(),
			Reason: cut(pages.CleanLines(r.PostForm.Get(pages.FieldReason), maxReason), maxReason),
		})
		f := failure.From(err)
		switch {
		case err == nil, f != nil && f.Code == failure.IdentityRequired.Code, ended(f):
			return seeOther(w, v.at.sign())
		case f != nil:
			return s.refuse(w, r, v, f)
		}
		return err
	})
}

// cut keeps the first n characters.
func cut(text string, n int) string {
	if runes := []rune(text); len(runes) > n {
		return string(runes[:n])
	}
	return text
}

// signedPage thanks, and has the copy and the certificate once everybody has signed. Only the browser that signed sees it.
func (s *Service) signedPage(w http.ResponseWriter, r *http.Request, v *visit, seat *ceremonyv1.Seat) error {
	request, err := s.words(r, v)
	if err != nil {
		return err
	}
	p := pages.Signed{
		Frame: v.frame, Title: titleOf(request, v), Sender: v.sender(), Name: s.typedName(r, v, seat), At: seat.GetActedAt().AsTime(),
		Complete: complete(request), Refresh: v.at.sign(),
	}
	if v.holder.GetEmail() != "" {
		p.CopyTo = pages.MaskEmail(v.holder.GetEmail())
	}
	for _, other := range request.GetRequest().GetSeats() {
		if other.GetLinkId() != v.at.link && other.GetStatus() != tokenv1.SeatStatus_SEAT_STATUS_SIGNED {
			p.Waiting++
		}
	}
	if p.Complete {
		p.Copy, p.Proof, p.Refresh = v.at.sign()+"/document.pdf", v.at.sign()+"/certificate.pdf", ""
	}
	return show(w, p)
}

func complete(request *tokenv1.GetRequestResponse) bool {
	return request.GetRequest().GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_COMPLETED
}

// typedName is the name as it was typed; the one on record where that is not to be had.
func (s *Service) typedName(r *http.Request, v *visit, seat *ceremonyv1.Seat) string {
	if seat.GetNameId() != "" {
		ask := &tokenv1.GetNoteRequest{Tenant: v.at.tenant, OwnerId: seat.GetLinkId(), NoteId: seat.GetNameId()}
		if note, err := s.directory.GetNote(r.Context(), ask); err == nil && note.GetText() != "" {
			return note.GetText()
		}
	}
	if v.holder.GetName() != "" {
		return v.holder.GetName()
	}
	return "…" // erased: the page still says that it was signed
}

// declinedPage confirms that the signer will not sign.
func (s *Service) declinedPage(w http.ResponseWriter, r *http.Request, v *visit, seat *ceremonyv1.Seat) error {
	request, err := s.words(r, v)
	if err != nil {
		return err
	}
	return show(w, pages.Declined{Frame: v.frame, Title: titleOf(request, v), Sender: v.sender(), At: seat.GetActedAt().AsTime()})
}

// titleOf is what a request is called; the sender's name where the words were erased.
func titleOf(request *tokenv1.GetRequestResponse, v *visit) string {
	if t := request.GetWords().GetTitle(); t != "" {
		return t
	}
	return v.sender()
}
