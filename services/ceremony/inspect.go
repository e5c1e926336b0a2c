package ceremony

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	"countersign.dev/services/ceremony/pdf"
)

// ceremonyServer answers the other services.
type ceremonyServer struct {
	ceremonyv1.UnimplementedCeremonyServiceServer
	s *Service
}

// Inspect takes a document in: header first, then its bytes.
func (c ceremonyServer) Inspect(stream grpc.ClientStreamingServer[ceremonyv1.InspectRequest, ceremonyv1.InspectResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	header := first.GetHeader()
	if header == nil {
		return failure.RequestUnreadable.WithFields(failure.Field{Path: "header", Problem: "must come first"})
	}
	var content []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if content = append(content, m.GetChunk()...); len(content) > pdf.MaxBytes {
			return refused(pdf.Refuse(pdf.TooLarge))
		}
	}
	document, err := c.s.inspect(stream.Context(), header, content)
	if err != nil {
		return err
	}
	return stream.SendAndClose(&ceremonyv1.InspectResponse{Document: document})
}

// refused turns the answer to an unsafe document into a failure that names why.
func refused(r *pdf.Refusal) error {
	return failure.DocumentRefused.WithFields(failure.Field{Path: "content", Problem: string(r.Reason) + ": " + r.Text})
}

// inspect checks and prepares a document and keeps what signers will see, with what is known of it. What was done before is found again.
func (s *Service) inspect(ctx context.Context, h *ceremonyv1.InspectHeader, content []byte) (*ceremonyv1.Document, error) {
	if known, err := s.documents.describe(ctx, h.GetTenant(), h.GetRequestId(), h.GetDocumentId()); err == nil {
		return known, nil
	} else if !errors.Is(err, failure.DocumentNotReady) {
		return nil, err
	}
	report, err := s.sandbox.Inspect(ctx, content)
	var refusal *pdf.Refusal
	if errors.As(err, &refusal) {
		return nil, refused(refusal)
	}
	if err != nil {
		return nil, fmt.Errorf("ceremony: inspect: %w", err)
	}
	presented, boxes, err := s.sandbox.Prepare(ctx, report.PDF, pdf.PrepareOptions{
		Reference: h.GetRequestId(), Title: h.GetTitle(), Seats: int(h.GetSeats()), Language: h.GetLocale(),
	})
	if errors.As(err, &refusal) {
		return nil, refused(refusal)
	}
	if err != nil {
		return nil, fmt.Errorf("ceremony: prepare: %w", err)
	}
	d := &ceremonyv1.Document{Id: h.GetDocumentId()}
	if d.ReceivedSha256, err = hex.DecodeString(report.Received); err != nil {
		return nil, fmt.Errorf("ceremony: inspect: %w", err)
	}
	if d.PresentedSha256, err = s.documents.keep(ctx, h.GetTenant(), h.GetRequestId(), presented); err != nil {
		return nil, err
	}
	d.CurrentSha256 = d.GetPresentedSha256()
	if err := s.describePages(ctx, d, report, presented, boxes); err != nil {
		return nil, err
	}
	return d, s.documents.keepDescription(ctx, h.GetTenant(), h.GetRequestId(), d)
}

// describePages writes down the pages as they are shown, the signature pages among them, and where each signature goes.
func (s *Service) describePages(ctx context.Context, d *ceremonyv1.Document, report pdf.Report, presented []byte, boxes []pdf.Box) error {
	pages := report.Pages
	if len(boxes) > 0 {
		again, err := s.sandbox.Inspect(ctx, presented)
		if err != nil {
			return fmt.Errorf("ceremony: inspect what was prepared: %w", err)
		}
		pages = again.Pages
	}
	for _, p := range pages {
		d.Pages = append(d.Pages, &ceremonyv1.Page{Width: p.Width, Height: p.Height})
	}
	for i, b := range boxes {
		d.Boxes = append(d.Boxes, &ceremonyv1.Box{
			Position: uint32(i + 1), Page: uint32(b.Page), X1: b.X, Y1: b.Y, X2: b.X + b.Width, Y2: b.Y + b.Height,
		})
	}
	return nil
}
