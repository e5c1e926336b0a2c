package ceremony

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"countersign.dev/pkg/crash"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/pades"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/ceremony/pdf"
	"countersign.dev/services/ceremony/rules"
)

// spare is how much of an admission must be left when a signature is stated: the record may take that long to take it.
const spare = 20 * time.Second

// Sign records consent, makes the signature on the newest revision, and states it. Repeating it after a lost answer changes nothing more.
func (c ceremonyServer) Sign(ctx context.Context, req *ceremonyv1.SignRequest) (*ceremonyv1.SignResponse, error) {
	ceremony, err := c.s.find(ctx, req.GetTenant(), req.GetRequestId())
	if err != nil {
		return nil, err
	}
	link, err := c.s.session(ctx, req.GetTenant(), req.GetRequestId(), req.GetLinkId(), req.GetBrowser())
	if errors.Is(err, failure.LinkSigned) {
		ceremony, err = c.s.find(ctx, req.GetTenant(), req.GetRequestId()) // it may have been signed since it was read
		return &ceremonyv1.SignResponse{Ceremony: ceremony}, err
	}
	if err != nil {
		return nil, err
	}
	evidence, err := c.s.verified(ctx, link, req.GetBrowser())
	if err != nil {
		return nil, err
	}
	if err := checkAct(ceremony, req); err != nil {
		return nil, err
	}
	consent := rules.Consent{LinkID: link.GetLinkId(), SessionID: link.GetSessionId(), Position: link.GetPosition(), Consent: req.GetConsent()}
	if _, err := c.s.ceremonies.Do(ctx, c.s.ceremonyKey(req.GetTenant(), req.GetRequestId()), consent, by(link)); err != nil && !errors.Is(err, failure.LinkSigned) {
		return nil, err
	}
	crash.Point("ceremony.consented")
	admission, err := c.s.links.AdmitSigning(ctx, &tokenv1.AdmitSigningRequest{
		Tenant: req.GetTenant(), LinkId: link.GetLinkId(), Browser: req.GetBrowser(),
		AdmissionId: eventlog.DeriveID(c.s.h.Keys, "adm", link.GetLinkId(), link.GetSessionId()),
	})
	if err != nil {
		return nil, err
	}
	signed, err := c.s.act(ctx, req, link, evidence)
	if err != nil {
		return nil, err
	}
	return c.s.sign(ctx, req, link, signed, admission.GetAdmission().GetUntil().AsTime())
}

// checkAct refuses what is no act of signing, before anything is recorded.
func checkAct(ceremony *ceremonyv1.Ceremony, req *ceremonyv1.SignRequest) error {
	letters := 0
	for _, r := range req.GetName() {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) && r != '\u200c' && r != '\u200d' {
			return failure.SignatureInvalid
		}
		if unicode.IsLetter(r) {
			letters++
		}
	}
	if letters < 2 {
		return failure.SignatureInvalid
	}
	if req.GetConsent() == nil || len(req.GetConsent().GetTextSha256()) != 32 || len(req.GetIntentSha256()) != 32 {
		return failure.ConsentRequired
	}
	if !bytes.Equal(req.GetPresentedSha256(), ceremony.GetDocuments()[0].GetPresentedSha256()) {
		return failure.RequestInvalid.WithFields(failure.Field{Path: "presented", Problem: "is not the document of this request; please open it again"})
	}
	return nil
}

// act puts what was typed, and from where, into the vault, and returns the fact with commitments in its place.
func (s *Service) act(ctx context.Context, req *ceremonyv1.SignRequest, link *tokenv1.LinkView, evidence *identityv1.Evidence) (*ceremonyv1.CeremonySigned, error) {
	signed := &ceremonyv1.CeremonySigned{
		LinkId: link.GetLinkId(), Position: link.GetPosition(), SessionId: link.GetSessionId(), IntentSha256: req.GetIntentSha256(),
		VerificationId: evidence.GetId(), RequiredLevel: link.GetAssurance(), AchievedLevel: evidence.GetLevel(), HolderId: link.GetHolderId(),
		Grace:       !s.h.Clock.Now(link.GetTenant()).Before(link.GetExpiresAt().AsTime()),
		Commitments: map[string][]byte{}, NoteIds: map[string]string{},
	}
	for field, value := range map[string]string{"sign.name": req.GetName(), "net.ip": req.GetNetworkAddress(), "net.ua": req.GetUserAgent()} {
		if value == "" {
			continue
		}
		id := eventlog.DeriveID(s.h.Keys, "not", field, link.GetLinkId(), link.GetSessionId(), value)
		answer, err := s.directory.PutNote(ctx, &tokenv1.PutNoteRequest{Tenant: link.GetTenant(), OwnerId: link.GetLinkId(), NoteId: id, Text: value})
		if err != nil {
			return nil, err
		}
		signed.Commitments[field], signed.NoteIds[field] = answer.GetCommitment(), id
	}
	return signed, nil
}

