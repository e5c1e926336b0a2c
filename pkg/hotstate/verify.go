package hotstate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/hot"
)

// What may differ.
const (
	Older      = "older"         // than the record
	Newer      = "newer"         // than the record: that went back in time, or is another one
	Altered    = "other content" // at the same sequence
	NoRecord   = "no such record"
	Unreadable = "unreadable"  // no value of a service is under the key
	NotListed  = "not listed"  // on an index where it should be
	ListedOnly = "listed only" // on an index, without a record
)

const (
	// settleFor is the time that a service at work is given to write what it has just stated; every settleEvery it is looked again.
	settleFor   = 2 * time.Second
	settleEvery = 100 * time.Millisecond
	scanPage    = 1000
)

// Difference is one thing in Redis that is not as the record says.
type Difference struct {
	Service string `json:"service"`
	Tenant  string `json:"tenant"`
	ID      string `json:"id"`
	Key     string `json:"key"`
	What    string `json:"what"`
	InRedis uint64 `json:"redis_sequence,omitempty"`
	InLog   uint64 `json:"record_sequence,omitempty"`
	// FormerRun tells that it was kept from before Redis was restarted or failed over. Services read the record instead of it.
	FormerRun bool `json:"former_run,omitempty"`
}

// Verified is what Verify found of one service.
type Verified struct {
	Service     string `json:"service"`
	Records     int    `json:"records"`     // there are in the record
	Compared    int    `json:"compared"`    // with what Redis has of them
	Absent      int    `json:"absent"`      // from Redis, which is no difference: they are read from the record
	FormerRun   int    `json:"former_run"`  // of those compared: kept from before a failover, and not read
	Listed      int    `json:"listed"`      // on indexes
	Differences int    `json:"differences"` // that were named
}

// verification is one Verify at work.
type verification struct {
	log    *eventlog.Log
	rdb    redis.UniversalClient
	store  *hot.Store
	part   Part
	tenant string
	index  Index // nil: none
	walk   *eventlog.Walk
	run    hot.Run
	tell   func(Difference) error

	mu       sync.Mutex
	found    Verified
	seen     map[string]bool             // keys that were compared
	suspects []suspect                   // whose records differed when they were looked at first
	unlisted map[string][]eventlog.Entry // records that were not on their tenant's index then
}

// suspect is an aggregate that Redis had otherwise than the record.
type suspect struct {
	key eventlog.Key
	due uint64 // the record's sequence that Redis has to come up to; 0 while nobody looked
}

// Verify compares everything that Redis keeps of a part, of one tenant or with "" of all, with the record, and tells of each
// difference. Services may serve meanwhile: what differs for a moment only is none. An error is no finding.
func Verify(ctx context.Context, log *eventlog.Log, rdb redis.UniversalClient, store *hot.Store, part Part, tenant string, progress Progress, tell func(Difference) error) (Verified, error) {
	v := &verification{
		log: log, rdb: rdb, store: store, part: part, tenant: tenant, tell: tell,
		found: Verified{Service: part.Service}, seen: map[string]bool{}, unlisted: map[string][]eventlog.Entry{},
	}
	if part.Index != nil {
		v.index = part.Index(rdb, store)
	}
	var err error
	if v.run, err = store.Run(ctx); err != nil {
		return v.found, err
	}
	if v.walk, err = log.Walk(ctx, Filter(part, tenant)); err != nil {
		return v.found, err
	}
	progress.Begin(part.Service, v.walk.Messages())
	if err := v.walk.Each(ctx, progress.Read, v.page); err != nil {
		return v.found, err
	}
	for _, look := range []func(context.Context) error{v.leftovers, v.listed, v.settle} {
		if err := look(ctx); err != nil {
			return v.found, err
		}
	}
	v.found.Records = v.walk.Subjects()
	v.found.Compared = len(v.seen)
	v.found.Absent = max(0, v.found.Records-v.found.Compared)
	return v.found, nil
}

