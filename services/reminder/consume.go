package reminder

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/reminder/rules"
)

// ownFacts arms timers.
func (s *Service) ownFacts() *eventlog.Router {
	r := eventlog.NewRouter()
	r.OnEvery(s.onOwn)
	return r
}

// onOwn sets the timer of a plan from each of its facts: so a crash between fact and timer arms it again.
func (s *Service) onOwn(ctx context.Context, e eventlog.Event, _ proto.Message) error {
	plan, err := eventlog.StateOf[*reminderv1.Plan](e)
	if err != nil {
		return eventlog.Poison(err)
	}
	if due := rules.Deadline(plan); !due.IsZero() {
		return s.timers.Arm(ctx, e.Key, due, e.Sequence)
	}
	return nil
}

func (s *Service) deliveryFacts() *eventlog.Router {
	r := eventlog.NewRouter()
	eventlog.On(r, s.onAttemptAccepted)
	return r
}

// onAttemptAccepted begins the plan of the link that a message carried.
func (s *Service) onAttemptAccepted(ctx context.Context, e eventlog.Event, f *deliveryv1.AttemptAccepted) error {
	switch f.GetKind() {
	case deliveryv1.Kind_KIND_LINK, deliveryv1.Kind_KIND_REISSUED, deliveryv1.Kind_KIND_ALTERNATE:
	default:
		return nil
	}
	link, err := s.liveLink(ctx, e.Key.Tenant, f.GetLinkId())
	if err != nil || link.GetGeneration() != f.GetGeneration() {
		return err
	}
	k := s.key(e.Key.Tenant, link.GetId(), link.GetGeneration())
	of, policy, err := s.subject(ctx, e, k, link)
	if err != nil {
		return err
	}
	_, err = s.plans.Do(ctx, k, rules.Begin{Of: of, Policy: policy, At: e.Record.GetAt().AsTime()}, e.By(Name, "begin"))
	return err
}

func (s *Service) tokenFacts() *eventlog.Router {
	r := eventlog.NewRouter()
	eventlog.On(r, s.onLinkRedeemed)
	eventlog.On(r, s.onLinkResumed)
	eventlog.On(r, s.onLinkReissued)
	eventlog.On(r, s.onLinkRerouted)
	ends[*tokenv1.LinkSigned](s, r)
	ends[*tokenv1.LinkDeclined](s, r)
	ends[*tokenv1.LinkRevoked](s, r)
	ends[*tokenv1.LinkClosed](s, r)
	ends[*tokenv1.LinkLapsed](s, r)
	return r
}

// onLinkRedeemed begins the plan of somebody who has begun.
func (s *Service) onLinkRedeemed(ctx context.Context, e eventlog.Event, f *tokenv1.LinkRedeemed) error {
	return s.act(ctx, e, e.Key.ID, f.GetSession().GetId())
}

// onLinkResumed is an act like any other.
func (s *Service) onLinkResumed(ctx context.Context, e eventlog.Event, f *tokenv1.LinkResumed) error {
	return s.act(ctx, e, e.Key.ID, f.GetSession().GetId())
}

// onLinkReissued ends the former generation's plan. What a reminder rotated goes on with it, and who got a new link in
// place is at work already.
func (s *Service) onLinkReissued(ctx context.Context, e eventlog.Event, f *tokenv1.LinkReissued) error {
	if f.GetReason() == tokenv1.ReissueReason_REISSUE_REASON_REMINDER {
		if err := s.carry(ctx, e, f); err != nil {
			return err
		}
	}
	if err := s.stop(ctx, e, f.GetFromGeneration(), "LinkReissued"); err != nil || f.GetSession() == nil {
		return err
	}
	return s.act(ctx, e, e.Key.ID, f.GetSession().GetId())
}

// carry hands the plan on before it is stopped, so that a crash in between hands it on again.
func (s *Service) carry(ctx context.Context, e eventlog.Event, f *tokenv1.LinkReissued) error {
	from, _, err := s.plans.Load(ctx, s.key(e.Key.Tenant, e.Key.ID, f.GetFromGeneration()))
	if err != nil {
		return err
	}
	k := s.key(e.Key.Tenant, e.Key.ID, f.GetGeneration())
	_, err = s.plans.Do(ctx, k, rules.Carry{From: from, Of: rules.Subject{
		PlanID: k.ID, Generation: f.GetGeneration(), HolderID: from.GetHolderId(), Traceparent: e.Header.Get("traceparent"),
	}}, e.By(Name, "carry"))
	return err
}

