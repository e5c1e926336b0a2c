package token

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/telemetry"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

const (
	// defaultLinkPage is how many links a list returns when it is not told.
	defaultLinkPage = 100
	// listChunk is how many requests of a list are read in one trip, and listScan how many are looked at for one page: a filter that
	// few links pass makes a page short, not slow.
	listChunk = 200
	listScan  = 2000
)

// platformLinkServer shows platforms their links, by gRPC and by REST.
type platformLinkServer struct {
	signingv1.UnimplementedLinkServiceServer
	s *Service
}

// linkFilter is which links a platform asks for. What is empty fits every one.
type linkFilter struct {
	request string
	state   signingv1.LinkState
	profile string
	holder  string
}

// fits tells whether a link is asked for, as it stands at now. One that was never issued is none.
func (f linkFilter) fits(l *tokenv1.Link, now time.Time) bool {
	state := rules.StateAt(l, now)
	return state != signingv1.LinkState_LINK_STATE_UNSPECIFIED &&
		(f.request == "" || f.request == l.GetRequestId()) &&
		(f.state == signingv1.LinkState_LINK_STATE_UNSPECIFIED || f.state == state) &&
		(f.profile == "" || f.profile == l.GetProfile().GetName()) &&
		(f.holder == "" || f.holder == l.GetHolderId())
}

// shown is a link as its platform sees it at now, without its generations.
func shown(l *tokenv1.Link, now time.Time) *signingv1.Link {
	v := &signingv1.Link{
		Id: l.GetId(), RequestId: l.GetRequestId(), Position: l.GetPosition(), State: rules.StateAt(l, now), Generation: l.GetGeneration(),
		Profile: l.GetProfile().GetName(), ProfileVersion: l.GetProfile().GetVersion(), Holder: l.GetHolderId(), IssuedAt: l.GetIssuedAt(),
		ExpiresAt: l.GetExpiresAt(), Sent: l.GetClockStarted(), OpenedAt: rules.OpenedAt(l), Attention: rules.NeedsAttention(l),
	}
	if end := rules.SessionEnd(l); !end.IsZero() {
		v.SessionEndsAt = timestamppb.New(end)
	}
	return v
}

// GetLink returns a link. One of another tenant is as unknown as one that never was, by the same single read.
func (p platformLinkServer) GetLink(ctx context.Context, req *signingv1.GetLinkRequest) (*signingv1.GetLinkResponse, error) {
	tenant, _, err := caller(ctx, auth.RequestsRead)
	if err != nil {
		return nil, err
	}
	link, _, err := p.s.links.Load(ctx, key(tenant, req.GetId()))
	if err != nil {
		return nil, err
	}
	if link.GetGeneration() == 0 {
		return nil, failure.LinkUnknown
	}
	ctx = telemetry.WithRequest(ctx, link.GetRequestId(), tenant)
	v := shown(link, p.s.h.Clock.Now(tenant))
	v.Generations = lineage(link)
	return &signingv1.GetLinkResponse{Link: v}, p.s.explain(ctx, link, v.GetGenerations())
}

// ListLinks returns a page of the tenant's links.
func (p platformLinkServer) ListLinks(ctx context.Context, req *signingv1.ListLinksRequest) (*signingv1.ListLinksResponse, error) {
	tenant, _, err := caller(ctx, auth.RequestsRead)
	if err != nil {
		return nil, err
	}
	l := listing{
		s: p.s, tenant: tenant, size: int(req.GetPageSize()),
		filter: linkFilter{req.GetRequestId(), req.GetState(), req.GetProfile(), req.GetHolder()},
	}
	if l.size == 0 {
		l.size = defaultLinkPage
	}
	if req.GetReference() != "" {
		if l.filter.request != "" {
			return nil, failure.RequestInvalid.WithFields(failure.Field{Path: "reference", Problem: "names a request, as request_id does: give one of the two"})
		}
		l.filter.request = p.s.requestID(tenant, req.GetReference())
	}
	bound := []string{"links", tenant, l.filter.request, l.filter.state.String(), l.filter.profile, l.filter.holder}
	answer := &signingv1.ListLinksResponse{}
	if req.GetPageToken() == "" {
		// Asked for before anything is read: what happens meanwhile is told behind it.
		_, last, err := p.s.log.Bounds(ctx)
		if err != nil {
			return nil, err
		}
		answer.WatchCursor = p.s.sealWatch(tenant, last)
	} else if raw, ok := p.s.cursors.open(req.GetPageToken(), bound...); !ok || !l.at.read(raw) {
		return nil, failure.RequestInvalid.WithFields(failure.Field{Path: "page_token", Problem: "is none that a list of this tenant with these filters returned"})
	}
	more, err := l.run(ctx)
	if err != nil {
		return nil, err
	}
	if answer.Links = l.links; more {
		answer.NextPageToken = p.s.cursors.seal(l.at.write(), bound...)
	}
	return answer, nil
}

