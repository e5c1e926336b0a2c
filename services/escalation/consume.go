package escalation

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/escalation/rules"
)

// ownFacts arms timers.
func (s *Service) ownFacts() *eventlog.Router {
	r := eventlog.NewRouter()
	r.OnEvery(s.onOwn)
	return r
}

// onOwn sets the timer of an escalation from each of its facts: so a crash between fact and timer arms it again.
func (s *Service) onOwn(ctx context.Context, e eventlog.Event, _ proto.Message) error {
	state, err := eventlog.StateOf[*escalationv1.Escalation](e)
	if err != nil {
		return eventlog.Poison(err)
	}
	if due := rules.Deadline(state); !due.IsZero() {
		return s.timers.Arm(ctx, e.Key, due, e.Sequence)
	}
	return nil
}

func (s *Service) reminderFacts() *eventlog.Router {
	r := eventlog.NewRouter()
	eventlog.On(r, s.onRemindersExhausted)
	return r
}

func (s *Service) onRemindersExhausted(ctx context.Context, e eventlog.Event, f *reminderv1.RemindersExhausted) error {
	return s.begin(ctx, e, escalationv1.Trigger_TRIGGER_REMINDERS_EXHAUSTED, f.GetLinkId(), f.GetGeneration())
}

func (s *Service) deliveryFacts() *eventlog.Router {
	r := eventlog.NewRouter()
	eventlog.On(r, s.onDeliveryFailed)
	eventlog.On(r, s.onAttemptBounced)
	return r
}

func (s *Service) onDeliveryFailed(ctx context.Context, e eventlog.Event, f *deliveryv1.DeliveryFailed) error {
	return s.lost(ctx, e, f.GetKind(), f.GetLinkId(), f.GetGeneration())
}

func (s *Service) onAttemptBounced(ctx context.Context, e eventlog.Event, f *deliveryv1.AttemptBounced) error {
	return s.lost(ctx, e, f.GetKind(), f.GetLinkId(), f.GetGeneration())
}

// lost escalates when the message that carries the link was lost; without another message the signer knows of nothing.
func (s *Service) lost(ctx context.Context, e eventlog.Event, kind deliveryv1.Kind, linkID string, generation uint32) error {
	switch kind {
	case deliveryv1.Kind_KIND_LINK, deliveryv1.Kind_KIND_REISSUED, deliveryv1.Kind_KIND_ALTERNATE:
		return s.begin(ctx, e, escalationv1.Trigger_TRIGGER_DELIVERY_FAILED, linkID, generation)
	default:
		return nil
	}
}

func (s *Service) tokenFacts() *eventlog.Router {
	r := eventlog.NewRouter()
	eventlog.On(r, s.onLinkLapsed)
	eventlog.On(r, s.onLinkRedeemed)
	eventlog.On(r, s.onLinkReissued)
	eventlog.On(r, s.onLinkRerouted)
	ends[*tokenv1.LinkSigned](s, r)
	ends[*tokenv1.LinkDeclined](s, r)
	ends[*tokenv1.LinkRevoked](s, r)
	ends[*tokenv1.LinkClosed](s, r)
	return r
}

func (s *Service) onLinkLapsed(ctx context.Context, e eventlog.Event, f *tokenv1.LinkLapsed) error {
	return s.begin(ctx, e, escalationv1.Trigger_TRIGGER_LINK_LAPSED, e.Key.ID, f.GetGeneration())
}

// onLinkRedeemed takes back an alarm about a message that came through after all.
func (s *Service) onLinkRedeemed(ctx context.Context, e eventlog.Event, f *tokenv1.LinkRedeemed) error {
	return s.resolve(ctx, e, f.GetGeneration(), rules.Resolve{Reason: "LinkRedeemed", Only: escalationv1.Trigger_TRIGGER_DELIVERY_FAILED})
}

func (s *Service) onLinkReissued(ctx context.Context, e eventlog.Event, f *tokenv1.LinkReissued) error {
	return s.resolve(ctx, e, f.GetFromGeneration(), rules.Resolve{Reason: "LinkReissued"})
}

func (s *Service) onLinkRerouted(ctx context.Context, e eventlog.Event, f *tokenv1.LinkRerouted) error {
	return s.resolve(ctx, e, f.GetGeneration()-1, rules.Resolve{Reason: "LinkRerouted"})
}

// ends has a fact of a link resolve the escalation of its generation.
func ends[M proto.Message](s *Service, r *eventlog.Router) {
	eventlog.On(r, func(ctx context.Context, e eventlog.Event, f M) error {
		link, err := eventlog.StateOf[*tokenv1.Link](e)
		if err != nil {
			return eventlog.Poison(err)
		}
		return s.resolve(ctx, e, link.GetGeneration(), rules.Resolve{Reason: string(f.ProtoReflect().Descriptor().Name())})
	})
}

func (s *Service) resolve(ctx context.Context, e eventlog.Event, generation uint32, c rules.Resolve) error {
	_, err := s.escalations.Do(ctx, s.key(e.Key.Tenant, e.Key.ID, generation), c, e.By(Name, "resolve"))
	return err
}

// begin asks who holds the link and who else there is, and begins an escalation if there is something to escalate.
func (s *Service) begin(ctx context.Context, e eventlog.Event, trigger escalationv1.Trigger, linkID string, generation uint32) error {
	link, err := s.link(ctx, e.Key.Tenant, linkID)
	if err != nil || link == nil {
		return err
	}
	resp, err := s.directory.GetRequest(ctx, &tokenv1.GetRequestRequest{Tenant: e.Key.Tenant, RequestId: link.GetRequestId()})
	if err != nil {
		return err
	}
	k := s.key(e.Key.Tenant, linkID, generation)
	_, err = s.escalations.Do(ctx, k, rules.Begin{
		ID: k.ID, Trigger: trigger, Generation: generation, Policy: s.policy(k.Tenant, link.GetProfile(), trigger),
		Link: link, Seat: seatOf(resp.GetRequest(), linkID), Traceparent: e.Header.Get("traceparent"),
	}, e.By(Name, "begin"))
	return err
}

// link asks for a link as the record has it; nil when there is none.
func (s *Service) link(ctx context.Context, tenant, linkID string) (*tokenv1.Link, error) {
	resp, err := s.links.GetLink(ctx, &tokenv1.GetLinkRequest{Tenant: tenant, LinkId: linkID})
	if f := failure.From(err); f != nil && errors.Is(f, failure.LinkUnknown) {
		return nil, nil //nolint:nilnil // there is no such link
	}
	return resp.GetLink(), err
}

func seatOf(r *tokenv1.Request, linkID string) *tokenv1.Seat {
	for _, seat := range r.GetSeats() {
		if seat.GetLinkId() == linkID {
			return seat
		}
	}
	return nil
}
