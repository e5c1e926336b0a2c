// Package hotstate is what services keep of their record in Redis: they write it while they work, Rebuild fills an empty Redis with it,
// and Verify proves that it is what the record says.
package hotstate

import (
	"context"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/hot"
)

// kindOfKey is what all keys of records have in common.
const kindOfKey = "record"

// Part is what one service keeps in Redis, as it offers it to whoever rebuilds or verifies: the newest record of every aggregate.
type Part struct {
	Service string        // whose facts
	Keep    time.Duration // how long what nobody touches stays; it only cleans up
	// Index returns what is kept beside the records and made from them; nil where that is nothing.
	Index func(redis.UniversalClient, *hot.Store) Index
}

// Key returns the key of an aggregate's record. All keys of an aggregate lie in one slot of a Redis Cluster.
func (p Part) Key(k eventlog.Key) string { return hot.Key(k.ID, k.Tenant, kindOfKey, p.Service) }

// parse returns whose record is under a key of this part; ok is false for other keys.
func (p Part) parse(key string) (k eventlog.Key, ok bool) {
	tag, parts, ok := hot.ParseKey(key)
	if !ok || len(parts) != 3 || parts[1] != kindOfKey || parts[2] != p.Service {
		return k, false
	}
	k = eventlog.Key{Tenant: parts[0], ID: tag}
	return k, k.Validate() == nil
}

// Index is something a service keeps in Redis for each tenant beside the records, such as a sorted list of some of them. It is whole
// or not there; the service adds to it all the time and makes it where it is not there.
type Index interface {
	// Key is where a tenant's is kept.
	Key(tenant string) string
	// Begin begins to make a tenant's. Records of before are given to Add, which takes any number at once by several goroutines
	// and picks its own; those that are stated meanwhile the service adds itself. Finish declares it whole.
	Begin(ctx context.Context, tenant string) (Making, error)
	// Missing returns which of some records are not on a tenant's; none where it is not there.
	Missing(ctx context.Context, tenant string, records []eventlog.Entry) ([]eventlog.Entry, error)
	// Each visits the ids that are on a tenant's, some at a time; none where it is not there.
	Each(ctx context.Context, tenant string, visit func(ids []string) error) error
	// Drop has a tenant's made again, without some ids.
	Drop(ctx context.Context, tenant string, ids ...string) error
}

// Making is an index that is being made.
type Making interface {
	Add(ctx context.Context, records []eventlog.Entry) error
	Finish(ctx context.Context) error
}

// Cache keeps a part's records as they are stated and read. It implements eventlog.Cache.
type Cache struct {
	part   Part
	store  *hot.Store
	logger *slog.Logger
}

// NewCache returns the cache of a part.
func NewCache(part Part, store *hot.Store, logger *slog.Logger) *Cache {
	return &Cache{part: part, store: store, logger: logger}
}

// Get returns what Redis has; every error is a miss.
func (c *Cache) Get(ctx context.Context, k eventlog.Key) (uint64, []byte, error) {
	return c.store.Get(ctx, c.part.Key(k))
}

// Put keeps a record unless a newer one is there. An error leaves an older one, until Heard mends it.
func (c *Cache) Put(ctx context.Context, k eventlog.Key, sequence uint64, record []byte) {
	if _, err := c.store.Put(ctx, c.part.Key(k), sequence, record, c.part.Keep); err != nil {
		c.logger.DebugContext(ctx, "hot state was not written", "error", err)
	}
}

// Heard mends what is kept of an aggregate when one of its facts is heard: whoever stated it may have ended before Put, or had no
// Redis, and what is kept would stay older than the record for as long as nothing else happens. Where nothing is kept that is no
// fault, and nothing is done. It is refused with Unavailable, so that the fact is heard again, until Redis has answered.
func (c *Cache) Heard(ctx context.Context, m eventlog.Message) error {
	_, _, k, err := eventlog.ParseSubject(m.Subject)
	if err != nil {
		return eventlog.Poison(err)
	}
	renewed, err := c.store.Renew(ctx, c.part.Key(k), m.Sequence, m.Data, c.part.Keep)
	if err != nil {
		c.logger.DebugContext(ctx, "hot state was not looked at", "error", err)
		return failure.Unavailable
	}
	if renewed {
		c.logger.InfoContext(ctx, "hot state was older than the record", "sequence", m.Sequence)
	}
	return nil
}
