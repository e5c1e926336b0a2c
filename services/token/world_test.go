package token_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/config"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/host/hosttest"
	"countersign.dev/pkg/redisserver/redistest"
	auditv1 "countersign.dev/proto/countersign/audit/v1"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token"
)

const tenant = "acme"

// What must be found in no stream, log or key.
const (
	adaName, adaMail     = "Ada Lovelace", "ada@lovelace.example"
	graceName, graceMail = "Grace Hopper", "grace@hopper.example"
	title, reference     = "Lease of the mill", "case-4711"
)

var pdf = []byte("%PDF-1.7 a document of which the ceremony knows more")

// world is token over real servers, asked as platforms and the other services ask it. Only those are played.
type world struct {
	*hosttest.World
	t         *testing.T
	clock     *clock.Tenants
	rdb       redis.UniversalClient
	links     tokenv1.LinkServiceClient
	directory tokenv1.DirectoryServiceClient
	signing   signingv1.SigningRequestServiceClient
	profiles  signingv1.ProfileServiceClient
	platform  signingv1.LinkServiceClient
	service   *token.Service
	conn      *nats.Conn // the service's
	peers     *peers
}

// profiles has a life that can be watched.
const profiles = `profiles:
  flash: {lifetime: 1s, grace: 0s, session: 1s, idle: 1s}
  renewed: {lifetime: 1s, grace: 0s, session: 1s, idle: 1s, reissue_limit: 2, automatic_reissue: true}
`

// settings are what an operator's files give: profiles.yaml by tenant.
func settings(t *testing.T, files map[string]string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, name), 0o700), os.WriteFile(filepath.Join(dir, name, "profiles.yaml"), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := config.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func start(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	return startOn(t, redistest.Real(t))
}

// startOn is start over a Redis of one's own.
func startOn(t *testing.T, rdb redis.UniversalClient) *world {
	t.Helper()
	tenants := settings(t, map[string]string{tenant: profiles})
	topology := token.Topology()
	for _, from := range []string{"delivery", "ceremony", "escalation", "reminder"} {
		topology.Streams = append(topology.Streams, eventlog.FactsConfig(from))
	}
	c := clock.NewTenants(clock.System())
	w := &world{World: hosttest.New(t, c, topology), t: t, clock: c, rdb: rdb, peers: &peers{proved: map[string]bool{}}}
	w.Serve("ceremony", func(r grpc.ServiceRegistrar) { ceremonyv1.RegisterCeremonyServiceServer(r, w.peers) })
	w.Serve("identity", func(r grpc.ServiceRegistrar) { identityv1.RegisterIdentityServiceServer(r, w.peers) })
	w.Serve("audit", func(r grpc.ServiceRegistrar) { auditv1.RegisterAuditServiceServer(r, w.peers) })
	h := w.Host(token.Name)
	h.Redis, w.conn = w.rdb, h.NATS
	s, err := token.New(t.Context(), h, tenants)
	if err != nil {
		t.Fatal(err)
	}
	w.service = s
	w.Serve(token.Name, s.Register)
	w.Run(s)
	conn, err := w.Host("gateway").Peers.Dial(token.Name)
	if err != nil {
		t.Fatal(err)
	}
	w.links, w.directory = tokenv1.NewLinkServiceClient(conn), tokenv1.NewDirectoryServiceClient(conn)
	w.signing, w.profiles = signingv1.NewSigningRequestServiceClient(conn), signingv1.NewProfileServiceClient(conn)
	w.platform = signingv1.NewLinkServiceClient(conn)
	return w
}

// peers plays ceremony, identity and audit.
type peers struct {
	ceremonyv1.UnimplementedCeremonyServiceServer
	identityv1.UnimplementedIdentityServiceServer
	auditv1.UnimplementedAuditServiceServer

	mu        sync.Mutex
	proved    map[string]bool // browsers that proved their holder's mailbox
	signed    []string        // links whose signature ceremony has stated
	inspected int
}

// Inspect takes what begins like a PDF, and refuses the rest as ceremony does.
func (p *peers) Inspect(stream grpc.ClientStreamingServer[ceremonyv1.InspectRequest, ceremonyv1.InspectResponse]) error {
	head, err := stream.Recv()
	if err != nil {
		return err
	}
	var content []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		content = append(content, part.GetChunk()...)
	}
	p.mu.Lock()
	p.inspected++
	p.mu.Unlock()
	if !bytes.HasPrefix(content, []byte("%PDF-")) || bytes.Contains(content, []byte("/Encrypt")) {
		return failure.DocumentRefused.WithFields(failure.Field{Path: "content", Problem: "cannot be read"})
	}
	sum := sha256.Sum256(content)
	return stream.SendAndClose(&ceremonyv1.InspectResponse{Document: &ceremonyv1.Document{
		Id: head.GetHeader().GetDocumentId(), ReceivedSha256: sum[:], PresentedSha256: sum[:], CurrentSha256: sum[:], Pages: []*ceremonyv1.Page{{}},
	}})
}

