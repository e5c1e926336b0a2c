package audit

import (
	"context"
	"fmt"
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

// ListLeaves returns a request's leaves exactly as they were written; those of another tenant's request are none.
func (a auditServer) ListLeaves(ctx context.Context, req *auditv1.ListLeavesRequest) (*auditv1.ListLeavesResponse, error) {
	leaves, err := a.s.leaves(ctx, req.GetRequestId())
	if err != nil {
		return nil, err
	}
	answer := &auditv1.ListLeavesResponse{}
	for _, raw := range leaves {
		leaf, err := rules.Parse(raw)
		if err != nil {
			return nil, err
		}
		if leaf.Ten != req.GetTenant() {
			return nil, failure.RequestUnknown
		}
		at, err := time.Parse(time.RFC3339, leaf.At)
		if err != nil {
			return nil, fmt.Errorf("audit: leaf %d: %w", leaf.Seq, err)
		}
		answer.Leaves = append(answer.Leaves, &auditv1.Leaf{
			Sequence: leaf.Seq, Type: leaf.Type, At: timestamppb.New(at), Actor: leaf.Actor.Kind, Raw: raw, Hash: hashOf(raw),
		})
	}
	return answer, nil
}

// GetCertificate draws the certificate of a request that has ended, from the log up to its end, and seals it.
func (a auditServer) GetCertificate(ctx context.Context, req *auditv1.GetCertificateRequest) (*auditv1.GetCertificateResponse, error) {
	raws, err := a.s.leaves(ctx, req.GetRequestId())
	if err != nil {
		return nil, err
	}
	if err := rules.CheckChain(raws); err != nil {
		return nil, fmt.Errorf("audit: the log of this request does not hold together: %w", err)
	}
	var leaves []rules.Leaf
	ended := false
	for _, raw := range raws {
		leaf, err := rules.Parse(raw)
		if err != nil {
			return nil, err
		}
		leaves = append(leaves, leaf)
		if ended = leaf.Fin; ended {
			break
		}
	}
	if !ended {
		return nil, failure.CertificateNotYet
	}
	if leaves[0].Ten != req.GetTenant() {
		return nil, failure.RequestUnknown
	}
	drawn, err := a.s.draw(ctx, req, raws[:len(leaves)], leaves)
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

// draw fills the certificate: what happened from the leaves, who it was from the vault, as far as it is still there.
func (s *Service) draw(ctx context.Context, req *auditv1.GetCertificateRequest, raws [][]byte, leaves []rules.Leaf) ([]byte, error) {
	answer, err := s.directory.GetRequest(ctx, &tokenv1.GetRequestRequest{Tenant: req.GetTenant(), RequestId: req.GetRequestId()})
	if err != nil {
		return nil, err
	}
	r, words := answer.GetRequest(), answer.GetWords()
	c := certificate.Certificate{
		Language: req.GetLocale(), Outcome: outcomeOf(r), Reference: words.GetReference(), RequestID: r.GetId(), Title: words.GetTitle(),
		Sender: s.tenants.Branding(req.GetTenant()).Name, Created: r.GetAcceptedAt().AsTime(), Ended: r.GetClosedAt().AsTime(), Issued: r.GetClosedAt().AsTime(),
		Head: rules.Hash(raws[len(raws)-1]),
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
	for i, leaf := range leaves {
		if what, shown := wordsFor(leaf, req.GetLocale()); shown {
			c.Events = append(c.Events, certificate.Event{At: leafTime(leaf), What: what, Actor: s.actor(leaf, c.Signers, r), Leaf: rules.Hash(raws[i])})
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

func documents(r *tokenv1.Request, words *tokenv1.RequestWords, leaves []rules.Leaf) []certificate.Document {
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
func (s *Service) signer(ctx context.Context, req *auditv1.GetCertificateRequest, seat *tokenv1.Seat, leaves []rules.Leaf) (certificate.Signer, error) {
	tenant, locale := req.GetTenant(), req.GetLocale()
	out := certificate.Signer{Signature: "SES"}
	holder, notes := seat.GetPersonId(), map[string]string{}
	for _, l := range leaves {
		if l.Link == nil || l.Link.ID != seat.GetLinkId() {
			continue
		}
		at := leafTime(l)
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
	person, err := s.directory.GetPerson(ctx, &tokenv1.GetPersonRequest{Tenant: tenant, PersonId: holder})
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
	if out.Address, err = s.note(ctx, tenant, notes["net.ip"]); err != nil {
		return out, err
	}
	out.Device, err = s.note(ctx, tenant, notes["net.ua"])
	return out, err
}

// note returns words from the vault; "" when they are gone.
func (s *Service) note(ctx context.Context, tenant, id string) (string, error) {
	if id == "" {
		return "", nil
	}
	answer, err := s.directory.GetNote(ctx, &tokenv1.GetNoteRequest{Tenant: tenant, NoteId: id})
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
