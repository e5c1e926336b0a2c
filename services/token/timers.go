package token

import (
	"context"
	"time"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
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

// fire states a lapse that is due, decided from the record.
func (s *Service) fire(ctx context.Context, k eventlog.Key) (time.Time, uint64, error) {
	by := eventlog.By{Actor: &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_SYSTEM, Ref: Name}}
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

// sweep arms what a lost timer forgot, at start and every hour.
func (s *Service) sweep(ctx context.Context) error {
	return clock.Every(ctx, sweepEvery, func() error {
		err := eventlog.Sweep(ctx, s.links, "fact."+Name+".>", linkPrefix, func(k eventlog.Key, l *tokenv1.Link, sequence uint64) error {
			if due := rules.Deadline(l); !due.IsZero() {
				return s.timers.Arm(ctx, k, due, sequence)
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			s.h.Logger.WarnContext(ctx, "sweep of deadlines was cut short; the next one comes within the hour", "service", Name, "error", err)
		}
		return nil
	})
}
