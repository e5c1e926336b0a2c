package token

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/hotstate"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

const (
	// keepFor is how long Redis keeps a state that nobody touches. It only cleans up: a miss is answered from the record.
	keepFor = 45 * 24 * time.Hour
	// hotDurable hears the service's own facts for Redis alone: it waits while Redis is away, and nothing else waits with it.
	hotDurable = Name + "-hot"
)

// HotState is what the service keeps in Redis: the records of requests and links, and the list of each tenant's requests.
func HotState() hotstate.Part {
	return hotstate.Part{Service: Name, Keep: keepFor, Index: func(rdb redis.UniversalClient, store *hot.Store) hotstate.Index {
		return &index{rdb: rdb, store: store}
	}}
}

// onHot keeps Redis in step with the record, whatever became of the process that stated a fact.
func (s *Service) onHot(ctx context.Context, m eventlog.Message) error {
	if err := s.cache.Heard(ctx, m); err != nil {
		return err
	}
	_, _, k, err := eventlog.ParseSubject(m.Subject)
	if err != nil || !strings.HasPrefix(k.ID, requestPrefix) {
		return err
	}
	rec := &recordv1.Record{}
	if err := proto.Unmarshal(m.Data, rec); err != nil {
		return eventlog.Poison(fmt.Errorf("record is unreadable: %w", err))
	}
	if accepted := new(tokenv1.RequestAccepted); rec.GetFact().MessageIs(accepted) {
		r, err := eventlog.StateIn[*tokenv1.Request](m.Data)
		if err != nil {
			return eventlog.Poison(err)
		}
		if err := s.index.add(ctx, k.Tenant, k.ID, r.GetAcceptedAt().AsTime()); err != nil {
			// Redis may come back with a list that misses this request and calls itself whole: it is heard again until it is on it.
			s.h.Logger.DebugContext(ctx, "list of requests was not written", "error", err)
			return failure.Unavailable
		}
	}
	return nil
}
