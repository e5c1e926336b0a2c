package audit_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/config"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/host/hosttest"
	auditv1 "countersign.dev/proto/countersign/audit/v1"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/audit"
	"countersign.dev/services/audit/rules"
)

const (
	tenant    = "acme"
	authority = "pdf-authority"
	linkID    = "lnk_seat1"
)

// What stands on a certificate at most, and in no stream or log.
const (
	adaName, adaMail = "Ada Lovelace", "ada@lovelace.example"
	title, reference = "Lease of the mill", "case-4711"
	address          = "192.0.2.77"
)

// trace is what every fact was stated under.
const trace = "0af7651916cd43dd8448eb211c80319c"

var services = []string{"token", "delivery", "identity", "ceremony", "reminder", "escalation"}

// world is audit over a real server, with the streams of everybody it hears.
type world struct {
	*hosttest.World
	t        *testing.T
	topology eventlog.Topology
	peers    *directory
	roots    *x509.CertPool
	client   auditv1.AuditServiceClient
	stop     func()
	stated   map[string]uint64 // newest sequence of each service's stream
}

func start(t *testing.T, change ...func(*jetstream.StreamConfig)) *world {
	t.Helper()
	t.Parallel()
	w := &world{t: t, topology: audit.Topology(), peers: &directory{}, stated: map[string]uint64{}}
	for i := range w.topology.Streams {
		for _, f := range change {
			f(&w.topology.Streams[i])
		}
	}
	neighbours := eventlog.Topology{}
	for _, name := range services {
		neighbours.Streams = append(neighbours.Streams, eventlog.FactsConfig(name))
	}
	w.World = hosttest.New(t, clock.System(), neighbours, w.topology)
	w.roots = w.Authority(authority)
	w.Serve("token", func(r grpc.ServiceRegistrar) { tokenv1.RegisterDirectoryServiceServer(r, w.peers) })
	s := w.start()
	w.Serve(audit.Name, s.Register)
	conn, err := w.Host("gateway").Peers.Dial(audit.Name)
	if err != nil {
		t.Fatal(err)
	}
	w.client = auditv1.NewAuditServiceClient(conn)
	return w
}

// start runs a process of the service.
func (w *world) start() *audit.Service {
	w.t.Helper()
	s, err := audit.New(w.t.Context(), w.Host(audit.Name), config.Default(), authority)
	if err != nil {
		w.t.Fatal(err)
	}
	w.stop = w.Run(s)
	return s
}

// again lets a new process hear everything from the beginning, each fact as if for the first time.
func (w *world) again() {
	w.t.Helper()
	w.stop()
	w.Rewind(w.topology)
	w.start()
	w.Settled(w.topology)
}

// cause names the fact of a service with a sequence.
func cause(service string, sequence uint64) *recordv1.Cause {
	return &recordv1.Cause{Stream: eventlog.FactsStream(service), Sequence: sequence}
}

// says has a service state a fact of a request, and returns its place.
func (w *world) says(service, id, request string, fact, state proto.Message, because *recordv1.Cause) *recordv1.Cause {
	w.t.Helper()
	record := &recordv1.Record{RequestId: request, At: timestamppb.New(w.Clock.Now(tenant)), Cause: because, Fact: w.packed(fact), State: w.packed(state)}
	if because == nil {
		record.Actor = &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_SIGNER, Ref: "per_ada"}
	}
	return w.publish(service, id, record)
}

func (w *world) packed(m proto.Message) *anypb.Any {
	w.t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *world) publish(service, id string, record *recordv1.Record) *recordv1.Cause {
	w.t.Helper()
	body, err := proto.Marshal(record)
	if err != nil {
		w.t.Fatal(err)
	}
	m := nats.NewMsg(eventlog.FactSubject(service, eventlog.Key{Tenant: tenant, ID: id}))
	m.Data = body
	m.Header.Set("ce-id", rand.Text())
	m.Header.Set("traceparent", "00-"+trace+"-b7ad6b7169203331-01")
	ack, err := w.JS.PublishMsg(w.t.Context(), m)
	if err != nil {
		w.t.Fatal(err)
	}
	w.stated[service] = ack.Sequence
	return cause(service, ack.Sequence)
}

