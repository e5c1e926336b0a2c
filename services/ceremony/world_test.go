package ceremony_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"codeberg.org/go-pdf/fpdf"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/host/hosttest"
	"countersign.dev/pkg/pades"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/ceremony"
	"countersign.dev/services/ceremony/pdf"
)

func TestMain(m *testing.M) {
	pdf.RunHelperIfAsked() // documents are read in a copy of this program
	os.Exit(m.Run())
}

const tenant = "acme"

// What must stand in no stream or log.
const (
	adaName, graceName = "Ada Lovelace", "Grace Hopper"
	title              = "Lease of the mill"
	words              = "The mill goes to the tenant" // stands in the document
	reason             = "The rent is too high"
	address, agent     = "192.0.2.77", "Difference Engine/2"
)

// world is ceremony over a real server, with real PDF helpers, asked as token and the gateway ask it.
type world struct {
	*hosttest.World
	t      *testing.T
	peers  *peers
	roots  *x509.CertPool
	client ceremonyv1.CeremonyServiceClient
	stop   func()
}

func start(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	w := &world{t: t, peers: newPeers()}
	w.World = hosttest.New(t, clock.System(), facts("token"), ceremony.Topology())
	w.roots = w.Authority(ceremony.AuthorityFile)
	for name, register := range w.peers.services() {
		w.Serve(name, register)
	}
	s := w.start()
	w.Serve(ceremony.Name, s.Register)
	conn, err := w.Host("gateway").Peers.Dial(ceremony.Name)
	if err != nil {
		t.Fatal(err)
	}
	w.client = ceremonyv1.NewCeremonyServiceClient(conn)
	return w
}

func facts(service string) eventlog.Topology {
	t := eventlog.Topology{}
	t.Streams = append(t.Streams, eventlog.FactsConfig(service))
	return t
}

