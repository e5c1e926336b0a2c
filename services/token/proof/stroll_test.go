package proof

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/config"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/natsserver"
	"countersign.dev/pkg/redisserver/redistest"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token"
	"countersign.dev/services/token/rules"
	"countersign.dev/services/token/seatmodel"
)

// stroll is the token service over a NATS server and a Redis of its own, asked at random, and what the models say of all it states. The
// clock stands still but for the steps that move it, so that every answer can be told before.
type stroll struct {
	*single
	t      *testing.T
	seed   uint64
	random *rand.Rand
	clock  *clock.Manual
	place  place
	nats   *natsserver.Server
	files  natsserver.Options
	rdb    *redis.Client
	peers  *peers
	record jetstream.JetStream // a connection of the test's own
	heard  uint64              // the last fact of the record that the models know
	done   map[string]int      // steps by name
	facts  map[string]int
	calls  int // with an idempotency key

	episode
}

// episode is one request with its links.
type episode struct {
	number  int
	request string
	state   *tokenv1.Request
	seats   map[string]*seatmodel.Seat
	order   []string // links, in the order of their issue
	tokens  map[string][]string
	sent    []foreign // what other services stated, to be told again
	kept    []foreign // what they stated and nobody has heard yet
	calm    bool      // nothing is under way
	turned  bool      // a timer or a reaction stated something since the last step
}

// foreign is a fact of another service.
type foreign struct {
	service, id string
	fact, state proto.Message
}

// profilesOfStroll have lives in which every end is met.
const profilesOfStroll = `profiles:
  strolled: {lifetime: 3h, grace: 10m, session: 40m, idle: 40m, reissue_limit: 3, reissue_window: 24h}
  renewed: {lifetime: 1h, grace: 5m, session: 20m, idle: 20m, reissue_limit: 3, reissue_window: 24h, automatic_reissue: true}
`

func newStroll(t *testing.T, seed uint64) *stroll {
	t.Helper()
	settings := filepath.Join(t.TempDir(), "config")
	if err := errors.Join(os.MkdirAll(filepath.Join(settings, tenant), 0o700),
		os.WriteFile(filepath.Join(settings, tenant, "profiles.yaml"), []byte(profilesOfStroll), 0o600)); err != nil {
		t.Fatal(err)
	}
	tenants, err := config.Load(settings)
	if err != nil {
		t.Fatal(err)
	}
	s := &stroll{
		t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 0)), clock: clock.NewManual(clock.System().Now("")), peers: &peers{}, //nolint:gosec // played again by its seed
		files: natsserver.Options{Listen: "127.0.0.1:0", Dir: quickDir(t)}, done: map[string]int{}, facts: map[string]int{},
	}
	server := redistest.StartReal(t)
	s.rdb = redistest.Client(t, server.Addr())
	s.place = place{redis: server.Addr(), marks: t.TempDir(), keys: filepath.Join(t.TempDir(), "keys"), clock: s.clock, tenants: tenants, logs: &logs{}}
	if s.place.ring, err = keys.Create(s.place.keys); err != nil {
		t.Fatal(err)
	}
	s.serve()
	t.Cleanup(func() { s.nats.Stop() })
	s.files.Listen = strings.TrimPrefix(s.nats.URL(), "nats://")
	s.place.nats = s.nats.URL()
	_, s.record = connect(t, s.nats.URL())
	s.provision()
	if s.single, err = startSingle(t, s.place, s.peers); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *stroll) serve() {
	server, err := natsserver.Start(s.files)
	if err != nil {
		s.t.Fatal(err)
	}
	s.nats = server
}

func (s *stroll) provision() {
	s.t.Helper()
	if _, err := eventlog.Provision(s.t.Context(), s.record, topology(), 1, func(string) map[string]string {
		return map[string]string{eventlog.BirthKey: uuid.NewString(), eventlog.KeysKey: s.place.ring.ID(), eventlog.SyncKey: eventlog.SyncAlways}
	}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stroll) now() time.Time { return s.clock.Now(tenant) }

// Fatal and Fatalf end the test with what is needed to play it again.
func (s *stroll) Fatal(args ...any) { s.t.Helper(); s.Fatalf("%s", fmt.Sprint(args...)) }

// Fatalf is Fatal with a format.
func (s *stroll) Fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("seed %d, request %d, %v after the start: %s", s.seed, s.number, s.clock.Offset(tenant), fmt.Sprintf(format, args...))
}

// browser is what is kept of a browser's secret.
func (s *stroll) browser(n uint8) []byte {
	return s.place.ring.MAC("cs.browser.v1", []byte(browserOf(n)))
}

// hash is what is kept of a token.
func (s *stroll) hash(text string) []byte {
	t, err := rules.ParseToken(text)
	if err != nil {
		s.Fatal(err)
	}
	return s.place.ring.MAC("cs.link.v1", []byte(t.Tenant), []byte(t.LinkID), t.Secret)
}

