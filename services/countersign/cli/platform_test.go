package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// platform answers as Countersign does, from a script. req_two waits for its second signer, req_done is completed, req_no declined.
type platform struct {
	signingv1.UnimplementedSigningRequestServiceServer

	mu      sync.Mutex
	made    map[string]*signingv1.RequestView // by reference
	watches int
}

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.Add(-d)) }

func (p *platform) Create(_ context.Context, req *signingv1.CreateRequest) (*signingv1.CreateResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := req.GetRequest()
	switch {
	case r.GetReference() == "taken":
		return nil, failure.RequestConflict
	case strings.Contains(r.GetIntegration(), " "):
		return nil, failure.RequestInvalid.WithFields(failure.Field{Path: "integration", Problem: "has spaces"})
	case !bytes.HasPrefix(r.GetDocuments()[0].GetContent(), []byte("%PDF-")):
		return nil, failure.DocumentRefused.WithFields(failure.Field{Path: "documents[0].content", Problem: "is no PDF"})
	}
	if old, there := p.made[r.GetReference()]; there {
		return &signingv1.CreateResponse{Request: old}, nil
	}
	v := &signingv1.RequestView{
		Id: "req_new", Reference: r.GetReference(), Title: r.GetTitle(), Status: signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS, Profile: r.GetProfile(),
		AcceptedAt: ago(0), Documents: []*signingv1.DocumentView{{Name: r.GetDocuments()[0].GetName(), Pages: 2}},
	}
	for i, s := range r.GetSigners() {
		title := s.GetName()
		for _, a := range s.GetAlternates() {
			title += " or " + a.GetName()
		}
		if s.GetManager() != nil {
			title += " of " + s.GetManager().GetName()
		}
		v.Signers = append(v.Signers, &signingv1.SignerView{
			Id: fmt.Sprintf("lnk_%d", i+1), Position: uint32(i) + 1, Group: s.GetGroup(), Name: title, Email: s.GetEmail(),
			Status: signingv1.SignerStatus_SIGNER_STATUS_WAITING,
		})
	}
	p.made[r.GetReference()] = v
	return &signingv1.CreateResponse{Request: v, Created: true}, nil
}

func (p *platform) Get(_ context.Context, req *signingv1.GetRequest) (*signingv1.GetResponse, error) {
	v := view(req.GetId())
	if v == nil {
		return nil, failure.RequestUnknown
	}
	return &signingv1.GetResponse{Request: v}, nil
}

func view(id string) *signingv1.RequestView {
	v := &signingv1.RequestView{
		Id: id, Reference: "offer-2026-117", Title: "Offer letter", Profile: "standard", AcceptedAt: ago(50 * time.Hour),
		Documents: []*signingv1.DocumentView{{Name: "offer.pdf", PresentedSha256: strings.Repeat("ab", 32), SignedSha256: strings.Repeat("cd", 32), Pages: 2}},
		Signers: []*signingv1.SignerView{
			{
				Id: "lnk_1", Position: 1, Group: 1, Name: "Ada Lovelace", Email: "ada@example.com", Status: signingv1.SignerStatus_SIGNER_STATUS_SIGNED, Generation: 1,
				ExpiresAt: ago(-118 * time.Hour),
			},
			{
				Id: "lnk_2", Position: 2, Group: 2, Name: "Grace Hopper", Email: "grace@example.com", Status: signingv1.SignerStatus_SIGNER_STATUS_NOTIFIED,
				Generation: 2, ExpiresAt: ago(-71 * time.Hour),
				Generations: []*signingv1.LinkGeneration{
					{
						Number: 1, Origin: signingv1.LinkOrigin_LINK_ORIGIN_ISSUED, MadeAt: ago(49 * time.Hour), ExpiresAt: ago(3 * time.Hour),
						End: signingv1.LinkEnd_LINK_END_LAPSED, EndedAt: ago(3 * time.Hour),
					},
					{
						Number: 2, Origin: signingv1.LinkOrigin_LINK_ORIGIN_PLATFORM, MadeAt: ago(time.Hour), ExpiresAt: ago(-71 * time.Hour), Reason: "the mail was lost",
					},
				},
			},
		},
		Metadata: map[string]string{"case": "4711"},
	}
	switch id {
	case "req_two", "req_new":
		v.Status = signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS
	case "req_done":
		v.Status, v.ClosedAt = signingv1.RequestStatus_REQUEST_STATUS_COMPLETED, ago(time.Hour)
		v.Signers = v.GetSigners()[:1]
	case "req_erased":
		v.Status, v.ClosedAt, v.ErasedAt = signingv1.RequestStatus_REQUEST_STATUS_CANCELLED, ago(time.Hour), ago(time.Minute)
		v.Title, v.Reference, v.Metadata, v.Documents[0].Name = "", "", nil, ""
		for _, s := range v.GetSigners() {
			s.Name, s.Email, s.ErasedAt = "", "", v.GetErasedAt()
		}
	case "req_no":
		v.Status, v.ClosedAt, v.Title = signingv1.RequestStatus_REQUEST_STATUS_DECLINED, ago(time.Hour), "Odd \x1b[31m title"
	default:
		return nil
	}
	return v
}

