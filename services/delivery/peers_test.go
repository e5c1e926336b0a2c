package delivery_test

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/failure"
	auditv1 "countersign.dev/proto/countersign/audit/v1"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// peers plays token, identity, ceremony and audit as far as delivery asks them.
type peers struct {
	tokenv1.UnimplementedLinkServiceServer
	tokenv1.UnimplementedDirectoryServiceServer
	identityv1.UnimplementedIdentityServiceServer
	ceremonyv1.UnimplementedCeremonyServiceServer
	auditv1.UnimplementedAuditServiceServer

	mu      sync.Mutex
	links   map[string]*tokenv1.Link
	people  map[string]*signingv1.Person // nil: erased
	away    error                        // what Mint answers instead
	asked   int                          // calls of Mint
	minted  []string
	reports error // what GetCertificate answers instead
}

func newPeers() *peers {
	return &peers{
		links: map[string]*tokenv1.Link{},
		people: map[string]*signingv1.Person{
			"per_ada":   {Name: adaName, Email: adaMail, Locale: "en", TimeZone: "Europe/Berlin"},
			"per_grace": {Name: graceName, Email: graceMail, Locale: "de", TimeZone: "Europe/Berlin"},
			"per_boss":  {Name: bossName, Email: bossMail, Locale: "en"},
		},
	}
}

func (p *peers) services() map[string]func(grpc.ServiceRegistrar) {
	return map[string]func(grpc.ServiceRegistrar){
		"token": func(r grpc.ServiceRegistrar) {
			tokenv1.RegisterLinkServiceServer(r, p)
			tokenv1.RegisterDirectoryServiceServer(r, p)
		},
		"identity": func(r grpc.ServiceRegistrar) { identityv1.RegisterIdentityServiceServer(r, p) },
		"ceremony": func(r grpc.ServiceRegistrar) { ceremonyv1.RegisterCeremonyServiceServer(r, p) },
		"audit":    func(r grpc.ServiceRegistrar) { auditv1.RegisterAuditServiceServer(r, p) },
	}
}

// set changes what the peers answer.
func (p *peers) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *peers) calls() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *peers) tokens() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.minted...)
}

// link makes or changes a link as token has it from now on, and returns a copy.
func (p *peers) link(id string, f func(*tokenv1.Link)) *tokenv1.Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &tokenv1.Link{Id: id, Tenant: tenant, RequestId: request, Status: tokenv1.LinkStatus_LINK_STATUS_OPEN, Generation: 1, HolderId: "per_ada"}
	if old := p.links[id]; old != nil {
		l = proto.CloneOf(old)
	}
	f(l)
	p.links[id] = l
	return proto.CloneOf(l)
}

// Mint refuses as token does.
func (p *peers) Mint(_ context.Context, req *tokenv1.MintRequest) (*tokenv1.MintResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	link := p.links[req.GetLinkId()]
	switch {
	case p.away != nil:
		return nil, p.away
	case link == nil:
		return nil, failure.LinkUnknown
	case link.GetStatus() == tokenv1.LinkStatus_LINK_STATUS_SIGNED:
		return nil, failure.LinkSigned
	case link.GetStatus() == tokenv1.LinkStatus_LINK_STATUS_REVOKED:
		return nil, failure.LinkRevoked
	case req.GetGeneration() < link.GetGeneration():
		return nil, failure.LinkSuperseded
	}
	token := fmt.Sprintf("cs1_secret-%s-%d", req.GetLinkId(), len(p.minted))
	p.minted = append(p.minted, token)
	return &tokenv1.MintResponse{Token: token, ExpiresAt: timestamppb.New(clock.System().Now("").AddDate(0, 0, 7))}, nil
}

// GetLink returns a link.
func (p *peers) GetLink(_ context.Context, req *tokenv1.GetLinkRequest) (*tokenv1.GetLinkResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.links[req.GetLinkId()] == nil {
		return nil, failure.LinkUnknown
	}
	return &tokenv1.GetLinkResponse{Link: proto.CloneOf(p.links[req.GetLinkId()])}, nil
}

// GetPerson knows three people, as long as they are not erased; at the second position there is Grace alone.
func (p *peers) GetPerson(_ context.Context, req *tokenv1.GetPersonRequest) (*tokenv1.GetPersonResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if req.GetLinkId() == "" || req.GetLinkId() == "lnk_seat2" && req.GetPersonId() != "per_grace" {
		return nil, failure.SignerUnknown
	}
	if p.people[req.GetPersonId()] == nil {
		return nil, failure.PersonErased
	}
	return &tokenv1.GetPersonResponse{Person: proto.CloneOf(p.people[req.GetPersonId()])}, nil
}

// GetRequest knows one request.
func (p *peers) GetRequest(_ context.Context, req *tokenv1.GetRequestRequest) (*tokenv1.GetRequestResponse, error) {
	return &tokenv1.GetRequestResponse{
		Request: &tokenv1.Request{Id: req.GetRequestId(), Tenant: tenant, Documents: []*tokenv1.RequestDocument{{Id: "doc_1"}}},
		Words:   &tokenv1.RequestWords{Title: title, DocumentNames: []string{fileName}},
	}, nil
}

// GetNote returns the one note there is, which is the request's.
func (p *peers) GetNote(_ context.Context, req *tokenv1.GetNoteRequest) (*tokenv1.GetNoteResponse, error) {
	if req.GetOwnerId() != request {
		return nil, failure.PersonErased
	}
	return &tokenv1.GetNoteResponse{Text: reason}, nil
}

// RenderCode renders the code of any challenge.
func (p *peers) RenderCode(context.Context, *identityv1.RenderCodeRequest) (*identityv1.RenderCodeResponse, error) {
	return &identityv1.RenderCodeResponse{Code: code, ExpiresAt: timestamppb.New(clock.System().Now("").AddDate(0, 0, 1))}, nil
}

// GetDocument streams a document in two parts.
func (p *peers) GetDocument(_ *ceremonyv1.GetDocumentRequest, stream grpc.ServerStreamingServer[ceremonyv1.GetDocumentResponse]) error {
	for _, part := range []string{"%PDF-1.7 ", "signed"} {
		if err := stream.Send(&ceremonyv1.GetDocumentResponse{Chunk: []byte(part)}); err != nil {
			return err
		}
	}
	return nil
}

// GetCertificate returns a certificate, or says that it is not yet there.
func (p *peers) GetCertificate(context.Context, *auditv1.GetCertificateRequest) (*auditv1.GetCertificateResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &auditv1.GetCertificateResponse{Pdf: []byte("%PDF-1.7 certificate")}, p.reports
}
