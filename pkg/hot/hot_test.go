package hot_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/redisserver/redistest"
	"countersign.dev/pkg/secret"
)

const patient = 10 * time.Second // for tests that are not about time-outs, on a machine that may be busy

func TestPutThenGet(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		s, ctx := hot.New(rdb, patient), t.Context()
		if _, _, err := s.Get(ctx, "k"); !errors.Is(err, hot.ErrMiss) {
			t.Errorf("nothing kept: %v", err)
		}
		all := make([]byte, 256) // every byte, since Lua strings must be binary safe
		for i := range all {
			all[i] = byte(i)
		}
		for seq, value := range [][]byte{nil, {}, {0}, all, bytes.Repeat([]byte{255}, hot.MaxValue)} {
			if stored, err := s.Put(ctx, "k", uint64(seq+1), value, time.Minute); err != nil || !stored {
				t.Fatalf("Put %d: %v, %v", seq+1, stored, err)
			}
			got, back, err := s.Get(ctx, "k")
			if err != nil || got != uint64(seq+1) || !bytes.Equal(back, value) {
				t.Errorf("Get: %d, %d bytes, %v; want %d, %d bytes", got, len(back), err, seq+1, len(value))
			}
		}
		if ttl := rdb.PTTL(ctx, "k").Val(); ttl <= 0 || ttl > time.Minute {
			t.Errorf("time to live is %v", ttl)
		}
		if err := s.Forget(ctx, "k"); err != nil {
			t.Error(err)
		}
		if _, _, err := s.Get(ctx, "k"); !errors.Is(err, hot.ErrMiss) {
			t.Errorf("forgotten: %v", err)
		}
		if _, err := s.Put(ctx, "k", 1, nil, time.Microsecond); err == nil {
			t.Error("a time to live of 0 ms was taken")
		}
		if _, err := s.Put(ctx, "k", 1, make([]byte, hot.MaxValue+1), time.Minute); err == nil {
			t.Error("a value above MaxValue was taken")
		}
	})
}

func TestSequencesCompareInAllBits(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		s, ctx, n := hot.New(rdb, patient), t.Context(), 0
		interesting := []uint64{0, 1, 255, 256, 1<<32 - 1, 1 << 32, 1<<53 - 1, 1 << 53, 1<<53 + 1, 1<<53 + 2, math.MaxInt64, 1 << 63, math.MaxUint64 - 1, math.MaxUint64}
		rapid.Check(t, func(rt *rapid.T) {
			n++
			key := hot.Key(fmt.Sprint(n), "x")
			seqs := rapid.SliceOfN(rapid.OneOf(rapid.SampledFrom(interesting), rapid.Uint64()), 1, 8).Draw(rt, "seqs")
			var newest uint64
			for i, seq := range seqs {
				stored, err := s.Put(ctx, key, seq, binary.BigEndian.AppendUint64(nil, seq), time.Minute)
				if err != nil || stored != (i == 0 || seq > newest) {
					rt.Fatalf("Put %d over %d: %v, %v", seq, newest, stored, err)
				}
				newest = max(newest, seq)
				got, value, err := s.Get(ctx, key)
				if err != nil || got != newest || binary.BigEndian.Uint64(value) != newest {
					rt.Fatalf("Get: %d, %v; want %d", got, err, newest)
				}
			}
		})
	})
}

// TestOlderNeverOverwritesNewer lets 64 writers race through one history in random orders while a reader watches that the
// sequence never falls, and empties Redis's script cache under them.
func TestOlderNeverOverwritesNewer(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		const writers, history = 64, 20
		s, ctx := hot.New(rdb, patient), t.Context()
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				for _, i := range rand.Perm(history) {
					seq := uint64(i + 1)
					if _, err := s.Put(ctx, "k", seq, fmt.Appendf(nil, "state %d", seq), time.Minute); err != nil {
						t.Error(err)
					}
				}
			})
		}
		watched, stop := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(watched)
			for last := uint64(0); ; {
				seq, value, err := s.Get(ctx, "k")
				switch {
				case errors.Is(err, hot.ErrMiss):
				case err != nil || seq < last || string(value) != fmt.Sprintf("state %d", seq):
					t.Errorf("after %d came %d %q, %v", last, seq, value, err)
				default:
					last = seq
				}
				if err := rdb.ScriptFlush(ctx).Err(); err != nil {
					t.Error(err)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
		wg.Wait()
		close(stop)
		<-watched
		if seq, _, err := s.Get(ctx, "k"); err != nil || seq != history {
			t.Errorf("in the end %d is kept, %v", seq, err)
		}
	})
}

