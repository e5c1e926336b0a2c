package token

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"countersign.dev/pkg/crash"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/telemetry"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// forgotAtOnce is how many owners are erased at the same time: each is some trips to the record.
const forgotAtOnce = 8

// erase destroys what is personal about a request, or about one signer. The fact comes first: should this die right after, whoever hears
// it does the rest.
func (s *Service) erase(ctx context.Context, tenant string, req *signingv1.EraseRequest, by eventlog.By) (*signingv1.EraseResponse, error) {
	ctx = telemetry.WithRequest(ctx, req.GetId(), tenant)
	c := call{signingv1.SigningRequestService_Erase_FullMethodName, req.GetIdempotencyKey(), req}
	return once(ctx, s, tenant, c, by, func(ctx context.Context, by eventlog.By) (*signingv1.EraseResponse, error) {
		by.RequestID = req.GetId()
		r, err := s.find(ctx, tenant, req.GetId())
		if err != nil {
			return nil, err
		}
		command := rules.Erase{Basis: req.GetBasis()}
		if req.GetSigner() != "" {
			seat, err := findSeat(r, req.GetSigner())
			if err != nil {
				return nil, err
			}
			command.LinkID = seat.GetLinkId()
		}
		res, err := s.requests.Do(ctx, key(tenant, r.GetId()), command, by)
		if err != nil {
			return nil, err
		}
		crash.Point("erase.stated")
		if err := s.forget(ctx, res.State, command.LinkID); err != nil {
			return nil, err
		}
		view, err := s.view(ctx, res.State)
		return &signingv1.EraseResponse{Request: view}, err
	})
}

// onErased has the vault forget, should whoever asked have died before it did.
func (s *Service) onErased(ctx context.Context, e eventlog.Event, f *tokenv1.RequestErased) error {
	r, err := eventlog.StateOf[*tokenv1.Request](e)
	if err != nil {
		return eventlog.Poison(err)
	}
	return s.forget(ctx, r, f.GetLinkId())
}

// forget has the vault destroy what it has of a request and of everybody in it, or of the holders of one link. To do it again finishes it.
func (s *Service) forget(ctx context.Context, r *tokenv1.Request, linkID string) error {
	owners := []string{linkID}
	if linkID == "" {
		owners = []string{r.GetId()}
		// Every position there may be, not those that there are: people are kept before it is decided which of several tries is the request.
		for position := range uint32(signersLimit) {
			owners = append(owners, s.linkID(r.GetId(), position+1))
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(forgotAtOnce)
	for _, owner := range owners {
		g.Go(func() error { return s.vault.Erase(ctx, r.GetTenant(), owner) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("token: erase: %w", err)
	}
	return nil
}
