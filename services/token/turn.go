package token

import (
	"context"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// turn carries out a command that rotates, moves or ends a link. It is refused with LINK_BUSY while a signature is being made, and
// after it was made until that is heard of.
func (s *Service) turn(ctx context.Context, k eventlog.Key, c eventlog.Command[*tokenv1.Link], by eventlog.By) (eventlog.Result[*tokenv1.Link], error) {
	link, sequence, err := s.links.Load(ctx, k)
	if err != nil {
		return eventlog.Result[*tokenv1.Link]{}, err
	}
	if err := s.settled(ctx, link); err != nil {
		return eventlog.Result[*tokenv1.Link]{State: link, Sequence: sequence}, err
	}
	return s.links.Do(ctx, k, c, by)
}

// settled refuses while a signature may have been made of which this service has not heard: its own consumer may be minutes behind,
// longer than an admission lasts. Once the admission is over no signature is stated any more, so what ceremony answers then is final.
func (s *Service) settled(ctx context.Context, link *tokenv1.Link) error {
	if !rules.Unsettled(link) || s.h.Clock.Now(link.GetTenant()).Before(link.GetAdmission().GetUntil().AsTime()) {
		return nil // an admission that is not over refuses by itself
	}
	answer, err := s.ceremony.GetCeremony(ctx, &ceremonyv1.GetCeremonyRequest{Tenant: link.GetTenant(), RequestId: link.GetRequestId()})
	if err != nil {
		return err
	}
	for _, seat := range answer.GetCeremony().GetSeats() {
		if seat.GetLinkId() == link.GetId() && seat.GetStatus() == ceremonyv1.SeatStatus_SEAT_STATUS_SIGNED {
			return failure.LinkBusy
		}
	}
	return nil
}