// request is what token knows of a request in the end.
func request(id string) *tokenv1.Request {
	at := timestamppb.New(clock.System().Now(""))
	return &tokenv1.Request{
		Id: id, Tenant: tenant, Status: signingv1.RequestStatus_REQUEST_STATUS_COMPLETED, AcceptedAt: at, ClosedAt: at, Profile: &tokenv1.Profile{Name: "standard"},
		Documents: []*tokenv1.RequestDocument{{Id: "doc_1", Pages: 2, PresentedSha256: digest(1)}},
		Seats:     []*tokenv1.Seat{{LinkId: linkID, Position: 1, PersonId: "per_ada", Commitments: map[string][]byte{"signer.name": digest(7)}}},
	}
}

func digest(b byte) []byte { return []byte(strings.Repeat(string(rune('a'+b)), 32)) }

// begin accepts a request.
func (w *world) begin(id string) *recordv1.Cause {
	w.t.Helper()
	r := request(id)
	return w.says("token", id, id, &tokenv1.RequestAccepted{Request: r}, r, nil)
}

// life is a request from its beginning to its end, everybody's facts in it, each after its cause. It returns how many facts that are.
func (w *world) life(id string) int {
	w.t.Helper()
	before := w.total()
	accepted := w.begin(id)
	link := &tokenv1.Link{Id: linkID, Tenant: tenant, RequestId: id, Generation: 1, HolderId: "per_ada", ExpiresAt: timestamppb.New(w.Clock.Now(tenant))}
	w.says("ceremony", "cer_"+id, id, &ceremonyv1.CeremonyPrepared{}, &ceremonyv1.Ceremony{}, accepted)
	issued := w.says("token", linkID, id, &tokenv1.LinkIssued{LinkId: linkID}, link, accepted)
	planned := w.says("delivery", "dlv_"+id, id, &deliveryv1.DeliveryPlanned{}, &deliveryv1.Delivery{}, issued)
	out := w.says("delivery", "dlv_"+id, id, &deliveryv1.AttemptAccepted{Attempt: 1, LinkId: linkID}, &deliveryv1.Delivery{}, planned)
	w.says("reminder", "rem_"+id, id, &reminderv1.ReminderPlanned{}, &reminderv1.Plan{}, out)
	w.says("escalation", "esc_"+id, id, &escalationv1.EscalationTriggered{}, &escalationv1.Escalation{}, out)
	w.says("token", linkID, id, &tokenv1.LinkRedeemed{Generation: 1, Session: &tokenv1.Session{Id: "ses_1"}}, link, nil)
	w.says("identity", "vrf_"+id, id, &identityv1.VerificationPassed{
		LinkId: linkID, Evidence: &identityv1.Evidence{Id: "evd_1", Level: 1, Method: identityv1.Method_METHOD_EMAIL_CODE},
	}, &identityv1.Verification{}, nil)
	w.says("ceremony", "cer_"+id, id, &ceremonyv1.ConsentGiven{LinkId: linkID, SessionId: "ses_1", Consent: &ceremonyv1.Consent{TextSha256: digest(3)}}, &ceremonyv1.Ceremony{}, nil)
	signed := w.says("ceremony", "cer_"+id, id, &ceremonyv1.CeremonySigned{
		LinkId: linkID, SessionId: "ses_1", DocumentId: "doc_1", BeforeSha256: digest(1), AfterSha256: digest(2), VerificationId: "evd_1",
		NoteIds: map[string]string{"net.ip": "not_ip"},
	}, &ceremonyv1.Ceremony{}, nil)
	done := w.says("token", linkID, id, &tokenv1.LinkSigned{Generation: 1}, link, signed)
	r := request(id)
	w.says("token", id, id, &tokenv1.RequestCompleted{LinkId: linkID}, r, done)
	return w.total() - before
}

func (w *world) total() (n int) {
	for _, sequence := range w.stated {
		n += int(sequence)
	}
	return n
}

// leaves returns a request's leaves once everything is heard, after checking that they are one chain.
func (w *world) leaves(id string) []rules.Leaf {
	w.t.Helper()
	w.Settled(w.topology)
	answer, err := w.client.ListLeaves(w.t.Context(), &auditv1.ListLeavesRequest{Tenant: tenant, RequestId: id})
	if err != nil {
		w.t.Fatal(err)
	}
	var raws [][]byte
	var all []rules.Leaf
	for _, l := range answer.GetLeaves() {
		leaf, err := rules.Parse(l.GetRaw())
		if err != nil {
			w.t.Fatal(err)
		}
		if fmt.Sprintf("%x", l.GetHash()) != rules.Hash(l.GetRaw()) || l.GetSequence() != leaf.Seq || l.GetType() != leaf.Type {
			w.t.Errorf("listed as %v", l)
		}
		raws, all = append(raws, l.GetRaw()), append(all, leaf)
	}
	if err := rules.CheckChain(raws); err != nil {
		w.t.Error(err)
	}
	return all
}

