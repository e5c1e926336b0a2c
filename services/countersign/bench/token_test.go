package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/config"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/limit"
	"countersign.dev/pkg/natsserver"
	"countersign.dev/pkg/redisserver/redistest"
	"countersign.dev/pkg/rpc"
	"countersign.dev/pkg/telemetry"
	"countersign.dev/pkg/trips"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/countersign/stack"
	"countersign.dev/services/token"
	tokenrules "countersign.dev/services/token/rules"
)

const tenant = "demo"

// sampled is the share of new traces that is recorded, as under load.
const sampled = 0.01

// pages is how many pages are open at once, each the beginning of a trace, as the gateway asks.
const pages = 1000

// standing is how many links are there to be resolved.
const standing = 64

// world is the token service as the other services of its process meet it, beside the bare servers that it stands on. It answers
// calls and hears nothing, so that its own reactions do not compete with the ceilings for the disk.
type world struct {
	b     *testing.B
	dir   string
	ring  *keys.Ring
	js    jetstream.JetStream
	rdb   *redis.Client
	issue *eventlog.Aggregate[*tokenv1.Link]
	links tokenv1.LinkServiceClient
	bare  tokenv1.LinkServiceClient

	redisAddress string
	limiter      *limit.Limiter

	mu     sync.Mutex
	issued int
	tokens map[int]string    // of links to be redeemed, by call
	firsts map[string]uint64 // the first message of each bare subject
	trips  *trips.Trips
	stood  []string // of links that are only resolved
	pages  []trace.Span
	sample *nats.Msg // a redemption as it was recorded
	disk   *os.File
}

// newWorld starts so many NATS servers, Redis and the service.
func newWorld(b *testing.B, servers int) *world {
	b.Helper()
	w := emptyWorld(b)
	url := w.nats(servers)
	w.provision(url, servers)
	w.serve(url)
	w.stand()
	w.serveBare()
	return w
}

// emptyWorld has keys and Redis, and neither streams nor a service.
func emptyWorld(b *testing.B) *world {
	b.Helper()
	w := &world{b: b, dir: b.TempDir(), tokens: map[int]string{}, firsts: map[string]uint64{}}
	var err error
	w.ring, err = keys.Create(filepath.Join(w.dir, "keys"))
	check(b, err)
	w.disk, err = os.Create(filepath.Join(w.dir, "disk"))
	check(b, err)
	b.Cleanup(func() { _ = w.disk.Close() })
	w.redisAddress = redistest.StartReal(b).Addr()
	w.rdb = redistest.Client(b, w.redisAddress)
	w.limiter, w.trips = limit.New(w.rdb, w.ring, limit.Options{}), trips.New(w.rdb, hot.DefaultTimeout)
	return w
}

// nats starts the servers, which all sync the disk before they acknowledge, and returns where they are.
func (w *world) nats(servers int) string {
	key := hex.EncodeToString(w.ring.Derive("cs.nats.v1", 32))
	if servers > 1 {
		return startCluster(w.b, servers, filepath.Join(w.dir, "nats"), key)
	}
	server, err := natsserver.Start(natsserver.Options{Listen: "127.0.0.1:0", Dir: filepath.Join(w.dir, "nats"), Key: key})
	check(w.b, err)
	w.b.Cleanup(server.Stop)
	return server.URL()
}

// provision makes the streams as `countersign init` does.
func (w *world) provision(url string, replicas int) {
	_, err := eventlog.Provision(w.b.Context(), w.connect(url), stack.Topology(), replicas, func(string) map[string]string {
		return map[string]string{eventlog.BirthKey: uuid.NewString(), eventlog.KeysKey: w.ring.ID(), eventlog.SyncKey: eventlog.SyncAlways}
	})
	check(w.b, err)
}

// connect gives the benchmark itself a connection to NATS.
func (w *world) connect(url string) jetstream.JetStream {
	nc, err := nats.Connect(url)
	check(w.b, err)
	w.b.Cleanup(nc.Close)
	w.js, err = jetstream.New(nc)
	check(w.b, err)
	return w.js
}

