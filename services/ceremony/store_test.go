package ceremony_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
)

// TestDamagedStore: what was lost or changed in the store is found and named, and nothing is signed on it.
func TestDamagedStore(t *testing.T) {
	w := start(t)
	objects, err := w.JS.ObjectStore(t.Context(), "DOCUMENTS")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := w.JS.Stream(t.Context(), "OBJ_DOCUMENTS")
	if err != nil {
		t.Fatal(err)
	}
	other := w.accepted("req_other")
	for name, tt := range map[string]struct {
		damage func(ctx context.Context, name string, object *jetstream.ObjectInfo) error
		words  string
	}{
		"lost": {func(ctx context.Context, name string, _ *jetstream.ObjectInfo) error {
			return objects.Delete(ctx, name)
		}, "is lost"},
		"a part lost": {func(ctx context.Context, _ string, object *jetstream.ObjectInfo) error {
			return stream.Purge(ctx, jetstream.WithPurgeSubject("$O.DOCUMENTS.C."+object.NUID))
		}, "is lost"},
		"a part changed": {func(ctx context.Context, _ string, object *jetstream.ObjectInfo) error {
			subject := "$O.DOCUMENTS.C." + object.NUID
			part, err := stream.GetLastMsgForSubject(ctx, subject)
			if err != nil {
				return err
			}
			if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
				return err
			}
			part.Data[len(part.Data)/2] ^= 1
			_, err = w.JS.Publish(ctx, subject, part.Data)
			return err
		}, "digest"},
		"a byte flipped": {func(ctx context.Context, name string, _ *jetstream.ObjectInfo) error {
			sealed, err := objects.GetBytes(ctx, name)
			if err != nil {
				return err
			}
			sealed[len(sealed)/2] ^= 1
			_, err = objects.PutBytes(ctx, name, sealed)
			return err
		}, "is not what was put"},
		"cut short": {func(ctx context.Context, name string, _ *jetstream.ObjectInfo) error {
			_, err := objects.PutBytes(ctx, name, []byte("short"))
			return err
		}, "cut short"},
		"another request's": {func(ctx context.Context, name string, _ *jetstream.ObjectInfo) error {
			sealed, err := objects.GetBytes(ctx, fmt.Sprintf("%s/req_other/%x", tenant, other.GetPresentedSha256()))
			if err != nil {
				return err
			}
			_, err = objects.PutBytes(ctx, name, sealed)
			return err
		}, "is not what was put"},
	} {
		request := "req_" + strings.ReplaceAll(strings.ReplaceAll(name, " ", "_"), "'", "")
		d := w.accepted(request)
		w.mustShow(request, 1)
		object := fmt.Sprintf("%s/%s/%x", tenant, request, d.GetPresentedSha256())
		info, err := objects.GetInfo(t.Context(), object)
		if err != nil {
			t.Fatal(err)
		}
		if err := tt.damage(t.Context(), object, info); err != nil {
			t.Fatal(err)
		}
		_, err = w.client.Sign(at(t), w.act(request, 1, d))
		if got := failure.From(err); got == nil || got.Code != failure.Internal.Code {
			t.Errorf("%s: signing answers %v", name, err)
		}
		if _, err := w.document(request, ceremonyv1.Revision_REVISION_CURRENT); err == nil {
			t.Errorf("%s: it is given out", name)
		}
		w.wantFacts(request, "CeremonyPrepared", "DocumentShown", "ConsentGiven")
		named := false
		for line := range strings.Lines(w.Logs.String()) {
			named = named || strings.Contains(line, object) && strings.Contains(line, tt.words)
		}
		if !named {
			t.Errorf("%s: no line of the log says so", name)
		}
	}
	w.done()
}
