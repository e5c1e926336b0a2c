package delivery

import (
	"context"

	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/telemetry"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/delivery/rules"
)

// hears returns the handlers of the facts of one service.
func (s *Service) hears(service string) *eventlog.Router {
	r := eventlog.NewRouter()
	switch service {
	case Name:
		eventlog.On(r, s.onPlanned)
		eventlog.On(r, s.onDeferred)
	case "token":
		eventlog.On(r, s.onIssued)
		eventlog.On(r, s.onReissued)
		eventlog.On(r, s.onRerouted)
		eventlog.On(r, s.onCompleted)
		eventlog.On(r, s.onDeclined)
		eventlog.On(r, s.onCancelled)
	case "identity":
		eventlog.On(r, s.onChallenge)
	case "reminder":
		eventlog.On(r, s.onReminder)
	case "escalation":
		eventlog.On(r, s.onManager)
	}
	return r
}

// plan begins the delivery that follows from an event. Its id is derived from the cause, so that hearing it twice makes one.
func (s *Service) plan(ctx context.Context, e eventlog.Event, d *deliveryv1.Delivery) error {
	d.Id = eventlog.DeriveID(s.h.Keys, "dlv", e.CommandID(d.GetKind().String()), d.GetRecipientId())
	d.Tenant, d.RequestId, d.Channel = e.Key.Tenant, e.Record.GetRequestId(), deliveryv1.Channel_CHANNEL_EMAIL
	d.Traceparent = e.Header.Get("traceparent")
	ctx = telemetry.WithRequest(ctx, d.GetRequestId(), d.GetTenant())
	_, err := s.deliveries.Do(ctx, eventlog.Key{Tenant: d.GetTenant(), ID: d.GetId()}, rules.Plan{Delivery: d, Retry: s.config.retry()}, e.By(Name, "plan"))
	return err
}

// onPlanned makes the first attempt.
func (s *Service) onPlanned(ctx context.Context, e eventlog.Event, _ *deliveryv1.DeliveryPlanned) error {
	_, _, err := s.attempt(ctx, e.Key)
	return err
}

// onDeferred sets the timer of the next attempt: so a crash between fact and timer sets it again.
func (s *Service) onDeferred(ctx context.Context, e eventlog.Event, f *deliveryv1.AttemptDeferred) error {
	return s.timers.Arm(ctx, e.Key, f.GetNextAttemptAt().AsTime(), e.Sequence)
}

func (s *Service) onIssued(ctx context.Context, e eventlog.Event, f *tokenv1.LinkIssued) error {
	return s.plan(ctx, e, &deliveryv1.Delivery{Kind: deliveryv1.Kind_KIND_LINK, LinkId: f.GetLinkId(), Generation: 1, RecipientId: f.GetHolderId()})
}

// onReissued sends the new link to the address on record, also where the signer goes on at once in the browser: whoever holds the
// mailbox learns that the one before is dead (spec 2.5).
func (s *Service) onReissued(ctx context.Context, e eventlog.Event, f *tokenv1.LinkReissued) error {
	link, err := eventlog.StateOf[*tokenv1.Link](e)
	if err != nil {
		return eventlog.Poison(err)
	}
	if f.GetReason() == tokenv1.ReissueReason_REISSUE_REASON_ADDRESS_CHANGED {
		return s.readdressed(ctx, e, f)
	}
	return s.plan(ctx, e, &deliveryv1.Delivery{
		Kind: deliveryv1.Kind_KIND_REISSUED, LinkId: e.Key.ID, Generation: f.GetGeneration(), RecipientId: link.GetHolderId(),
	})
}

// readdressed sends the link to the new address, where nobody had one, and tells the old one (security.md 3.5).
func (s *Service) readdressed(ctx context.Context, e eventlog.Event, f *tokenv1.LinkReissued) error {
	err := s.plan(ctx, e, &deliveryv1.Delivery{
		Kind: deliveryv1.Kind_KIND_LINK, LinkId: e.Key.ID, Generation: f.GetGeneration(), RecipientId: f.GetHolderId(),
	})
	if err != nil {
		return err
	}
	return s.plan(ctx, e, &deliveryv1.Delivery{
		Kind: deliveryv1.Kind_KIND_ADDRESS_CHANGED, LinkId: e.Key.ID, Generation: f.GetGeneration(), RecipientId: f.GetFormerHolderId(),
	})
}