// page compares some newest records with what is kept of them.
func (v *verification) page(ctx context.Context, page []eventlog.Entry) error {
	keys, names := make([]string, len(page)), make([]eventlog.Key, len(page))
	for i, e := range page {
		_, _, k, err := eventlog.ParseSubject(e.Subject)
		if err != nil {
			return err
		}
		keys[i], names[i] = v.part.Key(k), k
	}
	kept, err := v.kept(ctx, keys)
	if err != nil {
		return err
	}
	for i, e := range page {
		if kept[i].Found {
			v.note(names[i], kept[i], same(kept[i], e))
		}
	}
	if v.index == nil {
		return nil
	}
	of, err := byTenant(page)
	if err != nil {
		return err
	}
	for tenant, records := range of {
		missing, err := v.index.Missing(ctx, tenant, records)
		if err != nil {
			return err
		}
		v.mu.Lock()
		v.unlisted[tenant] = append(v.unlisted[tenant], missing...)
		v.mu.Unlock()
	}
	return nil
}

// kept looks up keys. One that holds no value of ours is a miss; the leftovers name it.
func (v *verification) kept(ctx context.Context, keys []string) ([]hot.Entry, error) {
	kept, err := v.store.GetMany(ctx, keys)
	if err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return nil, err
	}
	return kept, nil
}

func same(kept hot.Entry, e eventlog.Entry) bool {
	return kept.Seq == e.Sequence && bytes.Equal(kept.Value, e.Data)
}

// note counts a record that was compared.
func (v *verification) note(k eventlog.Key, kept hot.Entry, same bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	key := v.part.Key(k)
	if !v.seen[key] && kept.Run != v.run {
		v.found.FormerRun++
	}
	v.seen[key] = true
	if !same {
		v.suspects = append(v.suspects, suspect{key: k})
	}
}

// settle looks at what differed until it does no longer, or until a service would have mended it, and tells of what is left. What is
// stated all the time is always a moment behind: Redis need only come up to where the record was.
func (v *verification) settle(ctx context.Context) error {
	elapsed := clock.Stopwatch()
	for {
		last := elapsed() > settleFor
		var suspects []suspect
		for _, s := range v.suspects {
			d, err := v.compare(ctx, s.key)
			followed := s.due > 0 && d.InRedis >= s.due
			switch {
			case err != nil:
				return err
			case d.What == Older && !d.FormerRun && followed:
			case d.What == Older && !d.FormerRun && !last:
				if s.due == 0 {
					s.due = d.InLog
				}
				suspects = append(suspects, s)
			case d.What != "":
				if err := v.differs(d); err != nil {
					return err
				}
			}
		}
		v.suspects = suspects
		unlisted := 0
		for tenant, records := range v.unlisted {
			missing, err := v.index.Missing(ctx, tenant, records)
			if err != nil {
				return err
			}
			v.unlisted[tenant] = missing
			unlisted += len(missing)
		}
		if last || len(suspects)+unlisted == 0 {
			return v.tellUnlisted()
		}
		if err := wait(ctx, settleEvery); err != nil {
			return err
		}
	}
}

// compare looks first at Redis, then at the leader, so that nothing can be newer in Redis by right. The zero Difference is none.
func (v *verification) compare(ctx context.Context, k eventlog.Key) (Difference, error) {
	key := v.part.Key(k)
	all, err := v.kept(ctx, []string{key})
	if err != nil {
		return Difference{}, err
	}
	kept := all[0]
	e, err := v.log.LeaderLast(ctx, eventlog.FactSubject(v.part.Service, k))
	d := Difference{Service: v.part.Service, Tenant: k.Tenant, ID: k.ID, Key: key, InRedis: kept.Seq, InLog: e.Sequence, FormerRun: kept.Run != v.run}
	switch {
	case !kept.Found || err == nil && same(kept, e):
		return Difference{}, nil
	case errors.Is(err, eventlog.ErrNotFound):
		d.What = NoRecord
	case err != nil:
		return Difference{}, err
	case kept.Seq > e.Sequence:
		d.What = Newer
	case kept.Seq == e.Sequence:
		d.What = Altered
	default:
		d.What = Older
	}
	return d, nil
}