// listPlace is a link in the order of a list: everything up to it was looked at. The zero place is before the first.
type listPlace struct {
	accepted int64 // when its request was accepted, in milliseconds
	position uint32
	request  string
}

func (p listPlace) write() []byte {
	return append(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, uint64(p.accepted)), p.position), p.request...)
}

func (p *listPlace) read(raw []byte) bool {
	if len(raw) < 12 {
		return false
	}
	*p = listPlace{int64(binary.BigEndian.Uint64(raw)), binary.BigEndian.Uint32(raw[8:]), string(raw[12:])}
	return true
}

// listing is one page in the making.
type listing struct {
	s      *Service
	tenant string
	filter linkFilter
	size   int
	at     listPlace
	links  []*signingv1.Link
}

// run fills the page, and tells whether there may be more behind it.
func (l *listing) run(ctx context.Context) (more bool, err error) {
	if l.filter.request != "" {
		// A request that is named need be on no list, and is refused where it is unknown.
		r, err := l.s.find(ctx, l.tenant, l.filter.request)
		if err != nil {
			return false, err
		}
		return l.of(ctx, []*tokenv1.Request{r})
	}
	for scanned := 0; scanned < listScan; scanned += listChunk {
		found, err := l.s.index.from(ctx, l.tenant, l.at.accepted, l.at.request, listChunk)
		if err != nil {
			return false, err
		}
		keys := make([]eventlog.Key, len(found))
		for i, z := range found {
			keys[i] = key(l.tenant, fmt.Sprint(z.Member))
		}
		requests, err := l.s.requests.ReadMany(ctx, keys)
		if err != nil {
			return false, err
		}
		if full, err := l.of(ctx, requests); full || err != nil {
			return full, err
		}
		if len(found) < listChunk {
			return false, nil
		}
		newest := found[len(found)-1]
		l.at = listPlace{int64(newest.Score), math.MaxUint32, fmt.Sprint(newest.Member)}
	}
	return true, nil
}

// of takes the links of requests that come behind the place, and tells whether the page is full.
func (l *listing) of(ctx context.Context, requests []*tokenv1.Request) (full bool, err error) {
	var places []listPlace
	var keys []eventlog.Key
	for _, r := range requests {
		for _, seat := range r.GetSeats() {
			if r.GetId() == l.at.request && seat.GetPosition() <= l.at.position {
				continue
			}
			places = append(places, listPlace{r.GetAcceptedAt().AsTime().UnixMilli(), seat.GetPosition(), r.GetId()})
			keys = append(keys, key(l.tenant, seat.GetLinkId()))
		}
	}
	links, err := l.s.links.ReadMany(ctx, keys)
	if err != nil {
		return false, err
	}
	now := l.s.h.Clock.Now(l.tenant)
	for i, link := range links {
		l.at = places[i]
		if !l.filter.fits(link, now) {
			continue
		}
		if l.links = append(l.links, shown(link, now)); len(l.links) == l.size {
			return true, nil
		}
	}
	return false, nil
}

// sealWatch writes where a watch goes on.
func (s *Service) sealWatch(tenant string, sequence uint64) string {
	return s.cursors.sealAfter(s.log.Stream(), sequence, "watch", tenant)
}

// openWatch reads where a watch goes on.
func (s *Service) openWatch(tenant, cursor string) (uint64, error) {
	return s.cursors.openAfter(s.log.Stream(), cursor, "watch", tenant)
}
