package ceremony_test

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// erased says, as token does, that a request was erased, or one of its signers; its key is destroyed by then.
func (w *world) erased(request, link string) {
	w.t.Helper()
	if link == "" {
		w.peers.set(func() { w.peers.keys[request] = nil })
	}
	r := &tokenv1.Request{Id: request, Tenant: tenant, Documents: []*tokenv1.RequestDocument{{Id: "doc_1"}}}
	if c, err := w.client.GetCeremony(w.t.Context(), &ceremonyv1.GetCeremonyRequest{Tenant: tenant, RequestId: request}); err == nil {
		r.Documents[0].PresentedSha256 = c.GetCeremony().GetDocuments()[0].GetPresentedSha256()
	}
	w.Publish("token", eventlog.Key{Tenant: tenant, ID: request}, request, &tokenv1.RequestErased{LinkId: link}, r)
}

// objects counts what the store holds.
func (w *world) objects() int {
	w.t.Helper()
	store, err := w.JS.ObjectStore(w.t.Context(), "DOCUMENTS")
	if err != nil {
		w.t.Fatal(err)
	}
	all, err := store.List(w.t.Context())
	if err != nil && err != jetstream.ErrNoObjectsFound { //nolint:errorlint // returned as it is
		w.t.Fatal(err)
	}
	return len(all)
}

// TestErase: of a signed document nothing can be read once its request is erased, and its room is given back; another request's stays.
func TestErase(t *testing.T) {
	w := start(t)
	d := w.accepted("req_1")
	w.mustShow("req_1", 1)
	w.mustShow("req_1", 2)
	if _, err := w.client.Sign(at(t), w.act("req_1", 1, d)); err != nil {
		t.Fatal(err)
	}
	w.accepted("req_2")
	before := w.objects()
	if before != 5 { // as shown and described, twice, and once as signed
		t.Fatalf("%d objects are stored", before)
	}
	w.erased("req_1", linkOf("req_1", 1))
	w.Settled(facts("token"))
	if got := w.objects(); got != before {
		t.Errorf("a signer was erased, and of %d objects %d are left", before, got)
	}
	w.erased("req_1", "")
	eventlogtest.Eventually(t, "its documents are deleted", func() bool { return w.objects() == 2 })
	for _, revision := range []ceremonyv1.Revision{ceremonyv1.Revision_REVISION_CURRENT, ceremonyv1.Revision_REVISION_PRESENTED} {
		_, err := w.document("req_1", revision)
		refused(t, err, failure.RequestErased)
	}
	_, err := w.client.GetPage(at(t), &ceremonyv1.GetPageRequest{Tenant: tenant, RequestId: "req_1", DocumentId: "doc_1", Page: 1, Width: 720})
	refused(t, err, failure.RequestErased)
	_, err = w.client.Sign(at(t), w.act("req_1", 2, d))
	refused(t, err, failure.RequestErased)
	w.erased("req_1", "")
	if _, err := w.document("req_2", ceremonyv1.Revision_REVISION_CURRENT); err != nil {
		t.Errorf("another request's: %v", err)
	}
	w.done()
}

// TestErasedBeforeItWasPrepared: a process that hears of a request only after it was erased has nothing to prepare, and goes on.
func TestErasedBeforeItWasPrepared(t *testing.T) {
	w := start(t)
	if _, err := w.inspect("req_1", "doc_1", lease(t)); err != nil {
		t.Fatal(err)
	}
	w.peers.set(func() { w.peers.keys["req_1"] = nil })
	w.accept("req_1")
	w.erased("req_1", "")
	w.accepted("req_2")
	if got := w.stated("req_1"); len(got) > 0 {
		t.Errorf("stated: %v", got)
	}
	_, err := w.inspect("req_1", "doc_1", lease(t))
	refused(t, err, failure.RequestErased)
	w.done()
}