func (s *Service) onRerouted(ctx context.Context, e eventlog.Event, f *tokenv1.LinkRerouted) error {
	return s.plan(ctx, e, &deliveryv1.Delivery{
		Kind: deliveryv1.Kind_KIND_ALTERNATE, LinkId: e.Key.ID, Generation: f.GetGeneration(), RecipientId: f.GetHolderId(), SubjectId: f.GetFormerHolderId(),
	})
}

// onCompleted sends everybody who signed a copy.
func (s *Service) onCompleted(ctx context.Context, e eventlog.Event, _ *tokenv1.RequestCompleted) error {
	return s.tellSigners(ctx, e, &deliveryv1.Delivery{Kind: deliveryv1.Kind_KIND_COMPLETED}, func(*tokenv1.Seat) bool { return true })
}

// onDeclined tells the others who knew of the request.
func (s *Service) onDeclined(ctx context.Context, e eventlog.Event, f *tokenv1.RequestDeclined) error {
	decliner, err := s.links.GetLink(ctx, &tokenv1.GetLinkRequest{Tenant: e.Key.Tenant, LinkId: f.GetLinkId()})
	if err != nil {
		return err
	}
	d := &deliveryv1.Delivery{Kind: deliveryv1.Kind_KIND_DECLINED, SubjectId: decliner.GetLink().GetHolderId(), SubjectLinkId: f.GetLinkId()}
	return s.tellSigners(ctx, e, d, func(seat *tokenv1.Seat) bool {
		return seat.GetLinkId() != f.GetLinkId() && seat.GetStatus() != tokenv1.SeatStatus_SEAT_STATUS_WAITING
	})
}

func (s *Service) onCancelled(ctx context.Context, e eventlog.Event, f *tokenv1.RequestCancelled) error {
	d := &deliveryv1.Delivery{Kind: deliveryv1.Kind_KIND_CANCELLED, NoteId: f.GetReasonId()}
	return s.tellSigners(ctx, e, d, func(seat *tokenv1.Seat) bool {
		return seat.GetStatus() != tokenv1.SeatStatus_SEAT_STATUS_WAITING
	})
}

// tellSigners plans a message like model to whoever holds the seats that which chooses.
func (s *Service) tellSigners(ctx context.Context, e eventlog.Event, model *deliveryv1.Delivery, which func(*tokenv1.Seat) bool) error {
	r, err := eventlog.StateOf[*tokenv1.Request](e)
	if err != nil {
		return eventlog.Poison(err)
	}
	for _, seat := range r.GetSeats() {
		if !which(seat) {
			continue
		}
		link, err := s.links.GetLink(ctx, &tokenv1.GetLinkRequest{Tenant: r.GetTenant(), LinkId: seat.GetLinkId()})
		if err != nil {
			return err
		}
		holder := link.GetLink().GetHolderId()
		if holder == "" {
			continue // closed before it was ever issued: nobody was written to
		}
		d := proto.CloneOf(model)
		d.LinkId, d.Generation, d.RecipientId = seat.GetLinkId(), link.GetLink().GetGeneration(), holder
		if err := s.plan(ctx, e, d); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) onChallenge(ctx context.Context, e eventlog.Event, f *identityv1.ChallengeStarted) error {
	return s.plan(ctx, e, &deliveryv1.Delivery{
		Kind: deliveryv1.Kind_KIND_CODE, LinkId: f.GetLinkId(), RecipientId: f.GetChallenge().GetPersonId(), ChallengeId: f.GetChallenge().GetId(),
	})
}

func (s *Service) onReminder(ctx context.Context, e eventlog.Event, f *reminderv1.ReminderDue) error {
	if f.GetRotate() {
		return nil // the link is replaced, and the message of the new one reminds (spec 6.4)
	}
	kind := deliveryv1.Kind_KIND_REMINDER
	if f.GetPartial() {
		kind = deliveryv1.Kind_KIND_PARTIAL
	}
	return s.plan(ctx, e, &deliveryv1.Delivery{
		Kind: kind, LinkId: f.GetLinkId(), Generation: f.GetGeneration(), RecipientId: f.GetHolderId(), Ordinal: f.GetOrdinal(),
	})
}

func (s *Service) onManager(ctx context.Context, e eventlog.Event, f *escalationv1.ManagerNotified) error {
	return s.plan(ctx, e, &deliveryv1.Delivery{
		Kind: deliveryv1.Kind_KIND_MANAGER, LinkId: f.GetLinkId(), Generation: f.GetGeneration(), RecipientId: f.GetManagerId(), SubjectId: f.GetHolderId(),
	})
}
