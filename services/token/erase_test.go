package token_test

import (
	"testing"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/vault"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token"
)

func (w *world) erase(req *signingv1.EraseRequest) (*signingv1.RequestView, error) {
	answer, err := w.signing.Erase(as(w.t, tenant), req)
	return answer.GetRequest(), err
}

func (w *world) mustErase(req *signingv1.EraseRequest) *signingv1.RequestView {
	w.t.Helper()
	view, err := w.erase(req)
	if err != nil {
		w.t.Fatal(err)
	}
	return view
}

// ended is a request of Ada and Grace, each with a reason on their link, that was cancelled with another.
func (w *world) ended(ref string) *signingv1.RequestView {
	w.t.Helper()
	r := lease(ref)
	r.Signers = append(r.Signers, person(graceMail, 1))
	r.Metadata = map[string]string{"file": "mill 7"}
	view := w.create(r)
	for _, s := range view.GetSigners() {
		w.issued(s.GetId())
		if _, err := w.signing.RevokeLink(as(w.t, tenant), &signingv1.RevokeLinkRequest{Id: view.GetId(), Signer: s.GetId(), Reason: "she moved to " + s.GetEmail()}); err != nil {
			w.t.Fatal(err)
		}
	}
	answer, err := w.signing.Cancel(as(w.t, tenant), &signingv1.CancelRequest{Id: view.GetId(), Reason: "sold to Hal"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.settled()
	return answer.GetRequest()
}

// held counts what the vault holds of an owner, and whether its key is there.
func (w *world) held(owner string) (values int, key bool) {
	w.t.Helper()
	values = len(w.messages(vault.ValuesStream, "vault."+tenant+"."+owner+".*"))
	for _, m := range w.messages(vault.KeysStream, "vaultkey."+tenant+"."+owner) {
		key = key || len(m.Data) > 9 // more than a tombstone
	}
	return values, key
}

func (w *world) wantGone(owners ...string) {
	w.t.Helper()
	for _, owner := range owners {
		if n, key := w.held(owner); n > 0 || key {
			w.t.Errorf("of %s there are %d values left; its key: %v", owner, n, key)
		}
	}
}

// TestErase: after it nothing personal is left of a request, what happened is, and no late word comes back in.
func TestErase(t *testing.T) {
	w := start(t)
	view, other := w.ended(reference), w.ended("other-1")
	id, ada, grace := view.GetId(), view.GetSigners()[0].GetId(), view.GetSigners()[1].GetId()
	ask := &tokenv1.GetDocumentKeyRequest{Tenant: tenant, RequestId: id}
	if none, err := w.directory.GetDocumentKey(t.Context(), ask); err != nil || len(none.GetKey()) > 0 {
		t.Errorf("to read, before anything was put: a key of %d bytes, %v", len(none.GetKey()), err)
	}
	key, err := w.directory.GetDocumentKey(t.Context(), &tokenv1.GetDocumentKeyRequest{Tenant: tenant, RequestId: id, Make: true})
	if err != nil || len(key.GetKey()) != 32 {
		t.Fatalf("a document key of %d bytes, %v", len(key.GetKey()), err)
	}
	for _, owner := range []string{id, ada, grace} {
		if n, key := w.held(owner); n == 0 || !key {
			t.Fatalf("of %s the vault has %d values before; its key: %v", owner, n, key)
		}
	}
	// A try of the same request with more signers, which was not the one that was accepted.
	beyond := w.service.LinkID(id, 3)
	if _, err := w.directory.PutNote(t.Context(), &tokenv1.PutNoteRequest{Tenant: tenant, OwnerId: beyond, NoteId: "not_1", Text: "Hal"}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second changes nothing
		got := w.mustErase(&signingv1.EraseRequest{Id: id, Basis: "DSR-2026/7"})
		if got.GetErasedAt() == nil || got.GetTitle() != "" || got.GetReference() != "" || len(got.GetMetadata()) > 0 || got.GetDocuments()[0].GetName() != "" {
			t.Errorf("erased, it is still told: %v", got)
		}
		for _, s := range got.GetSigners() {
			if s.GetErasedAt() == nil || s.GetName() != "" || s.GetEmail() != "" || s.GetGenerations()[0].GetEndReason() != "" {
				t.Errorf("erased, it is still told: %v", s)
			}
		}
	}
	w.settled()
	if n := w.stated(id, "RequestErased"); n != 1 {
		t.Errorf("it was stated %d times", n)
	}
	w.wantGone(id, ada, grace, beyond)
	if n, key := w.held(other.GetSigners()[0].GetId()); n == 0 || !key {
		t.Error("another request was erased with it")
	}

	// What comes late finds no place, and leaves nothing.
	_, err = w.directory.PutNote(t.Context(), &tokenv1.PutNoteRequest{Tenant: tenant, OwnerId: ada, NoteId: "not_late", Text: "late"})
	refused(t, err, failure.PersonErased)
	_, err = w.directory.GetDocumentKey(t.Context(), &tokenv1.GetDocumentKeyRequest{Tenant: tenant, RequestId: id})
	refused(t, err, failure.RequestErased)
	_, err = w.signing.RevokeLink(as(t, tenant), &signingv1.RevokeLinkRequest{Id: id, Signer: "1", Reason: "she moved to Ivy"})
	refused(t, err, failure.PersonErased)
	again := lease(reference)
	again.Signers = append(again.Signers, person(graceMail, 1))
	again.Metadata = map[string]string{"file": "mill 7"}
	same, err := w.signing.Create(as(t, tenant), &signingv1.CreateRequest{Request: again})
	if err != nil || same.GetCreated() || same.GetRequest().GetErasedAt() == nil {
		t.Errorf("the same request again: %v, %v", same, err)
	}
	w.wantGone(id, ada, grace)
	w.private("she moved", "sold to")
}

// TestEraseOneSigner: the others, and what the request is called, stay.
func TestEraseOneSigner(t *testing.T) {
	w := start(t)
	view := w.ended(reference)
	id, ada, grace := view.GetId(), view.GetSigners()[0].GetId(), view.GetSigners()[1].GetId()
	got := w.mustErase(&signingv1.EraseRequest{Id: id, Signer: "1"})
	if s := got.GetSigners()[0]; s.GetErasedAt() == nil || s.GetName() != "" || s.GetEmail() != "" {
		t.Errorf("erased, she is still told: %v", s)
	}
	if s := got.GetSigners()[1]; s.GetErasedAt() != nil || s.GetName() != graceName || s.GetGenerations()[0].GetEndReason() == "" || got.GetErasedAt() != nil || got.GetTitle() != title {
		t.Errorf("more was erased than asked: %v", got)
	}
	w.wantGone(ada)
	for _, owner := range []string{id, grace} {
		if n, key := w.held(owner); n == 0 || !key {
			t.Errorf("of %s there are %d values left; its key: %v", owner, n, key)
		}
	}
	_, err := w.erase(&signingv1.EraseRequest{Id: id, Signer: "3"})
	refused(t, err, failure.SignerUnknown)
	w.mustErase(&signingv1.EraseRequest{Id: id})
	w.wantGone(id, ada, grace)
}

// TestEraseIsRefused: while the request goes on, without the scope, and for another tenant's; nothing is erased by it.
func TestEraseIsRefused(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	_, err := w.erase(&signingv1.EraseRequest{Id: view.GetId()})
	refused(t, err, failure.RequestOpen)
	caller := auth.Caller{ID: "key_1", Tenant: tenant, Kind: auth.Platform, Scopes: []string{auth.RequestsRead, auth.RequestsWrite, auth.LinksReissue, auth.ConfigWrite}}
	_, err = w.signing.Erase(auth.Outgoing(auth.With(t.Context(), caller)), &signingv1.EraseRequest{Id: view.GetId()})
	refused(t, err, failure.PermissionDenied)
	if _, err := w.signing.Cancel(as(t, tenant), &signingv1.CancelRequest{Id: view.GetId()}); err != nil {
		t.Fatal(err)
	}
	_, err = w.signing.Erase(as(t, "rival"), &signingv1.EraseRequest{Id: view.GetId()})
	refused(t, err, failure.RequestUnknown)
	for _, owner := range []string{view.GetId(), view.GetSigners()[0].GetId()} {
		if n, key := w.held(owner); n == 0 || !key {
			t.Errorf("of %s there are %d values left; its key: %v", owner, n, key)
		}
	}
}

// TestEraseIsFinished: whoever stated it died before the vault forgot. It is finished by whoever hears of it. To ask again erases again:
// what a backup brought back goes too.
func TestEraseIsFinished(t *testing.T) {
	w := start(t)
	view := w.ended(reference)
	r := w.request(view.GetId())
	erased := &tokenv1.RequestErased{At: r.GetClosedAt()}
	r.ErasedAt = r.GetClosedAt()
	w.Publish(token.Name, eventlog.Key{Tenant: tenant, ID: view.GetId()}, view.GetId(), erased, r)
	eventlogtest.Eventually(t, "the vault forgets", func() bool {
		n, key := w.held(view.GetId())
		return n == 0 && !key
	})
	w.settled()
	w.wantGone(view.GetId(), view.GetSigners()[0].GetId(), view.GetSigners()[1].GetId())
	// Nobody but the vault writes there, and whoever brings a backup back.
	if _, err := w.JS.Publish(t.Context(), "vault."+tenant+"."+view.GetId()+".wrd_1", []byte("from a backup")); err != nil {
		t.Fatal(err)
	}
	w.mustErase(&signingv1.EraseRequest{Id: view.GetId()})
	w.wantGone(view.GetId())
}