// wantOnce checks that every fact that was stated of a request has one leaf, and that no effect stands before its cause.
func (w *world) wantOnce(id string, n int) []rules.Leaf {
	w.t.Helper()
	all := w.leaves(id)
	place := map[string]int{}
	for i, leaf := range all {
		if first, twice := place[leaf.Src]; twice {
			w.t.Errorf("%s is leaf %d and leaf %d", leaf.Src, first+1, i+1)
		}
		place[leaf.Src] = i
		if leaf.Req != id || leaf.Ten != tenant || leaf.Trace != trace {
			w.t.Errorf("leaf %d: %+v", i+1, leaf)
		}
	}
	if len(all) != n {
		w.t.Errorf("%d facts have %d leaves", n, len(all))
	}
	for _, service := range services {
		for _, f := range w.Facts(service, "fact."+service+".>") {
			if f.Record.GetRequestId() != id {
				continue
			}
			src := fmt.Sprintf("%s:%d", eventlog.FactsStream(service), f.Sequence)
			at, in := place[src]
			if !in {
				w.t.Errorf("%s (%s) has no leaf", src, f.Name())
			}
			because := f.Record.GetCause()
			if before, heard := place[fmt.Sprintf("%s:%d", because.GetStream(), because.GetSequence())]; because != nil && (!heard || before > at) {
				w.t.Errorf("%s (%s) stands before its cause", src, f.Name())
			}
		}
	}
	return all
}

func (w *world) certificate(tenant, id, locale string) ([]byte, error) {
	answer, err := w.client.GetCertificate(w.t.Context(), &auditv1.GetCertificateRequest{Tenant: tenant, RequestId: id, Locale: locale})
	return answer.GetPdf(), err
}

// done checks what holds at the end of every test: nothing private is in a stream or a log, and nothing was given up but so many.
func (w *world) done(dead int) {
	w.t.Helper()
	w.Private(adaName, adaMail, title, reference, address)
	if got := w.Dead(); len(got) != dead {
		w.t.Errorf("dead letters: %v", got)
	}
}

// wantLogged checks that one line of the log has all of these words.
func (w *world) wantLogged(words ...string) {
	w.t.Helper()
	for line := range strings.Lines(w.Logs.String()) {
		all := true
		for _, word := range words {
			all = all && strings.Contains(line, word)
		}
		if all {
			return
		}
	}
	w.t.Errorf("no line of the log has %q", words)
}

func refused(t *testing.T, err error, want *failure.Error) {
	t.Helper()
	if got := failure.From(err); got == nil || !errors.Is(got, want) {
		t.Errorf("error %v, want %s", err, want.Code)
	}
}

// directory plays token's directory of people and words.
type directory struct {
	tokenv1.UnimplementedDirectoryServiceServer
	mu     sync.Mutex
	erased bool
}

// GetRequest knows every request.
func (d *directory) GetRequest(_ context.Context, req *tokenv1.GetRequestRequest) (*tokenv1.GetRequestResponse, error) {
	return &tokenv1.GetRequestResponse{
		Request: request(req.GetRequestId()), Words: &tokenv1.RequestWords{Title: title, Reference: reference, DocumentNames: []string{"mill.pdf"}},
	}, nil
}

// GetPerson knows Ada, until she is erased.
func (d *directory) GetPerson(_ context.Context, req *tokenv1.GetPersonRequest) (*tokenv1.GetPersonResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.erased || req.GetLinkId() != linkID {
		return nil, failure.PersonErased
	}
	return &tokenv1.GetPersonResponse{Person: &signingv1.Person{Name: adaName, Email: adaMail, TimeZone: "Europe/London"}}, nil
}

// GetNote knows one address.
func (d *directory) GetNote(_ context.Context, req *tokenv1.GetNoteRequest) (*tokenv1.GetNoteResponse, error) {
	if req.GetOwnerId() != linkID {
		return nil, failure.PersonErased
	}
	return &tokenv1.GetNoteResponse{Text: address}, nil
}

func (d *directory) erase() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.erased = true
}
