package hot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"

	"countersign.dev/pkg/clock"
)

const (
	runSize = 8

	// runFor is how long it is taken for granted that Redis is in the same run: how long a value from before a failover may
	// still be believed.
	runFor = 200 * time.Millisecond
)

// Run names one uninterrupted life of a Redis, on a Cluster of all its masters. A restart begins another, and so does the
// promotion of a replica, which may lack the last writes: what it kept before may be older than what callers were told was kept.
type Run [runSize]byte

// runs finds out in which run a Redis is, at most once in runFor.
type runs struct {
	rdb     redis.UniversalClient
	timeout time.Duration
	elapsed func() time.Duration
	asking  singleflight.Group

	mu    sync.Mutex
	run   Run
	known bool
	asked time.Duration // when the question was sent that run answers
}

func newRuns(rdb redis.UniversalClient, timeout time.Duration) *runs {
	return &runs{rdb: rdb, timeout: timeout, elapsed: clock.Stopwatch()}
}

// current returns the run that Redis was in at most runFor ago. An error is of Redis, or of ctx.
func (r *runs) current(ctx context.Context) (Run, error) {
	r.mu.Lock()
	run, fresh := r.run, r.known && r.elapsed()-r.asked < runFor
	r.mu.Unlock()
	if fresh {
		return run, nil
	}
	// Whoever comes meanwhile waits for the same answer, which no caller's leaving cuts short.
	answer := r.asking.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.timeout)
		defer cancel()
		asked := r.elapsed()
		run, err := askRun(ctx, r.rdb)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.run, r.known, r.asked = run, err == nil, asked
		return run, err
	})
	select {
	case a := <-answer:
		if a.Err != nil {
			return Run{}, fmt.Errorf("which run Redis is in: %w", a.Err)
		}
		return a.Val.(Run), nil //nolint:errcheck,forcetypeassert // what the function above returns
	case <-ctx.Done():
		return Run{}, ctx.Err()
	}
}

// askRun asks for the id of the replication history: a new one begins with each start and each promotion, and never an old one again.
// (The run_id of `INFO server` would not do: a master that is demoted, set back, and promoted again keeps it.)
func askRun(ctx context.Context, rdb redis.UniversalClient) (Run, error) {
	var mu sync.Mutex
	var ids []string
	one := func(ctx context.Context, rdb redis.Cmdable) error {
		info, err := rdb.Info(ctx, "replication").Result()
		if err != nil {
			return err
		}
		for line := range strings.Lines(info) {
			if id, is := strings.CutPrefix(strings.TrimSpace(line), "master_replid:"); is && id != "" {
				mu.Lock()
				defer mu.Unlock()
				ids = append(ids, id)
				return nil
			}
		}
		return errors.New("INFO replication has no master_replid")
	}
	var err error
	if cluster, is := rdb.(*redis.ClusterClient); is {
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error { return one(ctx, master) })
	} else {
		err = one(ctx, rdb)
	}
	if err != nil {
		return Run{}, err
	}
	slices.Sort(ids)
	sum := sha256.Sum256([]byte(strings.Join(ids, "\n")))
	return Run(sum[:runSize]), nil
}