// sign signs the newest revision and states it; where another signer's came first, it signs that one.
func (s *Service) sign(ctx context.Context, req *ceremonyv1.SignRequest, link *tokenv1.LinkView, signed *ceremonyv1.CeremonySigned, until time.Time) (*ceremonyv1.SignResponse, error) {
	k := s.ceremonyKey(req.GetTenant(), req.GetRequestId())
	for {
		ceremony, err := s.find(ctx, req.GetTenant(), req.GetRequestId())
		if err != nil {
			return nil, err
		}
		if rules.SeatOf(ceremony, link.GetLinkId()).GetStatus() == ceremonyv1.SeatStatus_SEAT_STATUS_SIGNED {
			return &ceremonyv1.SignResponse{Ceremony: ceremony}, nil
		}
		document := ceremony.GetDocuments()[0]
		before, err := s.documents.revision(ctx, req.GetTenant(), req.GetRequestId(), document.GetCurrentSha256())
		if err != nil {
			return nil, err
		}
		now := s.h.Clock.Now(req.GetTenant())
		after, field, err := s.signPDF(before, document, link.GetPosition(), req.GetName(), now)
		if err != nil {
			return nil, err
		}
		signed.DocumentId, signed.BeforeSha256, signed.Field = document.GetId(), document.GetCurrentSha256(), field
		if signed.AfterSha256, err = s.documents.keep(ctx, req.GetTenant(), req.GetRequestId(), after); err != nil {
			return nil, err
		}
		crash.Point("ceremony.stored")
		if s.h.Clock.Now(req.GetTenant()).Add(spare).After(until) {
			return nil, failure.LinkBusy
		}
		res, err := s.ceremonies.Do(ctx, k, rules.Sign{Signed: signed}, by(link))
		if errors.Is(err, rules.ErrMoved) {
			continue
		}
		if err != nil {
			return nil, err
		}
		crash.Point("ceremony.signed")
		return &ceremonyv1.SignResponse{Ceremony: res.State}, nil
	}
}

// signPDF appends a signer's signature, visible where the document has a place for it.
func (s *Service) signPDF(before []byte, d *ceremonyv1.Document, position uint32, name string, now time.Time) (after []byte, field string, err error) {
	field = fmt.Sprintf("Signer%d", position)
	options := pades.Options{
		Signer: s.signer.Signer(), Chain: s.signer.Chain(), Name: strings.TrimSpace(name), Reason: "I agree to sign this document electronically.",
		At: now, FieldName: field,
	}
	for _, b := range d.GetBoxes() {
		if b.GetPosition() != position {
			continue
		}
		picture, err := pdf.Signature(name, now.UTC().Format("2006-01-02 15:04:05 UTC"))
		if errors.Is(err, pdf.ErrNoGlyphs) {
			break // a script that cannot be drawn: the signature stands without a picture
		}
		if err != nil {
			return nil, "", fmt.Errorf("ceremony: draw a signature: %w", err)
		}
		options.Appearance = &pades.Appearance{Page: int(b.GetPage()), Rect: [4]float64{b.GetX1(), b.GetY1(), b.GetX2(), b.GetY2()}, PNG: picture}
	}
	if after, err = pades.Sign(before, options); err != nil {
		return nil, "", fmt.Errorf("ceremony: sign: %w", err)
	}
	return after, field, nil
}

// Decline records that a signer will not sign; the words go to the vault.
func (c ceremonyServer) Decline(ctx context.Context, req *ceremonyv1.DeclineRequest) (*ceremonyv1.DeclineResponse, error) {
	link, err := c.s.session(ctx, req.GetTenant(), req.GetRequestId(), req.GetLinkId(), req.GetBrowser())
	if errors.Is(err, failure.LinkDeclined) {
		ceremony, err := c.s.find(ctx, req.GetTenant(), req.GetRequestId())
		return &ceremonyv1.DeclineResponse{Ceremony: ceremony}, err
	}
	if err != nil {
		return nil, err
	}
	if _, err := c.s.verified(ctx, link, req.GetBrowser()); err != nil {
		return nil, err
	}
	decline := rules.Decline{LinkID: link.GetLinkId(), SessionID: link.GetSessionId(), Position: link.GetPosition()}
	if reason := strings.TrimSpace(req.GetReason()); reason != "" {
		decline.ReasonID = eventlog.DeriveID(c.s.h.Keys, "not", "decline", link.GetLinkId(), link.GetSessionId(), reason)
		note := &tokenv1.PutNoteRequest{Tenant: link.GetTenant(), OwnerId: link.GetLinkId(), NoteId: decline.ReasonID, Text: reason}
		if _, err := c.s.directory.PutNote(ctx, note); err != nil {
			return nil, err
		}
	}
	res, err := c.s.ceremonies.Do(ctx, c.s.ceremonyKey(req.GetTenant(), req.GetRequestId()), decline, by(link))
	if err != nil {
		return nil, err
	}
	return &ceremonyv1.DeclineResponse{Ceremony: res.State}, nil
}
