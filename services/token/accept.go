package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/telemetry"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

const (
	requestPrefix = "req_"
	linkPrefix    = "lnk_"
)

var requestPattern = regexp.MustCompile(`^req_[A-Za-z0-9_-]{1,60}$`)

// accept is the one way in: from NATS, gRPC and REST (spec 1.2). Everything private and the documents are durable before the
// request is: a crash in between leaves nothing that anybody sees, and the same call again goes on from there.
func (s *Service) accept(ctx context.Context, tenant string, r *signingv1.SigningRequest, by eventlog.By) (*signingv1.RequestView, bool, error) {
	late := rules.DeadlineProblem(r.GetDeadline(), s.h.Clock.Now(tenant))
	held, err := s.settingsOf(ctx, tenant)
	if err != nil {
		return nil, false, err
	}
	profile, wrong := held.forRequest(r)
	if err := validate(r, s.contract, wrong, late); err != nil {
		// A repeat is answered whatever became of its profile.
		if taken, failed := s.taken(ctx, tenant, r); wrong == "" || !taken || failed != nil {
			return nil, false, errors.Join(failed, err)
		}
	}
	id := s.requestID(tenant, r.GetReference())
	ctx = telemetry.WithRequest(ctx, id, tenant)
	by.RequestID = id
	digests, err := s.digests(r)
	if err != nil {
		return nil, false, err
	}
	// A repeat is answered before the documents are looked at again; a conflict before anything is kept.
	if old, _, err := s.requests.Load(ctx, key(tenant, id)); err != nil {
		return nil, false, err
	} else if old.GetStatus() != signingv1.RequestStatus_REQUEST_STATUS_UNSPECIFIED {
		if differing := rules.Differences(old.GetFieldDigests(), digests); len(differing) > 0 {
			return nil, false, failure.RequestConflict.WithFields(differing...)
		}
		view, err := s.view(ctx, old)
		return view, false, err
	}
	if late != "" {
		// Only now: a request that was made is given again whatever time it is.
		return nil, false, failure.RequestInvalid.WithFields(failure.Field{Path: "deadline", Problem: late})
	}
	request := &tokenv1.Request{
		Id: id, Tenant: tenant, Deadline: r.GetDeadline(), FieldDigests: digests, Integration: r.GetIntegration(), Template: r.GetTemplate(), Value: r.GetValue(),
	}
	request.Profile = profile
	if request.Documents, err = s.inspect(ctx, tenant, id, r); err != nil {
		return nil, false, err
	}
	if err := s.keepPrivate(ctx, request, r); err != nil {
		return nil, false, err
	}
	res, err := s.requests.Do(ctx, key(tenant, id), rules.Accept{Request: request}, by)
	if err != nil {
		return nil, false, err
	}
	view, err := s.view(ctx, res.State)
	return view, res.Fact != nil, err
}

// taken tells whether the same request was accepted before.
func (s *Service) taken(ctx context.Context, tenant string, r *signingv1.SigningRequest) (bool, error) {
	old, _, err := s.requests.Load(ctx, key(tenant, s.requestID(tenant, r.GetReference())))
	if err != nil || old.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_UNSPECIFIED {
		return false, err
	}
	digests, err := s.digests(r)
	return err == nil && len(rules.Differences(old.GetFieldDigests(), digests)) == 0, err
}

