package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"golang.org/x/text/language"
	"google.golang.org/grpc"

	"countersign.dev/pkg/failure"
	auditv1 "countersign.dev/proto/countersign/audit/v1"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/delivery/channel"
	"countersign.dev/services/delivery/message"
)

// texts says which text each kind of message has.
var texts = map[deliveryv1.Kind]message.Kind{
	deliveryv1.Kind_KIND_LINK: message.Link, deliveryv1.Kind_KIND_REISSUED: message.Reissued, deliveryv1.Kind_KIND_ALTERNATE: message.Alternate,
	deliveryv1.Kind_KIND_REMINDER: message.Reminder, deliveryv1.Kind_KIND_PARTIAL: message.Partial, deliveryv1.Kind_KIND_CODE: message.Code,
	deliveryv1.Kind_KIND_MANAGER: message.ManagerNotice, deliveryv1.Kind_KIND_COMPLETED: message.Completed,
	deliveryv1.Kind_KIND_DECLINED: message.Declined, deliveryv1.Kind_KIND_CANCELLED: message.Cancelled,
	deliveryv1.Kind_KIND_ADDRESS_CHANGED: message.AddressChanged,
}

// compose renders a message with what is true at this moment: address, names, a fresh token or the code. A failure.Error may say
// that it no longer makes sense: see moot.
func (s *Service) compose(ctx context.Context, d *deliveryv1.Delivery) (channel.Message, error) {
	kind, known := texts[d.GetKind()]
	if !known {
		return channel.Message{}, fmt.Errorf("delivery: no text for %s", d.GetKind())
	}
	to, err := s.person(ctx, d.GetTenant(), d.GetLinkId(), d.GetRecipientId())
	if err != nil {
		return channel.Message{}, err
	}
	request, err := s.directory.GetRequest(ctx, &tokenv1.GetRequestRequest{Tenant: d.GetTenant(), RequestId: d.GetRequestId()})
	if err != nil {
		return channel.Message{}, err
	}
	brand := s.tenants.Branding(d.GetTenant())
	data := message.Data{
		Brand:  message.Brand{Name: brand.Name, Colour: brand.Colour, Support: first(brand.Support.Email, brand.Support.URL, brand.Support.Phone)},
		Reader: to.GetName(), Sender: brand.Name, Document: request.GetWords().GetTitle(), Zone: to.GetTimeZone(),
	}
	if data.Document == "" {
		return channel.Message{}, failure.RequestErased
	}
	m := channel.Message{
		ID: d.GetId(), To: channel.Address{Name: to.GetName(), Email: to.GetEmail()},
		From: channel.Address{Name: first(brand.Sender.Name, brand.Name), Email: first(brand.Sender.Address, s.config.MailFrom)},
	}
	if err := s.fill(ctx, d, to, &data); err != nil {
		return channel.Message{}, err
	}
	rendered, err := message.Render(kind, to.GetLocale(), data)
	if err != nil {
		return channel.Message{}, fmt.Errorf("delivery: render %s: %w", kind, err)
	}
	m.Subject, m.Text, m.HTML, m.Locale = rendered.Subject, rendered.Text, rendered.HTML, rendered.Locale
	if d.GetKind() == deliveryv1.Kind_KIND_COMPLETED {
		m.Attached, err = s.copies(ctx, request.GetRequest(), request.GetWords(), to.GetLocale())
	}
	return m, err
}

func first(candidates ...string) string {
	for _, c := range candidates {
		if c != "" {
			return c
		}
	}
	return ""
}

func (s *Service) person(ctx context.Context, tenant, linkID, id string) (*signingv1.Person, error) {
	answer, err := s.directory.GetPerson(ctx, &tokenv1.GetPersonRequest{Tenant: tenant, LinkId: linkID, PersonId: id})
	return answer.GetPerson(), err
}

