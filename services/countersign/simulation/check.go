package simulation

import (
	"bytes"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	ceremonyrules "countersign.dev/services/ceremony/rules"
	reminderrules "countersign.dev/services/reminder/rules"
	"countersign.dev/services/token/rules"
)

// skew is by how much two machines' clocks may differ here.
const skew = 2 * time.Second

// observed is what was seen of a request, kept apart from the states that the rules keep.
type observed struct {
	ended    string // the fact that ended the request
	tokens   map[string]uint32
	seats    map[string]*seen
	evidence map[string]*identityv1.Evidence
	asked    map[string]bool // everybody who ever held a link
	planned  map[string]bool
	once     map[string]bool // commands that stated something, by aggregate
	document []byte          // its newest revision
	signed   int
}

// seen is what was seen of one link.
type seen struct {
	generation uint32
	redeemed   bool // in this generation
	over       bool
	signed     bool // as ceremony states
}

func newObserved() observed {
	return observed{
		tokens: map[string]uint32{}, seats: map[string]*seen{}, evidence: map[string]*identityv1.Evidence{},
		asked: map[string]bool{}, planned: map[string]bool{}, once: map[string]bool{},
	}
}

func (o *observed) seat(link string) *seen {
	s, there := o.seats[link]
	if !there {
		s = &seen{}
		o.seats[link] = s
	}
	return s
}

// checkFact looks at every fact at the moment it is recorded.
func (w *world) checkFact(e *event, before proto.Message) {
	switch e.service {
	case "token":
		if l, ok := e.state.(*tokenv1.Link); ok {
			w.checkLink(e, l, before)
			return
		}
		w.checkRequest(e)
	case "ceremony":
		w.checkCeremony(e)
	case "delivery":
		w.checkDelivery(e, before)
	case "identity":
		if f, ok := e.fact.(*identityv1.VerificationPassed); ok {
			e.r.seen.evidence[f.GetEvidence().GetId()] = f.GetEvidence()
			w.checkPassed(e, f)
		}
	case "reminder":
		w.checkReminder(e)
	case "escalation":
		w.checkEscalation(e, before)
	}
}

// checkOnce: what was asked once happens once, however often the question comes.
func (w *world) checkOnce(e *event, command string) {
	if command == "" {
		return
	}
	k := e.id + " " + command
	if e.r.seen.once[k] {
		w.fail(e.r, "%s: %s was done twice", e.id, command)
	}
	e.r.seen.once[k] = true
}

// checkRequest: one end, never two (spec 1.4).
func (w *world) checkRequest(e *event) {
	o := &e.r.seen
	if o.ended != "" {
		w.fail(e.r, "%s after %s", e.name(), o.ended)
	}
	switch e.fact.(type) {
	case *tokenv1.RequestCompleted:
		o.ended = "completed"
		if o.signed != len(e.r.asked.GetSeats()) {
			w.fail(e.r, "completed with %d signatures", o.signed)
		}
	case *tokenv1.RequestDeclined:
		o.ended = "declined"
	case *tokenv1.RequestCancelled:
		o.ended = "cancelled"
		for _, seat := range e.state.(*tokenv1.Request).GetSeats() { //nolint:errcheck,forcetypeassert // a request's fact
			if o.seat(seat.GetLinkId()).signed && seat.GetStatus() != tokenv1.SeatStatus_SEAT_STATUS_SIGNED {
				w.fail(e.r, "cancelled over a signature that was made")
			}
		}
	case *tokenv1.RequestExpired:
		o.ended = "expired"
		w.checkExpired(e)
	}
}

// checkExpired: a deadline ends no request over a signature that was made, or over somebody who began in time and may finish.
func (w *world) checkExpired(e *event) {
	r := e.state.(*tokenv1.Request) //nolint:errcheck,forcetypeassert // a request's fact
	if w.now.Add(skew).Before(r.GetDeadline().AsTime()) {
		w.fail(e.r, "expired before its deadline %s", r.GetDeadline().AsTime())
	}
	for _, seat := range r.GetSeats() {
		if e.r.seen.seat(seat.GetLinkId()).signed && seat.GetStatus() != tokenv1.SeatStatus_SEAT_STATUS_SIGNED {
			w.fail(e.r, "expired over a signature that was made")
		}
		if busy := rules.BusyUntil(links.load(e.r, seat.GetLinkId())); w.now.Add(skew).Before(busy) {
			w.fail(e.r, "expired while somebody was at work until %s", busy)
		}
	}
}

