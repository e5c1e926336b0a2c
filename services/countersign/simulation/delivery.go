package simulation

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/failure"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/delivery/rules"
)

// retry is what services/delivery has by default (spec 4.3).
var retry = rules.Retry{Base: 30 * time.Second, Cap: time.Hour, Attempts: 8, GiveUp: day}

// deliveryHears is services/delivery/consume.go.
func deliveryHears(w *world, e *event) error {
	switch f := e.fact.(type) {
	case *deliveryv1.DeliveryPlanned:
		_, err := w.send(e.r, e.id)
		return err
	case *deliveryv1.AttemptDeferred:
		w.armDelivery(e.r, e.id, f.GetNextAttemptAt().AsTime(), e.sequence)
	case *tokenv1.LinkIssued:
		return w.plan(e, &deliveryv1.Delivery{Kind: deliveryv1.Kind_KIND_LINK, LinkId: f.GetLinkId(), Generation: 1, RecipientId: f.GetHolderId()})
	case *tokenv1.LinkReissued:
		if f.GetReason() == tokenv1.ReissueReason_REISSUE_REASON_ADDRESS_CHANGED {
			if err := w.plan(e, &deliveryv1.Delivery{
				Kind: deliveryv1.Kind_KIND_LINK, LinkId: e.id, Generation: f.GetGeneration(), RecipientId: f.GetHolderId(),
			}); err != nil {
				return err
			}
			return w.plan(e, &deliveryv1.Delivery{
				Kind: deliveryv1.Kind_KIND_ADDRESS_CHANGED, LinkId: e.id, Generation: f.GetGeneration(), RecipientId: f.GetFormerHolderId(),
			})
		}
		return w.plan(e, &deliveryv1.Delivery{
			Kind: deliveryv1.Kind_KIND_REISSUED, LinkId: e.id, Generation: f.GetGeneration(), RecipientId: e.state.(*tokenv1.Link).GetHolderId(), //nolint:errcheck,forcetypeassert // a link's fact
		})
	case *tokenv1.LinkRerouted:
		return w.plan(e, &deliveryv1.Delivery{
			Kind: deliveryv1.Kind_KIND_ALTERNATE, LinkId: e.id, Generation: f.GetGeneration(), RecipientId: f.GetHolderId(), SubjectId: f.GetFormerHolderId(),
		})
	case *tokenv1.RequestCompleted:
		return w.tellSigners(e, deliveryv1.Kind_KIND_COMPLETED, func(*tokenv1.Seat) bool { return true })
	case *tokenv1.RequestDeclined:
		return w.tellSigners(e, deliveryv1.Kind_KIND_DECLINED, func(s *tokenv1.Seat) bool {
			return s.GetLinkId() != f.GetLinkId() && s.GetStatus() != tokenv1.SeatStatus_SEAT_STATUS_WAITING
		})
	case *tokenv1.RequestCancelled:
		return w.tellSigners(e, deliveryv1.Kind_KIND_CANCELLED, func(s *tokenv1.Seat) bool {
			return s.GetStatus() != tokenv1.SeatStatus_SEAT_STATUS_WAITING
		})
	case *identityv1.ChallengeStarted:
		return w.plan(e, &deliveryv1.Delivery{
			Kind: deliveryv1.Kind_KIND_CODE, LinkId: f.GetLinkId(), RecipientId: f.GetChallenge().GetPersonId(), ChallengeId: f.GetChallenge().GetId(),
		})
	case *reminderv1.ReminderDue:
		if f.GetRotate() {
			return nil
		}
		kind := deliveryv1.Kind_KIND_REMINDER
		if f.GetPartial() {
			kind = deliveryv1.Kind_KIND_PARTIAL
		}
		return w.plan(e, &deliveryv1.Delivery{
			Kind: kind, LinkId: f.GetLinkId(), Generation: f.GetGeneration(), RecipientId: f.GetHolderId(), Ordinal: f.GetOrdinal(),
		})
	case *escalationv1.ManagerNotified:
		return w.plan(e, &deliveryv1.Delivery{
			Kind: deliveryv1.Kind_KIND_MANAGER, LinkId: f.GetLinkId(), Generation: f.GetGeneration(), RecipientId: f.GetManagerId(), SubjectId: f.GetHolderId(),
		})
	}
	return nil
}

// plan begins a delivery, whose id follows from its cause.
func (w *world) plan(e *event, d *deliveryv1.Delivery) error {
	d.Id = fmt.Sprintf("dlv_%s:%d:%d:%s", e.service, e.sequence, d.GetKind(), d.GetRecipientId())
	d.Tenant, d.RequestId, d.Channel = e.r.tenant, e.r.id, deliveryv1.Channel_CHANNEL_EMAIL
	_, _, err := deliveries.do(w, e.r, d.GetId(), rules.Plan{Delivery: d, Retry: retry}, e.because("delivery", "plan"))
	return err
}