// start runs a process of the service.
func (w *world) start() *ceremony.Service {
	w.t.Helper()
	s, err := ceremony.New(w.t.Context(), w.Host(ceremony.Name), ceremony.Config{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.stop = w.Run(s)
	return s
}

func browserOf(link string) string { return "the secret of the browser of " + link }

// lease is the document that is signed: one page of words.
func lease(t *testing.T) []byte {
	t.Helper()
	f := fpdf.New("P", "mm", "A4", "")
	f.SetCompression(false)
	f.SetFont("Helvetica", "", 12)
	f.AddPage()
	f.Cell(0, 10, words)
	var b bytes.Buffer
	if err := f.Output(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// inspect hands a document in, in parts, as token does.
func (w *world) inspect(request, document string, content []byte) (*ceremonyv1.Document, error) {
	stream, err := w.client.Inspect(w.t.Context())
	if err != nil {
		return nil, err
	}
	// An error of Send is told by CloseAndRecv.
	_ = stream.Send(&ceremonyv1.InspectRequest{Part: &ceremonyv1.InspectRequest_Header{Header: &ceremonyv1.InspectHeader{
		Tenant: tenant, RequestId: request, DocumentId: document, Title: title, Locale: "en", Seats: 2,
	}}})
	for rest := content; len(rest) > 0; {
		n := min(256<<10, len(rest))
		if stream.Send(&ceremonyv1.InspectRequest{Part: &ceremonyv1.InspectRequest_Chunk{Chunk: rest[:n]}}) != nil {
			break
		}
		rest = rest[n:]
	}
	answer, err := stream.CloseAndRecv()
	return answer.GetDocument(), err
}

// accepted has token accept a request with the lease, and waits until its ceremony is prepared. Its two signers have their links open.
func (w *world) accepted(request string) *ceremonyv1.Document {
	w.t.Helper()
	d, err := w.inspect(request, "doc_1", lease(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	w.accept(request)
	eventlogtest.Eventually(w.t, "the ceremony is prepared", func() bool {
		_, err := w.client.GetCeremony(w.t.Context(), &ceremonyv1.GetCeremonyRequest{Tenant: tenant, RequestId: request})
		return err == nil
	})
	w.peers.opened(request, linkOf(request, 1), 1)
	w.peers.opened(request, linkOf(request, 2), 2)
	return d
}

func (w *world) accept(request string) {
	w.t.Helper()
	r := &tokenv1.Request{Id: request, Tenant: tenant, Documents: []*tokenv1.RequestDocument{{Id: "doc_1"}}}
	w.Publish("token", eventlog.Key{Tenant: tenant, ID: request}, request, &tokenv1.RequestAccepted{Request: r}, r)
}

func linkOf(request string, position int) string {
	return fmt.Sprintf("lnk_%s_%d", strings.TrimPrefix(request, "req_"), position)
}

func (w *world) show(request string, position int) error {
	link := linkOf(request, position)
	_, err := w.client.Show(w.t.Context(), &ceremonyv1.ShowRequest{Tenant: tenant, RequestId: request, LinkId: link, Browser: browserOf(link)})
	return err
}

func (w *world) mustShow(request string, position int) {
	w.t.Helper()
	if err := w.show(request, position); err != nil {
		w.t.Fatal(err)
	}
}

// act is what a signer does: all is there that a signature needs.
func (w *world) act(request string, position int, d *ceremonyv1.Document) *ceremonyv1.SignRequest {
	consent, intent := sha256.Sum256([]byte("consent")), sha256.Sum256([]byte("intent"))
	name := adaName
	if position == 2 {
		name = graceName
	}
	link := linkOf(request, position)
	return &ceremonyv1.SignRequest{
		Tenant: tenant, RequestId: request, LinkId: link, Browser: browserOf(link), Name: name, PresentedSha256: d.GetPresentedSha256(),
		Consent: &ceremonyv1.Consent{DisclosureId: "esign", Version: "1", Locale: "en", TextSha256: consent[:]}, IntentSha256: intent[:],
		NetworkAddress: address, UserAgent: agent,
	}
}

func (w *world) decline(request string, position int) error {
	link := linkOf(request, position)
	_, err := w.client.Decline(w.t.Context(), &ceremonyv1.DeclineRequest{
		Tenant: tenant, RequestId: request, LinkId: link, Browser: browserOf(link), Reason: " " + reason + " ",
	})
	return err
}

// document returns the bytes of a revision.
func (w *world) document(request string, revision ceremonyv1.Revision) ([]byte, error) {
	stream, err := w.client.GetDocument(w.t.Context(), &ceremonyv1.GetDocumentRequest{Tenant: tenant, RequestId: request, DocumentId: "doc_1", Revision: revision})
	if err != nil {
		return nil, err
	}
	var all []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, part.GetChunk()...)
	}
}

// signatures returns the signatures in the newest revision, all of which must hold.
func (w *world) signatures(request string) []pades.Signature {
	w.t.Helper()
	body, err := w.document(request, ceremonyv1.Revision_REVISION_CURRENT)
	if err != nil {
		w.t.Fatal(err)
	}
	found, err := pades.Verify(body, w.roots)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range found {
		if !s.Valid() {
			w.t.Errorf("signature %s does not hold: %v, %v", s.Field, s.Problems, s.Changes)
		}
	}
	return found
}

// stated returns the facts about a request.
func (w *world) stated(request string) []hosttest.Fact {
	w.t.Helper()
	var all []hosttest.Fact
	for _, f := range w.Facts(ceremony.Name, "fact.ceremony.>") {
		if f.Record.GetRequestId() == request {
			all = append(all, f)
		}
	}
	return all
}

func (w *world) wantFacts(request string, want ...string) {
	w.t.Helper()
	if diff := cmp.Diff(want, hosttest.Names(w.stated(request))); diff != "" {
		w.t.Errorf("facts of %s (-want +got)\n%s", request, diff)
	}
}

// fact returns the one fact of its type about a request.
func fact[F proto.Message](w *world, request string) F {
	w.t.Helper()
	var found F
	n := 0
	for _, f := range w.stated(request) {
		if typed, ok := f.Fact.(F); ok {
			found = typed
			n++
		}
	}
	if n != 1 {
		w.t.Errorf("%d facts of type %T", n, found)
	}
	return found
}

// done checks what holds at the end of every test: nothing private was stated, stored in clear or logged.
func (w *world) done() {
	w.t.Helper()
	w.Private(adaName, graceName, title, words, reason, address, agent, "%PDF", browserOf("lnk_"))
	if dead := w.Dead(); len(dead) > 0 {
		w.t.Errorf("dead letters: %v", dead)
	}
}

func refused(t *testing.T, err error, want *failure.Error) *failure.Error {
	t.Helper()
	got := failure.From(err)
	if got == nil || !errors.Is(got, want) {
		t.Errorf("error %v, want %s", err, want.Code)
		return &failure.Error{}
	}
	return got
}

// at returns a context that ends before a call that hangs would.
func at(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}
