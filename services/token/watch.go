package token

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

const (
	// watchBeat is how long a watch is silent at most.
	watchBeat = 15 * time.Second
	// watchesPerTenant bounds what one tenant's watches take of a process: each holds some messages, and a reader on the server.
	watchesPerTenant = 64
)

// watches counts the watches that go on, by tenant.
type watches struct {
	mu sync.Mutex
	of map[string]int
}

// enter counts one in, unless the tenant has as many as it may. leave counts it out.
func (w *watches) enter(tenant string) (leave func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of[tenant] >= watchesPerTenant {
		return nil, failure.RateLimited.After(watchBeat)
	}
	if w.of == nil {
		w.of = map[string]int{}
	}
	w.of[tenant]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.of[tenant]--; w.of[tenant] == 0 {
			delete(w.of, tenant)
		}
	}, nil
}

// WatchLinks tells what happens to the tenant's links until the caller leaves. It reads from the record no faster than the caller
// takes it.
func (p platformLinkServer) WatchLinks(req *signingv1.WatchLinksRequest, stream grpc.ServerStreamingServer[signingv1.WatchLinksResponse]) error {
	ctx := stream.Context()
	tenant, _, err := caller(ctx, auth.RequestsRead)
	if err != nil {
		return err
	}
	leave, err := p.s.watches.enter(tenant)
	if err != nil {
		return err
	}
	defer leave()
	after, err := p.s.watchFrom(ctx, tenant, req)
	if err != nil {
		return err
	}
	follower, err := p.s.log.Follow(ctx, "fact."+Name+"."+tenant+".*", after)
	if err != nil {
		return err
	}
	defer follower.Stop()
	filter := linkFilter{req.GetRequestId(), req.GetState(), req.GetProfile(), req.GetHolder()}
	var event *signingv1.LinkEvent // the first message only says where the watch begins
	for {
		if err := stream.Send(&signingv1.WatchLinksResponse{Event: event, Cursor: p.s.sealWatch(tenant, follower.At())}); err != nil {
			return err
		}
		if event, err = nextEvent(ctx, follower, filter, p.s.beat); err != nil && !errors.Is(err, eventlog.ErrQuiet) {
			return err
		}
	}
}

// watchFrom returns the sequence behind which a watch begins.
func (s *Service) watchFrom(ctx context.Context, tenant string, req *signingv1.WatchLinksRequest) (after uint64, err error) {
	if req.GetAfter() != "" {
		if req.GetFromStart() {
			return 0, failure.RequestInvalid.WithFields(failure.Field{Path: "from_start", Problem: "is said beside a cursor: give one of the two"})
		}
		if after, err = s.openWatch(tenant, req.GetAfter()); err != nil {
			return 0, err
		}
	}
	if id := req.GetRequestId(); id != "" {
		if _, err := s.find(ctx, tenant, id); err != nil {
			return 0, err
		}
	}
	first, last, err := s.log.Bounds(ctx)
	switch {
	case err != nil:
		return 0, err
	case req.GetAfter() == "" && !req.GetFromStart():
		return last, nil
	case req.GetAfter() != "" && !covers(first, last, after):
		return 0, failure.CursorGone
	}
	return after, nil
}

// covers tells whether a record from first to last has all that followed a sequence: it neither begins later, nor ends before it as one
// does that was restored from a backup.
func covers(first, last, after uint64) bool { return after+1 >= first && after <= last }

// nextEvent returns the next thing that fits, or eventlog.ErrQuiet when there was none for a while: however much there is that does not
// fit, the caller hears from time to time how far the record was read.
func nextEvent(ctx context.Context, f *eventlog.Follower, filter linkFilter, beat time.Duration) (*signingv1.LinkEvent, error) {
	for range watchPassed {
		e, err := f.Next(ctx, beat)
		if err != nil {
			return nil, err
		}
		event, err := eventOf(e)
		if err != nil {
			return nil, err
		}
		if event != nil && filter.fits(event.link, event.at) {
			return &signingv1.LinkEvent{Type: event.kind, At: event.record.GetAt(), Link: shown(event.link, event.at)}, nil
		}
	}
	return nil, eventlog.ErrQuiet
}

// watchPassed is how many facts that do not fit are passed over before the cursor is told.
const watchPassed = 1000

// toldFact is a fact of a link as it is told to platforms.
type toldFact struct {
	kind   signingv1.LinkEventType
	at     time.Time
	link   *tokenv1.Link
	record *recordv1.Record
}

// eventOf reads a message of the record; nil where it is about no link, or of a kind that a newer release states.
func eventOf(e eventlog.Entry) (*toldFact, error) {
	if !strings.Contains(e.Subject, "."+linkPrefix) {
		return nil, nil
	}
	rec := &recordv1.Record{}
	if err := proto.Unmarshal(e.Data, rec); err != nil {
		return nil, err
	}
	kind := rules.EventType(string(rec.GetFact().MessageName().Name()))
	if kind == signingv1.LinkEventType_LINK_EVENT_TYPE_UNSPECIFIED {
		return nil, nil
	}
	link := &tokenv1.Link{}
	if err := rec.GetState().UnmarshalTo(link); err != nil {
		return nil, err
	}
	return &toldFact{kind, rec.GetAt().AsTime(), link, rec}, nil
}
