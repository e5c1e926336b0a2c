package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rotates runs `countersign keys rotate`; it dies at a point, "" for none.
func (in *instance) rotates(ctx context.Context, t *testing.T, crash string) (rotated, string, error) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(ctx, path, "keys", "rotate", "--data", in.data, "--nats", in.Addresses.NATS, "--settle", "0s", "--json") //nolint:gosec // built here
	command.Env = append(os.Environ(), "COUNTERSIGN_CRASH="+crash)
	var said strings.Builder
	command.Stderr = &said
	out, err := command.Output()
	var r rotated
	if err == nil {
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return r, said.String(), err
}

// rotated is what a rotation prints.
type rotated struct {
	Master      string
	Former      []string
	Retired     []string
	Keys        int
	Wrapped     int
	Overwritten int
}

// nameOf is a signer's name as the platform reads it: it comes from the vault.
func (in *instance) nameOf(ctx context.Context, t *testing.T, id string) string {
	t.Helper()
	var v struct {
		Signers []struct{ Name string }
	}
	if status, err := call(ctx, http.MethodGet, in.Addresses.HTTP+"/v1/requests/"+id, nil, &v); err != nil || status != http.StatusOK || len(v.Signers) != 1 {
		t.Fatalf("%d, %v", status, err)
	}
	return v.Signers[0].Name
}

// TestMasterKeyRotatedUnderKills kills a rotation at each of its points while the product runs on. Whatever it left, people can be read and
// go on; begun again, it finishes. In the end nothing is under the former master, links and codes of before are still good, a restart
// finds everything, and one with the keys of before is refused by name.
func TestMasterKeyRotatedUnderKills(t *testing.T) {
	t.Parallel()
	in := newInstance(t, calmSettings, quickFlags...)
	in.start("")
	ctx := within(t, 3*time.Minute)
	first, err := in.create(ctx, request("first", "calm", "first@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	await(ctx, t, in.person("first@example.com").Signer, withLink)
	backup, err := os.ReadFile(filepath.Join(in.data, "keys", "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	ids := []string{first.ID}
	finished := map[string]bool{}
	for i, point := range []string{
		"rotate.prepared", "rotate.copied", "rotate.copied#2", "rotate.switched", "rewrap.wrapped", "rewrap.overwritten#2", "rewrap.wrapped#3",
	} {
		if _, said, err := in.rotates(ctx, t, point); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("it should die at %s: %v %s", point, err, said)
		}
		v, err := in.create(ctx, request(point, "calm", fmt.Sprintf("p%d@example.com", i)))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, v.ID)
		for _, id := range ids {
			if name := in.nameOf(ctx, t, id); name != "Testperson Nr1" {
				t.Errorf("after %s, %s is %q", point, id, name)
			}
		}
		if point == "rotate.switched" || strings.HasPrefix(point, "rewrap") {
			r, said, err := in.rotates(ctx, t, "")
			if err != nil {
				t.Fatalf("begun again after %s: %v %s", point, err, said)
			}
			if finished[r.Master] || len(r.Former) > 0 {
				t.Errorf("begun again after %s: %+v", point, r)
			}
			finished[r.Master] = true
			t.Logf("%s: %+v", point, r)
		}
	}
	if err := in.person("first@example.com").signs(ctx, first.ID, 1); err != nil { // by a link of before
		t.Fatal(err)
	}
	in.completed(t, ctx, first.ID)
	in.oracle(t).quiet(ctx)
	in.stop()

	in.start("")
	for _, id := range ids {
		if name := in.nameOf(ctx, t, id); name != "Testperson Nr1" {
			t.Errorf("after a restart, %s is %q", id, name)
		}
	}
	o := in.oracle(t)
	o.completedOnce(ctx, first.ID, "first@example.com", 1)
	o.nothingDead(ctx)
	in.stop()

	current := filepath.Join(in.data, "keys", "master.key")
	if err := os.WriteFile(current, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	in.refuses(t, "sealed under another master key")
}
