package audit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/pades"
	auditv1 "countersign.dev/proto/countersign/audit/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/audit/certificate"
	"countersign.dev/services/audit/rules"
)

// auditServer answers from the log.
type auditServer struct {
	auditv1.UnimplementedAuditServiceServer
	s *Service
}

// trail returns a request's leaves as they were written, and read. Another tenant's request has none, as one that does not exist.
func (s *Service) trail(ctx context.Context, tenant, requestID string) (raws [][]byte, leaves []rules.Leaf, err error) {
	raws, err = s.leaves(ctx, requestID)
	if err != nil {
		return nil, nil, err
	}
	for i, raw := range raws {
		leaf, err := rules.Parse(raw)
		if err != nil {
			return nil, nil, fmt.Errorf("audit: leaf %d of request %s: %w", i+1, requestID, err)
		}
		if leaf.Ten != tenant {
			return nil, nil, nil
		}
		leaves = append(leaves, leaf)
	}
	return raws, leaves, nil
}

// ListLeaves returns a request's leaves exactly as they were written; those of another tenant's request are none.
func (a auditServer) ListLeaves(ctx context.Context, req *auditv1.ListLeavesRequest) (*auditv1.ListLeavesResponse, error) {
	raws, leaves, err := a.s.trail(ctx, req.GetTenant(), req.GetRequestId())
	if err != nil {
		return nil, err
	}
	answer := &auditv1.ListLeavesResponse{}
	for i, leaf := range leaves {
		at, err := time.Parse(time.RFC3339, leaf.At)
		if err != nil {
			return nil, fmt.Errorf("audit: leaf %d of request %s: %w", i+1, req.GetRequestId(), err)
		}
		answer.Leaves = append(answer.Leaves, &auditv1.Leaf{
			Sequence: leaf.Seq, Type: leaf.Type, At: timestamppb.New(at), Actor: leaf.Actor.Kind, Raw: raws[i], Hash: hashOf(raws[i]),
		})
	}
	return answer, nil
}

// told is a leaf that a certificate tells, with its hash.
type told struct {
	rules.Leaf
	hash string
}

// GetCertificate draws the certificate of a request that has ended, from what the log has of the time up to then, and seals it.
func (a auditServer) GetCertificate(ctx context.Context, req *auditv1.GetCertificateRequest) (*auditv1.GetCertificateResponse, error) {
	raws, leaves, err := a.s.trail(ctx, req.GetTenant(), req.GetRequestId())
	if err != nil {
		return nil, err
	}
	if err := rules.CheckChain(raws); err != nil {
		return nil, fmt.Errorf("audit: the log of request %s does not hold together: %w", req.GetRequestId(), err)
	}
	places, ended := rules.Ended(leaves)
	if !ended {
		return nil, failure.CertificateNotYet
	}
	story := make([]told, 0, len(places))
	for _, i := range places {
		story = append(story, told{Leaf: leaves[i], hash: rules.Hash(raws[i])})
	}
	drawn, err := a.s.draw(ctx, req, story, rules.Hash(raws[slices.Max(places)]))
	if err != nil {
		return nil, err
	}
	sealed, err := pades.Sign(drawn, pades.Options{
		Signer: a.s.sealer.Signer(), Chain: a.s.sealer.Chain(), Name: "Countersign", Reason: "Certificate of completion",
		At: a.s.h.Clock.Now(req.GetTenant()), Certify: pades.NoChanges,
	})
	if err != nil {
		return nil, fmt.Errorf("audit: seal the certificate: %w", err)
	}
	return &auditv1.GetCertificateResponse{Pdf: sealed}, nil
}

// draw fills the certificate: what happened from the leaves, who it was from the vault, as far as it is still there. head is the hash
// of the newest leaf among them.
func (s *Service) draw(ctx context.Context, req *auditv1.GetCertificateRequest, leaves []told, head string) ([]byte, error) {
	answer, err := s.directory.GetRequest(ctx, &tokenv1.GetRequestRequest{Tenant: req.GetTenant(), RequestId: req.GetRequestId()})
	if err != nil {
		return nil, err
	}
	r, words := answer.GetRequest(), answer.GetWords()
	c := certificate.Certificate{
		Language: req.GetLocale(), Outcome: outcomeOf(r), Reference: words.GetReference(), RequestID: r.GetId(), Title: words.GetTitle(),
		Sender: s.tenants.Branding(req.GetTenant()).Name, Created: r.GetAcceptedAt().AsTime(), Ended: r.GetClosedAt().AsTime(), Issued: r.GetClosedAt().AsTime(),
		Head: head,
	}
	if c.Reference == "" {
		c.Reference = r.GetId()
	}
	c.Documents = documents(r, words, leaves)
	for _, seat := range r.GetSeats() {
		signer, err := s.signer(ctx, req, seat, leaves)
		if err != nil {
			return nil, err
		}
		c.Signers = append(c.Signers, signer)
	}
	for _, leaf := range leaves {
		if what, shown := wordsFor(leaf.Leaf, req.GetLocale()); shown {
			c.Events = append(c.Events, certificate.Event{At: leafTime(leaf.Leaf), What: what, Actor: s.actor(leaf.Leaf, c.Signers, r), Leaf: leaf.hash})
		}
	}
	drawn, err := certificate.Render(c)
	if err != nil {
		return nil, fmt.Errorf("audit: draw the certificate: %w", err)
	}
	return drawn, nil
}