// serve runs the token service's own server, and connects to it as the gateway does.
func (w *world) serve(url string) {
	tel, err := telemetry.Setup(w.b.Context(), telemetry.Options{Service: "bench", SampleRatio: sampled, Level: slog.LevelError, Stderr: os.Stderr})
	check(w.b, err)
	w.b.Cleanup(func() { _ = tel.Shutdown(context.WithoutCancel(w.b.Context())) })
	for range pages {
		_, span := tel.Tracer("bench").Start(w.b.Context(), "page")
		w.pages = append(w.pages, span)
	}
	network := rpc.NewNetwork()
	base, err := host.Open(host.Options{
		NATS: url, Redis: w.redisAddress, MarksDir: filepath.Join(w.dir, "marks"), Keys: w.ring, Files: keys.Dir(filepath.Join(w.dir, "keys")),
		Clock: clock.System(), Telemetry: tel, Logger: tel.Log, Network: network,
	})
	check(w.b, err)
	w.b.Cleanup(base.Close)
	h := base.For(token.Name)
	service, err := token.New(w.b.Context(), h, config.Default())
	check(w.b, err)
	parts, err := host.Components(h, token.Name, service, network)
	check(w.b, err)
	w.background(parts[0].Run) // the server alone
	log, err := h.Facts(w.b.Context(), token.Name)
	check(w.b, err)
	w.issue = eventlog.NewAggregate(log, token.Name, tokenrules.EvolveLink, h.Clock, h.Tracer(token.Name), nil)
	conn, err := base.For("gateway").Peers.Dial(token.Name)
	check(w.b, err)
	w.links = tokenv1.NewLinkServiceClient(conn)
}

// echo answers at once what the token service would, and takes the steps of a redemption with nothing around them.
type echo struct {
	tokenv1.UnimplementedLinkServiceServer
	w      *world
	answer *tokenv1.ResolveResponse
}

func (e echo) Resolve(context.Context, *tokenv1.ResolveRequest) (*tokenv1.ResolveResponse, error) {
	return e.answer, nil
}

// Redeem reads a value from Redis, publishes on a condition, and writes a value to Redis. The token is the subject's last part.
func (e echo) Redeem(ctx context.Context, req *tokenv1.RedeemRequest) (*tokenv1.RedeemResponse, error) {
	key := bareKey(req.GetToken())
	var got *redis.StringCmd
	if err := e.w.trips.Carry(ctx, func(ctx context.Context, c redis.Cmdable) { got = c.Get(ctx, key) }); err != nil {
		return nil, err
	}
	if err := got.Err(); err != nil {
		return nil, err
	}
	if err := e.w.follow(ctx, req.GetToken()); err != nil {
		return nil, err
	}
	var set *redis.StatusCmd
	if err := e.w.trips.Carry(ctx, func(ctx context.Context, c redis.Cmdable) { set = c.Set(ctx, key, e.w.sample.Data, time.Hour) }); err != nil {
		return nil, err
	}
	return &tokenv1.RedeemResponse{Link: e.answer.GetLink()}, set.Err()
}

func bareKey(id string) string { return hot.Key(id, tenant, "record") }

// serveBare runs gRPC with nothing around it, over the same kind of connection.
func (w *world) serveBare() {
	answer, err := w.links.Resolve(w.b.Context(), &tokenv1.ResolveRequest{Token: w.stood[0]})
	check(w.b, err)
	server, pipe := grpc.NewServer(), bufconn.Listen(256<<10)
	tokenv1.RegisterLinkServiceServer(server, echo{w: w, answer: answer})
	w.background(func(context.Context) error { return server.Serve(pipe) })
	w.b.Cleanup(server.Stop) // before background waits: the last registered runs first
	conn, err := grpc.NewClient("passthrough:///bare", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }))
	check(w.b, err)
	w.b.Cleanup(func() { _ = conn.Close() })
	w.bare = tokenv1.NewLinkServiceClient(conn)
}

func (w *world) background(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.b.Context()))
	done := make(chan struct{})
	go func() { defer close(done); _ = run(ctx) }()
	w.b.Cleanup(func() { cancel(); <-done })
}

// link issues a link and mints a token for it.
func (w *world) link(ctx context.Context) (string, error) {
	w.mu.Lock()
	w.issued++
	n := w.issued
	w.mu.Unlock()
	id, request := eventlog.DeriveID(w.ring, "lnk", fmt.Sprint(n)), eventlog.DeriveID(w.ring, "req", fmt.Sprint(n))
	command := issue(id, request, eventlog.DeriveID(w.ring, "per", fmt.Sprint(n)))
	if _, err := w.issue.Do(ctx, eventlog.Key{Tenant: tenant, ID: id}, command, eventlog.By{RequestID: request}); err != nil {
		return "", err
	}
	minted, err := w.links.Mint(ctx, &tokenv1.MintRequest{Tenant: tenant, LinkId: id, Generation: 1, DeliveryId: eventlog.DeriveID(w.ring, "dlv", fmt.Sprint(n))})
	return minted.GetToken(), err
}

