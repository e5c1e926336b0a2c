package hotstate_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/hotstate"
	"countersign.dev/pkg/redisserver/redistest"
	"countersign.dev/pkg/secret"
)

const (
	patient = 10 * time.Second
	durable = "test-hot"
)

// counter is the smallest aggregate: a number that facts add to.
type counter = *wrapperspb.Int64Value

type add struct{ n int64 }

func (c add) Decide(counter, time.Time) (proto.Message, error) { return wrapperspb.Int64(c.n), nil }

func evolve(s counter, fact proto.Message) counter {
	s.Value += fact.(counter).GetValue()
	return s
}

var part = hotstate.Part{Service: "test", Keep: time.Hour}

// world is a record and a Redis.
type world struct {
	t     *testing.T
	log   *eventlog.Log
	rdb   redis.UniversalClient
	store *hot.Store
	cache *hotstate.Cache
	// kept writes Redis as it states; forgetful ends each time between the record and Redis.
	kept, forgetful *eventlog.Aggregate[counter]
}

func start(t *testing.T, rdb redis.UniversalClient) *world {
	t.Helper()
	s := eventlogtest.Start(t)
	nc := s.Connect()
	s.Provision(nc, eventlog.Topology{
		Streams:   append(eventlog.SharedStreams(), eventlog.FactsConfig("test")),
		Consumers: []eventlog.ConsumerSpec{{Stream: "FACTS_TEST", Durable: durable}},
	})
	log, err := eventlog.OpenLog(t.Context(), nc, "FACTS_TEST")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, log: log, rdb: rdb, store: hot.New(rdb, patient)}
	w.cache = hotstate.NewCache(part, w.store, slog.New(slog.DiscardHandler))
	tracer := noop.NewTracerProvider().Tracer("")
	w.kept = eventlog.NewAggregate(log, "test", evolve, clock.System(), tracer, w.cache)
	w.forgetful = eventlog.NewAggregate(log, "test", evolve, clock.System(), tracer, nil)
	return w
}

func key(tenant string, n int) eventlog.Key {
	return eventlog.Key{Tenant: tenant, ID: fmt.Sprintf("cnt_%d", n)}
}

// state adds one to an aggregate and returns the sequence.
func state(t *testing.T, a *eventlog.Aggregate[counter], k eventlog.Key) uint64 {
	t.Helper()
	res, err := a.Do(t.Context(), k, add{n: 1}, eventlog.By{})
	if err != nil {
		t.Fatal(err)
	}
	return res.Sequence
}

func (w *world) rebuild(tenant string) hotstate.Rebuilt {
	w.t.Helper()
	p := &progress{}
	done, err := hotstate.Rebuild(w.t.Context(), w.log, w.rdb, w.store, part, tenant, p)
	if err != nil {
		w.t.Fatal(err)
	}
	if p.read.Load() != int64(done.Messages) || p.total > done.Messages {
		w.t.Errorf("told of %d of %d messages, read %d", p.read.Load(), p.total, done.Messages)
	}
	return done
}