// GetCeremony knows who has signed.
func (p *peers) GetCeremony(context.Context, *ceremonyv1.GetCeremonyRequest) (*ceremonyv1.GetCeremonyResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &ceremonyv1.Ceremony{}
	for _, link := range p.signed {
		c.Seats = append(c.Seats, &ceremonyv1.Seat{LinkId: link, Status: ceremonyv1.SeatStatus_SEAT_STATUS_SIGNED})
	}
	return &ceremonyv1.GetCeremonyResponse{Ceremony: c}, nil
}

func (p *peers) sign(link string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signed = append(p.signed, link)
}

// Check is satisfied where the browser has proved.
func (p *peers) Check(_ context.Context, req *identityv1.CheckRequest) (*identityv1.CheckResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.proved[req.GetBrowser()+req.GetPersonId()] || req.GetPurpose() != identityv1.Purpose_PURPOSE_CONTINUE {
		return &identityv1.CheckResponse{Missing: identityv1.Method_METHOD_EMAIL_CODE}, nil
	}
	return &identityv1.CheckResponse{Satisfied: true, Evidence: &identityv1.Evidence{Id: "evd_1", Level: 1}}, nil
}

func (p *peers) prove(browser, person string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proved[browser+person] = true
}

// ListLeaves returns one leaf of any request.
func (p *peers) ListLeaves(_ context.Context, req *auditv1.ListLeavesRequest) (*auditv1.ListLeavesResponse, error) {
	return &auditv1.ListLeavesResponse{Leaves: []*auditv1.Leaf{{Sequence: 1, Type: "cs.request.created", Raw: []byte(`{"req":"` + req.GetRequestId() + `"}`), Hash: []byte{0xab}}}}, nil
}

// as returns the context of a call that a platform of the tenant makes.
func as(t *testing.T, tenant string) context.Context {
	return auth.Outgoing(auth.With(t.Context(), auth.Caller{ID: "key_1", Tenant: tenant, Kind: auth.Platform, Scopes: auth.Scopes()}))
}

// browserOf returns a browser's secret, one for each name.
func browserOf(name string) string { return "the secret of browser " + name }

// person is who signs, by mail address.
func person(mail string, group uint32) *signingv1.Signer {
	name := adaName
	if mail == graceMail {
		name = graceName
	}
	return &signingv1.Signer{Name: name, Email: mail, Locale: "en", TimeZone: "Europe/Berlin", Group: group}
}

// lease is a request by Ada, with Grace in reserve.
func lease(ref string) *signingv1.SigningRequest {
	ada := person(adaMail, 1)
	ada.Alternates = []*signingv1.Person{{Name: graceName, Email: graceMail}}
	return &signingv1.SigningRequest{
		Reference: ref, Title: title, Profile: "standard", Integration: "hr", Template: "lease",
		Documents: []*signingv1.Document{{Name: "mill.pdf", Content: pdf}}, Signers: []*signingv1.Signer{ada},
	}
}

