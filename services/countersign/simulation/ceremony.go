package simulation

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/ceremony/rules"
	tokenrules "countersign.dev/services/token/rules"
)

// spare is how much of an admission must be left when a signature is stated, as in services/ceremony/sign.go.
const spare = 20 * time.Second

const ceremonyID = "cer_1"

// ceremonyHears is services/ceremony/ceremony.go.
func ceremonyHears(w *world, e *event) error {
	f, ok := e.fact.(*tokenv1.RequestAccepted)
	if !ok {
		return nil
	}
	c := &ceremonyv1.Ceremony{Id: ceremonyID, Tenant: e.r.tenant, RequestId: e.r.id}
	for _, d := range f.GetRequest().GetDocuments() {
		c.Documents = append(c.Documents, &ceremonyv1.Document{
			Id: d.GetId(), ReceivedSha256: d.GetReceivedSha256(), PresentedSha256: d.GetPresentedSha256(), CurrentSha256: d.GetPresentedSha256(),
		})
	}
	_, _, err := ceremonies.do(w, e.r, ceremonyID, rules.Prepare{Ceremony: c}, e.because("ceremony", "prepare"))
	return err
}

// revision is the digest of a document's revision.
func revision(of string, n uint64) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", of, n))
	return sum[:]
}

// signedInCeremony says whether the seat of a link has signed, as GetCeremony answers.
func signedInCeremony(r *request, link string) bool {
	return rules.SeatOf(ceremonies.load(r, ceremonyID), link).GetStatus() == ceremonyv1.SeatStatus_SEAT_STATUS_SIGNED
}

// signature is one that is being made.
type signature struct {
	r        *request
	p        *person
	browser  []byte
	session  *tokenv1.Session
	holder   string
	evidence string
	until    time.Time
	before   []byte
}

// admit asks for leave to sign. It writes the admission first and looks at the request after: time may pass in between. What is
// refused anyway is mostly seen before.
func (w *world) admit(s *signature) error {
	if err := tokenrules.MayAdmit(requests.stale(w, s.r, s.r.id), w.clock()); err != nil && w.o.broken != noAdmission {
		return err
	}
	l, _, err := links.do(w, s.r, s.p.link, tokenrules.Admit{Browser: s.browser, AdmissionID: "adm_" + s.session.GetId()}, bySigner(s.holder))
	if err != nil {
		return err
	}
	s.until = l.GetAdmission().GetUntil().AsTime()
	w.interfere(s)
	between := w.soon(3 * time.Second)
	if w.oneIn(30) {
		between = w.upTo(time.Minute)
	}
	w.in(s.r, between, func() {
		err := tokenrules.MayAdmit(requests.load(s.r, s.r.id), w.clock())
		if err != nil && w.o.broken != noAdmission {
			s.p.refused(w, s.r, err)
			return
		}
		s.before = ceremonies.load(s.r, ceremonyID).GetDocuments()[0].GetCurrentSha256()
		making := w.soon(time.Minute)
		switch {
		case w.oneIn(6):
			making = w.upTo(4 * time.Minute)
		case len(s.r.asked.GetSeats()) > 1:
			making = w.upTo(90 * time.Second)
		}
		w.in(s.r, making, func() { w.finish(s) })
	})
	return nil
}

// interfere has others act just then: what must never meet a signature is tried while one is made, and soon after.
func (w *world) interfere(s *signature) {
	for _, q := range s.r.order {
		if q != s.p && !q.gone && len(q.tokens) > 0 && w.oneIn(2) {
			q.hurry = 12 // all want to sign at once
			w.in(s.r, w.upTo(20*time.Second), func() { q.visit(w, s.r) })
		}
	}
	if !w.oneIn(3) {
		return
	}
	link := s.p.link
	acts := []func(){
		func() { w.cancel(s.r, 0) },
		func() { w.reissue(s.r, link) },
		func() { w.revoke(s.r, link) },
		func() { s.p.gone = false; s.p.again(w, s.r, 0) }, // the signer is impatient
	}
	w.in(s.r, w.upTo(5*time.Minute), pick(w, acts...))
}

// finish states a signature that was made on a revision, unless it came too late; where another signer's came first it is made again.
func (w *world) finish(s *signature) {
	now := w.clock()
	if now.Add(spare).After(s.until) && w.o.broken != noPatience {
		s.p.refused(w, s.r, failure.LinkBusy)
		return
	}
	died, err := w.perhapsDying(func() error {
		_, _, err := ceremonies.do(w, s.r, ceremonyID, rules.Sign{Signed: &ceremonyv1.CeremonySigned{
			LinkId: s.p.link, SessionId: s.session.GetId(), DocumentId: "doc_1", BeforeSha256: s.before,
			AfterSha256: revision(string(s.before)+s.p.id, w.rng.Uint64()), HolderId: s.holder, VerificationId: s.evidence,
		}}, bySigner(s.holder))
		return err
	})
	switch {
	case errors.Is(err, rules.ErrMoved):
		w.faults["revision moved"]++
		s.before = ceremonies.load(s.r, ceremonyID).GetDocuments()[0].GetCurrentSha256()
		w.in(s.r, w.soon(2*time.Second), func() { w.finish(s) })
	case died:
		s.p.again(w, s.r, w.soon(5*time.Minute))
	case err != nil:
		s.p.refused(w, s.r, err)
	}
}

// consent is what everybody agrees to.
var consent = &ceremonyv1.Consent{DisclosureId: "consent", Version: "1", Locale: "en", TextSha256: revision("consent", 0)}
