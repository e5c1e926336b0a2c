package bench

import (
	"context"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/hotstate"
	"countersign.dev/pkg/natsserver"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token"
	tokenrules "countersign.dev/services/token/rules"
)

// openLinks are how many links wait for their signers at once.
var openLinks = []int{10_000, 100_000, 1_000_000}

// redeemed is how many of them are opened while the benchmark looks.
const redeemed = 10_000

// standingWorld is a token service that was started on a record of many open links.
type standingWorld struct {
	*world
	links                                    int
	redisBytes, natsBytes, diskBytes, record float64       // of one link
	started                                  time.Duration // until the first answer
	next                                     int           // token to be redeemed
	secrets                                  []string
}

// BenchmarkOpenLinks starts the service on records of 10 000, 100 000 and 1 000 000 open links, and prints what one link takes, how long the
// start lasts, and how fast links are opened in its first second and after, in turn with the service that has 10 000.
func BenchmarkOpenLinks(b *testing.B) {
	for b.Loop() {
		var out strings.Builder
		fmt.Fprint(&out, "\n| open links | Redis, bytes a link | NATS memory, bytes a link | NATS disk, bytes a link (of them messages) | start, ms | opened a second: first second | warm | of 10 000: first second | warm |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
		var few *standingWorld
		for _, links := range openLinks {
			w := standOn(b, links)
			if few == nil {
				few = w
				few.opened(b)
			}
			first, base := w.opened(b), few.opened(b)
			var rates, ratios []float64
			for range 3 {
				rate := w.opened(b)
				rates, ratios = append(rates, rate), append(ratios, rate/few.opened(b))
			}
			fmt.Fprintf(&out, "| %d | %.0f | %.0f | %.0f (%.0f) | %d | %s | %s | %.2f | %.2f |\n", links, w.redisBytes, w.natsBytes, w.diskBytes, w.record,
				w.started.Milliseconds(), number(first), number(median(rates)), first/base, median(ratios))
			b.ReportMetric(median(ratios), fmt.Sprintf("of-10000@%d", links))
		}
		fmt.Fprintln(os.Stdout, out.String())
	}
	b.ReportMetric(0, "ns/op") // a round is no operation
}

// opened opens some hundred links, which takes less than a second, by 64 callers, and returns how many a second.
func (w *standingWorld) opened(b *testing.B) float64 {
	b.Helper()
	const most = 500
	for call := range most {
		w.tokens[call] = w.secrets[(w.next+call)%len(w.secrets)]
	}
	w.next += most
	took, err := spread(b.Context(), callers[len(callers)-1], 0, most, w.redeem)
	check(b, err)
	return most / took.Seconds()
}

// standOn makes a record of so many links, fills Redis from it, and starts the service on both.
func standOn(b *testing.B, links int) *standingWorld {
	b.Helper()
	w := &standingWorld{world: emptyWorld(b), links: links}
	w.fill()
	w.diskBytes = size(b, filepath.Join(w.dir, "nats")) / float64(links)
	before, watch := heap(), clock.Stopwatch()
	url := w.nats(1)
	w.connect(url)
	w.serve(url)
	answer, err := w.world.links.Resolve(b.Context(), &tokenv1.ResolveRequest{Token: w.secrets[0]})
	w.started = watch()
	check(b, err)
	if answer.GetFailureCode() != "" {
		b.Fatalf("an open link was answered %s", answer.GetFailureCode())
	}
	w.natsBytes = (heap() - before) / float64(links)
	return w
}

// fill writes the record without waiting for the disk, and Redis from it as "countersign state rebuild" does.
func (w *standingWorld) fill() {
	b := w.b
	server, err := natsserver.Start(natsserver.Options{
		Listen: "127.0.0.1:0", Dir: filepath.Join(w.dir, "nats"), Key: hex.EncodeToString(w.ring.Derive("cs.nats.v1", 32)), SyncEvery: time.Minute,
	})
	check(b, err)
	defer server.Stop()
	w.provision(server.URL(), 1)
	nc, err := nats.Connect(server.URL())
	check(b, err)
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096))
	check(b, err)
	bytes := 0
	for n := range w.links {
		for _, m := range w.waiting(n) {
			bytes += m.Size()
			_, err := js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute))
			check(b, err)
		}
	}
	<-js.PublishAsyncComplete()
	w.record = float64(bytes) / float64(w.links)
	log, err := eventlog.OpenLog(b.Context(), nc, eventlog.FactsStream(token.Name))
	check(b, err)
	before := w.redisMemory()
	done, err := hotstate.Rebuild(b.Context(), log, w.rdb, hot.New(w.rdb, time.Minute), token.HotState(), "", silent{})
	check(b, err)
	if done.Stored != int64(w.links) {
		b.Fatalf("rebuilt %+v of %d links", done, w.links)
	}
	w.redisBytes = (w.redisMemory() - before) / float64(w.links)
}

// waiting returns the record of a link that was issued and sent.
func (w *standingWorld) waiting(n int) (messages []*nats.Msg) {
	b, now := w.b, clock.System().Now("")
	id, request := eventlog.DeriveID(w.ring, "lnk", fmt.Sprint(n)), eventlog.DeriveID(w.ring, "req", fmt.Sprint(n))
	secret := tokenrules.Token{Tenant: tenant, LinkID: id, Secret: w.ring.Derive(fmt.Sprintf("bench.secret.%d", n), tokenrules.SecretSize)}
	state := &tokenv1.Link{}
	for _, c := range []eventlog.Command[*tokenv1.Link]{
		issue(id, request, eventlog.DeriveID(w.ring, "per", fmt.Sprint(n))),
		tokenrules.Mint{
			Generation: 1, DeliveryID: eventlog.DeriveID(w.ring, "dlv", fmt.Sprint(n)),
			Hash: w.ring.MAC("cs.link.v1", []byte(tenant), []byte(id), secret.Secret),
		},
	} {
		fact, err := c.Decide(state, now)
		check(b, err)
		state = tokenrules.EvolveLink(proto.CloneOf(state), fact)
		messages = append(messages, record(b, eventlog.Key{Tenant: tenant, ID: id}, request, fact, state))
	}
	if every := max(w.links/redeemed, 1); n%every == 0 {
		text, err := tokenrules.FormatToken(secret)
		check(b, err)
		w.secrets = append(w.secrets, text)
	}
	return messages
}

// redisMemory is what Redis says that its data takes, in bytes.
func (w *standingWorld) redisMemory() float64 {
	info, err := w.rdb.InfoMap(context.WithoutCancel(w.b.Context()), "memory").Result()
	check(w.b, err)
	used, err := strconv.ParseFloat(info["Memory"]["used_memory"], 64)
	check(w.b, err)
	return used
}

// heap is what lives in this process, in bytes: the NATS server is a part of it.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// size is how many bytes the files of a directory have.
func size(b *testing.B, dir string) (total float64) {
	b.Helper()
	check(b, filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			total += float64(info.Size())
		}
		return err
	}))
	return total
}
