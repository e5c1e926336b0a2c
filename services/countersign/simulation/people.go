package simulation

import (
	"errors"
	"fmt"
	"time"
	_ "time/tzdata" // signers live in zones, whatever the machine has installed

	"countersign.dev/pkg/failure"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	ceremonyrules "countersign.dev/services/ceremony/rules"
	"countersign.dev/services/token/rules"
)

// zones are where signers live: on both sides of the day, with and without a change of clocks.
var zones = func() map[string]*time.Location {
	all := map[string]*time.Location{}
	for _, name := range zoneNames {
		all[name], _ = time.LoadLocation(name) // each is in the database that is built in
	}
	return all
}()

var zoneNames = []string{"UTC", "Europe/Berlin", "America/Los_Angeles", "Pacific/Auckland", "Asia/Kolkata"}

// mostVisits is after how many visits anybody gives up.
const mostVisits = 120

// person is somebody with a mailbox, or a stranger without one who got hold of a link.
type person struct {
	id, link, zone string
	browsers       [][]byte
	tokens         [][]byte
	codes          map[string]string // by challenge, as they came by mail
	stranger       bool
	bounces        bool // their mailbox does not exist

	pace      time.Duration // how long they take, at most
	vanishes  int           // they leave for good at one visit in so many
	errs      int           // they mistype one code in so many
	declines  bool
	visits    int
	hurry     int // for so many visits
	scheduled bool
	gone      bool
}

// person draws somebody for a seat.
func (w *world) person(r *request, link, role string) *person {
	p := &person{
		id: "per_" + link + "_" + role, link: link, codes: map[string]string{},
		zone: pick(w, zoneNames...), bounces: w.oneIn(40), declines: w.oneIn(20), stranger: role == "stranger",
		vanishes: pick(w, 3, 10, 30, 200), errs: pick(w, 2, 6, 20),
		pace: pick(w, time.Hour, day, 6*day),
	}
	if r.minutes {
		p.pace = 12 * time.Minute
	}
	for i := range 1 + w.rng.IntN(2) {
		p.browsers = append(p.browsers, fmt.Appendf(nil, "%s %s %d", r.id, p.id, i))
	}
	r.people[p.id] = p
	r.order = append(r.order, p)
	return p
}

// receive takes a message out of the mailbox.
func (p *person) receive(w *world, r *request, l letter) {
	switch {
	case l.code != "":
		p.codes[l.challenge] = l.code
		switch {
		case p.gone, len(p.tokens) == 0: // a code that nobody here asked for
		case p.hurry > 0:
			w.in(r, w.soon(10*time.Second), func() { p.visit(w, r) })
		default:
			p.again(w, r, w.soon(10*time.Minute))
		}
	case l.token != nil:
		p.tokens = append(p.tokens, l.token)
		if w.oneIn(5) { // a scanner opens every link
			_ = w.look(r, p, p.tokens[len(p.tokens)-1], nil) // what it sees is nobody's business
		}
		if w.oneIn(12) {
			p.forward(w, r, l.token)
		}
		if p.gone && (p.visits >= mostVisits || w.oneIn(2)) {
			return
		}
		p.gone = false
		p.again(w, r, w.soon(p.pace))
	}
}

// forward gives a link to somebody who is not meant.
func (p *person) forward(w *world, r *request, token []byte) {
	id := "per_" + p.link + "_stranger"
	s := r.people[id]
	if s == nil {
		s = w.person(r, p.link, "stranger")
	}
	s.tokens, s.gone = append(s.tokens, token), false
	s.again(w, r, w.soon(p.pace))
}

// again has somebody come back after a while; once at a time.
func (p *person) again(w *world, r *request, d time.Duration) {
	if p.scheduled || p.gone {
		return
	}
	p.scheduled = true
	w.in(r, d, func() {
		p.scheduled = false
		p.visit(w, r)
	})
}

// refused says what somebody does who was told no: what the failure says.
func (p *person) refused(w *world, r *request, err error) {
	f := failure.From(err)
	switch {
	case f == nil:
		w.fail(r, "%s meets an accident: %v", p.id, err)
	case f.Next == "" || f.Next == "none" && !ended(f) && !p.stranger:
		w.fail(r, "%s is led nowhere by %s", p.id, f.Code)
	case errors.Is(f, failure.ReissueLimit) && w.oneIn(2):
		w.in(r, w.soon(day), func() { w.reissue(r, p.link) })
		p.gone = true
	case f.Next == "none", f.Next == "ask-sender":
		p.gone = true
	default:
		p.again(w, r, f.RetryAfter+time.Second+w.soon(p.pace/4))
	}
}

// ended tells whether a refusal says that nothing is left to do for this person.
func ended(f *failure.Error) bool {
	return errors.Is(f, failure.LinkSigned) || errors.Is(f, failure.LinkDelegated)
}

// visit is what somebody does when they come: one step at a time.
func (p *person) visit(w *world, r *request) {
	if p.visits++; p.gone || p.visits > mostVisits || w.oneIn(p.vanishes) {
		p.gone = true
		return
	}
	browser := p.browsers[0]
	if w.oneIn(6) {
		browser = p.browsers[len(p.browsers)-1]
	}
	died, err := w.perhapsDying(func() error { return p.step(w, r, browser) })
	switch {
	case died:
		p.again(w, r, w.soon(5*time.Minute))
	case err != nil:
		p.refused(w, r, err)
	case p.hurry > 0:
		p.hurry--
		p.again(w, r, w.soon(4*time.Second))
	default:
		p.again(w, r, 2*time.Second+w.soon(p.pace/20))
	}
}

