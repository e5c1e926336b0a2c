package token

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/hotstate"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

const (
	// makingFor bounds how long a list may take to be made.
	makingFor = time.Hour
	// indexPage is how many requests are put on a list, or looked for on it, in one trip.
	indexPage = 500
)

// index is the list of a tenant's requests, newest first. It is whole where its mark names the run that Redis is in, and is made again
// from the record where it does not: a replica that was promoted may lack the last requests.
type index struct {
	rdb      redis.UniversalClient
	store    *hot.Store
	requests *eventlog.Aggregate[*tokenv1.Request] // nil where it is only made and compared by others
	making   singleflight.Group
}

func indexKey(tenant string) string    { return hot.Key(tenant, "requests") }
func completeKey(tenant string) string { return hot.Key(tenant, "requests", "complete") }
func beginKey(tenant, making string) string {
	return hot.Key(tenant, "requests", "begun", making)
}

// Key is where a tenant's list is.
func (x *index) Key(tenant string) string { return indexKey(tenant) }

// add puts a request on the list. Adding twice is harmless.
func (x *index) add(ctx context.Context, tenant, id string, accepted time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, hot.DefaultTimeout)
	defer cancel()
	return x.rdb.ZAdd(ctx, indexKey(tenant), redis.Z{Score: float64(accepted.UnixMilli()), Member: id}).Err()
}

// list returns the ids of up to size requests from the offset on, newest first. Without Redis it is refused with Unavailable.
func (x *index) list(ctx context.Context, tenant string, offset, size int64) ([]string, error) {
	if err := x.ready(ctx, tenant); err != nil {
		return nil, err
	}
	ids, err := x.rdb.ZRevRange(ctx, indexKey(tenant), offset, offset+size-1).Result()
	if err != nil {
		return nil, errors.Join(failure.Unavailable, fmt.Errorf("token: list: %w", err))
	}
	return ids, nil
}

// from returns up to size requests from a place in the list on, that one included where it is there: newest first, those of one
// millisecond by id, the highest first. No id means the beginning. Without Redis it is refused with Unavailable.
func (x *index) from(ctx context.Context, tenant string, accepted int64, id string, size int) ([]redis.Z, error) {
	if err := x.ready(ctx, tenant); err != nil {
		return nil, err
	}
	newest := "+inf"
	if id != "" {
		newest = strconv.FormatInt(accepted, 10)
	}
	var found []redis.Z
	for offset := int64(0); ; {
		page, err := x.rdb.ZRevRangeByScoreWithScores(ctx, indexKey(tenant), &redis.ZRangeBy{Min: "-inf", Max: newest, Offset: offset, Count: int64(size)}).Result()
		if err != nil {
			return nil, errors.Join(failure.Unavailable, fmt.Errorf("token: list: %w", err))
		}
		offset += int64(len(page))
		for _, z := range page {
			if id != "" && int64(z.Score) == accepted && z.Member.(string) > id { //nolint:errcheck,forcetypeassert // what Redis returns
				continue
			}
			if found = append(found, z); len(found) == size {
				return found, nil
			}
		}
		if len(page) < size {
			return found, nil
		}
	}
}

// ready makes the list unless it is there.
func (x *index) ready(ctx context.Context, tenant string) error {
	whole, err := x.whole(ctx, tenant)
	if err != nil {
		return errors.Join(failure.Unavailable, err)
	}
	if whole {
		return nil
	}
	// Whoever asks meanwhile waits for the same list, whoever of them leaves.
	_, err, _ = x.making.Do(tenant, func() (any, error) { return nil, x.rebuild(context.WithoutCancel(ctx), tenant) })
	return err
}

// whole tells whether the list has all requests.
func (x *index) whole(ctx context.Context, tenant string) (bool, error) {
	run, err := x.store.Run(ctx)
	if err != nil {
		return false, fmt.Errorf("token: list: %w", err)
	}
	mark, err := x.rdb.Get(ctx, completeKey(tenant)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return false, fmt.Errorf("token: list: %w", err)
	}
	return mark == hex.EncodeToString(run[:]), nil
}

// rebuild makes the list from the record.
func (x *index) rebuild(ctx context.Context, tenant string) error {
	making, err := x.begin(ctx, tenant)
	if err != nil {
		return err
	}
	var page []redis.Z
	err = eventlog.Sweep(ctx, x.requests, "fact."+Name+"."+tenant+".*", requestPrefix, func(k eventlog.Key, r *tokenv1.Request, _ uint64) error {
		if page = appendRequest(page, k.ID, r); len(page) < indexPage {
			return nil
		}
		err := making.add(ctx, page)
		page = nil
		return err
	})
	if err = errors.Join(err, making.add(ctx, page)); err != nil {
		return errors.Join(errors.New("token: make the list again"), err)
	}
	return making.Finish(ctx)
}

// appendRequest adds a request as it stands on a list, unless it was never accepted.
func appendRequest(page []redis.Z, id string, r *tokenv1.Request) []redis.Z {
	if r.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_UNSPECIFIED {
		return page
	}
	return append(page, redis.Z{Score: float64(r.GetAcceptedAt().AsTime().UnixMilli()), Member: id})
}