func (w *world) verify(tenant string) (hotstate.Verified, []hotstate.Difference) {
	w.t.Helper()
	var all []hotstate.Difference
	found, err := hotstate.Verify(w.t.Context(), w.log, w.rdb, w.store, part, tenant, &progress{}, func(d hotstate.Difference) error {
		all = append(all, d)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if found.Differences != len(all) {
		w.t.Errorf("counted %d differences, told of %d", found.Differences, len(all))
	}
	return found, all
}

type progress struct {
	total uint64
	read  atomic.Int64
}

func (p *progress) Begin(_ string, messages uint64) { p.total = messages }
func (p *progress) Read(messages int)               { p.read.Add(int64(messages)) }

// read returns what a caller is shown.
func (w *world) read(k eventlog.Key) int64 {
	w.t.Helper()
	s, _, err := w.kept.Read(w.t.Context(), k)
	if err != nil {
		w.t.Fatal(err)
	}
	return s.GetValue()
}

func TestRebuildFillsAnEmptyRedis(t *testing.T) {
	for name, redisOf := range map[string]func(*testing.T) redis.UniversalClient{
		"one server": func(t *testing.T) redis.UniversalClient { return redistest.Real(t) },
		"a Cluster":  func(t *testing.T) redis.UniversalClient { return connect(t, redistest.Cluster(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, redisOf(t))
			if done := w.rebuild(""); done.Messages != 0 || done.Stored != 0 {
				t.Errorf("of nothing: %+v", done)
			}
			for round := range 3 {
				for i := range 300 - 100*round { // a hundred have one message each, a hundred two, a hundred three
					state(t, w.forgetful, key([]string{"acme", "rival"}[i%2], i))
				}
			}
			if done := w.rebuild("rival"); done.Messages != 300 || done.Records != 150 || done.Stored != 150 {
				t.Errorf("of one tenant: %+v", done)
			}
			if done := w.rebuild(""); done.Messages != 600 || done.Records != 300 || done.Stored != 150 {
				t.Errorf("of all: %+v", done)
			}
			found, differing := w.verify("")
			if found.Records != 300 || found.Compared != 300 || found.Absent != 0 || len(differing) != 0 {
				t.Errorf("verified %+v, %v", found, differing)
			}
			seq, _, err := w.cache.Get(t.Context(), key("acme", 0))
			if _, newest, _ := w.kept.Load(t.Context(), key("acme", 0)); err != nil || seq != newest {
				t.Errorf("kept at %d, recorded at %d, %v", seq, newest, err)
			}
			if ttl := w.rdb.PTTL(t.Context(), part.Key(key("acme", 0))).Val(); ttl <= 0 || ttl > part.Keep {
				t.Errorf("stays for %v", ttl)
			}
		})
	}
}

// TestRebuildShowsNobodyAnOlderState: while it runs, what a caller reads never goes back, and afterwards everything is in step.
func TestRebuildShowsNobodyAnOlderState(t *testing.T) {
	t.Parallel()
	w := start(t, redistest.Real(t))
	const links, rounds = 40, 40
	for range rounds {
		for i := range links {
			state(t, w.forgetful, key("acme", i))
		}
	}
	defer w.hear()()
	ctx, stop := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	for i := range links {
		busy.Go(func() {
			for last := int64(rounds); ctx.Err() == nil; {
				s, _, err := w.kept.Read(ctx, key("acme", i))
				if err == nil && s.GetValue() < last {
					t.Errorf("link %d was at %d, shown at %d", i, last, s.GetValue())
				}
				if err == nil {
					last = max(last, s.GetValue())
				}
				if res, err := w.kept.Do(ctx, key("acme", i), add{n: 1}, eventlog.By{}); err == nil {
					last = res.State.GetValue()
				}
			}
		})
	}
	for range 5 {
		if err := w.rdb.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		w.rebuild("")
	}
	if found, differing := w.verify(""); len(differing) != 0 || found.Compared != links {
		t.Errorf("under load: %+v, %v", found, differing)
	}
	stop() // also between the record and Redis
	busy.Wait()
	if found, differing := w.verify(""); len(differing) != 0 || found.Compared != links {
		t.Errorf("at rest: %+v, %v", found, differing)
	}
}

// TestVerifyNamesEachDifference plants one of every kind.
func TestVerifyNamesEachDifference(t *testing.T) {
	t.Parallel()
	w := start(t, redistest.Real(t))
	ctx := t.Context()
	seqs := make([]uint64, 8)
	for i := range seqs {
		seqs[i] = state(t, w.kept, key("acme", i))
	}
	state(t, w.kept, key("rival", 0))
	put := func(k eventlog.Key, seq uint64, value string) {
		if err := w.rdb.Unlink(ctx, part.Key(k)).Err(); err != nil {
			t.Fatal(err)
		}
		if stored, err := w.store.Put(ctx, part.Key(k), seq, []byte(value), time.Hour); err != nil || !stored {
			t.Fatal(stored, err)
		}
	}
	newest := state(t, w.forgetful, key("acme", 0))
	put(key("acme", 1), seqs[1]+1000, "from a record that was lost")
	put(key("acme", 2), seqs[2], "not what was recorded")
	put(key("acme", 77), 5, "of nobody")
	w.rdb.Del(ctx, part.Key(key("acme", 3)), part.Key(key("acme", 4)), part.Key(key("acme", 5)))
	w.rdb.Set(ctx, part.Key(key("acme", 3)), "short", 0)
	w.rdb.LPush(ctx, part.Key(key("acme", 4)), "a list")
	// Of no concern: other keys, and another tenant's.
	w.rdb.Set(ctx, hot.Key("lnk_1", "acme", "record", "other"), "x", 0)
	w.rdb.Set(ctx, "{x}:record:test", "x", 0)
	put(key("rival", 1), 5, "of nobody")
	found, differing := w.verify("acme")
	want := map[string]hotstate.Difference{}
	for n, d := range map[int]hotstate.Difference{
		0: {What: hotstate.Older, InRedis: seqs[0], InLog: newest}, 1: {What: hotstate.Newer, InRedis: seqs[1] + 1000, InLog: seqs[1]},
		2: {What: hotstate.Altered, InRedis: seqs[2], InLog: seqs[2]}, 77: {What: hotstate.NoRecord, InRedis: 5},
		3: {What: hotstate.Unreadable}, 4: {What: hotstate.Unreadable},
	} {
		k := key("acme", n)
		d.Service, d.Tenant, d.ID, d.Key = "test", k.Tenant, k.ID, part.Key(k)
		want[d.Key] = d
	}
	if len(differing) != len(want) {
		t.Errorf("%d differences, planted %d", len(differing), len(want))
	}
	for _, d := range differing {
		if d != want[d.Key] {
			t.Errorf("named %+v\nwant  %+v", d, want[d.Key])
		}
	}
	if found.Records != 8 || found.Compared != 8 || found.Absent != 0 {
		t.Errorf("found %+v", found)
	}
	for _, d := range differing {
		if err := hotstate.Repair(ctx, w.rdb, w.store, part, d); err != nil {
			t.Error(err)
		}
	}
	if found, differing := w.verify("acme"); len(differing) != 0 || found.Compared != 2 || found.Absent != 6 {
		t.Errorf("after the repair: %+v, %v", found, differing)
	}
	if _, differing := w.verify(""); len(differing) != 1 || differing[0].Tenant != "rival" {
		t.Errorf("of all tenants: %v", differing)
	}
}

// TestHeardMendsWhatAWriterLeft: a process that ends between the record and Redis leaves a state that is older than the record.
func TestHeardMendsWhatAWriterLeft(t *testing.T) {
	t.Parallel()
	server := redistest.StartReal(t)
	w := start(t, redistest.Client(t, server.Addr()))
	stale, absent := key("acme", 1), key("acme", 2)
	state(t, w.kept, stale)
	state(t, w.forgetful, stale)
	state(t, w.forgetful, absent)
	if n := w.read(stale); n != 1 {
		t.Fatalf("shown at %d: there is nothing to mend", n)
	}
	stop := w.hear()
	eventlogtest.Eventually(t, "what is kept is mended", func() bool { return w.read(stale) == 2 })
	if n := w.rdb.Exists(t.Context(), part.Key(absent)).Val(); n != 0 {
		t.Error("what nobody had read was written")
	}
	// Without Redis the fact is heard again, however often: nobody's fault.
	server.Stop()
	state(t, w.forgetful, stale)
	eventlogtest.Eventually(t, "the fact is heard and not settled", func() bool {
		c, err := w.log.JetStream().Consumer(t.Context(), "FACTS_TEST", durable)
		if err != nil {
			t.Fatal(err)
		}
		info, err := c.Info(t.Context())
		return err == nil && info.NumRedelivered == 1
	})
	stop()
}

// hear has facts heard until the function it returns is called.
func (w *world) hear() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	consumer := &eventlog.Consumer{
		Service: "test", Stream: "FACTS_TEST", Durable: durable, Handle: w.cache.Heard,
		Logger: slog.New(slog.DiscardHandler), Tracer: noop.NewTracerProvider().Tracer(""),
	}
	go func() { ended <- consumer.Run(ctx, w.log.JetStream()) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	}
}

func connect(t *testing.T, addr string) redis.UniversalClient {
	t.Helper()
	rdb, err := hot.Connect(addr, secret.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}
