package simulation

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/reminder/rules"
)

func planID(link string, generation uint32) string { return fmt.Sprintf("rem_%s.%d", link, generation) }

// reminderHears is services/reminder/consume.go.
func reminderHears(w *world, e *event) error {
	switch f := e.fact.(type) {
	case *deliveryv1.AttemptAccepted:
		return beginPlan(w, e, f)
	case *tokenv1.LinkRedeemed:
		return act(w, e, e.id, f.GetSession().GetId())
	case *tokenv1.LinkResumed:
		return act(w, e, e.id, f.GetSession().GetId())
	case *tokenv1.LinkReissued:
		return carryPlan(w, e, f)
	case *tokenv1.LinkRerouted:
		return stopPlan(w, e, e.id, f.GetGeneration()-1)
	case *tokenv1.LinkSigned, *tokenv1.LinkDeclined, *tokenv1.LinkRevoked, *tokenv1.LinkClosed, *tokenv1.LinkLapsed:
		return stopPlan(w, e, e.id, e.state.(*tokenv1.Link).GetGeneration()) //nolint:errcheck,forcetypeassert // a link's fact
	case *ceremonyv1.DocumentShown:
		return act(w, e, f.GetLinkId(), f.GetSessionId())
	case *ceremonyv1.ConsentGiven:
		return act(w, e, f.GetLinkId(), f.GetSessionId())
	}
	if p, own := e.state.(*reminderv1.Plan); own {
		w.armPlan(e.r, e.id, rules.Deadline(p), e.sequence)
	}
	return nil
}

func (w *world) armPlan(r *request, id string, due time.Time, version uint64) {
	w.arm(r, "reminder", id, due, version, func() (time.Time, uint64, error) {
		p := plans.load(r, id)
		p, _, err := plans.do(w, r, id, rules.Tick{Link: links.load(r, p.GetLinkId()), Zone: zones[p.GetTimeZone()]}, byService("reminder"))
		return rules.Deadline(p), r.entry("reminder", id).sequence, err
	})
}

// live returns a link by which somebody can sign; nil when nobody can.
func live(r *request, id string) *tokenv1.Link {
	switch l := links.load(r, id); l.GetStatus() {
	case tokenv1.LinkStatus_LINK_STATUS_OPEN, tokenv1.LinkStatus_LINK_STATUS_REDEEMED:
		return l
	default:
		return nil
	}
}

func subject(r *request, l *tokenv1.Link) rules.Subject {
	return rules.Subject{
		PlanID: planID(l.GetId(), l.GetGeneration()), Tenant: r.tenant, RequestID: r.id, LinkID: l.GetId(), HolderID: l.GetHolderId(),
		Generation: l.GetGeneration(), Position: l.GetPosition(), TimeZone: r.people[l.GetHolderId()].zone,
	}
}

func beginPlan(w *world, e *event, f *deliveryv1.AttemptAccepted) error {
	switch f.GetKind() {
	case deliveryv1.Kind_KIND_LINK, deliveryv1.Kind_KIND_REISSUED, deliveryv1.Kind_KIND_ALTERNATE:
	default:
		return nil
	}
	l := live(e.r, f.GetLinkId())
	if l.GetGeneration() != f.GetGeneration() {
		return nil
	}
	_, _, err := plans.do(w, e.r, planID(l.GetId(), l.GetGeneration()), rules.Begin{Of: subject(e.r, l), Policy: e.r.policy, At: e.at}, e.because("reminder", "begin"))
	return err
}

func act(w *world, e *event, link, session string) error {
	l := live(e.r, link)
	if l == nil || l.GetSession().GetId() != session {
		return nil
	}
	_, _, err := plans.do(w, e.r, planID(link, l.GetGeneration()), rules.Act{Of: subject(e.r, l), Policy: e.r.policy, At: e.at}, e.because("reminder", "act"))
	return err
}

func carryPlan(w *world, e *event, f *tokenv1.LinkReissued) error {
	if f.GetReason() == tokenv1.ReissueReason_REISSUE_REASON_REMINDER {
		from := plans.load(e.r, planID(e.id, f.GetFromGeneration()))
		id := planID(e.id, f.GetGeneration())
		carry := rules.Carry{From: proto.CloneOf(from), Of: rules.Subject{PlanID: id, Generation: f.GetGeneration(), HolderID: from.GetHolderId()}}
		if _, _, err := plans.do(w, e.r, id, carry, e.because("reminder", "carry")); err != nil {
			return err
		}
	}
	if err := stopPlan(w, e, e.id, f.GetFromGeneration()); err != nil || f.GetSession() == nil {
		return err
	}
	return act(w, e, e.id, f.GetSession().GetId())
}

func stopPlan(w *world, e *event, link string, generation uint32) error {
	_, _, err := plans.do(w, e.r, planID(link, generation), rules.Stop{Reason: e.name()}, e.because("reminder", "stop"))
	return err
}
