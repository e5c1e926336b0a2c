package bench

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/hotstate"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/natsserver"
	"countersign.dev/pkg/redisserver/redistest"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token"
)

// BenchmarkRebuild fills an empty Redis from a record, in turn with a bare read of that record, and reports how the two rates compare:
// where each aggregate has one message, which leaves the most to write and is no life of a link; three, as a link that waits for its
// signer; and eight, as one that was signed.
func BenchmarkRebuild(b *testing.B) {
	for _, shape := range []struct{ aggregates, messages int }{{30_000, 1}, {15_000, 3}, {6_000, 8}} {
		b.Run(fmt.Sprintf("%dx%d", shape.aggregates, shape.messages), func(b *testing.B) {
			log := recordOf(b, shape.aggregates, shape.messages)
			rdb := redistest.Real(b)
			store := hot.New(rdb, time.Minute)
			filter := hotstate.Filter(token.HotState(), "")
			total := float64(shape.aggregates * shape.messages)
			var ratios, rates, bares []float64
			for b.Loop() {
				bare, err := log.ReadRate(b.Context(), filter, time.Minute)
				check(b, err)
				rate := rebuildRate(b, log, rdb, store, total)
				ratios, rates, bares = append(ratios, rate/bare), append(rates, rate), append(bares, bare)
			}
			fmt.Fprintf(os.Stdout, "\n%d messages of %d aggregates: rebuilt at %s messages a second, read bare at %s; ratio %.2f, median of %d rounds\n",
				int(total), shape.aggregates, number(median(rates)), number(median(bares)), median(ratios), len(ratios))
			b.ReportMetric(median(ratios), "of-bare-read")
			b.ReportMetric(0, "ns/op") // a round is no operation
		})
	}
}

// rebuildRate empties Redis, fills it, and returns how many messages a second of the record that took.
func rebuildRate(b *testing.B, log *eventlog.Log, rdb *redis.Client, store *hot.Store, total float64) float64 {
	b.Helper()
	check(b, rdb.FlushAll(b.Context()).Err())
	elapsed := clock.Stopwatch()
	done, err := hotstate.Rebuild(b.Context(), log, rdb, store, token.HotState(), "", silent{})
	took := elapsed()
	check(b, err)
	if done.Stored != done.Records || float64(done.Messages) != total {
		b.Fatalf("rebuilt %+v", done)
	}
	return total / took.Seconds()
}

// silent shows nobody how far it is.
type silent struct{}

func (silent) Begin(string, uint64) {}
func (silent) Read(int)             {}

// recordOf makes a record of so many aggregates, one request to two links, with so many messages each, one after the other.
func recordOf(b *testing.B, aggregates, messages int) *eventlog.Log {
	b.Helper()
	ring, err := keys.Create(filepath.Join(b.TempDir(), "keys"))
	check(b, err)
	server, err := natsserver.Start(natsserver.Options{
		Listen: "127.0.0.1:0", Dir: b.TempDir(), Key: hex.EncodeToString(ring.Derive("cs.nats.v1", 32)), SyncEvery: time.Second, // reading is measured
	})
	check(b, err)
	b.Cleanup(server.Stop)
	nc, err := nats.Connect(server.URL())
	check(b, err)
	b.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1024))
	check(b, err)
	_, err = js.CreateStream(b.Context(), eventlog.FactsConfig(token.Name))
	check(b, err)
	for range messages {
		for n := range aggregates {
			_, err := js.PublishMsgAsync(message(b, ring, n))
			check(b, err)
		}
	}
	<-js.PublishAsyncComplete()
	log, err := eventlog.OpenLog(b.Context(), nc, eventlog.FactsStream(token.Name))
	check(b, err)
	return log
}

// message is a fact as the service records it: every third of a request, the others of links with some tokens.
func message(b *testing.B, ring *keys.Ring, n int) *nats.Msg {
	b.Helper()
	at := timestamppb.New(clock.System().Now(""))
	request := eventlog.DeriveID(ring, "req", fmt.Sprint(n/3))
	id := request
	var fact, state proto.Message
	if n%3 == 0 {
		r := &tokenv1.Request{Id: request, Tenant: tenant, Status: signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS, AcceptedAt: at}
		for position := range uint32(2) {
			r.Seats = append(r.Seats, &tokenv1.Seat{LinkId: eventlog.DeriveID(ring, "lnk", fmt.Sprint(n, position)), Position: position + 1, PersonId: eventlog.DeriveID(ring, "per", fmt.Sprint(n, position))})
		}
		fact, state = &tokenv1.RequestProgressed{Position: 1}, r
	} else {
		id = eventlog.DeriveID(ring, "lnk", fmt.Sprint(n))
		l := &tokenv1.Link{
			Id: id, Tenant: tenant, RequestId: request, Position: 1, Generation: 1, HolderId: eventlog.DeriveID(ring, "per", fmt.Sprint(n)), ExpiresAt: at,
			Profile: &tokenv1.Profile{Name: "standard", Lifetime: durationpb.New(time.Hour), Grace: durationpb.New(time.Hour), Session: durationpb.New(time.Hour)},
		}
		for range 4 {
			l.Tokens = append(l.Tokens, &tokenv1.TokenHash{Hash: ring.MAC("bench", []byte(id)), Generation: 1})
		}
		fact, state = &tokenv1.LinkMinted{}, l
	}
	return record(b, eventlog.Key{Tenant: tenant, ID: id}, request, fact, state)
}

// record is a message of the record as the service writes it.
func record(b *testing.B, k eventlog.Key, request string, fact, state proto.Message) *nats.Msg {
	b.Helper()
	at := timestamppb.New(clock.System().Now(""))
	pack := func(m proto.Message) *anypb.Any {
		a, err := anypb.New(m)
		check(b, err)
		return a
	}
	body, err := proto.Marshal(&recordv1.Record{Fact: pack(fact), State: pack(state), RequestId: request, At: at, CommandIds: []string{uuid.NewString(), uuid.NewString()}})
	check(b, err)
	m := nats.NewMsg(eventlog.FactSubject(token.Name, k))
	m.Data = body
	for name, value := range map[string]string{
		"ce-specversion": "1.0", "ce-id": uuid.NewString(), "ce-type": string(fact.ProtoReflect().Descriptor().FullName()), "ce-source": "countersign/token",
		"ce-subject": request, "ce-time": at.AsTime().Format(time.RFC3339Nano), "content-type": "application/protobuf", "traceparent": "00-" + uuid.NewString() + "-01",
	} {
		m.Header.Set(name, value)
	}
	return m
}