// fill adds what the kind needs. Tokens and codes are made here and exist nowhere but in the message.
func (s *Service) fill(ctx context.Context, d *deliveryv1.Delivery, to *signingv1.Person, data *message.Data) error {
	switch d.GetKind() {
	case deliveryv1.Kind_KIND_LINK, deliveryv1.Kind_KIND_REISSUED, deliveryv1.Kind_KIND_ALTERNATE, deliveryv1.Kind_KIND_REMINDER, deliveryv1.Kind_KIND_PARTIAL:
		minted, err := s.links.Mint(ctx, &tokenv1.MintRequest{
			Tenant: d.GetTenant(), LinkId: d.GetLinkId(), Generation: d.GetGeneration(), DeliveryId: d.GetId(),
		})
		if err != nil {
			return err
		}
		if data.Link, err = url.JoinPath(s.config.PublicURL, "s", minted.GetToken()); err != nil {
			return fmt.Errorf("delivery: public URL: %w", err)
		}
		data.Expires = minted.GetExpiresAt().AsTime()
	case deliveryv1.Kind_KIND_CODE:
		code, err := s.identity.RenderCode(ctx, &identityv1.RenderCodeRequest{Tenant: d.GetTenant(), LinkId: d.GetLinkId(), ChallengeId: d.GetChallengeId()})
		if err != nil {
			return err
		}
		data.Code, data.Expires = code.GetCode(), code.GetExpiresAt().AsTime()
	case deliveryv1.Kind_KIND_MANAGER:
		if err := s.stillOpen(ctx, d); err != nil {
			return err
		}
	default:
	}
	if d.GetKind() == deliveryv1.Kind_KIND_ALTERNATE {
		data.Reason = lateReason(to.GetLocale())
	}
	if d.GetSubjectId() != "" {
		subject, err := s.person(ctx, d.GetTenant(), first(d.GetSubjectLinkId(), d.GetLinkId()), d.GetSubjectId())
		gone := err != nil && d.GetKind() == deliveryv1.Kind_KIND_DECLINED && errors.Is(failure.From(err), failure.PersonErased)
		if err != nil && !gone {
			return err
		}
		if data.Person = subject.GetName(); gone {
			data.Person = somebody(to.GetLocale()) // the others hear of the end all the same
		}
	}
	if d.GetNoteId() != "" {
		note, err := s.directory.GetNote(ctx, &tokenv1.GetNoteRequest{Tenant: d.GetTenant(), OwnerId: d.GetRequestId(), NoteId: d.GetNoteId()})
		if err != nil && !errors.Is(failure.From(err), failure.RequestErased) {
			return err
		}
		data.Reason = note.GetText()
	}
	return nil
}

// stillOpen refuses a message about somebody who has acted meanwhile.
func (s *Service) stillOpen(ctx context.Context, d *deliveryv1.Delivery) error {
	answer, err := s.links.GetLink(ctx, &tokenv1.GetLinkRequest{Tenant: d.GetTenant(), LinkId: d.GetLinkId()})
	if err != nil {
		return err
	}
	switch answer.GetLink().GetStatus() {
	case tokenv1.LinkStatus_LINK_STATUS_SIGNED:
		return failure.LinkSigned
	case tokenv1.LinkStatus_LINK_STATUS_DECLINED:
		return failure.LinkDeclined
	case tokenv1.LinkStatus_LINK_STATUS_CLOSED:
		return failure.LinkCancelled
	default:
		return nil
	}
}

var spoken = language.NewMatcher([]language.Tag{language.English, language.German})

// lateReason says, in the reader's language, why somebody else is asked.
func lateReason(locale string) string {
	_, i := language.MatchStrings(spoken, locale)
	return [...]string{"The signature did not come in time.", "Die Unterschrift kam nicht rechtzeitig."}[i]
}

// somebody stands, in the reader's language, for a signer whose name was erased.
func somebody(locale string) string {
	_, i := language.MatchStrings(spoken, locale)
	return [...]string{"A signer", "Eine andere Person"}[i]
}

// copies fetches the signed documents and the certificate.
func (s *Service) copies(ctx context.Context, r *tokenv1.Request, words *tokenv1.RequestWords, locale string) ([]channel.Attachment, error) {
	var out []channel.Attachment
	for i, doc := range r.GetDocuments() {
		stream, err := s.ceremony.GetDocument(ctx, &ceremonyv1.GetDocumentRequest{
			Tenant: r.GetTenant(), RequestId: r.GetId(), DocumentId: doc.GetId(), Revision: ceremonyv1.Revision_REVISION_CURRENT,
		})
		if err != nil {
			return nil, err
		}
		content, err := collect(stream)
		if err != nil {
			return nil, err
		}
		name := "signed.pdf"
		if i < len(words.GetDocumentNames()) {
			name = strings.TrimSuffix(words.GetDocumentNames()[i], ".pdf") + "-signed.pdf"
		}
		out = append(out, channel.Attachment{Name: name, ContentType: "application/pdf", Content: content})
	}
	certificate, err := s.audit.GetCertificate(ctx, &auditv1.GetCertificateRequest{Tenant: r.GetTenant(), RequestId: r.GetId(), Locale: locale})
	if err != nil {
		return nil, err
	}
	return append(out, channel.Attachment{Name: "certificate.pdf", ContentType: "application/pdf", Content: certificate.GetPdf()}), nil
}

func collect(stream grpc.ServerStreamingClient[ceremonyv1.GetDocumentResponse]) ([]byte, error) {
	var content []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return content, nil
		}
		if err != nil {
			return nil, err
		}
		content = append(content, part.GetChunk()...)
	}
}