// look opens a link's page, which changes nothing, and returns why it does not open; nil when it does.
func (w *world) look(r *request, p *person, token, browser []byte) error {
	return rules.CheckToken(links.stale(w, r, p.link), token, browser, w.clock())
}

// step goes on in a browser: with the session, else with a link from the mailbox, else by way of a verification.
func (p *person) step(w *world, r *request, browser []byte) error {
	l := links.load(r, p.link)
	if rules.CheckSession(l, browser, w.clock()) == nil {
		return p.sign(w, r, browser, l)
	}
	token := p.tokens[len(p.tokens)-1]
	if w.oneIn(5) {
		token = p.tokens[w.rng.IntN(len(p.tokens))]
	}
	_ = w.look(r, p, token, browser) // what the page shows may be stale; the button is decided on the record
	before := l
	l, fact, err := links.do(w, r, p.link, rules.Redeem{Hash: token, Browser: browser, SessionID: w.sessionID()}, bySigner(p.id))
	if err == nil {
		w.checkRedeemed(r, before, l, token, browser, fact != nil)
		return nil
	}
	f := failure.From(err)
	if !errors.Is(f, failure.LinkUnknown) {
		if _, _, err := links.do(w, r, p.link, rules.Deny{Code: f.Code}, bySigner(p.id)); err != nil {
			return err
		}
	}
	switch {
	case errors.Is(f, failure.LinkExpired), errors.Is(f, failure.LinkSuperseded), errors.Is(f, failure.LinkUsed), errors.Is(f, failure.SessionExpired):
		return p.goOn(w, r, browser)
	case errors.Is(f, failure.LinkUnknown) && l.GetHolderId() == p.id:
		return nil // a token that was forgotten; there are newer ones
	}
	return err
}

// goOn gets a new link, or the session to this browser, by verifying (spec 2.5).
func (p *person) goOn(w *world, r *request, browser []byte) error {
	l := links.load(r, p.link)
	proof := w.proof(r, p.link, l.GetHolderId(), browser, identityv1.Purpose_PURPOSE_CONTINUE)
	if proof == nil {
		return p.verify(w, r, browser, l.GetHolderId(), identityv1.Purpose_PURPOSE_CONTINUE)
	}
	between := w.soon(2 * time.Second)
	if w.oneIn(10) {
		between = w.upTo(time.Minute)
	}
	w.in(r, between, func() {
		died, err := w.perhapsDying(func() error {
			if err := w.settled(r, p.link); err != nil {
				return err
			}
			_, _, err := links.do(w, r, p.link, rules.Continue{
				Browser: browser, SessionID: w.sessionID(), VerificationID: proof.GetId(), HolderID: l.GetHolderId(),
			}, bySigner(p.id))
			return err
		})
		switch {
		case died:
			p.again(w, r, w.soon(5*time.Minute))
		case err != nil:
			p.refused(w, r, err)
		}
	})
	return nil
}

// verify asks for a code, or types the one that came. Who has none types anything.
func (p *person) verify(w *world, r *request, browser []byte, holder string, act identityv1.Purpose) error {
	open := limits.Asked(verifications.load(r, verificationID(p.link)), holder, browser, act, w.clock())
	if open == nil {
		return w.challenge(r, p.link, holder, browser, act)
	}
	code, came := p.codes[open.GetId()]
	switch {
	case !came && !p.stranger && !w.oneIn(4):
		p.again(w, r, time.Minute+w.soon(20*time.Minute))
		return nil // the mail is on its way
	case !came || w.oneIn(p.errs):
		code = fmt.Sprintf("%06d", w.rng.IntN(1_000_000))
		if code == codeOf(open.GetId()) {
			return nil // nobody is that lucky here
		}
	}
	return w.answer(r, p.link, holder, browser, open.GetId(), code)
}

// sign goes on in a session: verify, look at the document, agree, sign; or decline.
func (p *person) sign(w *world, r *request, browser []byte, l *tokenv1.Link) error {
	proof := w.proof(r, p.link, l.GetHolderId(), browser, identityv1.Purpose_PURPOSE_SIGN)
	if proof == nil && l.GetProfile().GetAssurance() > 0 {
		return p.verify(w, r, browser, l.GetHolderId(), identityv1.Purpose_PURPOSE_SIGN)
	}
	c := ceremonies.load(r, ceremonyID)
	session := l.GetSession().GetId()
	if s := ceremonyrules.SeatOf(c, p.link); s == nil || s.GetSessionId() != session {
		_, _, err := ceremonies.do(w, r, ceremonyID, ceremonyrules.Show{LinkID: p.link, SessionID: session}, bySigner(p.id))
		return err
	}
	if p.declines {
		_, _, err := ceremonies.do(w, r, ceremonyID, ceremonyrules.Decline{LinkID: p.link, SessionID: session, ReasonID: "not_2"}, bySigner(p.id))
		return err
	}
	consent := ceremonyrules.Consent{LinkID: p.link, SessionID: session, Consent: consent}
	if _, _, err := ceremonies.do(w, r, ceremonyID, consent, bySigner(p.id)); err != nil {
		return err
	}
	return w.admit(&signature{r: r, p: p, browser: browser, session: l.GetSession(), holder: l.GetHolderId(), evidence: proof.GetId()})
}

// carriesLink tells whether messages of a kind carry a link.
func carriesLink(k deliveryv1.Kind) bool {
	switch k {
	case deliveryv1.Kind_KIND_LINK, deliveryv1.Kind_KIND_REISSUED, deliveryv1.Kind_KIND_ALTERNATE, deliveryv1.Kind_KIND_REMINDER, deliveryv1.Kind_KIND_PARTIAL:
		return true
	default:
		return false
	}
}
