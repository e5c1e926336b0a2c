package simulation

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// amended is what services/token/amend.go does because of an amendment.
func amended(w *world, e *event) error {
	r := e.r
	current := requests.load(r, r.id)
	if inProgress(current) {
		if err := issueGroup(w, e, current.GetGroup()); err != nil {
			return err
		}
		current = requests.load(r, r.id)
		if err := w.moveDeadlines(r, current); err != nil {
			return err
		}
		w.armRequest(r, rules.RequestDeadline(current), r.entry("token", r.id).sequence)
	}
	w.tell(e, "amended")
	return nil
}

// readdressed tells the request who signs from now on.
func readdressed(w *world, e *event, f *tokenv1.LinkReissued) error {
	if f.GetReason() != tokenv1.ReissueReason_REISSUE_REASON_ADDRESS_CHANGED {
		return nil
	}
	change := rules.Amend{Seats: []rules.SeatChange{{LinkID: e.id, PersonID: f.GetHolderId(), Generation: f.GetGeneration()}}}
	_, _, err := requests.do(w, e.r, e.r.id, change, e.because("token", "readdress"))
	if refusal := failure.From(err); refusal != nil && !refusal.Retryable {
		return nil
	}
	return err
}

func (w *world) moveDeadlines(r *request, current *tokenv1.Request) error {
	if current.GetDeadline() == nil {
		return nil
	}
	for _, seat := range current.GetSeats() {
		if seat.GetStatus() != tokenv1.SeatStatus_SEAT_STATUS_OPEN {
			continue
		}
		move := rules.MoveDeadline{Number: current.GetAmendments(), Deadline: current.GetDeadline()}
		if _, _, err := links.do(w, r, seat.GetLinkId(), move, byService("token")); err != nil {
			return err
		}
	}
	return nil
}

// armRequest sets the timer of a request's deadline; what it does is fireRequest of services/token/timers.go.
func (w *world) armRequest(r *request, due time.Time, version uint64) {
	w.arm(r, "token", r.id, due, version, func() (time.Time, uint64, error) {
		current := requests.load(r, r.id)
		if due := rules.RequestDeadline(current); due.IsZero() || w.clock().Before(due) {
			return due, r.entry("token", r.id).sequence, nil
		}
		if err := w.moveDeadlines(r, current); err != nil {
			return time.Time{}, 0, err
		}
		if busy := w.busyUntil(r); w.clock().Before(busy) {
			return busy, r.entry("token", r.id).sequence, nil
		}
		if err := w.beginCancel(r, byService("token")); err != nil {
			if f := failure.From(err); f != nil && !f.Retryable {
				return time.Time{}, 0, nil
			}
			return time.Time{}, 0, err
		}
		if err := w.heldLinks(r); err != nil {
			return time.Time{}, 0, err
		}
		if busy := w.busyUntil(r); w.clock().Before(busy) {
			return busy, r.entry("token", r.id).sequence, nil
		}
		after, _, err := requests.do(w, r, r.id, rules.Expire{}, byService("token"))
		return rules.RequestDeadline(after), r.entry("token", r.id).sequence, err
	})
}

func (w *world) busyUntil(r *request) time.Time {
	var latest time.Time
	if w.o.broken == noGrace {
		return latest
	}
	for _, seat := range requests.load(r, r.id).GetSeats() {
		if end := rules.BusyUntil(links.load(r, seat.GetLinkId())); end.After(latest) {
			latest = end
		}
	}
	return latest
}

// amends has a platform change a request now and then.
func (w *world) amends(r *request, life time.Duration) {
	for w.oneIn(5) {
		link := r.asked.GetSeats()[w.rng.IntN(len(r.asked.GetSeats()))].GetLinkId()
		w.in(r, w.upTo(life), func() { w.readdress(r, link) })
	}
	for w.oneIn(5) {
		w.in(r, w.upTo(life), func() {
			to := timestamppb.New(w.now.Add(time.Minute + w.upTo(life)))
			w.amend(r, func() rules.Amend {
				if !w.now.Before(to.AsTime()) {
					to = timestamppb.New(w.now.Add(time.Minute))
				}
				return rules.Amend{Deadline: to}
			})
		})
	}
	for w.oneIn(5) {
		link, group := r.asked.GetSeats()[w.rng.IntN(len(r.asked.GetSeats()))].GetLinkId(), 1+w.rng.Uint32N(3)
		w.in(r, w.upTo(life), func() {
			w.amend(r, func() rules.Amend {
				return rules.Amend{Seats: []rules.SeatChange{{LinkID: link, Path: "signers[0]", Group: group}}}
			})
		})
	}
}

// amend changes a request; the links hear a moved deadline at once, and again by the fact.
func (w *world) amend(r *request, change func() rules.Amend) {
	w.attempt(r, func() error {
		if requests.load(r, r.id).GetId() == "" {
			return nil // the first call has not come through yet
		}
		current, _, err := requests.do(w, r, r.id, change(), byPlatform())
		if err != nil {
			return err
		}
		return w.moveDeadlines(r, current)
	})
}

// readdress gives a signer another address, which is another person.
func (w *world) readdress(r *request, link string) {
	moved := w.person(r, link, fmt.Sprintf("moved%d", len(r.order)))
	once := byPlatform()
	once.command = fmt.Sprintf("key_1:%x", w.rng.Uint64())
	w.attempt(r, func() error {
		current := requests.load(r, r.id)
		if !inProgress(current) {
			return nil
		}
		if links.load(r, link).GetGeneration() == 0 && rules.SeatOf(current, link).GetStatus() == tokenv1.SeatStatus_SEAT_STATUS_WAITING {
			change := rules.Amend{Seats: []rules.SeatChange{{LinkID: link, Path: "signers[0]", PersonID: moved.id}}}
			_, _, err := requests.do(w, r, r.id, change, once)
			return err
		}
		if err := w.settled(r, link); err != nil {
			return err
		}
		_, _, err := links.do(w, r, link, rules.Readdress{HolderID: moved.id}, once)
		return err
	})
}