// issue is the command that makes a link of the standard profile.
func issue(id, request, holder string) tokenrules.Issue {
	return tokenrules.Issue{
		LinkID: id, Tenant: tenant, RequestID: request, HolderID: holder, Position: 1,
		Profile: &tokenv1.Profile{
			Name: "standard", Lifetime: durationpb.New(7 * 24 * time.Hour), Grace: durationpb.New(time.Hour), Session: durationpb.New(time.Hour),
			ReissueLimit: 3, ReissueWindow: durationpb.New(24 * time.Hour), Assurance: 1,
		},
	}
}

// stand makes the links that are resolved, and redeems one to see how that is recorded.
func (w *world) stand() {
	for range standing {
		text, err := w.link(w.b.Context())
		check(w.b, err)
		w.stood = append(w.stood, text)
	}
	answer, err := w.links.Redeem(w.b.Context(), &tokenv1.RedeemRequest{Token: w.stood[0], Browser: rand.Text()})
	check(w.b, err)
	stream, err := w.js.Stream(w.b.Context(), eventlog.FactsStream(token.Name))
	check(w.b, err)
	last, err := stream.GetLastMsgForSubject(w.b.Context(), eventlog.FactSubject(token.Name, eventlog.Key{Tenant: tenant, ID: answer.GetLink().GetLinkId()}))
	check(w.b, err)
	w.sample = &nats.Msg{Subject: last.Subject, Header: last.Header, Data: last.Data}
	w.stood = w.stood[1:]
}

// prepareRedeems makes a link for each of the next calls.
func (w *world) prepareRedeems(first func() int) func(context.Context, int) error {
	return func(ctx context.Context, calls int) error {
		_, err := spread(ctx, callers[len(callers)-1], first(), calls, func(ctx context.Context, call int) error {
			text, err := w.link(ctx)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.tokens[call] = text
			return err
		})
		return err
	}
}

// redeem uses the token that was made for this call.
func (w *world) redeem(ctx context.Context, call int) error {
	w.mu.Lock()
	text := w.tokens[call]
	delete(w.tokens, call)
	w.mu.Unlock()
	ctx = trace.ContextWithSpan(ctx, w.pages[call%len(w.pages)])
	_, err := w.links.Redeem(ctx, &tokenv1.RedeemRequest{Token: text, Browser: rand.Text()})
	return err
}

// resolve asks what a token is good for, as every opened page does.
func (w *world) resolve(ctx context.Context, call int) error {
	ctx = trace.ContextWithSpan(ctx, w.pages[call%len(w.pages)])
	answer, err := w.links.Resolve(ctx, &tokenv1.ResolveRequest{Token: w.stood[call%len(w.stood)]})
	if err == nil && answer.GetFailureCode() != "" {
		return fmt.Errorf("a good token was answered %s", answer.GetFailureCode())
	}
	return err
}

// echo calls gRPC alone.
func (w *world) echo(ctx context.Context, call int) error {
	_, err := w.bare.Resolve(ctx, &tokenv1.ResolveRequest{Token: w.stood[call%len(w.stood)]})
	return err
}

var script = redis.NewScript(`return redis.call('GET', KEYS[1])`)

// script runs a Redis script that reads a value of a record's size.
func (w *world) script(ctx context.Context, _ int) error {
	return script.Run(ctx, w.rdb, []string{hot.Key("bench", tenant, "record")}).Err()
}

// message is one of a redemption's size.
func (w *world) message(id string) *nats.Msg {
	m := &nats.Msg{Subject: eventlog.FactSubject(token.Name, eventlog.Key{Tenant: tenant, ID: id}), Header: nats.Header{}, Data: w.sample.Data}
	maps.Copy(m.Header, w.sample.Header)
	return m
}