// List has five requests, two a page.
func (p *platform) List(_ context.Context, req *signingv1.ListRequest) (*signingv1.ListResponse, error) {
	next := map[string]string{"": "b", "b": "c", "c": ""}
	pages := map[string][]string{"": {"req_two", "req_done"}, "b": {"req_no", "req_two"}, "c": {"req_done"}}
	answer := &signingv1.ListResponse{NextPageToken: next[req.GetPageToken()]}
	for _, id := range pages[req.GetPageToken()] {
		if v := view(id); req.GetStatus() == 0 || req.GetStatus() == v.GetStatus() {
			answer.Requests = append(answer.Requests, v)
		}
	}
	return answer, nil
}

// leaves is an audit trail: what, how long ago, and the rest of the leaf.
var leaves = []struct {
	kind string
	ago  time.Duration
	rest string
}{
	{"cs.request.created", 50 * time.Hour, `"actor":{"kind":"platform"}`},
	{"cs.link.issued", 50 * time.Hour, `"link":{"id":"lnk_1","gen":1}`},
	{"cs.delivery.accepted", 50 * time.Hour, `"link":{"id":"lnk_1","gen":1},"info":{"kind":"link","attempt":"1"}`},
	{"cs.identity.verified", 49 * time.Hour, `"link":{"id":"lnk_1"},"auth":{"req":0,"got":1,"methods":["email:code"]}`},
	{"cs.signature.applied", 49 * time.Hour, `"link":{"id":"lnk_1"}`},
	{"cs.link.issued", 49 * time.Hour, `"link":{"id":"lnk_2","gen":1}`},
	{"cs.delivery.deferred", 49 * time.Hour, `"link":{"id":"lnk_2","gen":1},"info":{"kind":"link","attempt":"1"},"out":{"code":"4.3.0"}`},
	{"cs.link.soft_expired", 3 * time.Hour, `"link":{"id":"lnk_2","gen":1}`},
	{"cs.escalation.triggered", 3 * time.Hour, `"link":{"id":"lnk_2","gen":1},"info":{"trigger":"link_lapsed","policy":"firm","steps":"2","next_action":"notify_manager","next_at":"2026-11-24T10:00:00.000Z"}`},
	{"cs.escalation.manager_notified", 2 * time.Hour, `"link":{"id":"lnk_2","gen":1},"info":{"trigger":"link_lapsed","policy":"firm","steps":"2","step":"1","next_action":"route_alternate","next_at":"2026-11-25T12:00:00.000Z"}`},
	{"cs.link.reissued", time.Hour, `"link":{"id":"lnk_2","gen":2},"info":{"reason":"platform"}`},
	{"cs.delivery.accepted", time.Hour, `"link":{"id":"lnk_2","gen":2},"info":{"kind":"reissued","attempt":"2"},"out":{"code":"ok"}`},
	{"cs.reminder.scheduled", time.Hour, `"link":{"id":"lnk_2","gen":2},"info":{"sent":"0","used":"0","of":"3","next_at":"2026-11-25T11:00:00.000Z"}`},
	{"cs.tomorrow.invented", time.Hour, `"link":{"id":"lnk_2"}`},
}

func (p *platform) ListEvents(context.Context, *signingv1.ListEventsRequest) (*signingv1.ListEventsResponse, error) {
	answer := &signingv1.ListEventsResponse{}
	for i, l := range leaves {
		answer.Events = append(answer.Events, &signingv1.Event{Sequence: uint64(i) + 1, Type: l.kind, At: ago(l.ago), Leaf: "{" + l.rest + "}"})
	}
	return answer, nil
}

