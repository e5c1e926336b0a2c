package token

import (
	"context"
	"encoding/hex"
	"strconv"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// find loads a request of a tenant. One of another tenant is as unknown as one that never was, by the same single read.
func (s *Service) find(ctx context.Context, tenant, id string) (*tokenv1.Request, error) {
	r, _, err := s.requests.Load(ctx, key(tenant, id))
	if err != nil {
		return nil, err
	}
	if r.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_UNSPECIFIED {
		return nil, failure.RequestUnknown
	}
	return r, nil
}

// findSeat returns the seat that a platform names by id or by position.
func findSeat(r *tokenv1.Request, signer string) (*tokenv1.Seat, error) {
	position, _ := strconv.ParseUint(signer, 10, 32)
	for _, seat := range r.GetSeats() {
		if seat.GetLinkId() == signer || uint64(seat.GetPosition()) == position {
			return seat, nil
		}
	}
	return nil, failure.SignerUnknown
}

// view shows a request to its platform, with what the vault still has.
func (s *Service) view(ctx context.Context, r *tokenv1.Request) (*signingv1.RequestView, error) {
	words, err := s.words(ctx, r)
	if err = ignore[*failure.Error](err); err != nil {
		return nil, err
	}
	v := &signingv1.RequestView{
		Id: r.GetId(), Reference: words.GetReference(), Title: words.GetTitle(), Status: r.GetStatus(), Profile: r.GetProfile().GetName(),
		Integration: r.GetIntegration(), Template: r.GetTemplate(), AcceptedAt: r.GetAcceptedAt(), ClosedAt: r.GetClosedAt(), Metadata: words.GetMetadata(),
		Deadline: r.GetDeadline(), ErasedAt: r.GetErasedAt(),
	}
	signed := s.signedDigests(ctx, r)
	for i, d := range r.GetDocuments() {
		doc := &signingv1.DocumentView{PresentedSha256: hex.EncodeToString(d.GetPresentedSha256()), Pages: d.GetPages(), SignedSha256: signed[d.GetId()]}
		if i < len(words.GetDocumentNames()) {
			doc.Name = words.GetDocumentNames()[i]
		}
		v.Documents = append(v.Documents, doc)
	}
	for _, seat := range r.GetSeats() {
		signer, err := s.signerView(ctx, r, seat)
		if err != nil {
			return nil, err
		}
		v.Signers = append(v.Signers, signer)
	}
	return v, nil
}

// signedDigests asks ceremony for the newest revisions once something may have been signed. Without an answer they are left out.
func (s *Service) signedDigests(ctx context.Context, r *tokenv1.Request) map[string]string {
	out := map[string]string{}
	begun := false
	for _, seat := range r.GetSeats() {
		begun = begun || seat.GetStatus() == tokenv1.SeatStatus_SEAT_STATUS_SIGNED
	}
	if !begun {
		return out
	}
	answer, err := s.ceremony.GetCeremony(ctx, &ceremonyv1.GetCeremonyRequest{Tenant: r.GetTenant(), RequestId: r.GetId()})
	if err != nil {
		return out
	}
	for _, d := range answer.GetCeremony().GetDocuments() {
		if d.GetSignatures() > 0 {
			out[d.GetId()] = hex.EncodeToString(d.GetCurrentSha256())
		}
	}
	return out
}

// signerView shows a signer position as it stands.
func (s *Service) signerView(ctx context.Context, r *tokenv1.Request, seat *tokenv1.Seat) (*signingv1.SignerView, error) {
	link, _, err := s.links.Read(ctx, key(r.GetTenant(), seat.GetLinkId()))
	if err != nil {
		return nil, err
	}
	v := &signingv1.SignerView{
		Id: seat.GetLinkId(), Position: seat.GetPosition(), Group: seat.GetGroup(), Generation: link.GetGeneration(),
		ExpiresAt: link.GetExpiresAt(), Alternate: link.GetReroutedGeneration() > 0, Status: signerStatus(seat, link),
		ErasedAt: seat.GetErasedAt(),
	}
	holder := link.GetHolderId()
	if holder == "" {
		holder = seat.GetPersonId()
	}
	v.Holder, v.Generations = holder, lineage(link)
	if err := s.explain(ctx, link, v.GetGenerations()); err != nil {
		return nil, err
	}
	return v, s.named(ctx, r.GetTenant(), v)
}

// lineage shows the newest generations of a link.
func lineage(link *tokenv1.Link) []*signingv1.LinkGeneration {
	var all []*signingv1.LinkGeneration
	for _, g := range link.GetLineage() {
		v := &signingv1.LinkGeneration{
			Number: g.GetNumber(), Origin: signingv1.LinkOrigin(g.GetOrigin()), MadeAt: g.GetAt(), ExpiresAt: g.GetExpiresAt(),
			OpenedAt: g.GetOpenedAt(), End: signingv1.LinkEnd(g.GetEnd()), EndedAt: g.GetEndedAt(),
		}
		if v.GetExpiresAt() == nil {
			v.ExpiresAt = link.GetExpiresAt()
		}
		all = append(all, v)
	}
	return all
}

// explain adds what the platform said about generations of a link, as far as the vault still has it.
func (s *Service) explain(ctx context.Context, link *tokenv1.Link, generations []*signingv1.LinkGeneration) error {
	for _, g := range link.GetLineage() {
		for _, shown := range generations {
			if shown.GetNumber() != g.GetNumber() {
				continue
			}
			for to, id := range map[*string]string{&shown.Reason: g.GetReasonId(), &shown.EndReason: g.GetEndReasonId()} {
				if id == "" {
					continue
				}
				kept := &tokenv1.PrivateNote{}
				if err := ignore[*failure.Error](unknown(s.load(ctx, of(link.GetTenant(), link.GetId(), id), kept), failure.PersonErased)); err != nil {
					return err
				}
				*to = kept.GetText()
			}
		}
	}
	return nil
}

func signerStatus(seat *tokenv1.Seat, link *tokenv1.Link) signingv1.SignerStatus {
	switch link.GetStatus() {
	case tokenv1.LinkStatus_LINK_STATUS_SIGNED:
		return signingv1.SignerStatus_SIGNER_STATUS_SIGNED
	case tokenv1.LinkStatus_LINK_STATUS_DECLINED:
		return signingv1.SignerStatus_SIGNER_STATUS_DECLINED
	case tokenv1.LinkStatus_LINK_STATUS_REVOKED, tokenv1.LinkStatus_LINK_STATUS_CLOSED:
		return signingv1.SignerStatus_SIGNER_STATUS_WITHDRAWN
	case tokenv1.LinkStatus_LINK_STATUS_REDEEMED:
		return signingv1.SignerStatus_SIGNER_STATUS_OPENED
	case tokenv1.LinkStatus_LINK_STATUS_OPEN:
		if link.GetClockStarted() {
			return signingv1.SignerStatus_SIGNER_STATUS_NOTIFIED
		}
	default: // not issued yet: the request knows more
	}
	if seat.GetStatus() == tokenv1.SeatStatus_SEAT_STATUS_SIGNED {
		return signingv1.SignerStatus_SIGNER_STATUS_SIGNED
	}
	return signingv1.SignerStatus_SIGNER_STATUS_WAITING
}

// cancel withdraws a request. It is refused with LINK_BUSY while a signature is being made (decisions 8).
func (s *Service) cancel(ctx context.Context, tenant, id, reason string, by eventlog.By) (*signingv1.RequestView, error) {
	by.RequestID = id
	// Every try begins anew: one that was told to wait comes back after its window is over.
	begin := by
	begin.CommandID = ""
	res, err := s.requests.Do(ctx, key(tenant, id), rules.BeginCancel{}, begin)
	if err != nil {
		return nil, err
	}
	if res.State.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_CANCELLED {
		return s.view(ctx, res.State)
	}
	if err := s.mayEnd(ctx, res.State); err != nil {
		return nil, err
	}
	command := rules.Cancel{}
	if command.ReasonID, err = s.reason(ctx, res.State, "cancel", reason, id); err != nil {
		return nil, err
	}
	if res, err = s.requests.Do(ctx, key(tenant, id), command, by); err != nil {
		return nil, err
	}
	return s.view(ctx, res.State)
}

// mayEnd refuses to end a request while a signature is being made on one of its links, or was made and is not heard of yet.
func (s *Service) mayEnd(ctx context.Context, r *tokenv1.Request) error {
	now := s.h.Clock.Now(r.GetTenant())
	for _, seat := range r.GetSeats() {
		link, _, err := s.links.Load(ctx, key(r.GetTenant(), seat.GetLinkId()))
		if err != nil {
			return err
		}
		if err := rules.MayCancel(seat, link, now); err != nil {
			return err
		}
		if err := s.settled(ctx, link); err != nil {
			return err
		}
	}
	return nil
}
