package audit_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/pades"
	auditv1 "countersign.dev/proto/countersign/audit/v1"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/audit"
	"countersign.dev/services/audit/rules"
)

type leaf = rules.Leaf

// TestCertificate: it is drawn of a request that has ended, from the log up to its end, and sealed; who was erased stands there as erased.
func TestCertificate(t *testing.T) {
	w := start(t)
	w.begin("req_open")
	n := w.life("req_1")
	leaves := w.wantOnce("req_1", n)
	// What happens after the end is in the log and not on the certificate.
	w.says("delivery", "dlv_copy", "req_1", &deliveryv1.AttemptBounced{Kind: deliveryv1.Kind_KIND_COMPLETED, LinkId: linkID}, &deliveryv1.Delivery{}, nil)
	w.wantOnce("req_1", n+1)
	_, err := w.certificate(tenant, "req_open", "en")
	refused(t, err, failure.CertificateNotYet)

	english := w.read("req_1", "en")
	for _, want := range []string{adaName, title, reference, address, "code by email", "Everybody has signed.", "The document was signed."} {
		if !strings.Contains(english, want) {
			t.Errorf("the certificate lacks %q:\n%s", want, english)
		}
	}
	if strings.Contains(english, adaMail) || strings.Contains(english, "A message was refused.") || len(leaves) != n {
		t.Errorf("the certificate has more than it should:\n%s", english)
	}
	if german := w.read("req_1", "de"); !strings.Contains(german, "Alle haben unterschrieben.") {
		t.Errorf("in German:\n%s", german)
	}
	w.peers.erase()
	if erased := w.read("req_1", "en"); strings.Contains(erased, adaName) || !strings.Contains(erased, "per_ada") {
		t.Errorf("after she was erased:\n%s", erased)
	}
	w.done(0)
}

// TestCertificateWaitsForTheVerification: the log takes each service's facts in at its own pace; no certificate is drawn without the
// proof that a signature rests on, and one that came in behind the end stands on it.
func TestCertificateWaitsForTheVerification(t *testing.T) {
	w := start(t)
	r := request("req_1")
	accepted := w.begin("req_1")
	proved := w.Clock.Now(tenant)
	signed := w.says("ceremony", "cer_1", "req_1", &ceremonyv1.CeremonySigned{
		LinkId: linkID, SessionId: "ses_1", DocumentId: "doc_1", BeforeSha256: digest(1), AfterSha256: digest(2), VerificationId: "evd_1",
	}, &ceremonyv1.Ceremony{}, accepted)
	w.says("token", "req_1", "req_1", &tokenv1.RequestCompleted{LinkId: linkID}, r, signed)
	w.wantOnce("req_1", 3)
	_, err := w.certificate(tenant, "req_1", "en")
	refused(t, err, failure.CertificateNotYet)

	w.publish("identity", "vrf_1", &recordv1.Record{
		RequestId: "req_1", At: timestamppb.New(proved), State: w.packed(&identityv1.Verification{}),
		Fact: w.packed(&identityv1.VerificationPassed{LinkId: linkID, Evidence: &identityv1.Evidence{Id: "evd_1", Level: 1, Method: identityv1.Method_METHOD_EMAIL_CODE}}),
	})
	w.wantOnce("req_1", 4)
	if words := w.read("req_1", "en"); !strings.Contains(words, "code by email") {
		t.Errorf("the certificate lacks the verification:\n%s", words)
	}
	w.done(0)
}

