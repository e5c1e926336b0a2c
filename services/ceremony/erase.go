package ceremony

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"countersign.dev/pkg/eventlog"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// onErased deletes the documents of a request that was erased. Nothing can read them since: their key is destroyed. It gives back the
// room, for what the record names by now; a revision that it does not name yet, or never will, stays as noise.
func (s *Service) onErased(ctx context.Context, e eventlog.Event, f *tokenv1.RequestErased) error {
	if f.GetLinkId() != "" {
		return nil // of one signer: the documents are everybody's
	}
	r, err := eventlog.StateOf[*tokenv1.Request](e)
	if err != nil {
		return eventlog.Poison(err)
	}
	names, err := s.revisions(ctx, s.ceremonyKey(r.GetTenant(), r.GetId()))
	if err != nil {
		return err
	}
	for _, d := range r.GetDocuments() {
		names = append(names, d.GetId(), hex.EncodeToString(d.GetPresentedSha256()))
	}
	for _, name := range names {
		if err := s.documents.remove(ctx, r.GetTenant(), r.GetId(), name); err != nil {
			return err
		}
	}
	return nil
}

// revisions names what signatures made of a ceremony's documents.
func (s *Service) revisions(ctx context.Context, k eventlog.Key) ([]string, error) {
	var names []string
	signatures := eventlog.NewRouter()
	eventlog.On(signatures, func(_ context.Context, _ eventlog.Event, f *ceremonyv1.CeremonySigned) error {
		names = append(names, hex.EncodeToString(f.GetAfterSha256()))
		return nil
	})
	for from := uint64(1); ; {
		e, err := s.log.LeaderNext(ctx, eventlog.FactSubject(Name, k), from)
		if errors.Is(err, eventlog.ErrNotFound) {
			return names, nil
		}
		if err != nil {
			return nil, fmt.Errorf("ceremony: read the revisions of a document: %w", err)
		}
		if err := signatures.Handle(ctx, eventlog.Message{Stream: s.log.Name(), Sequence: e.Sequence, Subject: e.Subject, Header: e.Header, Data: e.Data}); err != nil {
			return nil, err
		}
		from = e.Sequence + 1
	}
}