// checkLink: one session a generation, verified where it moves; nothing turns while a signature is made, or after it was; an end is an end.
func (w *world) checkLink(e *event, l *tokenv1.Link, before proto.Message) {
	s := e.r.seen.seat(e.id)
	was, _ := before.(*tokenv1.Link)
	switch f := e.fact.(type) {
	case *tokenv1.LinkDenied:
		return
	case *tokenv1.LinkIssued:
		e.r.seen.asked[f.GetHolderId()] = true
	case *tokenv1.LinkMinted:
		e.r.seen.tokens[string(f.GetHash())] = f.GetGeneration()
	case *tokenv1.LinkRedeemed:
		if s.redeemed {
			w.fail(e.r, "two sessions from the tokens of generation %d of %s", s.generation, e.id)
		}
		s.redeemed = true
	case *tokenv1.LinkResumed:
		w.checkTurn(e, was, s)
		w.checkVerified(e, was, f.GetVerificationId(), f.GetSession())
	case *tokenv1.LinkReissued:
		w.checkTurn(e, was, s)
		switch f.GetReason() {
		case tokenv1.ReissueReason_REISSUE_REASON_SIGNER:
			w.checkVerified(e, was, f.GetVerificationId(), f.GetSession())
		case tokenv1.ReissueReason_REISSUE_REASON_REMINDER:
			if w.now.Add(skew).Before(rules.SessionEnd(was)) {
				w.fail(e.r, "a reminder throws out the signer of %s, who is at work until %s", e.id, rules.SessionEnd(was))
			}
		case tokenv1.ReissueReason_REISSUE_REASON_AUTOMATIC:
			if w.now.Add(skew).Before(rules.BusyUntil(was)) {
				w.fail(e.r, "replaced unasked while the signer of %s is at work until %s", e.id, rules.BusyUntil(was))
			}
		case tokenv1.ReissueReason_REISSUE_REASON_ADDRESS_CHANGED:
			e.r.seen.asked[f.GetHolderId()] = true
		default:
		}
		s.redeemed = f.GetSession() != nil
	case *tokenv1.LinkRerouted:
		w.checkTurn(e, was, s)
		if e.r.seen.asked[f.GetHolderId()] {
			w.fail(e.r, "%s was asked before", f.GetHolderId())
		}
		e.r.seen.asked[f.GetHolderId()] = true
		s.redeemed = false
	case *tokenv1.LinkRevoked, *tokenv1.LinkLapsed:
		w.checkTurn(e, was, s)
	case *tokenv1.LinkClosed:
		w.checkTurn(e, was, s)
		s.over = true
	case *tokenv1.LinkSigned:
		if !s.signed {
			w.fail(e.r, "%s is signed and nobody has signed", e.id)
		}
	}
	if s.over && e.name() != "LinkClosed" {
		w.fail(e.r, "%s after the end of %s", e.name(), e.id)
	}
	if l.GetGeneration() < s.generation || l.GetGeneration() > s.generation+1 {
		w.fail(e.r, "generation %d of %s follows %d", l.GetGeneration(), e.id, s.generation)
	}
	s.generation = l.GetGeneration()
	s.over = s.over || l.GetStatus() > tokenv1.LinkStatus_LINK_STATUS_REVOKED
	w.checkNextStep(e.r, l)
}

// checkTurn: what rotates, ends or moves a link meets no signature that is being made or was made.
func (w *world) checkTurn(e *event, was *tokenv1.Link, s *seen) {
	if until := was.GetAdmission().GetUntil(); until != nil && w.now.Add(skew).Before(until.AsTime()) {
		w.fail(e.r, "%s while a signature is made until %s", e.name(), until.AsTime())
	}
	if s.signed {
		w.fail(e.r, "%s of a link that has signed", e.name())
	}
}

// checkVerified: a session moves only to a browser in which the holder has just proved to be it. The proof was looked at a minute
// before at most, and what was decided then may have been recorded late.
func (w *world) checkVerified(e *event, was *tokenv1.Link, id string, s *tokenv1.Session) {
	proof := e.r.seen.evidence[id]
	if proof == nil || proof.GetPersonId() != was.GetHolderId() || !bytes.Equal(proof.GetBrowser(), s.GetBrowser()) || w.now.After(proof.GetExpiresAt().AsTime().Add(90*time.Second)) {
		w.fail(e.r, "%s stands on the evidence %q: %v", e.name(), id, proof)
	}
}

