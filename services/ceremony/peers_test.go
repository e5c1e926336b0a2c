package ceremony_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/failure"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// peers plays token and identity as far as ceremony asks them.
type peers struct {
	tokenv1.UnimplementedLinkServiceServer
	tokenv1.UnimplementedDirectoryServiceServer
	identityv1.UnimplementedIdentityServiceServer

	mu         sync.Mutex
	links      map[string]*tokenv1.LinkView
	ended      map[string]string // by link: what GetSession says of it
	unproved   bool              // nobody is verified
	refusal    error             // what AdmitSigning answers instead
	held       time.Duration     // for how long AdmitSigning holds a link
	admissions map[string]int    // by id
	notes      map[string]string
	keys       map[string][]byte // by request: of its documents; nil: destroyed
	// beforeAdmission runs when a signer asks to be admitted; nil: nothing.
	beforeAdmission func()
}

func newPeers() *peers {
	return &peers{
		links: map[string]*tokenv1.LinkView{}, ended: map[string]string{}, held: 2 * time.Minute, admissions: map[string]int{}, notes: map[string]string{},
		keys: map[string][]byte{},
	}
}

func (p *peers) services() map[string]func(grpc.ServiceRegistrar) {
	return map[string]func(grpc.ServiceRegistrar){
		"token": func(r grpc.ServiceRegistrar) {
			tokenv1.RegisterLinkServiceServer(r, p)
			tokenv1.RegisterDirectoryServiceServer(r, p)
		},
		"identity": func(r grpc.ServiceRegistrar) { identityv1.RegisterIdentityServiceServer(r, p) },
	}
}

// set changes what the peers answer.
func (p *peers) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// note returns words from the vault.
func (p *peers) note(id string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.notes[id]
}

// admitted tells how many admissions were asked for.
func (p *peers) admitted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.admissions)
}

// opened has a signer's link be open in the browser of its name.
func (p *peers) opened(request, link string, position uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links[link] = &tokenv1.LinkView{
		Tenant: tenant, LinkId: link, RequestId: request, Position: position, Generation: 1, Status: tokenv1.LinkStatus_LINK_STATUS_REDEEMED,
		HolderId: "per_" + link[4:], Assurance: 1, SessionId: "ses_" + link[4:], ExpiresAt: timestamppb.New(clock.System().Now("").Add(time.Hour)),
	}
}

// GetSession knows one browser a link, and wants to be asked for the record.
func (p *peers) GetSession(_ context.Context, req *tokenv1.GetSessionRequest) (*tokenv1.GetSessionResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	link := p.links[req.GetLinkId()]
	switch {
	case !req.GetDecisive():
		return nil, failure.Internal
	case link == nil:
		return &tokenv1.GetSessionResponse{FailureCode: failure.LinkUnknown.Code}, nil
	case p.ended[req.GetLinkId()] != "":
		return &tokenv1.GetSessionResponse{Link: proto.CloneOf(link), FailureCode: p.ended[req.GetLinkId()]}, nil
	case req.GetBrowser() != browserOf(req.GetLinkId()):
		return &tokenv1.GetSessionResponse{Link: proto.CloneOf(link), FailureCode: failure.LinkUsed.Code}, nil
	}
	return &tokenv1.GetSessionResponse{Link: proto.CloneOf(link), SessionHere: true}, nil
}

// AdmitSigning holds a link, or refuses.
func (p *peers) AdmitSigning(_ context.Context, req *tokenv1.AdmitSigningRequest) (*tokenv1.AdmitSigningResponse, error) {
	p.mu.Lock()
	before := p.beforeAdmission
	p.mu.Unlock()
	if before != nil {
		before()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refusal != nil {
		return nil, p.refusal
	}
	p.admissions[req.GetAdmissionId()]++
	return &tokenv1.AdmitSigningResponse{
		Admission: &tokenv1.Admission{Id: req.GetAdmissionId(), Until: timestamppb.New(clock.System().Now("").Add(p.held))}, Link: p.links[req.GetLinkId()],
	}, nil
}

// PutNote keeps words once.
func (p *peers) PutNote(_ context.Context, req *tokenv1.PutNoteRequest) (*tokenv1.PutNoteResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.links[req.GetOwnerId()] == nil {
		return nil, failure.PersonErased // the words of a signer go with the signer
	}
	if p.notes[req.GetNoteId()] == "" {
		p.notes[req.GetNoteId()] = req.GetText()
	}
	sum := sha256.Sum256([]byte("salt" + p.notes[req.GetNoteId()]))
	return &tokenv1.PutNoteResponse{Commitment: sum[:]}, nil
}

// GetDocumentKey has a key of its own for each request, until it is destroyed.
func (p *peers) GetDocumentKey(_ context.Context, req *tokenv1.GetDocumentKeyRequest) (*tokenv1.GetDocumentKeyResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key, known := p.keys[req.GetRequestId()]
	if known && key == nil {
		return nil, failure.RequestErased
	}
	if !known && req.GetMake() {
		key = make([]byte, 32)
		rand.Read(key)
		p.keys[req.GetRequestId()] = key
	}
	return &tokenv1.GetDocumentKeyResponse{Key: key}, nil
}

// Check is satisfied for whoever holds the link.
func (p *peers) Check(_ context.Context, req *identityv1.CheckRequest) (*identityv1.CheckResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unproved || req.GetPurpose() != identityv1.Purpose_PURPOSE_SIGN || req.GetPersonId() != "per_"+req.GetLinkId()[4:] {
		return &identityv1.CheckResponse{Missing: identityv1.Method_METHOD_EMAIL_CODE}, nil
	}
	return &identityv1.CheckResponse{Satisfied: true, Evidence: &identityv1.Evidence{Id: "evd_1", Level: 1}}, nil
}
