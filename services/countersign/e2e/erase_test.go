package e2e

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/vault"
)

// erases runs `countersign erase`; what it says, and how it ended.
func (in *instance) erases(ctx context.Context, t *testing.T, id string, more ...string) (string, error) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"erase", id, "--server", in.Addresses.GRPC}, more...)
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput() //nolint:gosec // built here
	return string(out), err
}

// owners are what is erased with a request: itself and the links of its signers.
func (in *instance) owners(ctx context.Context, t *testing.T, id string) []string {
	t.Helper()
	var v struct {
		Signers []struct{ ID string }
	}
	if status, err := call(ctx, http.MethodGet, in.Addresses.HTTP+"/v1/requests/"+id, nil, &v); err != nil || status != http.StatusOK {
		t.Fatalf("%d, %v", status, err)
	}
	owners := []string{id}
	for _, s := range v.Signers {
		owners = append(owners, s.ID)
	}
	return owners
}

// left names what the record still holds of owners and of a request's documents.
func (o *oracle) left(ctx context.Context, id string, owners []string) []string {
	o.t.Helper()
	var left []string
	for _, owner := range owners {
		for _, m := range o.all(ctx, vault.ValuesStream, "vault.demo."+owner+".*") {
			left = append(left, m.Subject)
		}
		for _, m := range o.all(ctx, vault.KeysStream, "vaultkey.demo."+owner) {
			if len(m.Data) > 9 { // a tombstone has 9 bytes
				left = append(left, m.Subject)
			}
		}
	}
	return append(left, o.documents(ctx, id)...)
}

func (o *oracle) documents(ctx context.Context, id string) []string {
	o.t.Helper()
	objects, err := o.js.ObjectStore(ctx, "DOCUMENTS")
	if err != nil {
		o.t.Fatal(err)
	}
	all, err := objects.List(ctx)
	if err != nil && err != jetstream.ErrNoObjectsFound { //nolint:errorlint // returned as it is
		o.t.Fatal(err)
	}
	var names []string
	for _, object := range all {
		if strings.HasPrefix(object.Name, "demo/"+id+"/") {
			names = append(names, object.Name)
		}
	}
	return names
}

// streamDir is where the embedded server keeps a stream.
func (in *instance) streamDir(t *testing.T, stream string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(in.data, "nats", "jetstream", "*", "streams", stream))
	if err != nil || len(found) != 1 {
		t.Fatalf("the directory of %s: %q, %v", stream, found, err)
	}
	return found[0]
}

// erasable is a signed request, what is erased with it, and its signer.
type erasable struct {
	id     string
	owners []string
	signer *person
}

// erasedAfter erases a request while the process dies at a point, and looks at what its next run makes of it.
func (in *instance) erasedAfter(ctx context.Context, t *testing.T, point string, r erasable) {
	t.Helper()
	if said, err := in.erases(ctx, t, r.id, "--basis", "DSR-7", "--yes"); err == nil {
		t.Fatalf("it should have died at %s: %s", point, said)
	}
	eventually(ctx, t, "it dies at "+point, in.dead)
	in.start("")
	o := in.oracle(t)
	eventually(ctx, t, "after "+point+" the erasure is finished", func() bool { return len(o.left(ctx, r.id, r.owners)) == 0 })
	said, err := in.erases(ctx, t, r.id, "--yes") // again, which changes nothing
	if err != nil || !strings.Contains(said, "is erased since") {
		t.Errorf("after %s: %s, %v", point, said, err)
	}
	o.quiet(ctx)
	o.chain(ctx, r.id)
	if n := o.stated(ctx, "token", r.id)["RequestErased"]; n != 1 {
		t.Errorf("after %s it was stated %d times", point, n)
	}
	if trail := in.trail(ctx, t, r.id); !slices.Contains(trail, "cs.pii.erased") {
		t.Errorf("the trail of %s says nothing of it: %q", r.id, trail)
	}
}

// TestErasedUnderKills has signed requests erased while the process is killed between the fact and each thing that follows from it. Whoever
// comes back finishes it: of people and documents nothing is left, the audit trail holds, the signer's pages say so, and a backup of the
// vault's values and of the documents is noise.
func TestErasedUnderKills(t *testing.T) {
	t.Parallel()
	in := newInstance(t, calmSettings, quickFlags...)
	in.start("")
	ctx := within(t, 4*time.Minute)
	points := []string{"erase.stated", "vault.buried#2", ""}
	var requests []erasable
	for i := range points {
		email := "erased" + string(rune('a'+i)) + "@example.com"
		v, err := in.create(ctx, request("erased-"+string(rune('a'+i)), "calm", email))
		if err != nil {
			t.Fatal(err)
		}
		p := in.person(email)
		if err := p.signs(ctx, v.ID, 1); err != nil {
			t.Fatal(err)
		}
		in.completed(t, ctx, v.ID)
		requests = append(requests, erasable{v.ID, in.owners(ctx, t, v.ID), p})
	}
	stays := requests[len(requests)-1]
	o := in.oracle(t)
	o.quiet(ctx)
	for _, r := range requests {
		// As shown, described and signed; the words, the person, and three notes of the act beside the keys.
		if got := o.left(ctx, r.id, r.owners); len(got) < 3+2+4 || len(o.documents(ctx, r.id)) != 3 {
			t.Fatalf("of %s there is, before anything is erased: %q", r.id, got)
		}
	}
	in.stop()
	backup := t.TempDir()
	for _, stream := range []string{vault.ValuesStream, "OBJ_DOCUMENTS"} {
		if err := os.CopyFS(filepath.Join(backup, stream), os.DirFS(in.streamDir(t, stream))); err != nil {
			t.Fatal(err)
		}
	}

	for i, point := range points[:len(points)-1] {
		in.start(point)
		in.erasedAfter(ctx, t, point, requests[i])
		in.stop()
	}

	for _, stream := range []string{vault.ValuesStream, "OBJ_DOCUMENTS"} {
		if err := os.RemoveAll(in.streamDir(t, stream)); err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(filepath.Dir(in.streamDir(t, vault.KeysStream)), stream)
		if err := os.CopyFS(to, os.DirFS(filepath.Join(backup, stream))); err != nil {
			t.Fatal(err)
		}
	}
	in.start("")
	o = in.oracle(t)
	for _, r := range requests[:len(requests)-1] {
		if got := o.documents(ctx, r.id); len(got) != 3 {
			t.Fatalf("the backup has not brought back the documents of %s: %q", r.id, got)
		}
		if name := in.nameOf(ctx, t, r.id); name != "" {
			t.Errorf("from a backup, %s is %q", r.id, name)
		}
		page := get(ctx, t, r.signer.Signer, r.signer.page.URL.JoinPath("document.pdf").String())
		if page.Status != failure.RequestErased.HTTP {
			t.Errorf("from a backup, the document of %s is answered with %s", r.id, describe(page))
		}
	}
	if name := in.nameOf(ctx, t, stays.id); name != "Testperson Nr1" {
		t.Errorf("the one that was not erased is %q", name)
	}
	o.completedOnce(ctx, stays.id, stays.signer.Email, 1)
	if got := get(ctx, t, stays.signer.Signer, stays.signer.page.URL.JoinPath("document.pdf").String()); got.Status != http.StatusOK {
		t.Errorf("the one that was not erased is answered with %s", describe(got))
	}
	o.nothingDead(ctx)
	in.stop()
}