// checkPassed: who proved a mailbox had the code from it.
func (w *world) checkPassed(e *event, f *identityv1.VerificationPassed) {
	holder := e.r.people[f.GetEvidence().GetPersonId()]
	for _, b := range holder.browsers {
		if bytes.Equal(b, f.GetEvidence().GetBrowser()) {
			return
		}
	}
	w.fail(e.r, "a browser of somebody else proved to be %s", holder.id)
}

// checkRedeemed: only a token of the present generation opens, and only the browser that has the session comes back.
func (w *world) checkRedeemed(r *request, before, after *tokenv1.Link, token, browser []byte, fresh bool) {
	if g := r.seen.tokens[string(token)]; g != after.GetGeneration() {
		w.fail(r, "a token of generation %d opened generation %d of %s", g, after.GetGeneration(), after.GetId())
	}
	if !fresh && !bytes.Equal(browser, before.GetSession().GetBrowser()) {
		w.fail(r, "another browser came back to the session of %s", after.GetId())
	}
}

// checkNextStep: a signer who is not done can go on once verified, or is told to wait, or the sender can help (spec 2.4).
func (w *world) checkNextStep(r *request, l *tokenv1.Link) {
	if l.GetStatus() == tokenv1.LinkStatus_LINK_STATUS_UNSPECIFIED || l.GetStatus() > tokenv1.LinkStatus_LINK_STATUS_REVOKED {
		return
	}
	if d := l.GetDeadline(); d != nil && !w.now.Before(d.AsTime()) {
		return // the sender can move the deadline, or it is over within a moment
	}
	_, err := rules.Continue{Browser: []byte("new"), SessionID: "s", VerificationID: "v", HolderID: l.GetHolderId()}.Decide(l, w.now)
	if err == nil || errors.Is(err, failure.LinkBusy) {
		return
	}
	if f := failure.From(err); f == nil || f.Next == "" || f.Next == "none" {
		w.fail(r, "%s leads the signer of %s nowhere", err, l.GetId())
	}
	if fact, err := (rules.Reissue{Reason: tokenv1.ReissueReason_REISSUE_REASON_PLATFORM}).Decide(l, w.now); fact == nil && !errors.Is(err, failure.LinkBusy) {
		w.fail(r, "the sender cannot help the signer of %s: %v", l.GetId(), err)
	}
}

// checkCeremony: one signature a seat, on the newest revision, in the session that was admitted, by who was verified, of a request
// that is not cancelled.
func (w *world) checkCeremony(e *event) {
	o := &e.r.seen
	switch f := e.fact.(type) {
	case *ceremonyv1.CeremonyPrepared:
		if o.document != nil {
			w.fail(e.r, "prepared twice")
		}
		o.document = f.GetCeremony().GetDocuments()[0].GetPresentedSha256()
	case *ceremonyv1.CeremonySigned:
		s, l := o.seat(f.GetLinkId()), links.load(e.r, f.GetLinkId())
		switch {
		case s.signed:
			w.fail(e.r, "%s signed twice", f.GetLinkId())
		case !bytes.Equal(f.GetBeforeSha256(), o.document):
			w.fail(e.r, "the document is forked")
		case o.ended == "cancelled", o.ended == "expired":
			w.fail(e.r, "signed after it was %s", o.ended)
		case l.GetSession().GetId() != f.GetSessionId() || l.GetHolderId() != f.GetHolderId():
			w.fail(e.r, "signed in the session %s of %s, while %s of %s is admitted", f.GetSessionId(), f.GetHolderId(), l.GetSession().GetId(), l.GetHolderId())
		case ceremonyrules.SeatOf(e.state.(*ceremonyv1.Ceremony), f.GetLinkId()).GetConsent() == nil: //nolint:errcheck,forcetypeassert // a ceremony's fact
			w.fail(e.r, "signed without consent")
		case l.GetProfile().GetAssurance() > 0:
			proof := o.evidence[f.GetVerificationId()]
			if proof.GetPersonId() != l.GetHolderId() || !bytes.Equal(proof.GetBrowser(), l.GetSession().GetBrowser()) {
				w.fail(e.r, "signed on the evidence %v", proof)
			}
		}
		s.signed, o.document = true, f.GetAfterSha256()
		o.signed++
	case *ceremonyv1.CeremonyDeclined:
		if o.seat(f.GetLinkId()).signed {
			w.fail(e.r, "declined after signing")
		}
	}
}

