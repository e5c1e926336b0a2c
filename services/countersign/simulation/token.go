package simulation

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// tokenHears is services/token/consume.go.
func tokenHears(w *world, e *event) error {
	r := e.r
	switch f := e.fact.(type) {
	case *tokenv1.RequestAccepted:
		w.armRequest(r, rules.RequestDeadline(f.GetRequest()), e.sequence)
		if err := issueGroup(w, e, f.GetRequest().GetGroup()); err != nil {
			return err
		}
		w.tell(e, "accepted")
	case *tokenv1.RequestProgressed:
		if f.GetOpenedGroup() != 0 {
			if err := issueGroup(w, e, f.GetOpenedGroup()); err != nil {
				return err
			}
		}
		w.tell(e, "progress")
	case *tokenv1.RequestCompleted:
		w.tell(e, "completed")
	case *tokenv1.RequestDeclined:
		return endedFor(w, e, tokenv1.EndReason_END_REASON_DECLINED_BY_ANOTHER, "declined")
	case *tokenv1.RequestCancelled:
		return endedFor(w, e, tokenv1.EndReason_END_REASON_CANCELLED, "cancelled")
	case *tokenv1.RequestExpired:
		return endedFor(w, e, tokenv1.EndReason_END_REASON_DEADLINE, "expired")
	case *tokenv1.RequestAmended:
		return amended(w, e)
	case *tokenv1.LinkAttention:
		w.tell(e, "attention")
	case *tokenv1.LinkLapsed:
		if f.GetExhausted() {
			w.tell(e, "attention")
		}
	case *tokenv1.LinkReissued:
		if err := readdressed(w, e, f); err != nil {
			return err
		}
		w.armLink(r, e.id, rules.Deadline(e.state.(*tokenv1.Link)), e.sequence) //nolint:errcheck,forcetypeassert // a link's fact
	case *tokenv1.LinkClockStarted, *tokenv1.LinkRedeemed, *tokenv1.LinkResumed, *tokenv1.LinkRerouted, *tokenv1.LinkDeadlineMoved,
		*tokenv1.LinkReprofiled:
		w.armLink(r, e.id, rules.Deadline(e.state.(*tokenv1.Link)), e.sequence) //nolint:errcheck,forcetypeassert // a link's fact
	case *deliveryv1.AttemptAccepted:
		switch f.GetKind() {
		case deliveryv1.Kind_KIND_LINK, deliveryv1.Kind_KIND_REISSUED, deliveryv1.Kind_KIND_ALTERNATE:
			_, _, err := links.do(w, r, f.GetLinkId(), rules.StartClock{Generation: f.GetGeneration()}, e.because("token", "clock"))
			return err
		default:
		}
	case *ceremonyv1.CeremonySigned:
		if _, _, err := links.do(w, r, f.GetLinkId(), rules.MarkSigned{}, e.because("token", "signed")); err != nil {
			return err
		}
		_, _, err := requests.do(w, r, r.id, rules.SeatSigned{LinkID: f.GetLinkId()}, e.because("token", "signed"))
		return err
	case *ceremonyv1.CeremonyDeclined:
		if _, _, err := links.do(w, r, f.GetLinkId(), rules.MarkDeclined{ReasonID: f.GetReasonId()}, e.because("token", "declined")); err != nil {
			return err
		}
		_, _, err := requests.do(w, r, r.id, rules.SeatDeclined{LinkID: f.GetLinkId(), ReasonID: f.GetReasonId()}, e.because("token", "declined"))
		return err
	case *reminderv1.ReminderDue:
		return rotated(w, e, f)
	case *escalationv1.AlternateRouted:
		return routed(w, e, f)
	case *escalationv1.RequestStuck:
		err := w.cancelNow(r, e.because("token", "cancel"))
		if refusal := failure.From(err); refusal != nil && !refusal.Retryable {
			return nil
		}
		return err
	case *escalationv1.PlatformTold:
		w.tell(e, "escalated")
	}
	return nil
}

// endedFor closes the links of a request that is over, and tells its platform.
func endedFor(w *world, e *event, reason tokenv1.EndReason, outcome string) error {
	if err := closeLinks(w, e, reason); err != nil {
		return err
	}
	w.tell(e, outcome)
	return nil
}

func (w *world) armLink(r *request, id string, due time.Time, version uint64) {
	w.arm(r, "token", id, due, version, func() (time.Time, uint64, error) {
		if due := rules.Deadline(links.load(r, id)); due.IsZero() || w.clock().Before(due) {
			return due, r.entry("token", id).sequence, nil
		}
		if err := w.settled(r, id); err != nil {
			return time.Time{}, 0, err
		}
		l, _, err := links.do(w, r, id, rules.Lapse{}, byService("token"))
		return rules.Deadline(l), r.entry("token", id).sequence, err
	})
}

// tell publishes an outcome, one for each cause however often it is heard.
func (w *world) tell(e *event, what string) {
	w.point()
	id := fmt.Sprintf("%s:%d", e.service, e.sequence)
	if !e.r.told[id] {
		e.r.told[id] = true
		e.r.outcome = append(e.r.outcome, what)
	}
	w.point()
}