// Watch breaks off after the second outcome the first time, and goes on behind the cursor it is given.
func (p *platform) Watch(req *signingv1.WatchRequest, stream grpc.ServerStreamingServer[signingv1.WatchResponse]) error {
	p.mu.Lock()
	p.watches++
	first := p.watches == 1
	p.mu.Unlock()
	end := &signingv1.Outcome{Event: "completed", Status: signingv1.RequestStatus_REQUEST_STATUS_COMPLETED, Position: 2}
	if req.GetId() == "req_no" {
		end = &signingv1.Outcome{Event: "declined", Status: signingv1.RequestStatus_REQUEST_STATUS_DECLINED, Position: 2}
	}
	going := signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS
	for i, o := range []*signingv1.Outcome{{Event: "accepted", Status: going}, {Event: "progress", Status: going, Position: 1}, {Event: "escalated", Status: going, Position: 2}, end} {
		cursor := fmt.Sprint("c", i+1)
		if cursor <= req.GetAfter() {
			continue
		}
		if first && i == 2 && req.GetId() == "req_two" {
			return failure.Unavailable
		}
		o.RequestId, o.At = req.GetId(), ago(time.Hour)
		if err := stream.Send(&signingv1.WatchResponse{Outcome: o, Cursor: cursor}); err != nil {
			return err
		}
	}
	return nil
}

func seat(id, signer string) (*signingv1.SignerView, error) {
	v := view(id)
	switch {
	case v == nil:
		return nil, failure.RequestUnknown
	case signer == "1" || signer == "lnk_1":
		return nil, failure.LinkSigned
	case signer == "2" || signer == "lnk_2":
		return v.GetSigners()[1], nil
	case signer == "9":
		return nil, failure.LinkBusy.After(90 * time.Second)
	}
	return nil, failure.SignerUnknown
}

func (p *platform) IssueLink(_ context.Context, req *signingv1.IssueLinkRequest) (*signingv1.IssueLinkResponse, error) {
	s, err := seat(req.GetId(), req.GetSigner())
	if err != nil {
		return nil, err
	}
	return &signingv1.IssueLinkResponse{Path: "/s/cs1_demo_" + s.GetId() + "_x", ExpiresAt: s.GetExpiresAt()}, nil
}

func (p *platform) ReissueLink(_ context.Context, req *signingv1.ReissueLinkRequest) (*signingv1.ReissueLinkResponse, error) {
	s, err := seat(req.GetId(), req.GetSigner())
	if err != nil {
		return nil, err
	}
	s.Generation++
	return &signingv1.ReissueLinkResponse{Signer: s}, nil
}

func (p *platform) Amend(_ context.Context, req *signingv1.AmendRequest) (*signingv1.AmendResponse, error) {
	v := view(req.GetId())
	if v == nil {
		return nil, failure.RequestUnknown
	}
	v.Deadline = req.GetDeadline()
	for _, c := range req.GetSigners() {
		s, err := seat(req.GetId(), c.GetSigner())
		if err != nil {
			return nil, failure.AmendTooLate.WithFields(failure.Field{Path: "signers[0]", Problem: "has signed"})
		}
		for _, shown := range v.GetSigners() {
			if shown.GetId() == s.GetId() && c.Email != nil {
				shown.Email, shown.Generation = c.GetEmail(), shown.GetGeneration()+1
			}
		}
	}
	return &signingv1.AmendResponse{Request: v}, nil
}

func (p *platform) Cancel(_ context.Context, req *signingv1.CancelRequest) (*signingv1.CancelResponse, error) {
	v := view(req.GetId())
	switch {
	case v == nil:
		return nil, failure.RequestUnknown
	case v.GetClosedAt() != nil:
		return nil, failure.RequestClosed
	}
	v.Status, v.ClosedAt = signingv1.RequestStatus_REQUEST_STATUS_CANCELLED, ago(0)
	return &signingv1.CancelResponse{Request: v}, nil
}

func (p *platform) Erase(_ context.Context, req *signingv1.EraseRequest) (*signingv1.EraseResponse, error) {
	v := view(req.GetId())
	switch {
	case v == nil:
		return nil, failure.RequestUnknown
	case v.GetClosedAt() == nil:
		return nil, failure.RequestOpen
	}
	if req.GetSigner() == "" {
		v.ErasedAt, v.Title, v.Reference, v.Metadata = ago(0), "", "", nil
	}
	for _, s := range v.GetSigners() {
		if req.GetSigner() == "" || req.GetSigner() == s.GetId() || req.GetSigner() == "1" && s.GetPosition() == 1 {
			s.ErasedAt, s.Name, s.Email = ago(0), "", ""
		}
	}
	return &signingv1.EraseResponse{Request: v}, nil
}

func (p *platform) RevokeLink(_ context.Context, req *signingv1.RevokeLinkRequest) (*signingv1.RevokeLinkResponse, error) {
	s, err := seat(req.GetId(), req.GetSigner())
	if err != nil {
		return nil, err
	}
	s.Status = signingv1.SignerStatus_SIGNER_STATUS_WITHDRAWN
	return &signingv1.RevokeLinkResponse{Signer: s}, nil
}