func (v *verification) differs(d Difference) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.found.Differences++
	return v.tell(d)
}

// leftovers looks through Redis for what the record does not have, and for what is no value.
func (v *verification) leftovers(ctx context.Context) error {
	var mu sync.Mutex
	scan := func(ctx context.Context, rdb *redis.Client) error {
		for cursor := uint64(0); ; {
			keys, next, err := rdb.Scan(ctx, cursor, "*:"+kindOfKey+":"+v.part.Service, scanPage).Result()
			if err != nil {
				return fmt.Errorf("hotstate: look through Redis: %w", err)
			}
			mu.Lock()
			err = v.leftover(ctx, keys)
			mu.Unlock()
			if err != nil {
				return err
			}
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	}
	switch rdb := v.rdb.(type) {
	case *redis.ClusterClient:
		return rdb.ForEachMaster(ctx, scan)
	case *redis.Client:
		return scan(ctx, rdb)
	default:
		return fmt.Errorf("hotstate: a client of type %T cannot be looked through", v.rdb)
	}
}

func (v *verification) leftover(ctx context.Context, keys []string) error {
	var left []string
	var names []eventlog.Key
	for _, key := range keys {
		if k, ours := v.part.parse(key); ours && !v.seen[key] && (v.tenant == "" || k.Tenant == v.tenant) {
			left, names = append(left, key), append(names, k)
		}
	}
	kept, err := v.kept(ctx, left)
	if err != nil {
		return err
	}
	for i, key := range left {
		if kept[i].Found {
			v.note(names[i], kept[i], false)
		} else if n, failed := v.rdb.Exists(ctx, key).Result(); failed != nil {
			err = fmt.Errorf("hotstate: look through Redis: %w", failed)
		} else if n > 0 {
			v.note(names[i], hot.Entry{Run: v.run}, true)
			err = v.differs(Difference{Service: v.part.Service, Tenant: names[i].Tenant, ID: names[i].ID, Key: key, What: Unreadable})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tellUnlisted names the records that their tenant's index lacks.
func (v *verification) tellUnlisted() error {
	for tenant, records := range v.unlisted {
		for _, e := range records {
			_, _, k, err := eventlog.ParseSubject(e.Subject)
			if err != nil {
				return err
			}
			if err := v.differs(Difference{Service: v.part.Service, Tenant: tenant, ID: k.ID, Key: v.index.Key(tenant), What: NotListed, InLog: e.Sequence}); err != nil {
				return err
			}
		}
	}
	return nil
}

// listed names what indexes list and the record does not have.
func (v *verification) listed(ctx context.Context) error {
	if v.index == nil {
		return nil
	}
	tenants, err := v.walk.Tenants()
	if err != nil {
		return err
	}
	for _, tenant := range tenants {
		err := v.index.Each(ctx, tenant, func(ids []string) error {
			v.found.Listed += len(ids)
			for _, id := range ids {
				k := eventlog.Key{Tenant: tenant, ID: id}
				has, err := v.has(ctx, k)
				if err != nil {
					return err
				}
				if !has {
					if err := v.differs(Difference{Service: v.part.Service, Tenant: tenant, ID: id, Key: v.index.Key(tenant), What: ListedOnly}); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// has tells whether the record has an aggregate.
func (v *verification) has(ctx context.Context, k eventlog.Key) (bool, error) {
	if k.Validate() != nil {
		return false, nil
	}
	if v.walk.Has(eventlog.FactSubject(v.part.Service, k)) {
		return true, nil
	}
	_, err := v.log.LeaderLast(ctx, eventlog.FactSubject(v.part.Service, k))
	if errors.Is(err, eventlog.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Repair drops what differs, so that it is read from the record, or made from it, when it is asked for.
func Repair(ctx context.Context, rdb redis.UniversalClient, store *hot.Store, part Part, d Difference) error {
	switch d.What {
	case NotListed:
		return part.Index(rdb, store).Drop(ctx, d.Tenant)
	case ListedOnly:
		return part.Index(rdb, store).Drop(ctx, d.Tenant, d.ID)
	default:
		return store.Forget(ctx, d.Key)
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
