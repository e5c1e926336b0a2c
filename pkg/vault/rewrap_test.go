package vault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/vault"
)

// silent shows nothing, and may cut a pass short after so many messages.
type silent struct {
	mu    sync.Mutex
	read  int
	after int
	stop  context.CancelFunc
}

func (s *silent) Begin(string, uint64) {}

func (s *silent) Read(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read += n
	if s.stop != nil && s.read >= s.after {
		s.stop()
	}
}

// rotating is a vault whose key directory can be rotated, and a process that has it open all the while.
type rotating struct {
	*vault.Vault
	js  jetstream.JetStream
	dir keys.Dir
}

func openRotating(t *testing.T, js jetstream.JetStream) rotating {
	t.Helper()
	dir := keys.Dir(filepath.Join(t.TempDir(), "keys"))
	ring, err := keys.Create(string(dir))
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Open(t.Context(), js, ring)
	if err != nil {
		t.Fatal(err)
	}
	return rotating{v, js, dir}
}

// change switches to another master and returns the former one's id.
func (r rotating) change(t *testing.T) string {
	t.Helper()
	files, err := r.dir.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	defer files.Release() //nolint:errcheck // a lock
	former := files.Current()
	if err := errors.Join(files.Prepare(), files.Switch()); err != nil {
		t.Fatal(err)
	}
	return former
}

