package gateway_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/failure"
	auditv1 "countersign.dev/proto/countersign/audit/v1"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

const (
	goodToken  = "cs1_BGRlbW8AAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiM"
	otherToken = "cs1_BGFjbWUAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiM"
	linkID     = "lnk_AAECAwQFBgcICQoLDA0ODw"
	requestID  = "req_1"
	holderID   = "per_ada"
	documentID = "doc_offer"
	rightCode  = "271828"
	parent     = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

	openPath = "/s/" + goodToken
	signPath = "/sign/demo/" + linkID
	goOnPath = "/continue/demo/" + linkID
)

// peers are token, identity, ceremony and audit as far as the gateway sees them. A test sets what they answer; a redeem, a
// right code and a signature change it as they would.
type peers struct {
	mu    sync.Mutex
	calls []string // every call, by method

	link         *tokenv1.LinkView
	linkCode     string // what Resolve says of the good token
	sessionCode  string // what GetSession says; "" = by whose session it is
	session      string // the browser that has it
	redeemErr    error
	continueErr  error
	personErr    error
	resolveErr   error
	satisfied    map[string]bool // browser and purpose
	challenge    map[string]*identityv1.ChallengeView
	triesLeft    uint32
	startErr     error
	lockedUntil  time.Time
	noMethod     bool
	ceremony     *ceremonyv1.Ceremony
	signErr      error
	signed       *ceremonyv1.SignRequest
	declined     *ceremonyv1.DeclineRequest
	person       *signingv1.Person
	request      *tokenv1.GetRequestResponse
	certificate  []byte
	platform     auth.Caller // who called the signing service last
	created      *signingv1.SigningRequest
	reissue      *signingv1.ReissueLinkRequest
	amend        *signingv1.AmendRequest
	signingErr   error
	alreadyThere bool
}

func newPeers() *peers {
	sum := sha256.Sum256([]byte("pdf"))
	return &peers{
		link: &tokenv1.LinkView{
			Tenant: "demo", LinkId: linkID, RequestId: requestID, Position: 1, Generation: 1, Status: tokenv1.LinkStatus_LINK_STATUS_OPEN, HolderId: holderID,
			ExpiresAt: timestamppb.New(noon.Add(72 * time.Hour)), GraceEndsAt: timestamppb.New(noon.Add(73 * time.Hour)), Assurance: 1, Traceparent: parent,
			SessionEndsAt: timestamppb.New(noon.Add(time.Hour)),
		},
		satisfied: map[string]bool{}, challenge: map[string]*identityv1.ChallengeView{}, triesLeft: 5,
		ceremony: &ceremonyv1.Ceremony{
			Tenant: "demo", RequestId: requestID,
			Documents: []*ceremonyv1.Document{{Id: documentID, PresentedSha256: sum[:], CurrentSha256: sum[:], Pages: []*ceremonyv1.Page{{Width: 595, Height: 842}, {Width: 595, Height: 842}}}},
		},
		person: &signingv1.Person{Name: "Ada Lovelace", Email: "ada@example.com", TimeZone: "Europe/Berlin"},
		request: &tokenv1.GetRequestResponse{
			Request: &tokenv1.Request{Id: requestID, Status: signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS, Seats: []*tokenv1.Seat{{LinkId: linkID}, {LinkId: "lnk_other"}}},
			Words:   &tokenv1.RequestWords{Title: "Offer letter", DocumentNames: []string{"Angebot für Ada.pdf"}},
		},
		certificate: []byte("%PDF-certificate"),
	}
}

func (p *peers) services() map[string]func(grpc.ServiceRegistrar) {
	return map[string]func(grpc.ServiceRegistrar){
		"token": func(r grpc.ServiceRegistrar) {
			tokenv1.RegisterLinkServiceServer(r, links{peers: p})
			tokenv1.RegisterDirectoryServiceServer(r, directory{peers: p})
			signingv1.RegisterSigningRequestServiceServer(r, signing{peers: p})
			signingv1.RegisterProfileServiceServer(r, profiling{})
			signingv1.RegisterLinkServiceServer(r, linking{})
		},
		"identity": func(r grpc.ServiceRegistrar) { identityv1.RegisterIdentityServiceServer(r, identity{peers: p}) },
		"ceremony": func(r grpc.ServiceRegistrar) { ceremonyv1.RegisterCeremonyServiceServer(r, ceremony{peers: p}) },
		"audit":    func(r grpc.ServiceRegistrar) { auditv1.RegisterAuditServiceServer(r, audit{peers: p}) },
	}
}

