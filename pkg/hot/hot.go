// Package hot keeps the newest state of aggregates in Redis, as a cache of the record: each value with the sequence of the
// message that it comes from, so that an older one never overwrites a newer one, in whatever order writers arrive.
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
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	seqSize = 8

	// MaxValue is the longest value in bytes: twice the longest message of a facts stream.
	MaxValue = 128 << 10
	// DefaultTimeout is how long a call may take before the record is asked instead.
	DefaultTimeout = 100 * time.Millisecond
	// manyPerTrip bounds a pipeline, so that no answer holds up the others on its connection.
	manyPerTrip = 256
)

// ErrMiss means that nothing is kept under the key. Treat every other error of Get the same way, and count it.
var ErrMiss = errors.New("hot: not kept")

//go:embed put.lua
var putSource string

// put is run by its hash, and loaded again by go-redis after SCRIPT FLUSH or a failover.
var put = redis.NewScript(putSource)

// Store reads and writes one Redis. Make one with New; it is safe for concurrent use.
type Store struct {
	rdb     redis.Scripter
	piper   piper
	timeout time.Duration
}

type piper interface {
	Get(ctx context.Context, key string) *redis.StringCmd
	Unlink(ctx context.Context, keys ...string) *redis.IntCmd
	Pipelined(ctx context.Context, fn func(redis.Pipeliner) error) ([]redis.Cmder, error)
}

// New returns a store whose calls take at most timeout, DefaultTimeout where it is 0. The client must have
// ContextTimeoutEnabled, as those of Connect do, or its own time-outs count.
func New(rdb redis.UniversalClient, timeout time.Duration) *Store {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	return &Store{rdb: rdb, piper: rdb, timeout: timeout}
}

// Entry is a kept value.
type Entry struct {
	Seq   uint64 // of the message in the record that the value comes from
	Value []byte
	Found bool // false: a miss, the rest is empty
}

// Get returns the value kept under key with its sequence, or ErrMiss, or why Redis did not answer.
func (s *Store) Get(ctx context.Context, key string) (seq uint64, value []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	e, err := entry(s.piper.Get(ctx, key))
	switch {
	case err != nil:
		return 0, nil, fmt.Errorf("hot: get: %w", err)
	case !e.Found:
		return 0, nil, ErrMiss
	}
	return e.Seq, e.Value, nil
}

// GetMany looks up keys in as few round trips as is decent. The result has an entry for each key, in order; after an error
// too, which then has the misses that Redis did not answer for. All keys of a pipeline need not share a slot.
func (s *Store) GetMany(ctx context.Context, keys []string) ([]Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	entries := make([]Entry, 0, len(keys))
	var failed error
	for start := 0; start < len(keys); start += manyPerTrip {
		part := keys[start:min(start+manyPerTrip, len(keys))]
		cmds, err := s.piper.Pipelined(ctx, func(p redis.Pipeliner) error {
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
	case len(raw) < seqSize:
		return Entry{}, nil
	}
	return Entry{Seq: binary.BigEndian.Uint64(raw), Value: raw[seqSize:], Found: true}, nil
}

// Put keeps value under key for ttl (at least a millisecond), unless the same or a newer sequence is kept already: then it
// changes nothing and returns false. Doing it twice is harmless.
func (s *Store) Put(ctx context.Context, key string, seq uint64, value []byte, ttl time.Duration) (stored bool, err error) {
	if ttl < time.Millisecond {
		return false, fmt.Errorf("hot: put: a time to live of %v is too short", ttl)
	}
	if len(value) > MaxValue {
		return false, fmt.Errorf("hot: put: %d bytes are more than %d", len(value), MaxValue)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	raw := make([]byte, seqSize, seqSize+len(value))
	binary.BigEndian.PutUint64(raw, seq)
	n, err := put.Run(ctx, s.rdb, []string{key}, append(raw, value...), ttl.Milliseconds()).Int()
	if err != nil {
		return false, fmt.Errorf("hot: put: %w", err)
	}
	return n == 1, nil
}

// Forget drops what is kept under keys, for a record that was restored and went back in its sequence. All keys of one call
// must share a slot.
func (s *Store) Forget(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := s.piper.Unlink(ctx, keys...).Err(); err != nil {
		return fmt.Errorf("hot: forget: %w", err)
	}
	return nil
}
