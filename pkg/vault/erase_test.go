package vault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/natsserver"
	"countersign.dev/pkg/vault"
)

// onDisk reports whether any file under dir holds needle.
func onDisk(t *testing.T, dir string, needle []byte) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		found = found || bytes.Contains(data, needle)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// readable starts a server whose files, in dir, are not encrypted.
func readable(t *testing.T) (js jetstream.JetStream, dir string, server *natsserver.Server) {
	t.Helper()
	dir = t.TempDir()
	server, err := natsserver.Start(natsserver.Options{Listen: "127.0.0.1:0", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	nc, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return provision(t, nc), dir, server
}

// TestNothingIsLeftOnDisk looks into the server's files.
func TestNothingIsLeftOnDisk(t *testing.T) {
	js, dir, server := readable(t)
	v := onto(t, js, 1)
	secret := []byte("Grace Hopper, grace@navy.example")
	for i := range 20 { // neighbours in the same block
		if err := v.Put(t.Context(), at(fmt.Sprint("p", i)), append(secret, byte(i))); err != nil {
			t.Fatal(err)
		}
	}
	wrapped := messages(t, js, "VAULT_KEYS", "vaultkey.acme.p7")[0].Data
	sealed := messages(t, js, "VAULT", "vault.acme.p7.v")[0].Data
	if !onDisk(t, dir, wrapped) || !onDisk(t, dir, sealed) {
		t.Fatal("the search finds nothing before either")
	}
	if err := v.Erase(t.Context(), "acme", "p7"); err != nil {
		t.Fatal(err)
	}
	for when, look := range map[string]bool{"while it runs": onDisk(t, dir, wrapped), "the value, while it runs": onDisk(t, dir, sealed)} {
		if look {
			t.Errorf("erased bytes are in the files, %s", when)
		}
	}
	if got, err := v.Get(t.Context(), at("p8")); err != nil || string(got) != string(secret)+"\x08" {
		t.Errorf("the neighbour: %q, %v", got, err)
	}
	server.Stop()
	if onDisk(t, dir, wrapped) || onDisk(t, dir, sealed) || onDisk(t, dir, secret) {
		t.Error("erased bytes, or plain ones, are in the files of the stopped server")
	}
}

func TestEraseIsForGood(t *testing.T) {
	v := open(t)
	ctx := t.Context()
	if err := v.Put(ctx, at("p"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := errors.Join(v.Erase(ctx, "acme", "p"), v.Erase(ctx, "acme", "never")); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"p", "never"} {
		if _, err := v.Get(ctx, at(id)); !errors.Is(err, vault.ErrErased) {
			t.Errorf("Get %s: %v", id, err)
		}
		if err := v.Put(ctx, at(id), []byte("back")); !errors.Is(err, vault.ErrErased) {
			t.Errorf("Put %s: %v", id, err)
		}
	}
	if n := len(messages(t, v.js, "VAULT", ">")); n != 0 {
		t.Errorf("%d values are left", n)
	}
	if n := len(messages(t, v.js, "VAULT_KEYS", ">")); n != 2 {
		t.Errorf("%d messages of keys are left, want two tombstones", n)
	}
}

// TestAnEraseThatStoppedHalfWayGoesOn leaves key and value behind the tombstone, as a crash would.
func TestAnEraseThatStoppedHalfWayGoesOn(t *testing.T) {
	v := open(t)
	ctx := t.Context()
	if err := v.Put(ctx, at("p"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	key := messages(t, v.js, "VAULT_KEYS", "vaultkey.acme.p")[0]
	if _, err := v.js.Publish(ctx, "vaultkey.acme.p", append(make([]byte, 8), byte(key.Sequence))[0:9]); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Get(ctx, at("p")); !errors.Is(err, vault.ErrErased) {
		t.Errorf("with the tombstone alone: %v", err)
	}
	if err := v.Erase(ctx, "acme", "p"); err != nil {
		t.Fatal(err)
	}
	if left := messages(t, v.js, "VAULT_KEYS", ">"); len(left) != 1 || left[0].Sequence == key.Sequence {
		t.Errorf("%d messages of keys are left", len(left))
	}
	if n := len(messages(t, v.js, "VAULT", ">")); n != 0 {
		t.Errorf("%d values are left", n)
	}
}

func TestRacingWritersNeverSplitAnOwner(t *testing.T) {
	v := open(t)
	const writers = 32
	said := map[string]bool{}
	for i := range writers {
		said[fmt.Sprint("writer ", i)] = true
	}
	ctx, stop := context.WithCancel(t.Context())
	var readers, wg sync.WaitGroup
	readers.Go(func() {
		for ctx.Err() == nil {
			got, err := v.Get(t.Context(), at("p"))
			if !errors.Is(err, vault.ErrUnknown) && (err != nil || !said[string(got)]) {
				t.Errorf("read %q, %v", got, err)
			}
		}
	})
	for i := range writers {
		wg.Go(func() {
			if err := v.Put(t.Context(), at("p"), fmt.Append(nil, "writer ", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	stop()
	readers.Wait()
	if n := len(messages(t, v.js, "VAULT_KEYS", ">")); n != 1 {
		t.Errorf("%d keys for one owner", n)
	}
	if got, err := v.Get(t.Context(), at("p")); err != nil || !said[string(got)] {
		t.Errorf("in the end %q, %v", got, err)
	}
}

func TestEraseAmongRacingWriters(t *testing.T) {
	v := open(t)
	for round := range 5 {
		id := fmt.Sprint("p", round)
		var wg sync.WaitGroup
		for i := range 31 {
			wg.Go(func() {
				p := vault.Place{Tenant: "acme", Owner: id, ID: fmt.Sprint("v", i%4)}
				if err := v.Put(t.Context(), p, fmt.Append(nil, i)); err != nil && !errors.Is(err, vault.ErrErased) {
					t.Error(err)
				}
			})
		}
		for range 2 {
			wg.Go(func() {
				if err := v.Erase(t.Context(), "acme", id); err != nil {
					t.Error(err)
				}
				if got, err := v.Get(t.Context(), vault.Place{Tenant: "acme", Owner: id, ID: "v1"}); !errors.Is(err, vault.ErrErased) {
					t.Errorf("right after Erase: %q, %v", got, err)
				}
			})
		}
		wg.Wait()
	}
	if n := len(messages(t, v.js, "VAULT", ">")); n != 0 {
		t.Errorf("%d values are left behind", n)
	}
	if n := len(messages(t, v.js, "VAULT_KEYS", ">")); n != 5 {
		t.Errorf("%d messages of keys are left, want five tombstones", n)
	}
}

// TestOverABadLine puts and erases while answers get lost at random moments; whoever was told an error does it again.
func TestOverABadLine(t *testing.T) {
	s := eventlogtest.Start(t)
	direct := s.Provision(s.Connect(), vault.Topology())
	proxy := s.Proxy()
	js, err := jetstream.New(proxy.Connect())
	if err != nil {
		t.Fatal(err)
	}
	v, plain := onto(t, js, 1), onto(t, direct, 1)

	ctx, stop := context.WithCancel(t.Context())
	var weather sync.WaitGroup
	weather.Go(func() {
		for ctx.Err() == nil {
			wait(ctx, rand.N(20*time.Millisecond))
			proxy.LoseAnswers()
			wait(ctx, rand.N(20*time.Millisecond))
			proxy.Heal()
		}
	})
	failed := 0
	again := func(do func(ctx context.Context) error) {
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			err := do(ctx)
			cancel()
			if err == nil || t.Context().Err() != nil {
				return
			}
			failed++
		}
	}
	const ids = 6
	for i := range ids {
		id := fmt.Sprint("p", i)
		for _, value := range []string{"first of ", "last of "} {
			again(func(ctx context.Context) error { return v.Put(ctx, at(id), []byte(value+id)) })
		}
		if i%2 == 0 {
			again(func(ctx context.Context) error { return v.Erase(ctx, "acme", id) })
		}
	}
	stop()
	weather.Wait()
	if failed == 0 {
		t.Error("the line was not bad")
	}
	for i := range ids {
		id := fmt.Sprint("p", i)
		got, err := plain.Get(t.Context(), at(id))
		if i%2 == 0 && !errors.Is(err, vault.ErrErased) || i%2 == 1 && string(got) != "last of "+id {
			t.Errorf("%s: %q, %v", id, got, err)
		}
		if n := len(messages(t, direct, "VAULT_KEYS", "vaultkey.acme."+id)); n != 1 {
			t.Errorf("%s has %d messages of keys", id, n)
		}
	}
	if n := len(messages(t, direct, "VAULT", ">")); n != ids/2 {
		t.Errorf("%d values are kept, want %d", n, ids/2)
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
