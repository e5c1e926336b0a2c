package token

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/telemetry"
	auditv1 "countersign.dev/proto/countersign/audit/v1"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// defaultPage is how many requests a list returns when it is not told.
const defaultPage = 50

// deliveryIDLimit is the most characters an id of a delivery has (decisions 5).
const deliveryIDLimit = 64

// signingServer is what platforms call, by gRPC and by REST.
type signingServer struct {
	signingv1.UnimplementedSigningRequestServiceServer
	s *Service
}

// caller checks the scope and returns whose requests the call is about, and what its acts are recorded with.
func caller(ctx context.Context, scope string) (tenant string, by eventlog.By, err error) {
	if err := auth.Require(ctx, scope); err != nil {
		return "", by, err
	}
	if tenant, err = auth.Tenant(ctx, ""); err != nil {
		return "", by, err
	}
	by = eventlog.By{
		Actor: &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_PLATFORM, Ref: auth.From(ctx).ID},
		Cause: &recordv1.Cause{CallId: callID()},
	}
	return tenant, by, nil
}

// Create takes in a request.
func (p signingServer) Create(ctx context.Context, req *signingv1.CreateRequest) (*signingv1.CreateResponse, error) {
	tenant, by, err := caller(ctx, auth.RequestsWrite)
	if err != nil {
		return nil, err
	}
	return p.s.create(ctx, tenant, req.GetIdempotencyKey(), req.GetRequest(), by)
}

// Get returns a request.
func (p signingServer) Get(ctx context.Context, req *signingv1.GetRequest) (*signingv1.GetResponse, error) {
	tenant, _, err := caller(ctx, auth.RequestsRead)
	if err != nil {
		return nil, err
	}
	r, err := p.s.find(telemetry.WithRequest(ctx, req.GetId(), tenant), tenant, req.GetId())
	if err != nil {
		return nil, err
	}
	view, err := p.s.view(ctx, r)
	return &signingv1.GetResponse{Request: view}, err
}

// List returns a page of the tenant's requests, newest first. A page token is the place in the list.
func (p signingServer) List(ctx context.Context, req *signingv1.ListRequest) (*signingv1.ListResponse, error) {
	tenant, _, err := caller(ctx, auth.RequestsRead)
	if err != nil {
		return nil, err
	}
	size, offset := int64(req.GetPageSize()), int64(0)
	if size == 0 {
		size = defaultPage
	}
	if t := req.GetPageToken(); t != "" {
		if offset, err = strconv.ParseInt(t, 36, 64); err != nil || offset < 0 {
			return nil, failure.RequestInvalid.WithFields(failure.Field{Path: "page_token", Problem: "is none that a list returned"})
		}
	}
	answer := &signingv1.ListResponse{}
	for int64(len(answer.GetRequests())) < size {
		ids, err := p.s.index.list(ctx, tenant, offset, size)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			offset++
			r, err := p.s.find(ctx, tenant, id)
			if errors.Is(err, failure.RequestUnknown) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if req.GetStatus() != signingv1.RequestStatus_REQUEST_STATUS_UNSPECIFIED && r.GetStatus() != req.GetStatus() {
				continue
			}
			view, err := p.s.view(ctx, r)
			if err != nil {
				return nil, err
			}
			if answer.Requests = append(answer.Requests, view); int64(len(answer.GetRequests())) == size {
				answer.NextPageToken = strconv.FormatInt(offset, 36)
				return answer, nil
			}
		}
		if int64(len(ids)) < size {
			break
		}
	}
	return answer, nil
}

// ListEvents returns a request's audit trail.
func (p signingServer) ListEvents(ctx context.Context, req *signingv1.ListEventsRequest) (*signingv1.ListEventsResponse, error) {
	tenant, _, err := caller(ctx, auth.RequestsRead)
	if err != nil {
		return nil, err
	}
	if _, err := p.s.find(ctx, tenant, req.GetId()); err != nil {
		return nil, err
	}
	leaves, err := p.s.audit.ListLeaves(ctx, &auditv1.ListLeavesRequest{Tenant: tenant, RequestId: req.GetId()})
	if err != nil {
		return nil, err
	}
	answer := &signingv1.ListEventsResponse{}
	for _, l := range leaves.GetLeaves() {
		answer.Events = append(answer.Events, &signingv1.Event{
			Sequence: l.GetSequence(), Type: l.GetType(), At: l.GetAt(), Actor: l.GetActor(), Leaf: string(l.GetRaw()), LeafHash: hex.EncodeToString(l.GetHash()),
		})
	}
	return answer, nil
}

// Cancel withdraws a request.
func (p signingServer) Cancel(ctx context.Context, req *signingv1.CancelRequest) (*signingv1.CancelResponse, error) {
	tenant, by, err := caller(ctx, auth.RequestsWrite)
	if err != nil {
		return nil, err
	}
	return p.s.withdraw(ctx, tenant, req, by)
}

