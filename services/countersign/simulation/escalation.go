package simulation

import (
	"fmt"
	"slices"
	"time"

	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/escalation/rules"
	tokenrules "countersign.dev/services/token/rules"
)

func escalationID(link string, generation uint32) string {
	return fmt.Sprintf("esc_%s.%d", link, generation)
}

// escalationHears is services/escalation/consume.go.
func escalationHears(w *world, e *event) error {
	const (
		exhausted = escalationv1.Trigger_TRIGGER_REMINDERS_EXHAUSTED
		lapsed    = escalationv1.Trigger_TRIGGER_LINK_LAPSED
		undone    = escalationv1.Trigger_TRIGGER_DELIVERY_FAILED
	)
	switch f := e.fact.(type) {
	case *reminderv1.RemindersExhausted:
		return escalate(w, e, exhausted, f.GetLinkId(), f.GetGeneration())
	case *deliveryv1.DeliveryFailed:
		return lost(w, e, undone, f.GetKind(), f.GetLinkId(), f.GetGeneration())
	case *deliveryv1.AttemptBounced:
		return lost(w, e, undone, f.GetKind(), f.GetLinkId(), f.GetGeneration())
	case *tokenv1.LinkLapsed:
		return escalate(w, e, lapsed, e.id, f.GetGeneration())
	case *tokenv1.LinkRedeemed:
		return resolve(w, e, f.GetGeneration(), rules.Resolve{Reason: "LinkRedeemed", Only: undone})
	case *tokenv1.LinkReissued:
		return resolve(w, e, f.GetFromGeneration(), rules.Resolve{Reason: "LinkReissued"})
	case *tokenv1.LinkRerouted:
		return resolve(w, e, f.GetGeneration()-1, rules.Resolve{Reason: "LinkRerouted"})
	case *tokenv1.LinkSigned, *tokenv1.LinkDeclined, *tokenv1.LinkRevoked, *tokenv1.LinkClosed:
		return resolve(w, e, e.state.(*tokenv1.Link).GetGeneration(), rules.Resolve{Reason: e.name()}) //nolint:errcheck,forcetypeassert // a link's fact
	}
	if s, own := e.state.(*escalationv1.Escalation); own {
		w.armEscalation(e.r, e.id, rules.Deadline(s), e.sequence)
	}
	return nil
}

func (w *world) armEscalation(r *request, id string, due time.Time, version uint64) {
	w.arm(r, "escalation", id, due, version, func() (time.Time, uint64, error) {
		s := escalations.load(r, id)
		if due := rules.Deadline(s); due.IsZero() || w.clock().Before(due) {
			return due, r.entry("escalation", id).sequence, nil
		}
		link := links.load(r, s.GetLinkId())
		s, _, err := escalations.do(w, r, id, rules.Tick{Link: link}, byService("escalation"))
		return rules.DueAt(s, link), r.entry("escalation", id).sequence, err
	})
}

func lost(w *world, e *event, trigger escalationv1.Trigger, kind deliveryv1.Kind, link string, generation uint32) error {
	switch kind {
	case deliveryv1.Kind_KIND_LINK, deliveryv1.Kind_KIND_REISSUED, deliveryv1.Kind_KIND_ALTERNATE:
		return escalate(w, e, trigger, link, generation)
	default:
		return nil
	}
}

func escalate(w *world, e *event, trigger escalationv1.Trigger, id string, generation uint32) error {
	link := links.load(e.r, id)
	if link.GetStatus() == tokenv1.LinkStatus_LINK_STATUS_UNSPECIFIED {
		return nil
	}
	if w.o.broken == noAlternates {
		link = withoutHistory(link)
	}
	k := escalationID(id, generation)
	_, _, err := escalations.do(w, e.r, k, rules.Begin{
		ID: k, Trigger: trigger, Generation: generation, Policy: e.r.escalation[trigger], Link: link, Seat: tokenrules.SeatOf(requests.load(e.r, e.r.id), id),
	}, e.because("escalation", "begin"))
	return err
}

// withoutHistory is a link that does not know who held it before.
func withoutHistory(l *tokenv1.Link) *tokenv1.Link {
	return &tokenv1.Link{
		Id: l.GetId(), Tenant: l.GetTenant(), RequestId: l.GetRequestId(), Position: l.GetPosition(), Status: l.GetStatus(),
		Generation: l.GetGeneration(), HolderId: l.GetHolderId(), Session: l.GetSession(), ExpiresAt: l.GetExpiresAt(), Profile: l.GetProfile(),
	}
}

func resolve(w *world, e *event, generation uint32, c rules.Resolve) error {
	_, _, err := escalations.do(w, e.r, escalationID(e.id, generation), c, e.because("escalation", "resolve"))
	return err
}

// running tells whether an escalation has not come to its end.
func running(s *escalationv1.Escalation) bool {
	return !slices.Contains([]escalationv1.Status{
		escalationv1.Status_STATUS_FINISHED, escalationv1.Status_STATUS_RESOLVED, escalationv1.Status_STATUS_UNSPECIFIED,
	}, s.GetStatus())
}
