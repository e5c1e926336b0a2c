package escalation

import (
	"context"
	"time"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/telemetry"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	"countersign.dev/services/escalation/rules"
)

// fire takes the step that is due, decided from the record and from the link as it is at this moment.
func (s *Service) fire(ctx context.Context, k eventlog.Key) (time.Time, uint64, error) {
	state, sequence, err := s.escalations.Load(ctx, k)
	if err != nil {
		return time.Time{}, 0, err
	}
	ctx = telemetry.WithRequest(ctx, state.GetRequestId(), k.Tenant)
	if due := rules.Deadline(state); due.IsZero() || s.h.Clock.Now(k.Tenant).Before(due) {
		return due, sequence, nil
	}
	link, err := s.link(ctx, k.Tenant, state.GetLinkId())
	if err != nil {
		return time.Time{}, 0, err
	}
	res, err := s.escalations.Do(ctx, k, rules.Tick{Link: link}, eventlog.By{
		Actor:     &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_SYSTEM, Ref: Name},
		RequestID: state.GetRequestId(),
	})
	if err != nil {
		return time.Time{}, 0, err
	}
	// Later than the deadline where a session is waited for; then the timer is armed for its end.
	return rules.DueAt(res.State, link), res.Sequence, nil
}

// sweep arms what a lost timer forgot, at start and every hour.
func (s *Service) sweep(ctx context.Context) error {
	return clock.Every(ctx, sweepEvery, func() error {
		err := eventlog.Sweep(ctx, s.escalations, "fact."+Name+".>", "esc_", func(k eventlog.Key, e *escalationv1.Escalation, sequence uint64) error {
			if due := rules.Deadline(e); !due.IsZero() {
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
