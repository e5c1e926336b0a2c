package token

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/telemetry"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// hears returns the handlers of the facts of one service.
func (s *Service) hears(service string) *eventlog.Router {
	r := eventlog.NewRouter()
	switch service {
	case Name:
		eventlog.On(r, s.onAccepted)
		eventlog.On(r, s.onProgressed)
		eventlog.On(r, s.onCompleted)
		eventlog.On(r, s.onDeclined)
		eventlog.On(r, s.onCancelled)
		eventlog.On(r, s.onExpired)
		eventlog.On(r, s.onAmended)
		eventlog.On(r, s.onErased)
		eventlog.On(r, s.onReissued)
		eventlog.On(r, s.onLapsed)
		eventlog.On(r, s.onAttention)
		eventlog.On(r, s.onProfileSet)
		r.OnEvery(s.onLinkFact)
	case "delivery":
		eventlog.On(r, s.onAttemptAccepted)
	case "ceremony":
		eventlog.On(r, s.onSigned)
		eventlog.On(r, s.onSignerDeclined)
	case "reminder":
		eventlog.On(r, s.onReminder)
	case "escalation":
		eventlog.On(r, s.onRouted)
		eventlog.On(r, s.onStuck)
		eventlog.On(r, s.onTell)
	}
	return r
}

// onAccepted issues the links of the first group.
func (s *Service) onAccepted(ctx context.Context, e eventlog.Event, f *tokenv1.RequestAccepted) error {
	r := f.GetRequest()
	if due := rules.RequestDeadline(r); !due.IsZero() {
		if err := s.timers.Arm(ctx, e.Key, due, e.Sequence); err != nil {
			return err
		}
	}
	if err := s.issueGroup(ctx, e, r.GetGroup()); err != nil {
		return err
	}
	return s.outcome(ctx, e, "accepted", signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS, 0)
}

// onProgressed issues the links of the group whose turn has come (spec 2.6).
func (s *Service) onProgressed(ctx context.Context, e eventlog.Event, f *tokenv1.RequestProgressed) error {
	if f.GetOpenedGroup() != 0 {
		if err := s.issueGroup(ctx, e, f.GetOpenedGroup()); err != nil {
			return err
		}
	}
	return s.outcome(ctx, e, "progress", signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS, f.GetPosition())
}

// issueGroup issues links, unless the request has ended meanwhile. A deadline that is moved meanwhile is told to the links that are
// there when it is; so it is looked at once more after they are.
func (s *Service) issueGroup(ctx context.Context, e eventlog.Event, group uint32) error {
	r, _, err := s.requests.Load(ctx, e.Key)
	if err != nil {
		return err
	}
	if r.GetStatus() != signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS {
		return nil
	}
	ctx = telemetry.WithRequest(ctx, r.GetId(), r.GetTenant())
	held, err := s.settingsOf(ctx, r.GetTenant())
	if err != nil {
		return err
	}
	profile := held.newest(r.GetProfile())
	for _, seat := range r.GetSeats() {
		if seat.GetGroup() != group {
			continue
		}
		issue := rules.Issue{
			LinkID: seat.GetLinkId(), Tenant: r.GetTenant(), RequestID: r.GetId(), HolderID: seat.GetPersonId(),
			Position: seat.GetPosition(), Profile: profile, Traceparent: telemetry.Traceparent(ctx),
			Deadline: r.GetDeadline(), DeadlineNumber: r.GetAmendments(),
		}
		if _, err := s.links.Do(ctx, key(r.GetTenant(), seat.GetLinkId()), issue, e.By(Name, "issue")); err != nil {
			return err
		}
	}
	if err := s.catchUp(ctx, e, r, group); err != nil {
		return err
	}
	after, _, err := s.requests.Load(ctx, e.Key)
	if err != nil || after.GetAmendments() == r.GetAmendments() {
		return err
	}
	return s.moveDeadlines(ctx, after, e.By(Name, "deadline"))
}

