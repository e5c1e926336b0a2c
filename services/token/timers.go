package token

import (
	"context"
	"errors"
	"strings"
	"time"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// arm sets the timer of a link from one of its facts: so a crash between fact and timer arms it again.
func (s *Service) arm(ctx context.Context, e eventlog.Event) error {
	link, err := eventlog.StateOf[*tokenv1.Link](e)
	if err != nil {
		return eventlog.Poison(err)
	}
	due := rules.Deadline(link)
	if due.IsZero() {
		return nil
	}
	return s.timers.Arm(ctx, e.Key, due, e.Sequence)
}

// fire does what is due for a link or a request, decided from the record.
func (s *Service) fire(ctx context.Context, k eventlog.Key) (time.Time, uint64, error) {
	by := eventlog.By{Actor: &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_SYSTEM, Ref: Name}}
	if strings.HasPrefix(k.ID, requestPrefix) {
		return s.fireRequest(ctx, k, by)
	}
	link, sequence, err := s.links.Load(ctx, k)
	if err != nil {
		return time.Time{}, 0, err
	}
	by.RequestID = link.GetRequestId()
	if due := rules.Deadline(link); due.IsZero() || s.h.Clock.Now(k.Tenant).Before(due) {
		return due, sequence, nil
	}
	res, err := s.turn(ctx, k, rules.Lapse{}, by)
	if err != nil {
		return time.Time{}, 0, err
	}
	return rules.Deadline(res.State), res.Sequence, nil
}

// fireRequest ends a request whose deadline has passed, once nobody is at work on it any more: who began in time may finish within
// grace (spec 2.4). It ends it as a cancellation does, so that a signature and the end see each other.
func (s *Service) fireRequest(ctx context.Context, k eventlog.Key, by eventlog.By) (time.Time, uint64, error) {
	r, sequence, err := s.requests.Load(ctx, k)
	if err != nil {
		return time.Time{}, 0, err
	}
	by.RequestID = k.ID
	if due := rules.RequestDeadline(r); due.IsZero() || s.h.Clock.Now(k.Tenant).Before(due) {
		return due, sequence, nil
	}
	if err := s.moveDeadlines(ctx, r, by); err != nil {
		return time.Time{}, 0, err
	}
	if busy, err := s.busyUntil(ctx, r); err != nil || s.h.Clock.Now(k.Tenant).Before(busy) {
		return busy, sequence, err
	}
	begun, err := s.requests.Do(ctx, k, rules.BeginCancel{}, by)
	if err != nil {
		return time.Time{}, 0, over(err)
	}
	if err := s.mayEnd(ctx, begun.State); err != nil {
		return time.Time{}, 0, err
	}
	if busy, err := s.busyUntil(ctx, begun.State); err != nil || s.h.Clock.Now(k.Tenant).Before(busy) {
		return busy, begun.Sequence, err
	}
	res, err := s.requests.Do(ctx, k, rules.Expire{}, by)
	if err != nil {
		return time.Time{}, 0, err
	}
	return rules.RequestDeadline(res.State), res.Sequence, nil
}

// over drops a refusal that no later try changes: the request has ended.
func over(err error) error {
	if refusal := failure.From(err); refusal != nil && !refusal.Retryable {
		return nil
	}
	return err
}

// busyUntil is when nobody can be at work on any link of a request any more.
func (s *Service) busyUntil(ctx context.Context, r *tokenv1.Request) (time.Time, error) {
	var latest time.Time
	for _, seat := range r.GetSeats() {
		link, _, err := s.links.Load(ctx, key(r.GetTenant(), seat.GetLinkId()))
		if err != nil {
			return latest, err
		}
		if end := rules.BusyUntil(link); end.After(latest) {
			latest = end
		}
	}
	return latest, nil
}

// sweep arms what a lost timer forgot, at start and every hour.
func (s *Service) sweep(ctx context.Context) error {
	return clock.Every(ctx, sweepEvery, func() error {
		err := eventlog.Sweep(ctx, s.links, "fact."+Name+".>", linkPrefix, func(k eventlog.Key, l *tokenv1.Link, sequence uint64) error {
			if due := rules.Deadline(l); !due.IsZero() {
				return s.timers.Arm(ctx, k, due, sequence)
			}
			return nil
		})
		err = errors.Join(err, eventlog.Sweep(ctx, s.requests, "fact."+Name+".>", requestPrefix, func(k eventlog.Key, r *tokenv1.Request, sequence uint64) error {
			if due := rules.RequestDeadline(r); !due.IsZero() {
				return s.timers.Arm(ctx, k, due, sequence)
			}
			return nil
		}))
		if err != nil && ctx.Err() == nil {
			s.h.Logger.WarnContext(ctx, "sweep of deadlines was cut short; the next one comes within the hour", "error", err)
		}
		return nil
	})
}