func outcomeOf(r *tokenv1.Request) certificate.Outcome {
	switch r.GetStatus() {
	case signingv1.RequestStatus_REQUEST_STATUS_DECLINED:
		return certificate.Declined
	case signingv1.RequestStatus_REQUEST_STATUS_CANCELLED:
		return certificate.Cancelled
	case signingv1.RequestStatus_REQUEST_STATUS_EXPIRED:
		return certificate.Expired
	default:
		return certificate.Completed
	}
}

func leafTime(l rules.Leaf) time.Time {
	at, err := time.Parse(time.RFC3339, l.At)
	if err != nil {
		return time.Time{}
	}
	return at
}

func documents(r *tokenv1.Request, words *tokenv1.RequestWords, leaves []told) []certificate.Document {
	var out []certificate.Document
	for i, d := range r.GetDocuments() {
		doc := certificate.Document{Name: d.GetId(), Pages: int(d.GetPages()), Presented: fmt.Sprintf("%x", d.GetPresentedSha256())}
		if i < len(words.GetDocumentNames()) {
			doc.Name = words.GetDocumentNames()[i]
		}
		for _, l := range leaves {
			if l.Type == "cs.signature.applied" && l.Doc != nil && l.Doc.ID == d.GetId() {
				doc.Signed = strings.TrimPrefix(l.Doc.Result, "sha256:")
			}
		}
		out = append(out, doc)
	}
	return out
}

// signer collects what the log says of one position, and the words that the vault still has.
func (s *Service) signer(ctx context.Context, req *auditv1.GetCertificateRequest, seat *tokenv1.Seat, leaves []told) (certificate.Signer, error) {
	tenant, locale := req.GetTenant(), req.GetLocale()
	out := certificate.Signer{Signature: "SES"}
	holder, notes := seat.GetPersonId(), map[string]string{}
	for _, l := range leaves {
		if l.Link == nil || l.Link.ID != seat.GetLinkId() {
			continue
		}
		at := leafTime(l.Leaf)
		switch l.Type {
		case "cs.link.redeemed", "cs.session.resumed":
			if out.Opened.IsZero() {
				out.Opened = at
			}
		case "cs.identity.verified":
			out.Verified = append(out.Verified, certificate.Verification{Level: int(l.Auth.Got), Method: methodWords(l.Auth.Methods, locale), At: at})
		case "cs.consent.given":
			out.Consented = at
		case "cs.signature.applied":
			out.Signed, holder = at, l.Actor.Ref
			for field, id := range l.Notes {
				notes[field] = id
			}
		case "cs.signature.declined":
			out.Declined, holder = at, l.Actor.Ref
		}
	}
	person, err := s.directory.GetPerson(ctx, &tokenv1.GetPersonRequest{Tenant: tenant, LinkId: seat.GetLinkId(), PersonId: holder})
	if refusal := failure.From(err); refusal != nil && !refusal.Retryable {
		out.Erased, out.Name = true, holder
		return out, nil
	}
	if err != nil {
		return out, err
	}
	out.Name, out.Email = person.GetPerson().GetName(), certificate.MaskEmail(person.GetPerson().GetEmail())
	if zone, err := time.LoadLocation(person.GetPerson().GetTimeZone()); err == nil && person.GetPerson().GetTimeZone() != "" {
		out.Zone = zone
	}
	if out.Address, err = s.note(ctx, tenant, seat.GetLinkId(), notes["net.ip"]); err != nil {
		return out, err
	}
	out.Device, err = s.note(ctx, tenant, seat.GetLinkId(), notes["net.ua"])
	return out, err
}

// note returns words from the vault; "" when they are gone.
func (s *Service) note(ctx context.Context, tenant, owner, id string) (string, error) {
	if id == "" {
		return "", nil
	}
	answer, err := s.directory.GetNote(ctx, &tokenv1.GetNoteRequest{Tenant: tenant, OwnerId: owner, NoteId: id})
	if refusal := failure.From(err); refusal != nil && !refusal.Retryable {
		return "", nil
	}
	return answer.GetText(), err
}

// actor names who did something, by the position they hold.
func (s *Service) actor(l rules.Leaf, signers []certificate.Signer, r *tokenv1.Request) string {
	if l.Actor.Kind != "signer" {
		return "Countersign"
	}
	for i, seat := range r.GetSeats() {
		if l.Link != nil && l.Link.ID == seat.GetLinkId() && i < len(signers) {
			return signers[i].Name
		}
	}
	return "signer"
}