// create has a platform make a request and waits until its first links are issued.
func (w *world) create(r *signingv1.SigningRequest) *signingv1.RequestView {
	w.t.Helper()
	answer, err := w.signing.Create(as(w.t, tenant), &signingv1.CreateRequest{Request: r})
	if err != nil {
		w.t.Fatal(err)
	}
	w.issued(answer.GetRequest().GetSigners()[0].GetId())
	return answer.GetRequest()
}

func (w *world) issued(linkID string) {
	w.t.Helper()
	eventlogtest.Eventually(w.t, "the link is issued", func() bool { return w.link(linkID).GetGeneration() > 0 })
}

// link returns a link as the record has it; nil when there is none yet.
func (w *world) link(id string) *tokenv1.Link {
	w.t.Helper()
	answer, err := w.links.GetLink(w.t.Context(), &tokenv1.GetLinkRequest{Tenant: tenant, LinkId: id})
	if errors.Is(failure.From(err), failure.LinkUnknown) {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.GetLink()
}

func (w *world) mint(link string, generation uint32) string {
	w.t.Helper()
	answer, err := w.links.Mint(w.t.Context(), &tokenv1.MintRequest{Tenant: tenant, LinkId: link, Generation: generation, DeliveryId: "dlv_1"})
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.GetToken()
}

func (w *world) redeem(token, browser string) (*tokenv1.LinkView, error) {
	answer, err := w.links.Redeem(w.t.Context(), &tokenv1.RedeemRequest{Token: token, Browser: browserOf(browser)})
	return answer.GetLink(), err
}

func (w *world) mustRedeem(token, browser string) *tokenv1.LinkView {
	w.t.Helper()
	view, err := w.redeem(token, browser)
	if err != nil {
		w.t.Fatal(err)
	}
	return view
}

// session says how a session stands, from Redis or from the record; "" is well.
func (w *world) session(link, browser string, decisive bool) string {
	w.t.Helper()
	answer, err := w.links.GetSession(w.t.Context(), &tokenv1.GetSessionRequest{Tenant: tenant, LinkId: link, Browser: browserOf(browser), Decisive: decisive})
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.GetFailureCode()
}

// resolve says what a page shows of a token; "" is the page that opens it.
func (w *world) resolve(token, browser string) string {
	w.t.Helper()
	answer, err := w.links.Resolve(w.t.Context(), &tokenv1.ResolveRequest{Token: token, Browser: browserOf(browser)})
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.GetFailureCode()
}

// sent says, as delivery does, that a message about a link is out.
func (w *world) sent(link, request string, generation uint32) {
	w.t.Helper()
	w.Publish("delivery", eventlog.Key{Tenant: tenant, ID: "dlv_" + fmt.Sprint(generation)}, request,
		&deliveryv1.AttemptAccepted{Attempt: 1, Kind: deliveryv1.Kind_KIND_LINK, LinkId: link, Generation: generation}, &deliveryv1.Delivery{})
}

// signed says, as ceremony does, that a signer has signed.
func (w *world) signed(link, request string) {
	w.t.Helper()
	w.Publish("ceremony", eventlog.Key{Tenant: tenant, ID: "cer_1"}, request, &ceremonyv1.CeremonySigned{LinkId: link, SessionId: "ses_1"}, &ceremonyv1.Ceremony{})
}

// publish puts something on the intake subject.
func (w *world) publish(body []byte, headers ...string) {
	w.t.Helper()
	m := nats.NewMsg("intake." + tenant)
	m.Data = body
	for i := 0; i < len(headers); i += 2 {
		m.Header.Set(headers[i], headers[i+1])
	}
	if _, err := w.JS.PublishMsg(w.t.Context(), m); err != nil {
		w.t.Fatal(err)
	}
}

// messages returns what a stream holds, by subject filter, oldest first.
func (w *world) messages(stream, filter string) []*jetstream.RawStreamMsg {
	w.t.Helper()
	s, err := w.JS.Stream(w.t.Context(), stream)
	if err != nil {
		w.t.Fatal(err)
	}
	var all []*jetstream.RawStreamMsg
	for next := uint64(1); ; {
		m, err := s.GetMsg(w.t.Context(), next, jetstream.WithGetMsgSubject(filter))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return all
		}
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, m)
		next = m.Sequence + 1
	}
}