// making is a list that is being made. Its mark becomes that of a whole list at the end. It is lost where Redis is emptied meanwhile,
// and names another run where Redis fails over: then the list is not whole, and is made again.
type making struct {
	x      *index
	tenant string
	mark   string
}

// Begin begins to make a tenant's list. A request that is accepted meanwhile is added by onHot.
func (x *index) Begin(ctx context.Context, tenant string) (hotstate.Making, error) {
	return x.begin(ctx, tenant)
}

func (x *index) begin(ctx context.Context, tenant string) (*making, error) {
	run, err := x.store.Run(ctx)
	if err != nil {
		return nil, fmt.Errorf("token: make the list again: %w", err)
	}
	m := &making{x: x, tenant: tenant, mark: beginKey(tenant, rand.Text())}
	if err := x.rdb.Set(ctx, m.mark, hex.EncodeToString(run[:]), makingFor).Err(); err != nil {
		return nil, fmt.Errorf("token: make the list again: %w", err)
	}
	return m, nil
}

func (m *making) add(ctx context.Context, page []redis.Z) error {
	if len(page) == 0 {
		return nil
	}
	return m.x.rdb.ZAdd(ctx, indexKey(m.tenant), page...).Err()
}

// Add puts those of some records on the list that are requests.
func (m *making) Add(ctx context.Context, records []eventlog.Entry) error {
	page, err := requestsIn(records)
	if err != nil {
		return err
	}
	return m.add(ctx, page)
}

// Finish declares the list whole.
func (m *making) Finish(ctx context.Context) error {
	if err := m.x.rdb.Rename(ctx, m.mark, completeKey(m.tenant)).Err(); err != nil {
		return errors.Join(failure.Unavailable, fmt.Errorf("token: the list was lost while it was made: %w", err))
	}
	return m.x.rdb.Persist(ctx, completeKey(m.tenant)).Err()
}

// requestsIn returns those of some records that are accepted requests, as they stand on a list.
func requestsIn(records []eventlog.Entry) ([]redis.Z, error) {
	var page []redis.Z
	for _, e := range records {
		_, _, k, err := eventlog.ParseSubject(e.Subject)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(k.ID, requestPrefix) {
			continue
		}
		r, err := eventlog.StateIn[*tokenv1.Request](e.Data)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", eventlog.FactsStream(Name), e.Sequence, err)
		}
		page = appendRequest(page, k.ID, r)
	}
	return page, nil
}

// Missing returns which of some records are requests that are not on a tenant's whole list.
func (x *index) Missing(ctx context.Context, tenant string, records []eventlog.Entry) ([]eventlog.Entry, error) {
	page, err := requestsIn(records)
	if err != nil || len(page) == 0 {
		return nil, err
	}
	if whole, err := x.whole(ctx, tenant); err != nil || !whole {
		return nil, err
	}
	missing := map[string]bool{}
	for start := 0; start < len(page); start += indexPage {
		part := page[start:min(start+indexPage, len(page))]
		cmds, err := x.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, z := range part {
				p.ZScore(ctx, indexKey(tenant), z.Member.(string)) //nolint:errcheck,forcetypeassert // appendRequest puts an id there
			}
			return nil
		})
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("token: compare the list: %w", err)
		}
		for i, cmd := range cmds {
			if errors.Is(cmd.Err(), redis.Nil) {
				missing[part[i].Member.(string)] = true //nolint:errcheck,forcetypeassert // as above
			} else if cmd.Err() != nil {
				return nil, fmt.Errorf("token: compare the list: %w", cmd.Err())
			}
		}
	}
	var lacking []eventlog.Entry
	for _, e := range records {
		if missing[e.Subject[strings.LastIndexByte(e.Subject, '.')+1:]] {
			lacking = append(lacking, e)
		}
	}
	return lacking, nil
}

// Each visits the ids on a tenant's whole list.
func (x *index) Each(ctx context.Context, tenant string, visit func(ids []string) error) error {
	if whole, err := x.whole(ctx, tenant); err != nil || !whole {
		return err
	}
	for cursor := uint64(0); ; {
		pairs, next, err := x.rdb.ZScan(ctx, indexKey(tenant), cursor, "", indexPage).Result()
		if err != nil {
			return fmt.Errorf("token: compare the list: %w", err)
		}
		var ids []string
		for i := 0; i < len(pairs); i += 2 {
			ids = append(ids, pairs[i])
		}
		if err := visit(ids); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// Drop has the list made again when it is asked for, without some ids. What is on it stays: somebody may be making it just now.
func (x *index) Drop(ctx context.Context, tenant string, ids ...string) error {
	for _, id := range ids {
		if err := x.rdb.ZRem(ctx, indexKey(tenant), id).Err(); err != nil {
			return err
		}
	}
	return x.rdb.Unlink(ctx, completeKey(tenant)).Err()
}