func (w *world) tellSigners(e *event, kind deliveryv1.Kind, which func(*tokenv1.Seat) bool) error {
	for _, seat := range e.state.(*tokenv1.Request).GetSeats() { //nolint:errcheck,forcetypeassert // a request's fact
		l := links.load(e.r, seat.GetLinkId())
		if !which(seat) || l.GetHolderId() == "" {
			continue
		}
		if err := w.plan(e, &deliveryv1.Delivery{Kind: kind, LinkId: seat.GetLinkId(), Generation: l.GetGeneration(), RecipientId: l.GetHolderId()}); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) armDelivery(r *request, id string, due time.Time, version uint64) {
	w.arm(r, "delivery", id, due, version, func() (time.Time, uint64, error) {
		d, err := w.send(r, id)
		return rules.Deadline(d), r.entry("delivery", id).sequence, err
	})
}

// send makes an attempt if it is due and records what came of it.
func (w *world) send(r *request, id string) (*deliveryv1.Delivery, error) {
	d := deliveries.load(r, id)
	if due, _ := rules.Due(d, w.clock()); !due {
		return d, nil
	}
	letter, err := w.compose(r, d)
	if f := failure.From(err); f != nil {
		if f.Retryable {
			return d, err
		}
		d, _, err = deliveries.do(w, r, id, rules.Skip{Code: f.Code}, byService("delivery"))
		return d, err
	}
	w.point()
	outcome := w.relay(r, d, letter)
	w.point()
	if w.oneIn(60) { // the same message was handed to another worker, who is faster
		w.faults["two workers"]++
		if _, err := w.send(r, id); err != nil {
			return d, err
		}
	}
	d, _, err = deliveries.do(w, r, id, outcome, byService("delivery"))
	return d, err
}

// letter is a message on its way.
type letter struct {
	kind      deliveryv1.Kind
	link      string
	token     []byte
	challenge string
	code      string
}

// compose adds what is true at this moment: a fresh token or the code.
func (w *world) compose(r *request, d *deliveryv1.Delivery) (letter, error) {
	l := letter{kind: d.GetKind(), link: d.GetLinkId(), challenge: d.GetChallengeId()}
	var err error
	switch d.GetKind() {
	case deliveryv1.Kind_KIND_LINK, deliveryv1.Kind_KIND_REISSUED, deliveryv1.Kind_KIND_ALTERNATE, deliveryv1.Kind_KIND_REMINDER, deliveryv1.Kind_KIND_PARTIAL:
		l.token, err = w.mint(r, d.GetLinkId(), d.GetGeneration(), d.GetId())
	case deliveryv1.Kind_KIND_CODE:
		l.code, err = w.renderCode(r, d.GetLinkId(), d.GetChallengeId())
	case deliveryv1.Kind_KIND_MANAGER:
		switch links.load(r, d.GetLinkId()).GetStatus() {
		case tokenv1.LinkStatus_LINK_STATUS_SIGNED:
			err = failure.LinkSigned
		case tokenv1.LinkStatus_LINK_STATUS_DECLINED:
			err = failure.LinkDeclined
		case tokenv1.LinkStatus_LINK_STATUS_CLOSED:
			err = failure.LinkCancelled
		default:
		}
	case deliveryv1.Kind_KIND_COMPLETED:
		if !w.certified(r) {
			err = failure.CertificateNotYet
		}
	default:
	}
	return l, err
}

// relay takes a message over, or does not, or says so in spite of it. What it took arrives, mostly.
func (w *world) relay(r *request, d *deliveryv1.Delivery, l letter) interface {
	Decide(*deliveryv1.Delivery, time.Time) (proto.Message, error)
} {
	attempt := d.GetAttempts() + 1
	to := r.people[d.GetRecipientId()]
	if l.token != nil && r.seen.tokens[string(l.token)] != d.GetGeneration() {
		w.fail(r, "a message about generation %d to %s carries a token of generation %d", d.GetGeneration(), to.id, r.seen.tokens[string(l.token)])
	}
	failed := rules.Fail{Attempt: attempt, Code: 451, Enhanced: "4.3.0", Jitter: w.rng.Float64(), Retry: retry}
	switch {
	case to.bounces:
		failed.Code, failed.Enhanced, failed.Permanent = 550, "5.1.1", true
		return failed
	case w.now.Before(w.relayBack), w.oneIn(12):
		if w.oneIn(20) {
			w.arrive(r, to, l) // the answer was lost
		}
		if w.oneIn(10) {
			failed.RetryAfter = w.upTo(2 * time.Hour)
		}
		return failed
	}
	if !w.oneIn(50) {
		w.arrive(r, to, l)
	}
	return rules.Accept{Attempt: attempt, Provider: "relay"}
}

// arrive puts a message into a mailbox, after a while; a code mostly at once.
func (w *world) arrive(r *request, to *person, l letter) {
	travels := w.soon(time.Hour)
	if l.code != "" && !w.oneIn(8) {
		travels = w.soon(10 * time.Second)
	}
	w.in(r, travels, func() { to.receive(w, r, l) })
}
