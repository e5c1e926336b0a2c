package simulation

import (
	"strings"

	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	auditrules "countersign.dev/services/audit/rules"
	ceremonyrules "countersign.dev/services/ceremony/rules"
)

// retire looks at a request about which nothing more will happen, and forgets it: everything that was begun has come to an end, and
// who has not signed has nobody to blame but themselves.
func (w *world) retire(r *request) {
	if r.retired {
		w.fail(r, "something happened after its end")
	}
	r.retired = true
	for _, k := range r.known {
		switch s := r.entries[k].state.(type) {
		case *deliveryv1.Delivery:
			if s.GetStatus() == deliveryv1.Status_STATUS_QUEUED || s.GetStatus() == deliveryv1.Status_STATUS_DEFERRED {
				w.fail(r, "%s never ends: %s", k, s.GetStatus())
			}
		case *reminderv1.Plan:
			if s.GetStatus() == reminderv1.PlanStatus_PLAN_STATUS_RUNNING {
				w.fail(r, "%s never ends", k)
			}
		case *escalationv1.Escalation:
			if running(s) {
				w.fail(r, "%s never ends: step %d of %d", k, s.GetNextStep(), len(s.GetSteps()))
			}
		case *tokenv1.Link:
			w.restLink(r, s)
		}
	}
	if current := requests.load(r, r.id); r.seen.ended == "" && current.GetDeadline() != nil {
		w.fail(r, "its deadline %s passed and nobody noticed", current.GetDeadline().AsTime())
	}
	w.restOutcomes(r)
	w.restCeremony(r)
	w.restLedger(r)
	w.ends[end(r)]++
	r.entries, r.trail, r.leaves, r.people, r.order, r.timers = nil, nil, nil, nil, nil, nil
}

func end(r *request) string {
	if r.seen.ended == "" {
		return "left"
	}
	return r.seen.ended
}

// restLink: with its request a link has ended; without, its life ran out and that was stated, or its sender withdrew it, or its
// message never came through, which escalation was told.
func (w *world) restLink(r *request, l *tokenv1.Link) {
	if l.GetStatus() == tokenv1.LinkStatus_LINK_STATUS_UNSPECIFIED {
		return
	}
	over := l.GetStatus() > tokenv1.LinkStatus_LINK_STATUS_REVOKED
	switch {
	case r.seen.ended != "" && !over:
		w.fail(r, "%s is %s although the request was %s", l.GetId(), l.GetStatus(), r.seen.ended)
	case r.seen.ended != "", over, l.GetStatus() == tokenv1.LinkStatus_LINK_STATUS_REVOKED, l.GetLapsed():
	case !w.undelivered(r, l):
		w.fail(r, "%s waits and nobody will ever look at it again", l.GetId())
	}
	w.checkNextStep(r, l)
}

// undelivered tells whether the message that carries a generation was lost and that has been seen to.
func (w *world) undelivered(r *request, l *tokenv1.Link) bool {
	for _, k := range r.known {
		d, ok := r.entries[k].state.(*deliveryv1.Delivery)
		if !ok || d.GetLinkId() != l.GetId() || d.GetGeneration() != l.GetGeneration() || !carriesLink(d.GetKind()) {
			continue
		}
		if d.GetStatus() == deliveryv1.Status_STATUS_BOUNCED || d.GetStatus() == deliveryv1.Status_STATUS_FAILED {
			return escalations.load(r, escalationID(l.GetId(), l.GetGeneration())).GetStatus() != escalationv1.Status_STATUS_UNSPECIFIED
		}
	}
	return false
}

// restOutcomes: the platform was told once of each turn, and of the end last of all ends.
func (w *world) restOutcomes(r *request) {
	told := map[string]int{}
	for _, what := range r.outcome {
		told[what]++
	}
	ends := told["completed"] + told["declined"] + told["cancelled"] + told["expired"]
	signed := 0
	for _, s := range requests.load(r, r.id).GetSeats() {
		if s.GetStatus() == tokenv1.SeatStatus_SEAT_STATUS_SIGNED {
			signed++
		}
	}
	if r.seen.ended == "completed" {
		signed--
	}
	if told["accepted"] != 1 || told["progress"] != signed || r.seen.ended == "" && ends != 0 || r.seen.ended != "" && (ends != 1 || told[r.seen.ended] != 1) {
		w.fail(r, "the platform was told %s", strings.Join(r.outcome, ", "))
	}
}

// restCeremony: what was signed is what is known to be signed, and every signature is in the document.
func (w *world) restCeremony(r *request) {
	c := ceremonies.load(r, ceremonyID)
	if got := c.GetDocuments()[0].GetSignatures(); int(got) != r.seen.signed {
		w.fail(r, "%d signatures in the document, %d were made", got, r.seen.signed)
	}
	for _, seat := range r.asked.GetSeats() {
		signed := ceremonyrules.SeatOf(c, seat.GetLinkId()).GetStatus() == 3
		if link := links.load(r, seat.GetLinkId()); signed != (link.GetStatus() == tokenv1.LinkStatus_LINK_STATUS_SIGNED) {
			w.fail(r, "%s is %s, signed: %t", seat.GetLinkId(), link.GetStatus(), signed)
		}
	}
}

// restLedger: every fact has one leaf, each follows the one before it, and the end of the request is among them.
func (w *world) restLedger(r *request) {
	if len(r.leaves) != len(r.trail) {
		w.fail(r, "%d leaves of %d facts", len(r.leaves), len(r.trail))
	}
	if err := auditrules.CheckChain(r.leaves); err != nil {
		w.fail(r, "the log: %v", err)
	}
	place := map[string]int{}
	for i, raw := range r.leaves {
		leaf, err := auditrules.Parse(raw)
		if err != nil {
			w.fail(r, "the log: %v", err)
		}
		place[leaf.Src] = i + 1
	}
	for _, e := range r.trail {
		mine, its := place[source(e)], 0
		if e.cause.service != "" {
			its = place[source(&event{service: e.cause.service, sequence: e.cause.sequence})]
		}
		if mine == 0 || its > mine {
			w.fail(r, "the leaf of %s stands at %d, its cause at %d", e.name(), mine, its)
		}
	}
	if w.certified(r) != (r.seen.ended != "") {
		w.fail(r, "the log has an end: %t; the request was %q", w.certified(r), r.seen.ended)
	}
}
