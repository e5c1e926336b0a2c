package token

import (
	"context"
	"crypto/rand"
	"errors"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/vault"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

const documentKeySize = 32 // AES-256

// directoryServer answers who somebody is, at the moment it is needed.
type directoryServer struct {
	tokenv1.UnimplementedDirectoryServiceServer
	s *Service
}

// unknown is how the vault's own "never seen" leaves the service.
func unknown(err error, refusal *failure.Error) error {
	if errors.Is(err, vault.ErrUnknown) {
		return refusal
	}
	return err
}

// GetPerson returns how to reach a person; PERSON_ERASED when that is gone.
func (d directoryServer) GetPerson(ctx context.Context, req *tokenv1.GetPersonRequest) (*tokenv1.GetPersonResponse, error) {
	p, err := d.s.person(ctx, of(req.GetTenant(), req.GetLinkId(), req.GetPersonId()))
	if err != nil {
		return nil, unknown(err, failure.SignerUnknown)
	}
	return &tokenv1.GetPersonResponse{Person: p}, nil
}

// GetRequest returns a request and what it is called; the words are empty when they were erased.
func (d directoryServer) GetRequest(ctx context.Context, req *tokenv1.GetRequestRequest) (*tokenv1.GetRequestResponse, error) {
	r, err := d.s.find(ctx, req.GetTenant(), req.GetRequestId())
	if err != nil {
		return nil, err
	}
	words, err := d.s.words(ctx, r)
	if err = ignore[*failure.Error](err); err != nil {
		return nil, err
	}
	return &tokenv1.GetRequestResponse{Request: r, Words: words}, nil
}

// PutNote keeps words once and returns the commitment to what is kept.
func (d directoryServer) PutNote(ctx context.Context, req *tokenv1.PutNoteRequest) (*tokenv1.PutNoteResponse, error) {
	c, err := d.s.putNote(ctx, vault.Place{Tenant: req.GetTenant(), Owner: req.GetOwnerId(), ID: req.GetNoteId()}, req.GetText())
	if err != nil {
		return nil, err
	}
	return &tokenv1.PutNoteResponse{Commitment: c}, nil
}

// GetNote returns words that were kept.
func (d directoryServer) GetNote(ctx context.Context, req *tokenv1.GetNoteRequest) (*tokenv1.GetNoteResponse, error) {
	kept := &tokenv1.PrivateNote{}
	if err := d.s.load(ctx, vault.Place{Tenant: req.GetTenant(), Owner: req.GetOwnerId(), ID: req.GetNoteId()}, kept); err != nil {
		return nil, unknown(err, failure.PersonErased)
	}
	return &tokenv1.GetNoteResponse{Text: kept.GetText()}, nil
}

// GetDocumentKey returns the key of a request's documents, which goes with the request.
func (d directoryServer) GetDocumentKey(ctx context.Context, req *tokenv1.GetDocumentKeyRequest) (*tokenv1.GetDocumentKeyResponse, error) {
	at := vault.Place{Tenant: req.GetTenant(), Owner: req.GetRequestId(), ID: "documents"}
	known, err := d.s.vault.Get(ctx, at)
	if errors.Is(err, vault.ErrUnknown) {
		if !req.GetMake() {
			return &tokenv1.GetDocumentKeyResponse{}, nil
		}
		fresh := make([]byte, documentKeySize)
		rand.Read(fresh)
		known, err = d.s.vault.PutOnce(ctx, at, fresh)
	}
	if err != nil {
		return nil, erased(at, err)
	}
	return &tokenv1.GetDocumentKeyResponse{Key: known}, nil
}