// settle waits until the service has heard all there is, and has the models hear it too. What waits for the clock keeps it from being
// calm.
func (s *stroll) settle(most time.Duration) {
	s.t.Helper()
	ctx, stop := context.WithTimeout(s.t.Context(), most)
	defer stop()
	var heard bool
	if heard, s.calm = s.idle(ctx); !heard {
		every(ctx, time.Millisecond, func() {
			if heard, s.calm = s.idle(ctx); heard {
				stop()
			}
		})
	}
	select {
	case err := <-s.ended:
		s.Fatalf("the service ended: %v", err)
	default:
	}
	s.hear()
	s.check()
}

// idle tells whether the service has looked at everything there is to hear, and whether nothing of it waits to be looked at again.
func (s *stroll) idle(ctx context.Context) (heard, calm bool) {
	calm = true
	for _, of := range []string{"FACTS_CEREMONY", "FACTS_DELIVERY", "FACTS_ESCALATION", "FACTS_REMINDER", "TIMERS_TOKEN", "FACTS_TOKEN"} {
		durable := token.Name
		if of == "TIMERS_TOKEN" {
			durable = "due"
		}
		// What was stored, before what was heard: a consumer learns of a message a moment after its publisher does.
		stream, err := s.record.Stream(ctx, of)
		if err != nil {
			return false, false
		}
		consumer, err := s.record.Consumer(ctx, of, durable)
		if err != nil {
			return false, false
		}
		info := consumer.CachedInfo()
		behind := durable == token.Name && info.Delivered.Stream < stream.CachedInfo().State.LastSeq
		if behind || info.NumPending > 0 || info.NumAckPending > info.NumRedelivered {
			return false, false
		}
		calm = calm && info.NumAckPending == 0
	}
	return true, calm
}

// hear has the models follow what was stated.
func (s *stroll) hear() {
	s.t.Helper()
	ctx, stop := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer stop()
	stream, err := s.record.Stream(ctx, "FACTS_TOKEN")
	if err != nil {
		s.Fatal(err)
	}
	s.turned = false
	for last := stream.CachedInfo().State.LastSeq; s.heard < last; s.heard++ {
		m, err := stream.GetMsg(ctx, s.heard+1)
		if err != nil {
			s.Fatal(err)
		}
		s.follow(m)
	}
}

// follow has the models follow one fact. The record's own state must be what the facts lead to.
func (s *stroll) follow(m *jetstream.RawStreamMsg) {
	s.t.Helper()
	rec := &recordv1.Record{}
	if err := proto.Unmarshal(m.Data, rec); err != nil {
		s.Fatal(err)
	}
	fact, err := rec.GetFact().UnmarshalNew()
	if err != nil {
		s.Fatal(err)
	}
	_, _, k, err := eventlog.ParseSubject(m.Subject)
	if err != nil {
		s.Fatal(err)
	}
	s.facts[string(fact.ProtoReflect().Descriptor().Name())]++
	if f, is := fact.(*tokenv1.LinkReissued); is {
		s.facts["LinkReissued "+f.GetReason().String()]++
	}
	switch fact.(type) {
	case *tokenv1.LinkLapsed, *tokenv1.LinkReissued, *tokenv1.LinkClosed, *tokenv1.RequestCancelBegun, *tokenv1.RequestExpired, *tokenv1.RequestAmended:
		s.turned = true
	}
	switch {
	case strings.HasPrefix(k.ID, "lnk_"):
		seat := s.seats[k.ID]
		if seat == nil {
			if rec.GetRequestId() != s.request {
				return // of a request before
			}
			seat = seatmodel.New(s.now(), string(s.browser(1)), string(s.browser(2)), string(s.browser(3)), string(s.browser(stranger)))
			s.seats[k.ID], s.order = seat, append(s.order, k.ID)
		}
		seat.Now = rec.GetAt().AsTime()
		seat.Hear(s, fact)
		if state := new(tokenv1.Link); rec.GetState().UnmarshalTo(state) != nil || !proto.Equal(state, seat.Link) {
			s.Fatalf("%T led to %v, and the facts to %v", fact, state, seat.Link)
		}
	case k.ID == s.request:
		s.state = rules.EvolveRequest(s.state, fact)
		if state := new(tokenv1.Request); rec.GetState().UnmarshalTo(state) != nil || !proto.Equal(state, s.state) {
			s.Fatalf("%T led to %v, and the facts to %v", fact, state, s.state)
		}
	}
}

// check has the models say what must hold now.
func (s *stroll) check() {
	s.t.Helper()
	for _, seat := range s.seats {
		if seat.Now = s.now(); seat.Generation > 0 {
			seat.Check(s)
		}
	}
	if !s.calm || s.state.GetId() == "" || rules.MayAdmit(s.state, s.now()) == nil || errors.Is(rules.MayAdmit(s.state, s.now()), failure.LinkBusy) {
		return
	}
	for id, seat := range s.seats {
		if !seat.Over {
			s.Fatalf("the request is over (%s) and its link %s is not", s.state.GetStatus(), id)
		}
	}
}
