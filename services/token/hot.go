package token

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/hot"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// keepFor is how long Redis keeps a state that nobody touches. It only cleans up: a miss is answered from the record.
const keepFor = 45 * 24 * time.Hour

// cache keeps newest records in Redis; all keys of one aggregate are in one slot.
type cache struct {
	store  *hot.Store
	logger *slog.Logger
}

func newCache(h *host.Host) cache {
	return cache{store: hot.New(h.Redis, hot.DefaultTimeout), logger: h.Logger}
}

// Get returns what Redis has; every error is a miss.
func (c cache) Get(ctx context.Context, k eventlog.Key) (uint64, []byte, error) {
	return c.store.Get(ctx, hot.Key(k.ID, k.Tenant, "record"))
}

// Put keeps a record unless a newer one is there. An error costs a read of the record later, nothing more.
func (c cache) Put(ctx context.Context, k eventlog.Key, sequence uint64, record []byte) {
	if _, err := c.store.Put(ctx, hot.Key(k.ID, k.Tenant, "record"), sequence, record, keepFor); err != nil {
		c.logger.DebugContext(ctx, "hot state was not written", "error", err)
	}
}

// index is the list of a tenant's requests, newest first. It is made again from the record where Redis does not have it.
type index struct {
	rdb      redis.UniversalClient
	requests *eventlog.Aggregate[*tokenv1.Request]
}

func indexKey(tenant string) string    { return hot.Key(tenant, "requests") }
func completeKey(tenant string) string { return hot.Key(tenant, "requests", "complete") }
func beginKey(tenant string) string    { return hot.Key(tenant, "requests", "begun") }

// add puts a request on the list. Adding twice is harmless.
func (x *index) add(ctx context.Context, tenant, id string, accepted time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, hot.DefaultTimeout)
	defer cancel()
	return x.rdb.ZAdd(ctx, indexKey(tenant), redis.Z{Score: float64(accepted.UnixMilli()), Member: id}).Err()
}

// list returns the ids of up to size requests from the offset on, newest first.
func (x *index) list(ctx context.Context, tenant string, offset, size int64) ([]string, error) {
	complete, err := x.rdb.Exists(ctx, completeKey(tenant)).Result()
	if err != nil {
		return nil, fmt.Errorf("token: list: %w", err)
	}
	if complete == 0 {
		if err := x.rebuild(ctx, tenant); err != nil {
			return nil, err
		}
	}
	ids, err := x.rdb.ZRevRange(ctx, indexKey(tenant), offset, offset+size-1).Result()
	if err != nil {
		return nil, fmt.Errorf("token: list: %w", err)
	}
	return ids, nil
}

// rebuild reads the tenant's requests from the record and marks the list as whole. A request that is accepted meanwhile is added by
// add. The mark that becomes the other is lost where Redis is emptied meanwhile: then the list is not whole, and is made again.
func (x *index) rebuild(ctx context.Context, tenant string) error {
	if err := x.rdb.Set(ctx, beginKey(tenant), "1", time.Hour).Err(); err != nil {
		return fmt.Errorf("token: make the list again: %w", err)
	}
	err := eventlog.Sweep(ctx, x.requests, "fact."+Name+"."+tenant+".*", requestPrefix, func(k eventlog.Key, r *tokenv1.Request, _ uint64) error {
		if r.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_UNSPECIFIED {
			return nil
		}
		return x.add(ctx, k.Tenant, k.ID, r.GetAcceptedAt().AsTime())
	})
	if err != nil {
		return errors.Join(errors.New("token: make the list again"), err)
	}
	if err := x.rdb.Rename(ctx, beginKey(tenant), completeKey(tenant)).Err(); err != nil {
		// Either the mark is lost, or somebody else was faster.
		if n, failed := x.rdb.Exists(ctx, completeKey(tenant)).Result(); failed != nil || n == 0 {
			return errors.Join(failure.Unavailable, err)
		}
	}
	return x.rdb.Persist(ctx, completeKey(tenant)).Err()
}