// on notes a call and holds the state still until the function it returns is called.
func (p *peers) on(call string) func() {
	p.mu.Lock()
	p.calls = append(p.calls, call)
	return p.mu.Unlock
}

// set changes what the peers answer.
func (p *peers) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// count tells how often calls of these methods came.
func (p *peers) count(methods ...string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.calls {
		if slices.Contains(methods, c) {
			n++
		}
	}
	return n
}

// changes are the calls that change something.
func (p *peers) changes() int {
	return p.count("Redeem", "Continue", "StartChallenge", "Answer", "Show", "Sign", "Decline")
}

type links struct {
	tokenv1.UnimplementedLinkServiceServer
	*peers
}

func (p links) Resolve(_ context.Context, req *tokenv1.ResolveRequest) (*tokenv1.ResolveResponse, error) {
	defer p.on("Resolve")()
	if p.resolveErr != nil {
		return nil, p.resolveErr
	}
	if req.GetToken() != goodToken {
		return &tokenv1.ResolveResponse{FailureCode: failure.LinkUnknown.Code}, nil
	}
	here := p.session != "" && p.session == req.GetBrowser() && p.sessionCode == ""
	code := p.linkCode
	if code == "" && p.session != "" && !here {
		code = failure.LinkUsed.Code
	}
	return &tokenv1.ResolveResponse{Link: p.view(), FailureCode: code, SessionHere: here}, nil
}

func (p *peers) view() *tokenv1.LinkView { return proto.CloneOf(p.link) }

func (p links) Redeem(_ context.Context, req *tokenv1.RedeemRequest) (*tokenv1.RedeemResponse, error) {
	defer p.on("Redeem")()
	switch {
	case req.GetToken() != goodToken:
		return nil, failure.LinkUnknown
	case p.redeemErr != nil:
		return nil, p.redeemErr
	case p.session != "" && p.session != req.GetBrowser():
		return nil, failure.LinkUsed
	}
	p.session = req.GetBrowser()
	return &tokenv1.RedeemResponse{Link: p.view()}, nil
}

func (p links) GetSession(_ context.Context, req *tokenv1.GetSessionRequest) (*tokenv1.GetSessionResponse, error) {
	defer p.on("GetSession")()
	if req.GetLinkId() != linkID || req.GetTenant() != "demo" {
		return nil, failure.SessionUnknown
	}
	a := &tokenv1.GetSessionResponse{Link: p.view(), FailureCode: p.sessionCode, SessionHere: p.session == req.GetBrowser()}
	switch {
	case p.sessionCode != "":
	case p.session == "":
		a.FailureCode = failure.SessionUnknown.Code
	case !a.GetSessionHere():
		a.FailureCode = failure.LinkUsed.Code
	}
	return a, nil
}

func (p links) Continue(_ context.Context, req *tokenv1.ContinueRequest) (*tokenv1.ContinueResponse, error) {
	defer p.on("Continue")()
	if p.continueErr != nil {
		return nil, p.continueErr
	}
	if !p.satisfied[req.GetBrowser()+"PURPOSE_CONTINUE"] {
		return nil, failure.ReissueUnproved
	}
	p.session, p.sessionCode, p.linkCode = req.GetBrowser(), "", failure.LinkSuperseded.Code
	p.link.Generation++
	return &tokenv1.ContinueResponse{Link: p.view(), Reissued: true}, nil
}

type directory struct {
	tokenv1.UnimplementedDirectoryServiceServer
	*peers
}

func (p directory) GetPerson(_ context.Context, req *tokenv1.GetPersonRequest) (*tokenv1.GetPersonResponse, error) {
	defer p.on("GetPerson")()
	if p.personErr != nil {
		return nil, p.personErr
	}
	if req.GetLinkId() != linkID {
		return nil, failure.SignerUnknown
	}
	return &tokenv1.GetPersonResponse{Person: proto.CloneOf(p.person)}, nil
}

func (p directory) GetRequest(context.Context, *tokenv1.GetRequestRequest) (*tokenv1.GetRequestResponse, error) {
	defer p.on("GetRequest")()
	return proto.CloneOf(p.request), nil
}