// outcomes returns what platforms of the tenant were told, of one request or with "*" of all.
func (w *world) outcomes(request string) []*signingv1.Outcome {
	w.t.Helper()
	var all []*signingv1.Outcome
	for _, m := range w.messages(token.OutcomesStream, token.OutcomeSubject(tenant, request)) {
		o := &signingv1.Outcome{}
		if err := protojson.Unmarshal(m.Data, o); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

// told waits until the platform was told so many outcomes and returns the names of all.
func (w *world) told(request string, n int) []string {
	w.t.Helper()
	var events []string
	eventlogtest.Eventually(w.t, fmt.Sprintf("%d outcomes", n), func() bool {
		events = nil
		for _, o := range w.outcomes(request) {
			events = append(events, o.GetEvent())
		}
		return len(events) >= n
	})
	return events
}

// settled waits until the service has heard everything there is to hear.
func (w *world) settled() {
	w.t.Helper()
	w.Settled(token.Topology())
}

// stated counts the facts of a name about one aggregate.
func (w *world) stated(id, name string) int {
	w.t.Helper()
	n := 0
	for _, f := range w.Facts(token.Name, "fact.token."+tenant+"."+id) {
		if f.Name() == name {
			n++
		}
	}
	return n
}

func refused(t *testing.T, err error, want *failure.Error) *failure.Error {
	t.Helper()
	got := failure.From(err)
	if got == nil || !errors.Is(got, want) {
		t.Fatalf("error %v, want %s", err, want.Code)
	}
	return got
}

// private fails when something that must stay in the vault is anywhere else.
func (w *world) private(also ...string) {
	w.t.Helper()
	secrets := slices.Concat([]string{adaName, adaMail, graceName, graceMail, title, reference, "mill.pdf"}, also)
	look := func(where string, body []byte) {
		for _, s := range secrets {
			if s != "" && bytes.Contains(body, []byte(s)) {
				w.t.Errorf("%s holds %q", where, s)
			}
		}
	}
	streams := w.JS.StreamNames(w.t.Context())
	for name := range streams.Name() {
		for _, m := range w.messages(name, ">") {
			look(name+" "+m.Subject, append([]byte(fmt.Sprint(m.Header)), m.Data...))
		}
	}
	for k, v := range w.dump() {
		look("Redis "+k, []byte(k+v))
	}
	look("the log", []byte(w.Logs.String()))
}

// dump returns what Redis holds, as it may be restored.
func (w *world) dump() map[string]string {
	w.t.Helper()
	all := map[string]string{}
	keys, err := w.rdb.Keys(w.t.Context(), "*").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, k := range keys {
		if all[k], err = w.rdb.Dump(w.t.Context(), k).Result(); err != nil && !errors.Is(err, redis.Nil) {
			w.t.Fatal(err)
		}
	}
	return all
}

// failOver puts Redis back to what it was: a replica that lagged behind was promoted.
func (w *world) failOver(to map[string]string) {
	w.t.Helper()
	w.flush()
	for k, v := range to {
		if err := w.rdb.RestoreReplace(w.t.Context(), k, time.Hour, v).Err(); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) flush() {
	w.t.Helper()
	err := w.rdb.FlushAll(w.t.Context()).Err()
	if cluster, is := w.rdb.(*redis.ClusterClient); is {
		err = cluster.ForEachMaster(w.t.Context(), func(ctx context.Context, rdb *redis.Client) error { return rdb.FlushAll(ctx).Err() })
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func paths(fields []*signingv1.FieldProblem) string {
	var all []string
	for _, f := range fields {
		all = append(all, f.GetPath())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}
