package reminder

import (
	"context"
	"time"

	// Zones must be the same on every machine, also on one without a zone database.
	_ "time/tzdata"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/telemetry"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/reminder/rules"
)

// fire does what is due for a plan, decided from the record and from the link as it is at this moment.
func (s *Service) fire(ctx context.Context, k eventlog.Key) (time.Time, uint64, error) {
	plan, sequence, err := s.plans.Load(ctx, k)
	if err != nil {
		return time.Time{}, 0, err
	}
	ctx = telemetry.WithRequest(ctx, plan.GetRequestId(), k.Tenant)
	if due := rules.Deadline(plan); due.IsZero() || s.h.Clock.Now(k.Tenant).Before(due) {
		return due, sequence, nil
	}
	resp, err := s.links.GetLink(ctx, &tokenv1.GetLinkRequest{Tenant: k.Tenant, LinkId: plan.GetLinkId()})
	if err != nil && !is(err, failure.LinkUnknown) {
		return time.Time{}, 0, err // not known now: ask again later. Without a link the plan stops
	}
	res, err := s.plans.Do(ctx, k, rules.Tick{Link: resp.GetLink(), Zone: location(plan.GetTimeZone())}, eventlog.By{
		Actor:     &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_SYSTEM, Ref: Name},
		RequestID: plan.GetRequestId(),
	})
	if err != nil {
		return time.Time{}, 0, err
	}
	return rules.Deadline(res.State), res.Sequence, nil
}

// sweep arms what a lost timer forgot, at start and every hour.
func (s *Service) sweep(ctx context.Context) error {
	return clock.Every(ctx, sweepEvery, func() error {
		err := eventlog.Sweep(ctx, s.plans, "fact."+Name+".>", "rem_", func(k eventlog.Key, p *reminderv1.Plan, sequence uint64) error {
			if due := rules.Deadline(p); !due.IsZero() {
				return s.timers.Arm(ctx, k, due, sequence)
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			s.h.Logger.WarnContext(ctx, "sweep of deadlines was cut short; the next one comes within the hour", "error", err)
		}
		return nil
	})
}

// zoneOf asks for the zone that the holder of a link lives in; the tenant's where none is known.
func (s *Service) zoneOf(ctx context.Context, link *tokenv1.Link, otherwise string) (string, error) {
	ask := &tokenv1.GetPersonRequest{Tenant: link.GetTenant(), LinkId: link.GetId(), PersonId: link.GetHolderId()}
	resp, err := s.directory.GetPerson(ctx, ask)
	if err != nil && !is(err, failure.PersonErased) {
		return "", err
	}
	if name := resp.GetPerson().GetTimeZone(); name != "" {
		if _, err := time.LoadLocation(name); err == nil {
			return name, nil
		}
	}
	if otherwise == "" {
		otherwise = "UTC"
	}
	return otherwise, nil
}

// location returns a zone by its name, UTC where there is none of that name.
func location(name string) *time.Location {
	zone, err := time.LoadLocation(name)
	if err != nil {
		return time.UTC
	}
	return zone
}