func issueGroup(w *world, e *event, group uint32) error {
	r := e.r
	current := requests.load(r, r.id)
	if !inProgress(current) {
		return nil
	}
	for _, seat := range current.GetSeats() {
		if seat.GetGroup() != group {
			continue
		}
		issue := rules.Issue{
			LinkID: seat.GetLinkId(), Tenant: r.tenant, RequestID: r.id, HolderID: seat.GetPersonId(), Position: seat.GetPosition(), Profile: current.GetProfile(),
			Deadline: current.GetDeadline(), DeadlineNumber: current.GetAmendments(),
		}
		if _, _, err := links.do(w, r, seat.GetLinkId(), issue, e.because("token", "issue")); err != nil {
			return err
		}
	}
	if after := requests.load(r, r.id); after.GetAmendments() != current.GetAmendments() {
		return w.moveDeadlines(r, after)
	}
	return nil
}

func inProgress(r *tokenv1.Request) bool {
	return r.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS
}

func closeLinks(w *world, e *event, reason tokenv1.EndReason) error {
	var failed error
	for _, seat := range e.state.(*tokenv1.Request).GetSeats() { //nolint:errcheck,forcetypeassert // a request's fact
		if seat.GetStatus() == tokenv1.SeatStatus_SEAT_STATUS_SIGNED || seat.GetStatus() == tokenv1.SeatStatus_SEAT_STATUS_DECLINED {
			continue
		}
		err := w.settled(e.r, seat.GetLinkId())
		if err == nil {
			_, _, err = links.do(w, e.r, seat.GetLinkId(), rules.Close{Reason: reason}, e.because("token", "close"))
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// settled refuses to end or rotate a link whose admitted signature was made but is not heard of yet.
func (w *world) settled(r *request, id string) error {
	if rules.Unsettled(links.load(r, id)) && signedInCeremony(r, id) && w.o.broken != noSettling {
		return failure.LinkBusy
	}
	return nil
}

func rotated(w *world, e *event, f *reminderv1.ReminderDue) error {
	if !f.GetRotate() {
		return nil
	}
	err := w.settled(e.r, f.GetLinkId())
	if err == nil {
		_, _, err = links.do(w, e.r, f.GetLinkId(), rules.Reissue{
			Reason: tokenv1.ReissueReason_REISSUE_REASON_REMINDER, Generation: f.GetGeneration(),
		}, e.because("token", "rotate"))
	}
	if refusal := failure.From(err); refusal != nil && !refusal.Retryable {
		return nil
	}
	return err
}

func routed(w *world, e *event, f *escalationv1.AlternateRouted) error {
	r := e.r
	current := requests.load(r, r.id)
	listed := false
	for _, id := range rules.SeatOf(current, f.GetLinkId()).GetAlternateIds() {
		listed = listed || id == f.GetAlternateId()
	}
	if !listed || !inProgress(current) {
		return nil
	}
	if err := w.settled(r, f.GetLinkId()); err != nil {
		return err
	}
	_, _, err := links.do(w, r, f.GetLinkId(), rules.Reroute{
		HolderID: f.GetAlternateId(), EscalationID: e.id, Generation: f.GetGeneration(),
	}, e.because("token", "reroute"))
	return err
}

// beginCancel, heldLinks and endCancel are what services/token/view.go does to cancel, in this order.
func (w *world) beginCancel(r *request, b by) error {
	b.command = ""
	_, _, err := requests.do(w, r, r.id, rules.BeginCancel{}, b)
	return err
}

func (w *world) heldLinks(r *request) error {
	if w.o.broken == noAdmission {
		return nil
	}
	now := w.clock()
	for _, seat := range requests.load(r, r.id).GetSeats() {
		if err := rules.MayCancel(seat, links.load(r, seat.GetLinkId()), now); err != nil {
			return err
		}
		if err := w.settled(r, seat.GetLinkId()); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) endCancel(r *request, b by) error {
	_, _, err := requests.do(w, r, r.id, rules.Cancel{ReasonID: "not_1"}, b)
	return err
}

// cancelNow does all three at once.
func (w *world) cancelNow(r *request, b by) error {
	if err := w.beginCancel(r, b); err != nil {
		return err
	}
	if err := w.heldLinks(r); err != nil {
		return err
	}
	return w.endCancel(r, b)
}

// mint makes a token for a message of a generation; nil when the message makes no sense any more.
func (w *world) mint(r *request, link string, generation uint32, delivery string) ([]byte, error) {
	if w.o.broken == noGeneration {
		generation = links.load(r, link).GetGeneration()
	}
	hash := make([]byte, 8)
	for i := range hash {
		hash[i] = byte(w.rng.Uint32())
	}
	_, _, err := links.do(w, r, link, rules.Mint{Generation: generation, Hash: hash, DeliveryID: delivery}, byService("delivery"))
	return hash, err
}

// sessionID names a session.
func (w *world) sessionID() string { return fmt.Sprintf("ses_%x", w.rng.Uint64()) }

// platform has a platform make a request and then do what platforms do to it.
func (w *world) platform(r *request) {
	w.attempt(r, func() error {
		_, _, err := requests.do(w, r, r.id, rules.Accept{Request: r.asked}, byPlatform())
		return err
	})
	again := func() {
		if requests.load(r, r.id).GetId() == "" {
			return // the first call has not come through yet
		}
		// The same content is the same request; other content is refused by name, and changes nothing.
		if _, fact, err := requests.do(w, r, r.id, rules.Accept{Request: r.asked}, byPlatform()); fact != nil || err != nil {
			w.fail(r, "the same request again: %v, %v", fact, err)
		}
		other := proto.CloneOf(r.asked)
		other.FieldDigests["title"] = []byte("another")
		_, fact, err := requests.do(w, r, r.id, rules.Accept{Request: other}, byPlatform())
		if f := failure.From(err); fact != nil || !errors.Is(f, failure.RequestConflict) || len(f.Fields) != 1 || f.Fields[0].Path != "title" {
			w.fail(r, "another title under the same reference: %v, %v", fact, err)
		}
	}
	life := 8 * day
	if r.minutes {
		life = time.Hour
	}
	if w.oneIn(8) {
		w.in(r, w.soon(life), again)
	}
	if w.oneIn(6) {
		w.in(r, w.upTo(life), func() { w.cancel(r, 0) })
	}
	for w.oneIn(4) {
		link := r.asked.GetSeats()[w.rng.IntN(len(r.asked.GetSeats()))].GetLinkId()
		w.in(r, w.upTo(life), func() { w.reissue(r, link) })
	}
	w.amends(r, life)
	if w.oneIn(12) {
		link := r.asked.GetSeats()[0].GetLinkId()
		w.in(r, w.upTo(life), func() { w.revoke(r, link) })
	}
	if w.oneIn(6) {
		w.in(r, w.upTo(life), func() { w.reprofile(r) })
	}
}

// attempt has somebody do something by a call. Whoever gets no answer calls again.
func (w *world) attempt(r *request, call func() error) {
	died, err := w.perhapsDying(call)
	switch f := failure.From(err); {
	case died:
		w.in(r, w.soon(time.Minute), func() { w.attempt(r, call) })
	case f != nil && f.Retryable:
		w.in(r, f.RetryAfter+w.soon(5*time.Minute), func() { w.attempt(r, call) })
	case err != nil && f == nil:
		w.fail(r, "an accident: %v", err)
	case err == nil && w.oneIn(10):
		w.faults["answer lost"]++
		w.in(r, w.soon(time.Minute), func() { w.attempt(r, call) })
	}
}

// cancel has a platform cancel, with time between the three steps for others to come between.
func (w *world) cancel(r *request, tries int) {
	again := func(err error) {
		if f := failure.From(err); f.Retryable && tries < 20 {
			w.in(r, f.RetryAfter+w.soon(10*time.Minute), func() { w.cancel(r, tries+1) })
		}
	}
	pause := func() time.Duration {
		if w.oneIn(20) {
			return w.upTo(time.Minute)
		}
		return w.soon(2 * time.Second)
	}
	if err := w.beginCancel(r, byPlatform()); err != nil {
		again(err)
		return
	}
	w.in(r, pause(), func() {
		if err := w.heldLinks(r); err != nil {
			again(err)
			return
		}
		w.in(r, pause(), func() {
			if err := w.endCancel(r, byPlatform()); err != nil {
				again(err)
			}
		})
	})
}

func (w *world) reissue(r *request, link string) {
	if links.load(r, link).GetGeneration() == 0 {
		return // not their turn
	}
	once := byPlatform()
	once.command = fmt.Sprintf("key_1:%x", w.rng.Uint64())
	w.attempt(r, func() error {
		if err := w.settled(r, link); err != nil {
			return err
		}
		_, _, err := links.do(w, r, link, rules.Reissue{Reason: tokenv1.ReissueReason_REISSUE_REASON_PLATFORM}, once)
		return err
	})
}

// reprofile has a profile changed, reaching the links that were sent, in any order and again where one is held.
func (w *world) reprofile(r *request) {
	next, _ := w.profile()
	next.Name, next.Version, next.Assurance = r.asked.GetProfile().GetName(), 1+w.rng.Uint64N(3), r.asked.GetProfile().GetAssurance()
	reach := tokenv1.ProfileReach_PROFILE_REACH_EXTEND_SENT + tokenv1.ProfileReach(w.rng.IntN(2))
	for _, seat := range r.asked.GetSeats() {
		w.attempt(r, func() error {
			_, _, err := links.do(w, r, seat.GetLinkId(), rules.Reprofile{Profile: next, Reach: reach}, byPlatform())
			return err
		})
	}
}

func (w *world) revoke(r *request, link string) {
	w.attempt(r, func() error {
		if err := w.settled(r, link); err != nil {
			return err
		}
		_, _, err := links.do(w, r, link, rules.Revoke{Reason: tokenv1.EndReason_END_REASON_PLATFORM}, byPlatform())
		return err
	})
	if !w.oneIn(4) {
		w.in(r, w.soon(day), func() { w.reissue(r, link) })
	}
}