// another opens the vault as a process that starts now.
func (r rotating) another(t *testing.T) *vault.Vault {
	t.Helper()
	ring, err := keys.Open(string(r.dir))
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Open(t.Context(), r.js, ring)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// under counts the messages of keys by the master they name.
func (r rotating) under(t *testing.T) map[string]int {
	t.Helper()
	count := map[string]int{}
	for _, m := range messages(t, r.js, vault.KeysStream, ">") {
		if len(m.Data) > 9 {
			count[fmt.Sprintf("%x", m.Data[1:9])]++
		}
	}
	return count
}

// TestRewrapWhileTheVaultIsUsed rotates twice while people are put, read and erased: everything can be read at every moment, and in the
// end nothing is under a former master.
func TestRewrapWhileTheVaultIsUsed(t *testing.T) {
	s := eventlogtest.Start(t)
	r := openRotating(t, s.Provision(s.Connect(), vault.Topology()))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	const people = 40
	id := func(i int) string { return fmt.Sprint("p", i) }
	for i := range people {
		if err := r.Put(ctx, at(id(i)), []byte(id(i))); err != nil {
			t.Fatal(err)
		}
	}
	var all sync.WaitGroup
	fresh := 0
	all.Go(func() { // reads
		for i := 0; ctx.Err() == nil; i++ {
			got, err := r.Get(t.Context(), at(id(i%people)))
			if i%people >= people/2 && (err != nil || string(got) != id(i%people)) || err != nil && !errors.Is(err, vault.ErrErased) {
				t.Errorf("%s: %q, %v", id(i%people), got, err)
			}
		}
	})
	all.Go(func() { // writes
		for ; ctx.Err() == nil; fresh++ {
			if err := r.Put(t.Context(), at(fmt.Sprint("new", fresh)), []byte("x")); err != nil {
				t.Error(err)
			}
		}
	})
	all.Go(func() { // erases half of them
		for i := range people / 2 {
			if err := r.Erase(t.Context(), "acme", id(i)); err != nil {
				t.Error(err)
			}
		}
	})
	var formers []string
	for range 2 {
		formers = append(formers, r.change(t))
		if _, err := r.another(t).Rewrap(t.Context(), &silent{}); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	all.Wait()
	if done, err := r.Rewrap(t.Context(), &silent{}); err != nil {
		t.Errorf("the last pass: %+v, %v", done, err)
	}
	under := r.under(t)
	for _, former := range formers {
		if under[former] > 0 {
			t.Errorf("%d keys are under the former master %s", under[former], former)
		}
	}
	later := r.another(t)
	for i := range people {
		got, err := later.Get(t.Context(), at(id(i)))
		if i < people/2 && !errors.Is(err, vault.ErrErased) || i >= people/2 && string(got) != id(i) {
			t.Errorf("%s: %q, %v", id(i), got, err)
		}
	}
	for i := range fresh {
		if got, err := later.Get(t.Context(), at(fmt.Sprint("new", i))); err != nil || string(got) != "x" {
			t.Errorf("new%d: %q, %v", i, got, err)
		}
	}
	if n := len(messages(t, r.js, vault.KeysStream, ">")); n != people+fresh {
		t.Errorf("%d messages of keys for %d ids", n, people+fresh)
	}
}

// TestARewrapCutShortGoesOn cuts passes short again and again: what was done is kept, everything can be read in between, and at last
// nothing is left to do.
func TestARewrapCutShortGoesOn(t *testing.T) {
	s := eventlogtest.Start(t)
	r := openRotating(t, s.Provision(s.Connect(), vault.Topology()))
	const people = 300 // more than a page
	for i := range people {
		if err := r.Put(t.Context(), at(fmt.Sprint("p", i)), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	former := r.change(t)
	var left []int
	for {
		ctx, cancel := context.WithCancel(t.Context())
		p := &silent{after: 1, stop: cancel}
		_, err := r.another(t).Rewrap(ctx, p)
		cancel()
		n := r.under(t)[former]
		if len(left) > 0 && n >= left[len(left)-1] && n > 0 {
			t.Fatalf("it does not come on: %v, then %d", left, n)
		}
		left = append(left, n)
		if n == 0 {
			break
		}
		if err == nil {
			t.Fatalf("a pass that was not cut short left %d", n)
		}
	}
	if done, err := r.Rewrap(t.Context(), &silent{}); err != nil || done.Removed != 0 || done.Keys != people {
		t.Errorf("the last pass: %+v, %v", done, err)
	}
	if len(left) < 2 || left[len(left)-1] != 0 {
		t.Errorf("keys under the former master, pass by pass: %v", left)
	}
	later := r.another(t)
	for i := range people {
		if got, err := later.Get(t.Context(), at(fmt.Sprint("p", i))); err != nil || string(got) != fmt.Sprint(i) {
			t.Errorf("p%d: %q, %v", i, got, err)
		}
	}
}

// TestARewrapThatDiedBetweenItsTwoSteps leaves a key wrapped twice. To erase takes both away, and so does the next pass.
func TestARewrapThatDiedBetweenItsTwoSteps(t *testing.T) {
	s := eventlogtest.Start(t)
	r := openRotating(t, s.Provision(s.Connect(), vault.Topology()))
	old := map[string][]byte{}
	for _, id := range []string{"erased", "kept"} {
		if err := r.Put(t.Context(), at(id), []byte(id)); err != nil {
			t.Fatal(err)
		}
		old[id] = messages(t, r.js, vault.KeysStream, "vaultkey.acme."+id)[0].Data
	}
	former := r.change(t)
	if _, err := r.Rewrap(t.Context(), &silent{}); err != nil {
		t.Fatal(err)
	}
	// As it was between the two steps: the key under the former master stands before the one under the new one.
	for id, wrapped := range old {
		again := messages(t, r.js, vault.KeysStream, "vaultkey.acme."+id)[0].Data
		for _, data := range [][]byte{wrapped, again} {
			if _, err := r.js.Publish(t.Context(), "vaultkey.acme."+id, data); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.Erase(t.Context(), "acme", "erased"); err != nil {
		t.Fatal(err)
	}
	if n := messages(t, r.js, vault.KeysStream, "vaultkey.acme.erased"); len(n) != 1 {
		t.Errorf("%d messages are left of who was erased, want the tombstone", len(n))
	}
	if done, err := r.Rewrap(t.Context(), &silent{}); err != nil || done.Wrapped != 0 || done.Removed != 1 {
		t.Errorf("the next pass: %+v, %v", done, err)
	}
	if n := r.under(t)[former]; n != 0 {
		t.Errorf("%d keys are under the former master", n)
	}
	if got, err := r.another(t).Get(t.Context(), at("kept")); err != nil || string(got) != "kept" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestNothingOfTheFormerMasterIsLeftOnDisk looks into the server's files: whoever has the former master and the disk reads nobody's
// key.
func TestNothingOfTheFormerMasterIsLeftOnDisk(t *testing.T) {
	js, dir, server := readable(t)
	r := openRotating(t, js)
	for i := range 20 {
		if err := r.Put(t.Context(), at(fmt.Sprint("p", i)), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	former := messages(t, r.js, vault.KeysStream, ">")
	for _, m := range former {
		if !onDisk(t, dir, m.Data) {
			t.Fatalf("the search does not find %s before either", m.Subject)
		}
	}
	r.change(t)
	if _, err := r.Rewrap(t.Context(), &silent{}); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	for _, m := range former {
		if onDisk(t, dir, m.Data) {
			t.Errorf("%s is still on disk under the former master", m.Subject)
		}
	}
}

func TestAProcessWithoutTheNewMasterIsRefusedByName(t *testing.T) {
	s := eventlogtest.Start(t)
	r := openRotating(t, s.Provision(s.Connect(), vault.Topology()))
	backup, err := os.ReadFile(filepath.Join(string(r.dir), "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	former := r.change(t)
	if err := r.Stamp(t.Context()); err != nil {
		t.Fatal(err)
	}
	old, err := keys.NewRing(backup)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vault.Open(t.Context(), r.js, old); !errors.Is(err, vault.ErrWrongKey) || !strings.Contains(err.Error(), former) || bytes.Contains([]byte(err.Error()), backup) {
		t.Errorf("a backup of the keys from before: %v", err)
	}
	r.another(t)
	// What `init` and every start do to the stream keeps its word.
	if _, err := eventlog.Provision(t.Context(), r.js, vault.Topology(), 1, func(string) map[string]string { return map[string]string{} }); err != nil {
		t.Fatal(err)
	}
	if _, err := vault.Open(t.Context(), r.js, old); !errors.Is(err, vault.ErrWrongKey) {
		t.Errorf("after another init: %v", err)
	}
}

// TestSealedLettersAreCounted: what is sealed under a former master cannot be sealed anew, so that master has to be kept.
func TestSealedLettersAreCounted(t *testing.T) {
	s := eventlogtest.Start(t)
	r := openRotating(t, s.Provision(s.Connect(), eventlog.Merge(vault.Topology(), eventlog.Topology{Streams: eventlog.SharedStreams()})))
	letter := func() {
		t.Helper()
		sealed, err := r.Seal([]byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		m := nats.NewMsg("dead.token.INTAKE")
		m.Data = sealed
		m.Header.Set(eventlog.DeadSealedHeader, "vault")
		if _, err := r.js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	letter()
	former := r.change(t)
	letter()
	letter()
	got, err := r.Letters(t.Context())
	if err != nil || len(got) != 2 || got[former] != 1 {
		t.Errorf("%v, %v; one is under %s", got, err, former)
	}
	for _, m := range messages(t, r.js, eventlog.DeadStream, ">") {
		if plain, err := r.Unseal(m.Data); err != nil || string(plain) != "x" {
			t.Errorf("%q, %v", plain, err)
		}
	}
}
