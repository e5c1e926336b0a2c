package proof

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"countersign.dev/pkg/auth"
	auditv1 "countersign.dev/proto/countersign/audit/v1"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
)

// peers plays ceremony, identity and audit: every document is one, and everybody has proved who they are.
type peers struct {
	ceremonyv1.UnimplementedCeremonyServiceServer
	identityv1.UnimplementedIdentityServiceServer
	auditv1.UnimplementedAuditServiceServer

	mu     sync.Mutex
	signed map[string]bool // links whose signature ceremony has stated
}

func (p *peers) register(r grpc.ServiceRegistrar) {
	ceremonyv1.RegisterCeremonyServiceServer(r, p)
	identityv1.RegisterIdentityServiceServer(r, p)
	auditv1.RegisterAuditServiceServer(r, p)
}

// Inspect takes any document.
func (p *peers) Inspect(stream grpc.ClientStreamingServer[ceremonyv1.InspectRequest, ceremonyv1.InspectResponse]) error {
	head, err := stream.Recv()
	if err != nil {
		return err
	}
	sum := sha256.New()
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		sum.Write(part.GetChunk())
	}
	digest := sum.Sum(nil)
	return stream.SendAndClose(&ceremonyv1.InspectResponse{Document: &ceremonyv1.Document{
		Id: head.GetHeader().GetDocumentId(), ReceivedSha256: digest, PresentedSha256: digest, CurrentSha256: digest, Pages: []*ceremonyv1.Page{{}},
	}})
}

// sign has ceremony state a signature from now on.
func (p *peers) sign(link string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.signed == nil {
		p.signed = map[string]bool{}
	}
	p.signed[link] = true
}

// GetCeremony knows who has signed.
func (p *peers) GetCeremony(context.Context, *ceremonyv1.GetCeremonyRequest) (*ceremonyv1.GetCeremonyResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &ceremonyv1.Ceremony{}
	for link := range p.signed {
		c.Seats = append(c.Seats, &ceremonyv1.Seat{LinkId: link, Status: ceremonyv1.SeatStatus_SEAT_STATUS_SIGNED})
	}
	return &ceremonyv1.GetCeremonyResponse{Ceremony: c}, nil
}

// Check is satisfied.
func (*peers) Check(context.Context, *identityv1.CheckRequest) (*identityv1.CheckResponse, error) {
	return &identityv1.CheckResponse{Satisfied: true, Evidence: &identityv1.Evidence{Id: "evd_1", Level: 1}}, nil
}

// as returns the context of a call that a platform of the tenant makes.
func as(t *testing.T, tenant string) context.Context {
	return auth.Outgoing(auth.With(t.Context(), auth.Caller{ID: "key_1", Tenant: tenant, Kind: auth.Platform, Scopes: auth.Scopes()}))
}

// platformOf is as for a call that is under way.
func platformOf(ctx context.Context) context.Context {
	return auth.Outgoing(auth.With(ctx, auth.Caller{ID: "key_1", Tenant: tenant, Kind: auth.Platform, Scopes: auth.Scopes()}))
}
