package hot_test

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/redisserver/redistest"
	"countersign.dev/pkg/secret"
)

func connect(t *testing.T, addr string) redis.UniversalClient {
	t.Helper()
	rdb, err := hot.Connect(addr, secret.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// TestAPromotedReplicaIsNotBelieved: it lacks the last writes, and nobody could tell which.
func TestAPromotedReplicaIsNotBelieved(t *testing.T) {
	t.Parallel()
	w := redistest.Sentinel(t)
	rdb := connect(t, w.Addr())
	s, ctx := hot.New(rdb, patient), t.Context()
	put := func(key string, seq uint64) bool {
		t.Helper()
		stored, err := s.Put(ctx, key, seq, []byte("at "+key), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return stored
	}
	put("same", 1)
	put("stale", 2)
	if n, err := rdb.Do(ctx, "WAIT", 1, patient.Milliseconds()).Int(); err != nil || n != 1 {
		t.Fatalf("%d replicas have it, %v", n, err)
	}
	before, err := s.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w.Sever()
	put("stale", 3)
	w.Promote()
	eventlogtest.Eventually(t, "another run is seen", func() bool {
		run, err := s.Run(ctx)
		return err == nil && run != before
	})
	kept, err := s.GetMany(ctx, []string{"stale", "same"})
	if err != nil || kept[0].Seq != 2 || kept[0].Run != before || kept[1].Seq != 1 {
		t.Fatalf("the replica kept %+v, %v", kept, err)
	}
	for _, key := range []string{"stale", "same"} {
		if _, _, err := s.Get(ctx, key); !errors.Is(err, hot.ErrMiss) {
			t.Errorf("%s from before is believed: %v", key, err)
		}
	}
	if stored, err := s.Renew(ctx, "stale", 3, nil, time.Minute); err != nil || stored {
		t.Errorf("what nobody believes was renewed: %t, %v", stored, err)
	}
	// What the record says is put there, and believed: also at the sequence that is there. What is older is not.
	if !put("same", 1) || put("stale", 1) || !put("stale", 3) {
		t.Error("put back wrongly")
	}
	for key, want := range map[string]uint64{"stale": 3, "same": 1} {
		if seq, _, err := s.Get(ctx, key); err != nil || seq != want {
			t.Errorf("%s is at %d, %v", key, seq, err)
		}
	}
}

// TestAcrossTheSlotsOfACluster: every call works whatever masters its keys are on.
func TestAcrossTheSlotsOfACluster(t *testing.T) {
	t.Parallel()
	rdb := connect(t, redistest.Cluster(t))
	s, ctx := hot.New(rdb, patient), t.Context()
	var keys []string
	var fresh []hot.Fresh
	for i := range 600 {
		keys = append(keys, hot.Key(string(rune('a'+i)), "record"))
		fresh = append(fresh, hot.Fresh{Key: keys[i], Seq: uint64(i + 1), Value: []byte("new")})
		if i%10 == 0 {
			if stored, err := s.Put(ctx, keys[i], uint64(i)+uint64(i%20)/5, []byte("old"), time.Minute); err != nil || !stored {
				t.Fatalf("put %d: %t, %v", i, stored, err)
			}
		}
	}
	// Every tenth is there, older and newer in turn.
	if stored, err := s.PutMany(ctx, fresh, time.Minute); err != nil || stored != 570 {
		t.Errorf("%d stored, %v", stored, err)
	}
	kept, err := s.GetMany(ctx, keys)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range kept {
		want := "new"
		if i%20 == 10 {
			want = "old"
		}
		if !e.Found || string(e.Value) != want {
			t.Errorf("entry %d is %+v, want %s", i, e, want)
		}
	}
	if seq, _, err := s.Get(ctx, keys[0]); err != nil || seq != 1 {
		t.Errorf("Get: %d, %v", seq, err)
	}
	if err := s.Forget(ctx, keys[0]); err != nil {
		t.Error(err)
	}
}

func TestRenewMendsWhatIsOlderAndNothingElse(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		s, ctx := hot.New(rdb, patient), t.Context()
		if stored, err := s.Renew(ctx, "k", 5, nil, time.Minute); err != nil || stored || rdb.Exists(ctx, "k").Val() != 0 {
			t.Errorf("nothing there: %t, %v", stored, err)
		}
		if _, err := s.Put(ctx, "k", 5, []byte("five"), time.Minute); err != nil {
			t.Fatal(err)
		}
		for seq, want := range map[uint64]bool{4: false, 5: false, 6: true} {
			if stored, err := s.Renew(ctx, "k", seq, []byte("renewed"), time.Minute); err != nil || stored != want {
				t.Errorf("Renew at %d: %t, %v", seq, stored, err)
			}
		}
		if seq, value, err := s.Get(ctx, "k"); err != nil || seq != 6 || string(value) != "renewed" {
			t.Errorf("%d %q, %v", seq, value, err)
		}
	})
}