func (p directory) GetNote(_ context.Context, req *tokenv1.GetNoteRequest) (*tokenv1.GetNoteResponse, error) {
	defer p.on("GetNote")()
	if req.GetOwnerId() != linkID {
		return nil, failure.PersonErased
	}
	return &tokenv1.GetNoteResponse{Text: "A. King, née Byron"}, nil
}

type identity struct {
	identityv1.UnimplementedIdentityServiceServer
	*peers
}

func (p identity) Check(_ context.Context, req *identityv1.CheckRequest) (*identityv1.CheckResponse, error) {
	defer p.on("Check")()
	who := req.GetBrowser() + req.GetPurpose().String()
	if req.GetPersonId() == holderID && (req.GetLevel() == 0 || p.satisfied[who] || p.satisfied[req.GetBrowser()+"PURPOSE_CONTINUE"]) {
		return &identityv1.CheckResponse{Satisfied: true}, nil
	}
	a := &identityv1.CheckResponse{Missing: identityv1.Method_METHOD_EMAIL_CODE, Challenge: p.challenge[who]}
	if p.noMethod {
		a.Missing = identityv1.Method_METHOD_UNSPECIFIED
	}
	if !p.lockedUntil.IsZero() {
		a.LockedUntil, a.Challenge = timestamppb.New(p.lockedUntil), nil
	}
	if a.GetChallenge() != nil {
		a.Challenge.TriesLeft = p.triesLeft
	}
	return a, nil
}

func (p identity) StartChallenge(_ context.Context, req *identityv1.StartChallengeRequest) (*identityv1.StartChallengeResponse, error) {
	defer p.on("StartChallenge")()
	if p.startErr != nil {
		return nil, p.startErr
	}
	p.triesLeft = 5
	c := &identityv1.ChallengeView{
		Id: fmt.Sprintf("chl_%d", len(p.calls)), ExpiresAt: timestamppb.New(noon.Add(10 * time.Minute)), ResendAt: timestamppb.New(noon.Add(30 * time.Second)), TriesLeft: 5,
	}
	p.challenge[req.GetBrowser()+req.GetPurpose().String()] = c
	return &identityv1.StartChallengeResponse{Challenge: c}, nil
}

func (p identity) Answer(_ context.Context, req *identityv1.AnswerRequest) (*identityv1.AnswerResponse, error) {
	defer p.on("Answer")()
	for who, open := range p.challenge {
		if open.GetId() != req.GetChallengeId() {
			continue
		}
		if req.GetCode() == rightCode {
			p.satisfied[who] = true
			delete(p.challenge, who)
			return &identityv1.AnswerResponse{Evidence: &identityv1.Evidence{Level: 1}}, nil
		}
		if p.triesLeft--; p.triesLeft == 0 {
			delete(p.challenge, who)
			return nil, failure.CodeExpired
		}
		return nil, failure.CodeWrong
	}
	return nil, failure.CodeExpired
}

type ceremony struct {
	ceremonyv1.UnimplementedCeremonyServiceServer
	*peers
}

func (p ceremony) GetCeremony(context.Context, *ceremonyv1.GetCeremonyRequest) (*ceremonyv1.GetCeremonyResponse, error) {
	defer p.on("GetCeremony")()
	return &ceremonyv1.GetCeremonyResponse{Ceremony: proto.CloneOf(p.ceremony)}, nil
}

func (p ceremony) GetPage(_ context.Context, req *ceremonyv1.GetPageRequest) (*ceremonyv1.GetPageResponse, error) {
	defer p.on("GetPage")()
	return &ceremonyv1.GetPageResponse{Image: fmt.Appendf(nil, "picture %s %d %d", req.GetDocumentId(), req.GetPage(), req.GetWidth()), ContentType: "image/png"}, nil
}

func (p ceremony) GetText(_ context.Context, req *ceremonyv1.GetTextRequest) (*ceremonyv1.GetTextResponse, error) {
	defer p.on("GetText")()
	return &ceremonyv1.GetTextResponse{Text: fmt.Sprintf("Words of page %d", req.GetPage())}, nil
}

