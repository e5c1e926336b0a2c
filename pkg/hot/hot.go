// Package hot keeps the newest state of aggregates in Redis, as a cache of the record: each value with the sequence of the
// message that it comes from, so that an older one never overwrites a newer one, in whatever order writers arrive; and with
// the run of Redis it was written to, so that what a promoted replica or a restored copy kept from before is not believed.
//
// Redis may be emptied, fall back to an older copy or be gone: a miss and an error mean the same to a caller, who reads the
// record and puts the value back. Nothing irreversible may be decided on what Get returns.
package hot

import (
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/trips"
)

const (
	seqSize    = 8
	headerSize = seqSize + runSize

	// MaxValue is the longest value in bytes: twice the longest message of a facts stream.
	MaxValue = 128 << 10
	// DefaultTimeout is how long a call may take before the record is asked instead.
	DefaultTimeout = 100 * time.Millisecond
	// putPerTrip bounds one that only fills: nobody waits behind it.
	putPerTrip = 1024
)

// ErrMiss means that nothing is kept under the key. Treat every other error of Get the same way, and count it.
var ErrMiss = errors.New("hot: not kept")

//go:embed put.lua
var putSource string

var put = redis.NewScript(putSource)

// Store reads and writes one Redis. Make one with New; it is safe for concurrent use.
type Store struct {
	rdb     redis.UniversalClient
	runs    *runs
	timeout time.Duration
	trips   *trips.Trips
}

// New returns a store whose calls take at most timeout, DefaultTimeout where it is 0. The client must have
// ContextTimeoutEnabled, as those of Connect do, or its own time-outs count; its user must be allowed INFO.
func New(rdb redis.UniversalClient, timeout time.Duration) *Store {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	return &Store{rdb: rdb, runs: newRuns(rdb, timeout), timeout: timeout, trips: trips.New(rdb, timeout)}
}

// Run returns the run that Redis was in a moment ago.
func (s *Store) Run(ctx context.Context) (Run, error) {
	run, err := s.runs.current(ctx)
	if err != nil {
		return Run{}, fmt.Errorf("hot: %w", err)
	}
	return run, nil
}

// Entry is a kept value.
type Entry struct {
	Seq   uint64 // of the message in the record that the value comes from
	Value []byte
	Found bool // false: a miss, the rest is empty
	Run   Run  // that it was written to; Get believes those of the current one
}

// Get returns the value kept under key with its sequence, or ErrMiss, or why Redis did not answer. What was written to another run
// of Redis is a miss.
func (s *Store) Get(ctx context.Context, key string) (seq uint64, value []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	run, err := s.runs.current(ctx)
	if err != nil {
		return 0, nil, fmt.Errorf("hot: get: %w", err)
	}
	var get *redis.StringCmd
	if err := s.trips.Carry(ctx, func(ctx context.Context, c redis.Cmdable) { get = c.Get(ctx, key) }); err != nil {
		return 0, nil, fmt.Errorf("hot: get: %w", err)
	}
	e, err := entry(get)
	switch {
	case err != nil:
		return 0, nil, fmt.Errorf("hot: get: %w", err)
	case !e.Found || e.Run != run:
		return 0, nil, ErrMiss
	}
	return e.Seq, e.Value, nil
}

// GetMany looks up keys in as few round trips as is decent, as they are kept: also what was written to another run. The result has
// an entry for each key, in order; after an error too, which then has the misses that Redis did not answer for. All keys of a
// pipeline need not share a slot.
func (s *Store) GetMany(ctx context.Context, keys []string) ([]Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	entries := make([]Entry, 0, len(keys))
	var failed error
	for start := 0; start < len(keys); start += trips.Most {
		part := keys[start:min(start+trips.Most, len(keys))]
		cmds, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, key := range part {
				p.Get(ctx, key)
			}
			return nil
		})
		for i := range part {
			var e Entry
			if i < len(cmds) {
				if get, ok := cmds[i].(*redis.StringCmd); ok {
					e, err = entry(get)
				}
			}
			if err != nil && !errors.Is(err, redis.Nil) && failed == nil {
				failed = fmt.Errorf("hot: get many: %w", err)
			}
			entries = append(entries, e)
		}
	}
	return entries, failed
}

// entry takes a stored value apart. What is too short to be ours is a miss: Put overwrites it.
func entry(cmd *redis.StringCmd) (Entry, error) {
	raw, err := cmd.Bytes()
	switch {
	case errors.Is(err, redis.Nil):
		return Entry{}, nil
	case err != nil:
		return Entry{}, err
	case len(raw) < headerSize:
		return Entry{}, nil
	}
	return Entry{Seq: binary.BigEndian.Uint64(raw), Run: Run(raw[seqSize:headerSize]), Value: raw[headerSize:], Found: true}, nil
}