// checkDelivery: one message a cause and reader, which comes to one end.
func (w *world) checkDelivery(e *event, before proto.Message) {
	was, _ := before.(*deliveryv1.Delivery)
	if f, begun := e.fact.(*deliveryv1.DeliveryPlanned); begun {
		if was != nil || e.r.seen.planned[f.GetDelivery().GetId()] {
			w.fail(e.r, "planned twice: %s", e.id)
		}
		e.r.seen.planned[f.GetDelivery().GetId()] = true
		return
	}
	if was.GetStatus() != deliveryv1.Status_STATUS_QUEUED && was.GetStatus() != deliveryv1.Status_STATUS_DEFERRED {
		w.fail(e.r, "%s after the end of %s", e.name(), e.id)
	}
	d := e.state.(*deliveryv1.Delivery) //nolint:errcheck,forcetypeassert // a delivery's fact
	if d.GetAttempts() > retry.Attempts {
		w.fail(e.r, "%s was tried %d times", e.id, d.GetAttempts())
	}
}

// checkReminder: nobody is reminded of what is over, in quiet hours, or too often on one day.
func (w *world) checkReminder(e *event) {
	f, due := e.fact.(*reminderv1.ReminderDue)
	if !due {
		return
	}
	p := e.state.(*reminderv1.Plan) //nolint:errcheck,forcetypeassert // a plan's fact
	l, zone, at := links.load(e.r, f.GetLinkId()), zones[p.GetTimeZone()], f.GetAt().AsTime()
	if l.GetStatus() > tokenv1.LinkStatus_LINK_STATUS_REDEEMED || l.GetHolderId() != f.GetHolderId() || l.GetGeneration() != f.GetGeneration() {
		w.fail(e.r, "%s of generation %d is reminded while the link is %s of %s, generation %d", f.GetHolderId(), f.GetGeneration(), l.GetStatus(), l.GetHolderId(), l.GetGeneration())
	}
	if reminderrules.InQuietHours(p.GetQuiet(), at, zone) {
		w.fail(e.r, "reminded at %s", at.In(zone))
	}
	today := uint32(1)
	for _, before := range p.GetSentAt()[:len(p.GetSentAt())-1] {
		if before.AsTime().In(zone).Format(time.DateOnly) == at.In(zone).Format(time.DateOnly) {
			today++
		}
	}
	if p.GetMaxPerDay() > 0 && today > p.GetMaxPerDay() {
		w.fail(e.r, "reminded %d times on %s", today, at.In(zone).Format(time.DateOnly))
	}
}

// checkEscalation: steps in their order, once, and none after the end.
func (w *world) checkEscalation(e *event, before proto.Message) {
	was, _ := before.(*escalationv1.Escalation)
	if f, begun := e.fact.(*escalationv1.EscalationTriggered); begun {
		if running(was) {
			w.fail(e.r, "escalated twice: %s", f.GetEscalation().GetId())
		}
		return
	}
	if !running(was) {
		w.fail(e.r, "%s after the end of %s", e.name(), e.id)
	}
	if f, step := e.fact.(interface{ GetStep() uint32 }); step && f.GetStep() != was.GetNextStep()+1 {
		w.fail(e.r, "step %d of %s follows %d", f.GetStep(), e.id, was.GetNextStep())
	}
	switch e.fact.(type) {
	case *escalationv1.ManagerNotified, *escalationv1.AlternateRouted, *escalationv1.RequestStuck, *escalationv1.PlatformTold:
		l := links.load(e.r, was.GetLinkId())
		if l.GetStatus() > tokenv1.LinkStatus_LINK_STATUS_REDEEMED || l.GetHolderId() != was.GetHolderId() || l.GetGeneration() != was.GetGeneration() {
			w.fail(e.r, "%s about generation %d of %s, while the link is %s of %s, generation %d", e.name(), was.GetGeneration(), was.GetHolderId(), l.GetStatus(), l.GetHolderId(), l.GetGeneration())
		}
	}
}