// catchUp gives links that were just issued a version that was set meanwhile and reaches what was sent: whoever looked for such links
// may have been here before they were there.
func (s *Service) catchUp(ctx context.Context, e eventlog.Event, r *tokenv1.Request, group uint32) error {
	own, _, err := s.profiles.Load(ctx, key(r.GetTenant(), profilesID))
	if err != nil {
		return err
	}
	entry := rules.OwnProfile(own, r.GetProfile().GetName())
	if entry.GetRetired() || entry.GetReach() <= tokenv1.ProfileReach_PROFILE_REACH_NEW_LINKS {
		return nil
	}
	for _, seat := range r.GetSeats() {
		if seat.GetGroup() != group {
			continue
		}
		c := rules.Reprofile{Profile: entry.GetProfile(), Reach: entry.GetReach()}
		if _, err := s.links.Do(ctx, key(r.GetTenant(), seat.GetLinkId()), c, e.By(Name, "reprofile")); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) onCompleted(ctx context.Context, e eventlog.Event, f *tokenv1.RequestCompleted) error {
	return s.outcome(ctx, e, "completed", signingv1.RequestStatus_REQUEST_STATUS_COMPLETED, f.GetPosition())
}

func (s *Service) onDeclined(ctx context.Context, e eventlog.Event, f *tokenv1.RequestDeclined) error {
	if err := s.closeLinks(ctx, e, tokenv1.EndReason_END_REASON_DECLINED_BY_ANOTHER); err != nil {
		return err
	}
	return s.outcome(ctx, e, "declined", signingv1.RequestStatus_REQUEST_STATUS_DECLINED, f.GetPosition())
}

func (s *Service) onCancelled(ctx context.Context, e eventlog.Event, _ *tokenv1.RequestCancelled) error {
	if err := s.closeLinks(ctx, e, tokenv1.EndReason_END_REASON_CANCELLED); err != nil {
		return err
	}
	return s.outcome(ctx, e, "cancelled", signingv1.RequestStatus_REQUEST_STATUS_CANCELLED, 0)
}

func (s *Service) onExpired(ctx context.Context, e eventlog.Event, _ *tokenv1.RequestExpired) error {
	if err := s.closeLinks(ctx, e, tokenv1.EndReason_END_REASON_DEADLINE); err != nil {
		return err
	}
	return s.outcome(ctx, e, "expired", signingv1.RequestStatus_REQUEST_STATUS_EXPIRED, 0)
}

// onLapsed asks the sender about a link that was replaced as often as it may be, and nobody opened it.
func (s *Service) onLapsed(ctx context.Context, e eventlog.Event, f *tokenv1.LinkLapsed) error {
	if !f.GetExhausted() {
		return nil
	}
	return s.attention(ctx, e)
}

// onAttention asks the sender about a signer who may have no more links (spec 2.5).
func (s *Service) onAttention(ctx context.Context, e eventlog.Event, _ *tokenv1.LinkAttention) error {
	return s.attention(ctx, e)
}

func (s *Service) attention(ctx context.Context, e eventlog.Event) error {
	link, err := eventlog.StateOf[*tokenv1.Link](e)
	if err != nil {
		return eventlog.Poison(err)
	}
	return s.outcome(ctx, e, "attention", signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS, link.GetPosition())
}

// closeLinks ends the links of a request that ended without them, at once (spec 2.8). One that is held comes back later, and keeps
// none of the others.
func (s *Service) closeLinks(ctx context.Context, e eventlog.Event, reason tokenv1.EndReason) error {
	r, err := eventlog.StateOf[*tokenv1.Request](e)
	if err != nil {
		return eventlog.Poison(err)
	}
	var failed error
	for _, seat := range r.GetSeats() {
		if seat.GetStatus() == tokenv1.SeatStatus_SEAT_STATUS_SIGNED || seat.GetStatus() == tokenv1.SeatStatus_SEAT_STATUS_DECLINED {
			continue
		}
		if _, err := s.turn(ctx, key(r.GetTenant(), seat.GetLinkId()), rules.Close{Reason: reason}, e.By(Name, "close")); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// onLinkFact keeps the link's timer in step with its newest deadline.
func (s *Service) onLinkFact(ctx context.Context, e eventlog.Event, fact proto.Message) error {
	switch fact.(type) {
	case *tokenv1.LinkClockStarted, *tokenv1.LinkRedeemed, *tokenv1.LinkResumed, *tokenv1.LinkReissued, *tokenv1.LinkRerouted,
		*tokenv1.LinkDeadlineMoved, *tokenv1.LinkReprofiled:
		return s.arm(ctx, e)
	}
	return nil
}

// onAttemptAccepted starts a link's clock: its message is out (spec 2.6).
func (s *Service) onAttemptAccepted(ctx context.Context, e eventlog.Event, f *deliveryv1.AttemptAccepted) error {
	switch f.GetKind() {
	case deliveryv1.Kind_KIND_LINK, deliveryv1.Kind_KIND_REISSUED, deliveryv1.Kind_KIND_ALTERNATE:
		_, err := s.links.Do(ctx, key(e.Key.Tenant, f.GetLinkId()), rules.StartClock{Generation: f.GetGeneration()}, e.By(Name, "clock"))
		return err
	default:
		return nil
	}
}

// onSigned moves link and request on. Told twice, it changes nothing.
func (s *Service) onSigned(ctx context.Context, e eventlog.Event, f *ceremonyv1.CeremonySigned) error {
	if _, err := s.links.Do(ctx, key(e.Key.Tenant, f.GetLinkId()), rules.MarkSigned{}, e.By(Name, "signed")); err != nil {
		return err
	}
	_, err := s.requests.Do(ctx, key(e.Key.Tenant, e.Record.GetRequestId()), rules.SeatSigned{LinkID: f.GetLinkId()}, e.By(Name, "signed"))
	return err
}

func (s *Service) onSignerDeclined(ctx context.Context, e eventlog.Event, f *ceremonyv1.CeremonyDeclined) error {
	if _, err := s.links.Do(ctx, key(e.Key.Tenant, f.GetLinkId()), rules.MarkDeclined{ReasonID: f.GetReasonId()}, e.By(Name, "declined")); err != nil {
		return err
	}
	decline := rules.SeatDeclined{LinkID: f.GetLinkId(), ReasonID: f.GetReasonId()}
	_, err := s.requests.Do(ctx, key(e.Key.Tenant, e.Record.GetRequestId()), decline, e.By(Name, "declined"))
	return err
}

// onReminder rotates a link that would expire soon after the reminder (spec 6.4): the message of the new one reminds.
func (s *Service) onReminder(ctx context.Context, e eventlog.Event, f *reminderv1.ReminderDue) error {
	if !f.GetRotate() {
		return nil
	}
	reissue := rules.Reissue{Reason: tokenv1.ReissueReason_REISSUE_REASON_REMINDER, Generation: f.GetGeneration()}
	_, err := s.turn(ctx, key(e.Key.Tenant, f.GetLinkId()), reissue, e.By(Name, "rotate"))
	if refusal := failure.From(err); refusal != nil && !refusal.Retryable {
		return nil // the signer was faster
	}
	return err
}

// onRouted gives the position to the alternate that escalation named, if the request lists them (spec 7.2).
func (s *Service) onRouted(ctx context.Context, e eventlog.Event, f *escalationv1.AlternateRouted) error {
	r, _, err := s.requests.Load(ctx, key(e.Key.Tenant, e.Record.GetRequestId()))
	if err != nil {
		return err
	}
	seat := rules.SeatOf(r, f.GetLinkId())
	listed := false
	for _, id := range seat.GetAlternateIds() {
		listed = listed || id == f.GetAlternateId()
	}
	if !listed || r.GetStatus() != signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS {
		s.h.Logger.WarnContext(ctx, "escalation named somebody who is no listed alternate of an open request", "request", r.GetId(), "link", f.GetLinkId())
		return nil
	}
	reroute := rules.Reroute{HolderID: f.GetAlternateId(), EscalationID: e.Key.ID, Generation: f.GetGeneration()}
	_, err = s.turn(ctx, key(e.Key.Tenant, f.GetLinkId()), reroute, e.By(Name, "reroute"))
	return err
}

// onStuck cancels a request that a policy gives up on.
func (s *Service) onStuck(ctx context.Context, e eventlog.Event, _ *escalationv1.RequestStuck) error {
	_, err := s.cancel(ctx, e.Key.Tenant, e.Record.GetRequestId(), "", e.By(Name, "cancel"))
	if refusal := failure.From(err); refusal != nil && !refusal.Retryable {
		return nil
	}
	return err
}

// onTell passes an escalation on to the platform.
func (s *Service) onTell(ctx context.Context, e eventlog.Event, f *escalationv1.PlatformTold) error {
	return s.outcome(ctx, e, "escalated", signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS, f.GetPosition())
}