// read returns the words of a certificate, whose seal must hold and allow no change.
func (w *world) read(request, locale string) string {
	w.t.Helper()
	drawn, err := w.certificate(tenant, request, locale)
	if err != nil {
		w.t.Fatal(err)
	}
	seals, err := pades.Verify(drawn, w.roots)
	if err != nil || len(seals) != 1 || !seals[0].Valid() || seals[0].Kind != pades.CertificationSignature || seals[0].Permission != pades.NoChanges {
		w.t.Fatalf("seals %v, %v", seals, err)
	}
	program, err := exec.LookPath("pdftotext")
	if err != nil {
		if os.Getenv("COUNTERSIGN_REQUIRE_TOOLS") != "" {
			w.t.Fatal("pdftotext is required and not installed")
		}
		w.t.Skip("pdftotext is not installed")
	}
	file := filepath.Join(w.t.TempDir(), "certificate.pdf")
	if err := os.WriteFile(file, drawn, 0o600); err != nil {
		w.t.Fatal(err)
	}
	text, err := exec.CommandContext(w.t.Context(), program, "-layout", file, "-").Output()
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// TestAnotherTenantsRequest is answered as one that does not exist, by every call.
func TestAnotherTenantsRequest(t *testing.T) {
	w := start(t)
	w.wantOnce("req_1", w.life("req_1"))
	theirs, err := w.client.ListLeaves(t.Context(), &auditv1.ListLeavesRequest{Tenant: "other", RequestId: "req_1"})
	if err != nil {
		t.Fatal(err)
	}
	none, err := w.client.ListLeaves(t.Context(), &auditv1.ListLeavesRequest{Tenant: "other", RequestId: "req_none"})
	if err != nil || !proto.Equal(theirs, none) {
		t.Errorf("%v and %v, %v", theirs, none, err)
	}
	_, of := w.certificate("other", "req_1", "en")
	_, nothing := w.certificate("other", "req_none", "en")
	if of == nil || nothing == nil || of.Error() != nothing.Error() {
		t.Errorf("%v and %v", of, nothing)
	}
	w.done(0)
}

// TestTamperedLog: whoever can write to the ledger's store and changes a leaf, takes one out or turns two round is found out, and the
// first leaf that does not fit is named.
func TestTamperedLog(t *testing.T) {
	w := start(t, func(c *jetstream.StreamConfig) { c.DenyDelete, c.DenyPurge = false, false })
	for name, tt := range map[string]struct {
		forge func([][]byte) [][]byte
		words []string
	}{
		"changed": {func(raws [][]byte) [][]byte {
			raws[2] = bytes.Replace(raws[2], []byte(`"svc":"countersign/`), []byte(`"svc":"elsewhere/`), 1) // every leaf has it
			return raws
		}, []string{"leaf 4 does not follow"}},
		"taken out":    {func(raws [][]byte) [][]byte { return append(raws[:4:4], raws[5:]...) }, []string{"leaf 5 says it is 6"}},
		"turned round": {func(raws [][]byte) [][]byte { raws[5], raws[6] = raws[6], raws[5]; return raws }, []string{"leaf 6 says it is 7"}},
		"the first":    {func(raws [][]byte) [][]byte { return raws[1:] }, []string{"leaf 1 says it is 2"}},
		"no leaf":      {func(raws [][]byte) [][]byte { raws[3] = []byte("{}"); return raws }, []string{"leaf 4"}},
	} {
		id := "req_" + strings.ReplaceAll(name, " ", "_")
		w.wantOnce(id, w.life(id))
		w.forge(id, tt.forge)
		if _, err := w.certificate(tenant, id, "en"); failure.From(err) == nil || failure.From(err).Code != failure.Internal.Code {
			t.Errorf("%s: the certificate is answered with %v", name, err)
		}
		w.wantLogged(append(tt.words, id)...)
	}
	w.done(0)
}

// TestGarbageInTheLog: what follows a leaf that cannot be read goes to the dead letters and names it; other requests go on.
func TestGarbageInTheLog(t *testing.T) {
	w := start(t, func(c *jetstream.StreamConfig) { c.DenyDelete, c.DenyPurge = false, false })
	w.begin("req_1")
	w.wantOnce("req_1", 1)
	w.forge("req_1", func([][]byte) [][]byte { return [][]byte{[]byte("rubbish")} })
	after := w.says("token", linkID, "req_1", &tokenv1.LinkIssued{LinkId: linkID}, &tokenv1.Link{}, nil)
	w.says("delivery", "dlv_1", "req_2", &deliveryv1.DeliveryPlanned{}, &deliveryv1.Delivery{}, after)
	w.Settled(w.topology)
	if got := w.leaves("req_2"); len(got) != 1 {
		t.Errorf("the other request has %d leaves", len(got))
	}
	if dead := w.Dead(); len(dead) != 1 || !strings.Contains(dead[0], "the newest leaf of request req_1") {
		t.Errorf("dead letters: %v", dead)
	}
	w.done(1)
}

// forge puts other leaves of a request in the place of those that are there.
func (w *world) forge(request string, forge func([][]byte) [][]byte) {
	w.t.Helper()
	subject := "ledger.leaf." + request
	var raws [][]byte
	for _, m := range w.Messages(audit.LedgerStream, subject) {
		raws = append(raws, m.Data)
	}
	stream, err := w.JS.Stream(w.t.Context(), audit.LedgerStream)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := stream.Purge(w.t.Context(), jetstream.WithPurgeSubject(subject)); err != nil {
		w.t.Fatal(err)
	}
	for _, raw := range forge(raws) {
		if _, err := w.JS.Publish(w.t.Context(), subject, raw); err != nil {
			w.t.Fatal(err)
		}
	}
}