// onLinkRerouted ends the plan of who held the link; the alternate's begins with their own message.
func (s *Service) onLinkRerouted(ctx context.Context, e eventlog.Event, f *tokenv1.LinkRerouted) error {
	return s.stop(ctx, e, f.GetGeneration()-1, "LinkRerouted")
}

// ends has a fact of a link stop the plan of its generation.
func ends[M proto.Message](s *Service, r *eventlog.Router) {
	eventlog.On(r, func(ctx context.Context, e eventlog.Event, f M) error {
		link, err := eventlog.StateOf[*tokenv1.Link](e)
		if err != nil {
			return eventlog.Poison(err)
		}
		return s.stop(ctx, e, link.GetGeneration(), string(f.ProtoReflect().Descriptor().Name()))
	})
}

func (s *Service) stop(ctx context.Context, e eventlog.Event, generation uint32, reason string) error {
	_, err := s.plans.Do(ctx, s.key(e.Key.Tenant, e.Key.ID, generation), rules.Stop{Reason: reason}, e.By(Name, "stop"))
	return err
}

func (s *Service) ceremonyFacts() *eventlog.Router {
	r := eventlog.NewRouter()
	eventlog.On(r, s.onDocumentShown)
	eventlog.On(r, s.onConsentGiven)
	return r
}

func (s *Service) onDocumentShown(ctx context.Context, e eventlog.Event, f *ceremonyv1.DocumentShown) error {
	return s.act(ctx, e, f.GetLinkId(), f.GetSessionId())
}

func (s *Service) onConsentGiven(ctx context.Context, e eventlog.Event, f *ceremonyv1.ConsentGiven) error {
	return s.act(ctx, e, f.GetLinkId(), f.GetSessionId())
}

// act starts the plan of a half-way signer from the moment of the event. What a session did that is no longer the link's is passed over.
func (s *Service) act(ctx context.Context, e eventlog.Event, linkID, sessionID string) error {
	link, err := s.liveLink(ctx, e.Key.Tenant, linkID)
	if err != nil || link == nil || link.GetSession().GetId() != sessionID {
		return err
	}
	k := s.key(e.Key.Tenant, linkID, link.GetGeneration())
	of, policy, err := s.subject(ctx, e, k, link)
	if err != nil {
		return err
	}
	_, err = s.plans.Do(ctx, k, rules.Act{Of: of, Policy: policy, At: e.Record.GetAt().AsTime()}, e.By(Name, "act"))
	return err
}

// liveLink asks for a link as the record has it; nil when nobody can sign by it any more.
func (s *Service) liveLink(ctx context.Context, tenant, linkID string) (*tokenv1.Link, error) {
	resp, err := s.links.GetLink(ctx, &tokenv1.GetLinkRequest{Tenant: tenant, LinkId: linkID})
	if is(err, failure.LinkUnknown) {
		return nil, nil //nolint:nilnil // there is no such link: nobody can sign by it
	}
	if err != nil {
		return nil, err
	}
	switch resp.GetLink().GetStatus() {
	case tokenv1.LinkStatus_LINK_STATUS_OPEN, tokenv1.LinkStatus_LINK_STATUS_REDEEMED:
		return resp.GetLink(), nil
	default:
		return nil, nil //nolint:nilnil // as above
	}
}

// subject says whose plan it is, and by which policy. The signer's zone is asked for once, when the plan is made.
func (s *Service) subject(ctx context.Context, e eventlog.Event, k eventlog.Key, link *tokenv1.Link) (rules.Subject, rules.Policy, error) {
	policy, zone := s.policy(k.Tenant, link.GetProfile())
	of := rules.Subject{
		PlanID: k.ID, Tenant: k.Tenant, RequestID: link.GetRequestId(), LinkID: link.GetId(), HolderID: link.GetHolderId(),
		Generation: link.GetGeneration(), Position: link.GetPosition(), Traceparent: e.Header.Get("traceparent"),
	}
	plan, _, err := s.plans.Load(ctx, k)
	if err != nil {
		return of, policy, err
	}
	if of.TimeZone = plan.GetTimeZone(); of.TimeZone != "" {
		return of, policy, nil
	}
	of.TimeZone, err = s.zoneOf(ctx, link, zone)
	return of, policy, err
}

// is tells whether a peer's answer is this refusal.
func is(err error, refusal *failure.Error) bool {
	f := failure.From(err)
	return f != nil && errors.Is(f, refusal)
}