// Erase destroys what is personal about a request that has ended.
func (p signingServer) Erase(ctx context.Context, req *signingv1.EraseRequest) (*signingv1.EraseResponse, error) {
	tenant, by, err := caller(ctx, auth.RequestsErase)
	if err != nil {
		return nil, err
	}
	return p.s.erase(ctx, tenant, req, by)
}

// Amend changes a request that goes on.
func (p signingServer) Amend(ctx context.Context, req *signingv1.AmendRequest) (*signingv1.AmendResponse, error) {
	tenant, by, err := caller(ctx, auth.RequestsWrite)
	if err != nil {
		return nil, err
	}
	return p.s.change(ctx, tenant, req, by)
}

// ReissueLink gives a signer a new link; the message goes to the address on record. Changed metadata holds before the link does.
func (p signingServer) ReissueLink(ctx context.Context, req *signingv1.ReissueLinkRequest) (*signingv1.ReissueLinkResponse, error) {
	ctx, at, by, err := p.begin(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := validateReason(req.GetReason()); err != nil {
		return nil, err
	}
	c := call{signingv1.SigningRequestService_ReissueLink_FullMethodName, req.GetIdempotencyKey(), req}
	return once(ctx, p.s, at.tenant(), c, by, func(ctx context.Context, by eventlog.By) (*signingv1.ReissueLinkResponse, error) {
		if len(req.GetMetadata()) > 0 {
			if err := auth.Require(ctx, auth.RequestsWrite); err != nil {
				return nil, err
			}
			change := &signingv1.AmendRequest{Id: req.GetId(), Metadata: req.GetMetadata(), Reason: req.GetReason()}
			if _, err := p.s.amend(ctx, at.tenant(), change, by); err != nil {
				return nil, err
			}
		}
		reasonID, err := p.s.reason(ctx, at.request, "reissue", req.GetReason(), at.seat.GetLinkId())
		if err != nil {
			return nil, err
		}
		view, err := p.turn(ctx, at, rules.Reissue{Reason: tokenv1.ReissueReason_REISSUE_REASON_PLATFORM, ReasonID: reasonID}, by)
		return &signingv1.ReissueLinkResponse{Signer: view}, err
	})
}

// RevokeLink withdraws a signer's link until it is reissued.
func (p signingServer) RevokeLink(ctx context.Context, req *signingv1.RevokeLinkRequest) (*signingv1.RevokeLinkResponse, error) {
	ctx, at, by, err := p.begin(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := validateReason(req.GetReason()); err != nil {
		return nil, err
	}
	c := call{signingv1.SigningRequestService_RevokeLink_FullMethodName, req.GetIdempotencyKey(), req}
	return once(ctx, p.s, at.tenant(), c, by, func(ctx context.Context, by eventlog.By) (*signingv1.RevokeLinkResponse, error) {
		reasonID, err := p.s.reason(ctx, at.request, "revoke", req.GetReason(), at.seat.GetLinkId())
		if err != nil {
			return nil, err
		}
		view, err := p.turn(ctx, at, rules.Revoke{Reason: tokenv1.EndReason_END_REASON_PLATFORM, ReasonID: reasonID}, by)
		return &signingv1.RevokeLinkResponse{Signer: view}, err
	})
}

// IssueLink makes one more token of a signer's link for the platform to hand over. It is minted as for a message. The token of a
// call that may be repeated is derived from the call, so that it is kept nowhere and still the same again.
func (p signingServer) IssueLink(ctx context.Context, req *signingv1.IssueLinkRequest) (*signingv1.IssueLinkResponse, error) {
	ctx, at, by, err := p.begin(ctx, req)
	if err != nil {
		return nil, err
	}
	c := call{signingv1.SigningRequestService_IssueLink_FullMethodName, req.GetIdempotencyKey(), req}
	secret := newSalt()
	if c.key != "" {
		secret = p.s.h.Keys.MAC("cs.issue.v1", []byte(p.s.callID(at.tenant(), c)))
	}
	token := rules.Token{Tenant: at.tenant(), LinkID: at.seat.GetLinkId(), Secret: secret[:rules.SecretSize]}
	answer, err := once(ctx, p.s, at.tenant(), c, by, func(ctx context.Context, by eventlog.By) (*signingv1.IssueLinkResponse, error) {
		link, _, err := p.s.links.Load(ctx, at.link())
		if err != nil {
			return nil, err
		}
		delivery := "platform:" + by.Cause.GetCallId()
		minted, err := p.s.mint(ctx, token, nil, link.GetGeneration(), delivery[:min(len(delivery), deliveryIDLimit)], by)
		return &signingv1.IssueLinkResponse{ExpiresAt: minted.GetExpiresAt()}, err
	})
	if err != nil {
		return nil, err
	}
	text, err := rules.FormatToken(token)
	answer.Path = "/s/" + text
	return answer, err
}

// place is the signer position that a platform's call is about.
type place struct {
	request *tokenv1.Request
	seat    *tokenv1.Seat
}

func (p place) tenant() string     { return p.request.GetTenant() }
func (p place) link() eventlog.Key { return key(p.tenant(), p.seat.GetLinkId()) }

// begin finds the signer that a platform's call is about, once their turn has come, and what the act is recorded with.
func (p signingServer) begin(ctx context.Context, req interface {
	GetId() string
	GetSigner() string
},
) (context.Context, place, eventlog.By, error) {
	tenant, by, err := caller(ctx, auth.LinksReissue)
	if err != nil {
		return ctx, place{}, by, err
	}
	by.RequestID = req.GetId()
	ctx = telemetry.WithRequest(ctx, req.GetId(), tenant)
	r, err := p.s.find(ctx, tenant, req.GetId())
	if err != nil {
		return ctx, place{}, by, err
	}
	seat, err := findSeat(r, req.GetSigner())
	if err != nil {
		return ctx, place{}, by, err
	}
	if seat.GetStatus() == tokenv1.SeatStatus_SEAT_STATUS_WAITING {
		return ctx, place{}, by, failure.LinkNotYet
	}
	return ctx, place{r, seat}, by, nil
}

// turn has a platform's command carried out on a signer's link.
func (p signingServer) turn(ctx context.Context, at place, command eventlog.Command[*tokenv1.Link], by eventlog.By) (*signingv1.SignerView, error) {
	if _, err := p.s.turn(ctx, at.link(), command, by); err != nil {
		return nil, err
	}
	return p.s.signerView(ctx, at.request, at.seat)
}

// Watch streams a request's outcomes, those that were already told first, and ends with the request.
func (p signingServer) Watch(req *signingv1.WatchRequest, stream grpc.ServerStreamingServer[signingv1.WatchResponse]) error {
	ctx := stream.Context()
	tenant, _, err := caller(ctx, auth.RequestsRead)
	if err != nil {
		return err
	}
	r, err := p.s.find(ctx, tenant, req.GetId())
	if err != nil {
		return err
	}
	outcomes, err := p.s.outcomes.Stream(ctx, OutcomesStream)
	if err != nil {
		return fmt.Errorf("token: watch: %w", err)
	}
	after := uint64(0)
	if req.GetAfter() != "" {
		if after, err = p.s.cursors.openAfter(outcomes, req.GetAfter(), "outcomes", tenant, req.GetId()); err != nil {
			return err
		}
	}
	if over, err := toldAll(ctx, outcomes, r, after); over || err != nil {
		return err
	}
	config := jetstream.OrderedConsumerConfig{FilterSubjects: []string{OutcomeSubject(tenant, req.GetId())}}
	if after > 0 {
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, after+1
	}
	consumer, err := outcomes.OrderedConsumer(ctx, config)
	if err != nil {
		return fmt.Errorf("token: watch: %w", err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("token: watch: %w", err)
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("token: watch: %w", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("token: watch: %w", err)
		}
		o := &signingv1.Outcome{}
		if err := protojson.Unmarshal(m.Data(), o); err != nil {
			return fmt.Errorf("token: watch: %w", err)
		}
		cursor := p.s.cursors.sealAfter(outcomes, meta.Sequence.Stream, "outcomes", tenant, req.GetId())
		if err := stream.Send(&signingv1.WatchResponse{Outcome: o, Cursor: cursor}); err != nil {
			return err
		}
		if closed(o.GetStatus()) {
			return nil
		}
	}
}

// toldAll reports whether nothing is told of a request after a cursor any more: it is closed, and its newest outcome is not beyond.
func toldAll(ctx context.Context, outcomes jetstream.Stream, r *tokenv1.Request, after uint64) (bool, error) {
	if after == 0 || !closed(r.GetStatus()) {
		return false, nil
	}
	newest, err := outcomes.GetLastMsgForSubject(ctx, OutcomeSubject(r.GetTenant(), r.GetId()))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("token: watch: %w", err)
	}
	o := &signingv1.Outcome{}
	if err := protojson.Unmarshal(newest.Data, o); err != nil {
		return false, fmt.Errorf("token: watch: %w", err)
	}
	return newest.Sequence <= after && closed(o.GetStatus()), nil
}

func closed(s signingv1.RequestStatus) bool {
	switch s {
	case signingv1.RequestStatus_REQUEST_STATUS_COMPLETED, signingv1.RequestStatus_REQUEST_STATUS_DECLINED, signingv1.RequestStatus_REQUEST_STATUS_CANCELLED,
		signingv1.RequestStatus_REQUEST_STATUS_EXPIRED:
		return true
	default:
		return false
	}
}