// Put keeps value under key for ttl (at least a millisecond), unless the same or a newer sequence is kept already: then it
// changes nothing and returns false. Doing it twice is harmless.
func (s *Store) Put(ctx context.Context, key string, seq uint64, value []byte, ttl time.Duration) (stored bool, err error) {
	return s.put(ctx, key, seq, value, ttl, 0)
}

// Renew is Put where an older value is kept that Get would return, and nothing where none is: it mends what a writer left behind
// who ended, or lost Redis, between the record and Put.
func (s *Store) Renew(ctx context.Context, key string, seq uint64, value []byte, ttl time.Duration) (stored bool, err error) {
	return s.put(ctx, key, seq, value, ttl, 1)
}

func (s *Store) put(ctx context.Context, key string, seq uint64, value []byte, ttl time.Duration, renew int) (bool, error) {
	if err := check(value, ttl); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	run, err := s.runs.current(ctx)
	if err != nil {
		return false, fmt.Errorf("hot: put: %w", err)
	}
	n, err := s.trips.Run(ctx, put, []string{key}, raw(run, seq, value), ttl.Milliseconds(), renew).Int()
	if err != nil {
		return false, fmt.Errorf("hot: put: %w", err)
	}
	return n == 1, nil
}

func check(value []byte, ttl time.Duration) error {
	if ttl < time.Millisecond {
		return fmt.Errorf("hot: put: a time to live of %v is too short", ttl)
	}
	if len(value) > MaxValue {
		return fmt.Errorf("hot: put: %d bytes are more than %d", len(value), MaxValue)
	}
	return nil
}

// raw is a value as it is kept.
func raw(run Run, seq uint64, value []byte) []byte {
	kept := make([]byte, seqSize, headerSize+len(value))
	binary.BigEndian.PutUint64(kept, seq)
	return append(append(kept, run[:]...), value...)
}

// Fresh is a value to be kept.
type Fresh struct {
	Key   string
	Seq   uint64
	Value []byte
}

// PutMany is Put of many, meant for a Redis that has few of them, in as few round trips as is decent; their keys need not share a
// slot. It returns how many it stored. After an error some are stored, and doing it again is right. It has no time-out of its own.
func (s *Store) PutMany(ctx context.Context, values []Fresh, ttl time.Duration) (stored int, err error) {
	run, err := s.runs.current(ctx)
	if err != nil {
		return 0, fmt.Errorf("hot: put many: %w", err)
	}
	for part := range slices.Chunk(values, putPerTrip) {
		// SET where there is nothing takes half as long as the script, which only those need that are there.
		cmds, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, v := range part {
				if err := check(v.Value, ttl); err != nil {
					return err
				}
				p.SetNX(ctx, v.Key, raw(run, v.Seq, v.Value), ttl)
			}
			return nil
		})
		if err != nil {
			return stored, fmt.Errorf("hot: put many: %w", err)
		}
		var there []Fresh
		for i, cmd := range cmds {
			if cmd.(*redis.BoolCmd).Val() { //nolint:errcheck,forcetypeassert // what SetNX returns
				stored++
			} else {
				there = append(there, part[i])
			}
		}
		n, err := s.replace(ctx, run, there, ttl)
		stored += n
		if err != nil {
			return stored, fmt.Errorf("hot: put many: %w", err)
		}
	}
	return stored, nil
}

// replace puts values where there are some already.
func (s *Store) replace(ctx context.Context, run Run, values []Fresh, ttl time.Duration) (stored int, err error) {
	if len(values) == 0 {
		return 0, nil
	}
	// The pipeline's error is that of one of its commands: each is looked at.
	cmds, _ := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, v := range values {
			put.EvalSha(ctx, p, []string{v.Key}, raw(run, v.Seq, v.Value), ttl.Milliseconds(), 0)
		}
		return nil
	})
	for i, v := range values {
		cmd, _ := cmds[i].(*redis.Cmd)
		n, err := cmd.Int()
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			n, err = put.Run(ctx, s.rdb, []string{v.Key}, raw(run, v.Seq, v.Value), ttl.Milliseconds(), 0).Int()
		}
		if err != nil {
			return stored, err
		}
		stored += n
	}
	return stored, nil
}

// Forget drops what is kept under keys, for a record that was restored and went back in its sequence. All keys of one call
// must share a slot.
func (s *Store) Forget(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := s.rdb.Unlink(ctx, keys...).Err(); err != nil {
		return fmt.Errorf("hot: forget: %w", err)
	}
	return nil
}
