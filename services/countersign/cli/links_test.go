package cli_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// linkage answers about links as Countersign does: five links, two a page, of which the second page is empty. Its streams break off once.
type linkage struct {
	signingv1.UnimplementedLinkServiceServer

	mu              sync.Mutex
	watches, issues int
}

func aLink(n int) *signingv1.Link {
	l := &signingv1.Link{
		Id: fmt.Sprintf("lnk_%d", n), RequestId: "req_two", Position: uint32(n), State: signingv1.LinkState_LINK_STATE_OPEN, Generation: 1, Profile: "standard",
		Holder: "per_" + fmt.Sprint(n), IssuedAt: ago(time.Hour), ExpiresAt: ago(-71 * time.Hour), Sent: true,
	}
	if n == 2 {
		l.State, l.Attention = signingv1.LinkState_LINK_STATE_EXPIRED, true
	}
	return l
}

func (x *linkage) GetLink(_ context.Context, req *signingv1.GetLinkRequest) (*signingv1.GetLinkResponse, error) {
	if req.GetId() != "lnk_2" {
		return nil, failure.LinkUnknown
	}
	l := aLink(2)
	l.Generations = view("req_two").GetSigners()[1].GetGenerations()
	return &signingv1.GetLinkResponse{Link: l}, nil
}

func (x *linkage) ListLinks(_ context.Context, req *signingv1.ListLinksRequest) (*signingv1.ListLinksResponse, error) {
	switch {
	case req.GetRequestId() == "req_gone":
		return nil, failure.RequestUnknown
	case req.GetState() == signingv1.LinkState_LINK_STATE_EXPIRED:
		return &signingv1.ListLinksResponse{Links: []*signingv1.Link{aLink(2)}}, nil
	case req.GetProfile() != "":
		if req.GetPageToken() == "" {
			return &signingv1.ListLinksResponse{NextPageToken: "b"}, nil // its links are further behind
		}
		return &signingv1.ListLinksResponse{Links: []*signingv1.Link{aLink(5)}}, nil
	case req.GetPageToken() == "":
		return &signingv1.ListLinksResponse{Links: []*signingv1.Link{aLink(1), aLink(2)}, NextPageToken: "b", WatchCursor: "w"}, nil
	case req.GetPageToken() == "b":
		return &signingv1.ListLinksResponse{NextPageToken: "c"}, nil
	default:
		return &signingv1.ListLinksResponse{Links: []*signingv1.Link{aLink(3)}}, nil
	}
}

// WatchLinks tells three events, breaks off behind the second the first time, and ends with a refusal.
func (x *linkage) WatchLinks(req *signingv1.WatchLinksRequest, stream grpc.ServerStreamingServer[signingv1.WatchLinksResponse]) error {
	if req.GetAfter() == "old" {
		return failure.CursorGone
	}
	x.mu.Lock()
	x.watches++
	first := x.watches == 1
	x.mu.Unlock()
	at := len(req.GetAfter()) // a cursor has as many letters as events were told
	if err := stream.Send(&signingv1.WatchLinksResponse{Cursor: strings.Repeat("e", at)}); err != nil {
		return err
	}
	for i, kind := range []signingv1.LinkEventType{signingv1.LinkEventType_LINK_EVENT_TYPE_ISSUED, signingv1.LinkEventType_LINK_EVENT_TYPE_SENT, signingv1.LinkEventType_LINK_EVENT_TYPE_EXPIRED} {
		if i < at {
			continue
		}
		if first && i == 2 {
			return failure.Unavailable
		}
		e := &signingv1.LinkEvent{Type: kind, At: ago(time.Hour), Link: aLink(min(i+1, 2))}
		if err := stream.Send(&signingv1.WatchLinksResponse{Event: e, Cursor: strings.Repeat("e", i+1)}); err != nil {
			return err
		}
	}
	return failure.PermissionDenied // so that the story ends
}

// IssueLinks breaks off once, with lines unanswered, and knows no request but req_two.
func (x *linkage) IssueLinks(stream grpc.BidiStreamingServer[signingv1.IssueLinksRequest, signingv1.IssueLinksResponse]) error {
	x.mu.Lock()
	x.issues++
	first := x.issues == 1
	x.mu.Unlock()
	var waiting []*signingv1.IssueLinksResponse
	for number := uint64(1); ; number++ {
		req, err := stream.Recv()
		if err != nil {
			break
		}
		if first && number == 4 {
			return failure.Unavailable
		}
		l := req.GetLine()
		a := &signingv1.IssueLinksResponse{Number: number, IdempotencyKey: l.GetIdempotencyKey()}
		if l.GetId() == "req_two" {
			a.Answer = &signingv1.IssueLinksResponse_Link{Link: &signingv1.IssueLinkResponse{Path: "/s/cs1_" + l.GetIdempotencyKey(), ExpiresAt: ago(-time.Hour)}}
		} else {
			a.Answer = &signingv1.IssueLinksResponse_Refusal{Refusal: &signingv1.Refusal{
				Code: failure.RequestInvalid.Code, Message: failure.RequestInvalid.Text, Fields: []*signingv1.FieldProblem{{Path: "id", Problem: "is none"}},
			}}
		}
		if waiting = append(waiting, a); len(waiting) == 2 { // the other way round
			if err := stream.Send(waiting[1]); err != nil {
				return err
			}
			if err := stream.Send(waiting[0]); err != nil {
				return err
			}
			waiting = nil
		}
	}
	for _, a := range waiting {
		if err := stream.Send(a); err != nil {
			return err
		}
	}
	return nil
}
