package hotstate

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/hot"
)

// Progress is told how far something has come; from several goroutines at once.
type Progress interface {
	// Begin says that so many messages of a service's record are to be read.
	Begin(service string, messages uint64)
	// Read says that so many more were.
	Read(messages int)
}

// Rebuilt is what Rebuild did for one service.
type Rebuilt struct {
	Service  string `json:"service"`
	Messages uint64 `json:"messages"` // of the record that were read
	Records  int64  `json:"records"`  // newest ones that were found
	Stored   int64  `json:"stored"`   // of them; the others were in Redis already
	Indexes  int    `json:"indexes"`  // that were made, one a tenant
}

// Rebuild writes to Redis the newest record of every aggregate of a part, of one tenant or with "" of all, and its indexes. What is
// there already stays where it is as new. Services may serve meanwhile; only newest records are written, so that nobody is shown an
// older one for a moment. After an error, doing it again goes on from what is there.
func Rebuild(ctx context.Context, log *eventlog.Log, rdb redis.UniversalClient, store *hot.Store, part Part, tenant string, progress Progress) (Rebuilt, error) {
	done := Rebuilt{Service: part.Service}
	walk, err := log.Walk(ctx, Filter(part, tenant))
	if err != nil {
		return done, err
	}
	progress.Begin(part.Service, walk.Messages())
	makings, err := begin(ctx, walk, rdb, store, part)
	if err != nil {
		return done, err
	}
	var messages, records, stored atomic.Int64
	err = walk.Each(ctx, func(n int) {
		messages.Add(int64(n))
		progress.Read(n)
	}, func(ctx context.Context, page []eventlog.Entry) error {
		n, err := part.write(ctx, store, page)
		if err != nil {
			return err
		}
		records.Add(int64(len(page)))
		stored.Add(int64(n))
		return add(ctx, makings, page)
	})
	done.Messages, done.Records, done.Stored = uint64(messages.Load()), records.Load(), stored.Load()
	if err != nil {
		return done, err
	}
	for tenant, making := range makings {
		if err := making.Finish(ctx); err != nil {
			return done, fmt.Errorf("hotstate: index of %s for tenant %s: %w", part.Service, tenant, err)
		}
		done.Indexes++
	}
	return done, nil
}

// Filter is where the facts of a part are, of one tenant or with "" of all.
func Filter(part Part, tenant string) string {
	if tenant == "" {
		return "fact." + part.Service + ".>"
	}
	return "fact." + part.Service + "." + tenant + ".*"
}

// begin begins to make the indexes of every tenant that has facts. A tenant that comes later has none, and gets it when it is used.
func begin(ctx context.Context, walk *eventlog.Walk, rdb redis.UniversalClient, store *hot.Store, part Part) (map[string]Making, error) {
	if part.Index == nil {
		return nil, nil
	}
	tenants, err := walk.Tenants()
	if err != nil {
		return nil, err
	}
	index, makings := part.Index(rdb, store), map[string]Making{}
	for _, tenant := range tenants {
		if makings[tenant], err = index.Begin(ctx, tenant); err != nil {
			return nil, fmt.Errorf("hotstate: index of %s for tenant %s: %w", part.Service, tenant, err)
		}
	}
	return makings, nil
}

func (p Part) write(ctx context.Context, store *hot.Store, page []eventlog.Entry) (int, error) {
	values := make([]hot.Fresh, len(page))
	for i, e := range page {
		_, _, k, err := eventlog.ParseSubject(e.Subject)
		if err != nil {
			return 0, err
		}
		values[i] = hot.Fresh{Key: p.Key(k), Seq: e.Sequence, Value: e.Data}
	}
	return store.PutMany(ctx, values, p.Keep)
}

func add(ctx context.Context, makings map[string]Making, page []eventlog.Entry) error {
	of, err := byTenant(page)
	if err != nil {
		return err
	}
	for tenant, records := range of {
		if making := makings[tenant]; making != nil {
			if err := making.Add(ctx, records); err != nil {
				return err
			}
		}
	}
	return nil
}

func byTenant(page []eventlog.Entry) (map[string][]eventlog.Entry, error) {
	of := map[string][]eventlog.Entry{}
	for _, e := range page {
		_, _, k, err := eventlog.ParseSubject(e.Subject)
		if err != nil {
			return nil, err
		}
		of[k.Tenant] = append(of[k.Tenant], e)
	}
	return of, nil
}