// prepareFirsts stores the first message of a subject for each of the next calls, in Redis too, as a link was issued before it is redeemed.
func (w *world) prepareFirsts(kind string, first func() int) func(context.Context, int) error {
	return func(ctx context.Context, calls int) error {
		_, err := spread(ctx, callers[len(callers)-1], first(), calls, func(ctx context.Context, call int) error {
			id := bareID(kind, call)
			ack, err := w.js.PublishMsg(ctx, w.message(id), jetstream.WithMsgID(uuid.NewString()), jetstream.WithExpectLastSequencePerSubject(0))
			if err != nil {
				return err
			}
			w.mu.Lock()
			w.firsts[id] = ack.Sequence
			w.mu.Unlock()
			return w.rdb.Set(ctx, bareKey(id), w.sample.Data, time.Hour).Err()
		})
		return err
	}
}

func bareID(kind string, call int) string { return fmt.Sprintf("%s_%d", kind, call) }

// follow stores the second message of a subject, if nobody did since the first: what a redemption is on the stream.
func (w *world) follow(ctx context.Context, id string) error {
	w.mu.Lock()
	last := w.firsts[id]
	delete(w.firsts, id)
	w.mu.Unlock()
	_, err := w.js.PublishMsg(ctx, w.message(id), jetstream.WithMsgID(uuid.NewString()), jetstream.WithExpectLastSequencePerSubject(last))
	return err
}

// publish is the conditional publish alone.
func (w *world) publish(ctx context.Context, call int) error {
	return w.follow(ctx, bareID("bare", call))
}

// steps has a bare server take the steps of a redemption.
func (w *world) steps(ctx context.Context, call int) error {
	_, err := w.bare.Redeem(ctx, &tokenv1.RedeemRequest{Token: bareID("steps", call)})
	return err
}

// sync writes as much to a file of its own and waits for the disk, one caller after the other, as a log must.
func (w *world) sync(context.Context, int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.disk.Write(w.sample.Data); err != nil {
		return err
	}
	return w.disk.Sync()
}

// get reads a value of a record's size.
func (w *world) get(ctx context.Context, _ int) error {
	return w.rdb.Get(ctx, hot.Key("bench", tenant, "record")).Err()
}

// limits decides the limits that a code to be sent stands under, for one of many signers, none of whom has come to the end of his.
func (w *world) limits(ctx context.Context, call int) error {
	who := fmt.Sprint(call % 1000)
	decision, err := w.limiter.Allow(ctx,
		limit.PerMinute("bench_link", who, 1_000_000, limit.FailClosed),
		limit.PerMinute("bench_person", who, 2_000_000, limit.FailClosed),
		limit.PerMinute("bench_tenant", tenant, 50_000_000, limit.FailClosed))
	if err == nil && !decision.Allowed {
		return fmt.Errorf("the limit %s was met", decision.Name)
	}
	return err
}

// together is how many calls are made ready for one measurement of what changes a link.
const together = 512

// durable returns what ends on the disk, the ceilings first, and which of it is the conditional publish.
func (w *world) durable() (all []*subject, rows []row, published *subject) {
	disk, redeem := newSubject("disk sync", w.sync), newSubject("**redeem**", w.redeem)
	published, steps := newSubject("conditional publish", w.publish), newSubject("a redemption's steps alone", w.steps)
	published.timed, steps.timed, redeem.timed = true, true, true
	published.prepare, published.most = w.prepareFirsts("bare", func() int { return published.calls }), together
	steps.prepare, steps.most = w.prepareFirsts("steps", func() int { return steps.calls }), together
	redeem.prepare, redeem.most = w.prepareRedeems(func() int { return redeem.calls }), together
	return []*subject{disk, published, steps, redeem}, []row{
		{disk, nil}, {published, []*subject{disk}}, {steps, []*subject{published}}, {redeem, []*subject{published, steps}},
	}, published
}

// subjects returns everything that is measured, the ceilings first, and which of it is the conditional publish.
func (w *world) subjects() (all []*subject, rows []row, published *subject) {
	b := w.b
	check(b, w.rdb.Set(b.Context(), hot.Key("bench", tenant, "record"), w.sample.Data, 0).Err())
	bare, got, scripted := newSubject("gRPC echo", w.echo), newSubject("Redis GET", w.get), newSubject("Redis script", w.script)
	resolve, limits := newSubject("**resolve**", w.resolve), newSubject("**three limits, one decision**", w.limits)
	durable, durableRows, published := w.durable()
	return append([]*subject{bare, got, scripted, resolve, limits}, durable...), append([]row{
		{bare, nil}, {got, nil}, {scripted, nil}, {resolve, []*subject{bare, scripted}}, {limits, []*subject{got}},
	}, durableRows...), published
}

func check(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
