package ceremony

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"google.golang.org/grpc"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/ceremony/pdf"
	"countersign.dev/services/ceremony/rules"
)

// chunkSize is how much of a document one message of a stream carries.
const chunkSize = 256 << 10

// find returns a request's ceremony from the record.
func (s *Service) find(ctx context.Context, tenant, requestID string) (*ceremonyv1.Ceremony, error) {
	c, _, err := s.ceremonies.Load(ctx, s.ceremonyKey(tenant, requestID))
	if err != nil {
		return nil, err
	}
	if len(c.GetDocuments()) == 0 {
		return nil, failure.DocumentNotReady
	}
	return c, nil
}

// session says, from the record, whose session a browser holds; or the failure that ends it.
func (s *Service) session(ctx context.Context, tenant, requestID, linkID, browser string) (*tokenv1.LinkView, error) {
	answer, err := s.links.GetSession(ctx, &tokenv1.GetSessionRequest{Tenant: tenant, LinkId: linkID, Browser: browser, Decisive: true})
	if err != nil {
		return nil, err
	}
	if code := answer.GetFailureCode(); code != "" {
		if f := failure.Lookup(code); f != nil {
			return nil, f
		}
		return nil, fmt.Errorf("ceremony: token answered the unknown code %q", code)
	}
	if answer.GetLink().GetRequestId() != requestID {
		return nil, failure.SessionUnknown
	}
	return answer.GetLink(), nil
}

// verified wants the holder to have proved, in this browser, the level that the link asks for.
func (s *Service) verified(ctx context.Context, link *tokenv1.LinkView, browser string) (*identityv1.Evidence, error) {
	if link.GetAssurance() == 0 {
		return &identityv1.Evidence{}, nil
	}
	proof, err := s.identity.Check(ctx, &identityv1.CheckRequest{
		Tenant: link.GetTenant(), LinkId: link.GetLinkId(), Browser: browser, Purpose: identityv1.Purpose_PURPOSE_SIGN,
		Level: link.GetAssurance(), PersonId: link.GetHolderId(),
	})
	if err != nil {
		return nil, err
	}
	if !proof.GetSatisfied() {
		return nil, failure.IdentityRequired
	}
	return proof.GetEvidence(), nil
}

// by returns what a signer's act is recorded with.
func by(link *tokenv1.LinkView) eventlog.By {
	return eventlog.By{Actor: &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_SIGNER, Ref: link.GetHolderId()}, RequestID: link.GetRequestId()}
}

// GetCeremony returns a request's documents and acts.
func (c ceremonyServer) GetCeremony(ctx context.Context, req *ceremonyv1.GetCeremonyRequest) (*ceremonyv1.GetCeremonyResponse, error) {
	ceremony, err := c.s.find(ctx, req.GetTenant(), req.GetRequestId())
	return &ceremonyv1.GetCeremonyResponse{Ceremony: ceremony}, err
}

// Show records, once a session, that the document was served to a signer who may see it.
func (c ceremonyServer) Show(ctx context.Context, req *ceremonyv1.ShowRequest) (*ceremonyv1.ShowResponse, error) {
	link, err := c.s.session(ctx, req.GetTenant(), req.GetRequestId(), req.GetLinkId(), req.GetBrowser())
	if err != nil {
		return nil, err
	}
	if _, err := c.s.verified(ctx, link, req.GetBrowser()); err != nil {
		return nil, err
	}
	show := rules.Show{LinkID: link.GetLinkId(), SessionID: link.GetSessionId(), Position: link.GetPosition()}
	res, err := c.s.ceremonies.Do(ctx, c.s.ceremonyKey(req.GetTenant(), req.GetRequestId()), show, by(link))
	if err != nil {
		return nil, err
	}
	return &ceremonyv1.ShowResponse{Ceremony: res.State}, nil
}

// current returns the bytes of a document's newest revision.
func (s *Service) current(ctx context.Context, tenant, requestID, documentID string) ([]byte, []byte, error) {
	ceremony, err := s.find(ctx, tenant, requestID)
	if err != nil {
		return nil, nil, err
	}
	d := rules.DocumentOf(ceremony, documentID)
	if d == nil {
		return nil, nil, failure.RequestUnknown
	}
	body, err := s.documents.revision(ctx, tenant, requestID, d.GetCurrentSha256())
	return body, d.GetCurrentSha256(), err
}

// GetPage draws a page of the newest revision, once.
func (c ceremonyServer) GetPage(ctx context.Context, req *ceremonyv1.GetPageRequest) (*ceremonyv1.GetPageResponse, error) {
	body, sum, err := c.s.current(ctx, req.GetTenant(), req.GetRequestId(), req.GetDocumentId())
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s/%d/%d", hex.EncodeToString(sum), req.GetPage(), req.GetWidth())
	if drawn, ok := c.s.pages.Get(name); ok {
		return drawn, nil
	}
	image, err := c.s.sandbox.RenderPage(ctx, body, int(req.GetPage()), int(req.GetWidth()))
	if err != nil {
		return nil, pageError(err)
	}
	drawn := &ceremonyv1.GetPageResponse{
		Image: image.Bytes, ContentType: image.Type, Width: uint32(image.Width), Height: uint32(image.Height),
	}
	c.s.pages.Add(name, drawn)
	return drawn, nil
}

// GetText returns the reading text of a page of the newest revision.
func (c ceremonyServer) GetText(ctx context.Context, req *ceremonyv1.GetTextRequest) (*ceremonyv1.GetTextResponse, error) {
	body, _, err := c.s.current(ctx, req.GetTenant(), req.GetRequestId(), req.GetDocumentId())
	if err != nil {
		return nil, err
	}
	text, err := c.s.sandbox.PageText(ctx, body, int(req.GetPage()))
	if err != nil {
		return nil, pageError(err)
	}
	return &ceremonyv1.GetTextResponse{Text: text}, nil
}

// pageError tells what is nobody's fault from what is ours.
func pageError(err error) error {
	var refusal *pdf.Refusal
	switch {
	case errors.Is(err, pdf.ErrNoPage):
		return failure.RequestUnknown
	case errors.As(err, &refusal):
		return refused(refusal)
	default:
		return fmt.Errorf("ceremony: draw a page: %w", err)
	}
}

// GetDocument streams the bytes of a revision.
func (c ceremonyServer) GetDocument(req *ceremonyv1.GetDocumentRequest, stream grpc.ServerStreamingServer[ceremonyv1.GetDocumentResponse]) error {
	ceremony, err := c.s.find(stream.Context(), req.GetTenant(), req.GetRequestId())
	if err != nil {
		return err
	}
	d := rules.DocumentOf(ceremony, req.GetDocumentId())
	if d == nil {
		return failure.RequestUnknown
	}
	sum := d.GetCurrentSha256()
	if req.GetRevision() == ceremonyv1.Revision_REVISION_PRESENTED {
		sum = d.GetPresentedSha256()
	}
	body, err := c.s.documents.revision(stream.Context(), req.GetTenant(), req.GetRequestId(), sum)
	if err != nil {
		return err
	}
	for len(body) > 0 {
		n := min(chunkSize, len(body))
		if err := stream.Send(&ceremonyv1.GetDocumentResponse{Chunk: body[:n]}); err != nil {
			return err
		}
		body = body[n:]
	}
	return nil
}