func TestAnEmptiedRedisIsAMissAndFillsAgain(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		s, ctx := hot.New(rdb, patient), t.Context()
		for range 2 {
			if stored, err := s.Put(ctx, "k", 5, []byte("five"), time.Minute); err != nil || !stored {
				t.Fatalf("Put: %v, %v", stored, err)
			}
			if err := rdb.FlushAll(ctx).Err(); err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.Get(ctx, "k"); !errors.Is(err, hot.ErrMiss) {
				t.Errorf("after FLUSHALL: %v", err)
			}
		}
	})
}

func TestForeignValues(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		s, ctx := hot.New(rdb, patient), t.Context()
		rdb.Set(ctx, "short", "1234567", 0)
		if _, _, err := s.Get(ctx, "short"); !errors.Is(err, hot.ErrMiss) {
			t.Errorf("too short to be ours: %v", err)
		}
		if stored, err := s.Put(ctx, "short", 1, nil, time.Minute); err != nil || !stored {
			t.Errorf("Put over it: %v, %v", stored, err)
		}
		rdb.LPush(ctx, "list", "x")
		if _, _, err := s.Get(ctx, "list"); err == nil || errors.Is(err, hot.ErrMiss) {
			t.Errorf("a list: %v", err)
		}
		if _, err := s.Put(ctx, "list", 1, nil, time.Minute); err == nil {
			t.Error("Put over a list succeeded")
		}
	})
}

func TestGetMany(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		s, ctx := hot.New(rdb, patient), t.Context()
		keys := make([]string, 600) // more than two pipelines
		for i := range keys {
			keys[i] = hot.Key(fmt.Sprint(i), "k")
			if i%3 == 0 {
				if _, err := s.Put(ctx, keys[i], uint64(i), []byte(keys[i]), time.Minute); err != nil {
					t.Fatal(err)
				}
			}
		}
		rdb.LPush(ctx, keys[1], "not ours")
		got, err := s.GetMany(ctx, keys)
		if err == nil || len(got) != len(keys) {
			t.Errorf("%d entries, error %v; want %d and the list's error", len(got), err, len(keys))
		}
		for i, e := range got {
			if e.Found != (i%3 == 0) || e.Found && (e.Seq != uint64(i) || string(e.Value) != keys[i]) {
				t.Errorf("entry %d is %+v", i, e)
			}
		}
		if got, err := s.GetMany(ctx, nil); err != nil || len(got) != 0 {
			t.Errorf("no keys: %v, %v", got, err)
		}
	})
}

// hole accepts connections and never answers, as a Redis behind a lost network does.
func hole(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

func TestARedisThatIsGoneIsAnErrorSoon(t *testing.T) {
	s := redistest.StartReal(t)
	s.Stop()
	for name, addr := range map[string]string{"refused": s.Addr(), "silent": hole(t)} {
		t.Run(name, func(t *testing.T) {
			rdb, err := hot.Connect(addr, secret.Secret{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = rdb.Close() }()
			store, elapsed := hot.New(rdb, 50*time.Millisecond), clock.Stopwatch()
			if _, _, err := store.Get(t.Context(), "k"); err == nil || errors.Is(err, hot.ErrMiss) {
				t.Errorf("Get: %v", err)
			}
			if _, err := store.Put(t.Context(), "k", 1, nil, time.Minute); err == nil {
				t.Error("Put succeeded")
			}
			if got, err := store.GetMany(t.Context(), []string{"a", "b"}); err == nil || len(got) != 2 || got[0].Found {
				t.Errorf("GetMany: %v, %v", got, err)
			}
			if err := store.Forget(t.Context(), "k"); err == nil {
				t.Error("Forget succeeded")
			}
			if elapsed() > 2*time.Second { // four calls of 50 ms, on a busy machine
				t.Errorf("it took %v", elapsed())
			}
		})
	}
}

func TestACancelledCallerDoesNotWait(t *testing.T) {
	rdb, err := hot.Connect(hole(t), secret.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rdb.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := hot.New(rdb, time.Minute).Get(ctx, "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("Get: %v", err)
	}
}