func (p ceremony) GetDocument(req *ceremonyv1.GetDocumentRequest, stream grpc.ServerStreamingServer[ceremonyv1.GetDocumentResponse]) error {
	defer p.on("GetDocument")()
	for _, part := range []string{"%PDF-", req.GetRevision().String()} {
		if err := stream.Send(&ceremonyv1.GetDocumentResponse{Chunk: []byte(part)}); err != nil {
			return err
		}
	}
	return nil
}

func (p ceremony) Show(context.Context, *ceremonyv1.ShowRequest) (*ceremonyv1.ShowResponse, error) {
	defer p.on("Show")()
	return &ceremonyv1.ShowResponse{Ceremony: p.ceremony}, nil
}

func (p ceremony) Sign(_ context.Context, req *ceremonyv1.SignRequest) (*ceremonyv1.SignResponse, error) {
	defer p.on("Sign")()
	if p.signErr != nil {
		return nil, p.signErr
	}
	p.signed = req
	p.ceremony.Seats = []*ceremonyv1.Seat{{LinkId: linkID, Status: ceremonyv1.SeatStatus_SEAT_STATUS_SIGNED, ActedAt: timestamppb.New(noon), NameId: "not_name"}}
	return &ceremonyv1.SignResponse{Ceremony: p.ceremony}, nil
}

func (p ceremony) Decline(_ context.Context, req *ceremonyv1.DeclineRequest) (*ceremonyv1.DeclineResponse, error) {
	defer p.on("Decline")()
	p.declined = req
	p.ceremony.Seats = []*ceremonyv1.Seat{{LinkId: linkID, Status: ceremonyv1.SeatStatus_SEAT_STATUS_DECLINED, ActedAt: timestamppb.New(noon)}}
	return &ceremonyv1.DeclineResponse{Ceremony: p.ceremony}, nil
}

type audit struct {
	auditv1.UnimplementedAuditServiceServer
	*peers
}

func (p audit) GetCertificate(context.Context, *auditv1.GetCertificateRequest) (*auditv1.GetCertificateResponse, error) {
	defer p.on("GetCertificate")()
	if p.certificate == nil {
		return nil, failure.CertificateNotYet
	}
	return &auditv1.GetCertificateResponse{Pdf: p.certificate}, nil
}

type signing struct {
	signingv1.UnimplementedSigningRequestServiceServer
	*peers
}

func (p signing) Create(ctx context.Context, req *signingv1.CreateRequest) (*signingv1.CreateResponse, error) {
	defer p.on("Create")()
	p.platform, p.created = auth.From(ctx), req.GetRequest()
	if p.signingErr != nil {
		return nil, p.signingErr
	}
	return &signingv1.CreateResponse{Request: &signingv1.RequestView{Id: requestID, Reference: req.GetRequest().GetReference(), AcceptedAt: timestamppb.New(noon)}, Created: !p.alreadyThere}, nil
}

func (p signing) Get(ctx context.Context, req *signingv1.GetRequest) (*signingv1.GetResponse, error) {
	defer p.on("Get")()
	p.platform = auth.From(ctx)
	if req.GetId() != requestID {
		return nil, failure.RequestUnknown
	}
	return &signingv1.GetResponse{Request: &signingv1.RequestView{Id: requestID, Status: signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS}}, nil
}

func (p signing) List(_ context.Context, req *signingv1.ListRequest) (*signingv1.ListResponse, error) {
	defer p.on("List")()
	return &signingv1.ListResponse{Requests: []*signingv1.RequestView{{Id: requestID}}, NextPageToken: fmt.Sprint(req.GetPageSize())}, nil
}

func (p signing) Amend(_ context.Context, req *signingv1.AmendRequest) (*signingv1.AmendResponse, error) {
	defer p.on("Amend")()
	p.amend = req
	return &signingv1.AmendResponse{Request: &signingv1.RequestView{Id: requestID, Deadline: req.GetDeadline()}}, p.signingErr
}

func (p signing) ReissueLink(_ context.Context, req *signingv1.ReissueLinkRequest) (*signingv1.ReissueLinkResponse, error) {
	defer p.on("ReissueLink")()
	p.reissue = req
	if p.signingErr != nil {
		return nil, p.signingErr
	}
	return &signingv1.ReissueLinkResponse{Signer: &signingv1.SignerView{Id: linkID, Generation: 2}}, nil
}