// keepPrivate puts people and words into the vault and their ids into the request.
func (s *Service) keepPrivate(ctx context.Context, request *tokenv1.Request, r *signingv1.SigningRequest) error {
	tenant, id := request.GetTenant(), request.GetId()
	words := &tokenv1.RequestWords{Reference: r.GetReference(), Title: r.GetTitle(), Metadata: r.GetMetadata()}
	for _, d := range r.GetDocuments() {
		words.DocumentNames = append(words.DocumentNames, d.GetName())
	}
	request.PrivateId = eventlog.DeriveID(s.h.Keys, "wrd", id, string(request.GetFieldDigests()["title"]), string(request.GetFieldDigests()["documents"]), string(request.GetFieldDigests()["metadata"]))
	if err := s.store(ctx, wordsOf(request, request.GetPrivateId()), words); err != nil {
		return fmt.Errorf("token: keep the words of a request: %w", err)
	}
	for i, signer := range r.GetSigners() {
		position := uint32(i + 1)
		seat := &tokenv1.Seat{
			LinkId:   s.linkID(id, position),
			Position: position, Group: max(1, signer.GetGroup()),
		}
		self := &signingv1.Person{Name: signer.GetName(), Email: signer.GetEmail(), Locale: signer.GetLocale(), TimeZone: signer.GetTimeZone()}
		var err error
		seat.PersonId = s.personID(id, position, "signer", self)
		if seat.Commitments, err = s.putPerson(ctx, of(tenant, seat.GetLinkId(), seat.GetPersonId()), "signer", self); err != nil {
			return err
		}
		for j, alternate := range signer.GetAlternates() {
			pid := s.personID(id, position, fmt.Sprintf("alternate%d", j), alternate)
			if _, err := s.putPerson(ctx, of(tenant, seat.GetLinkId(), pid), "signer", alternate); err != nil {
				return err
			}
			seat.AlternateIds = append(seat.AlternateIds, pid)
		}
		if m := signer.GetManager(); m != nil {
			seat.ManagerId = s.personID(id, position, "manager", m)
			if _, err := s.putPerson(ctx, of(tenant, seat.GetLinkId(), seat.GetManagerId()), "manager", m); err != nil {
				return err
			}
		}
		request.Seats = append(request.Seats, seat)
	}
	return nil
}

// signersLimit is how many signers a request may have, as the contract says.
const signersLimit = 50

// linkID is derived from the request and the signer's position in it, 1 for the first.
func (s *Service) linkID(requestID string, position uint32) string {
	return eventlog.DeriveID(s.h.Keys, "lnk", requestID, fmt.Sprint(position))
}

// chunkSize is how much of a document one message of a stream carries.
const chunkSize = 256 << 10

// inspect has the ceremony service check the documents and keep them.
func (s *Service) inspect(ctx context.Context, tenant, requestID string, r *signingv1.SigningRequest) ([]*tokenv1.RequestDocument, error) {
	var out []*tokenv1.RequestDocument
	for i, d := range r.GetDocuments() {
		stream, err := s.ceremony.Inspect(ctx)
		if err != nil {
			return nil, err
		}
		documentID := eventlog.DeriveID(s.h.Keys, "doc", requestID, fmt.Sprint(i), string(s.h.Keys.MAC("cs.field.v1", []byte("document"), d.GetContent())))
		header := &ceremonyv1.InspectHeader{
			Tenant: tenant, RequestId: requestID, DocumentId: documentID, Seats: uint32(len(r.GetSigners())),
			Title: r.GetTitle(), Locale: r.GetSigners()[0].GetLocale(),
		}
		err = stream.Send(&ceremonyv1.InspectRequest{Part: &ceremonyv1.InspectRequest_Header{Header: header}})
		for content := d.GetContent(); err == nil && len(content) > 0; {
			n := min(chunkSize, len(content))
			err = stream.Send(&ceremonyv1.InspectRequest{Part: &ceremonyv1.InspectRequest_Chunk{Chunk: content[:n]}})
			content = content[n:]
		}
		if err != nil && err != io.EOF { //nolint:errorlint // grpc returns io.EOF itself: the reason comes with the answer
			return nil, err
		}
		answer, err := stream.CloseAndRecv()
		if refusal := failure.From(err); refusal != nil && len(refusal.Fields) > 0 {
			for j := range refusal.Fields {
				refusal.Fields[j].Path = fmt.Sprintf("documents[%d].content", i)
			}
			return nil, refusal
		}
		if err != nil {
			return nil, err
		}
		doc := answer.GetDocument()
		out = append(out, &tokenv1.RequestDocument{
			Id: doc.GetId(), ReceivedSha256: doc.GetReceivedSha256(), PresentedSha256: doc.GetPresentedSha256(),
			Pages: uint32(len(doc.GetPages())),
		})
	}
	return out, nil
}
