package vault_test

import (
	"bytes"
	"errors"
	"fmt"
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

func ring(t testing.TB, fill byte) *keys.Ring {
	t.Helper()
	r, err := keys.NewRing(bytes.Repeat([]byte{fill}, keys.MasterSize))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// at is a place of an owner of acme.
func at(owner string) vault.Place { return vault.Place{Tenant: "acme", Owner: owner, ID: "v"} }

type bench struct {
	*vault.Vault
	js     jetstream.JetStream
	server *eventlogtest.Server
}

func open(t testing.TB) bench {
	t.Helper()
	s := eventlogtest.Start(t)
	js := s.Provision(s.Connect(), vault.Topology())
	return bench{onto(t, js, 1), js, s}
}

func onto(t testing.TB, js jetstream.JetStream, fill byte) *vault.Vault {
	t.Helper()
	v, err := vault.Open(t.Context(), js, ring(t, fill))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func provision(t testing.TB, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := eventlog.Provision(t.Context(), js, vault.Topology(), 1, func(string) map[string]string { return nil }); err != nil {
		t.Fatal(err)
	}
	return js
}

// messages returns what a stream holds under a subject, oldest first.
func messages(t testing.TB, js jetstream.JetStream, stream, subject string) []*jetstream.RawStreamMsg {
	t.Helper()
	st, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	var all []*jetstream.RawStreamMsg
	for next := uint64(1); ; next = all[len(all)-1].Sequence + 1 {
		m, err := st.GetMsg(t.Context(), next, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
}

func TestPutGet(t *testing.T) {
	v := open(t)
	ctx := t.Context()
	if _, err := v.Get(ctx, at("p1")); !errors.Is(err, vault.ErrUnknown) {
		t.Errorf("nothing kept: %v", err)
	}
	for _, value := range [][]byte{[]byte("Ada Lovelace"), {}, []byte("Ada King"), bytes.Repeat([]byte{0xFF}, vault.MaxValue)} {
		for range 2 { // the second writes nothing
			if err := v.Put(ctx, at("p1"), value); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := v.Get(ctx, at("p1")); err != nil || !bytes.Equal(got, value) {
			t.Errorf("Get: %d bytes, %v; want %d", len(got), err, len(value))
		}
	}
	if got := messages(t, v.js, "VAULT_KEYS", ">"); len(got) != 1 {
		t.Errorf("%d keys for one id", len(got))
	}
	if got := messages(t, v.js, "VAULT", ">"); len(got) != 1 || got[0].Sequence != 4 {
		t.Errorf("%d values, the newest is message %d; want one, the fourth", len(got), got[0].Sequence)
	}
	if _, err := v.Get(ctx, vault.Place{Tenant: "other", Owner: "p1", ID: "v"}); !errors.Is(err, vault.ErrUnknown) {
		t.Errorf("another tenant: %v", err)
	}
	if err := v.Put(ctx, at("p1"), make([]byte, vault.MaxValue+1)); !errors.Is(err, vault.ErrInvalid) {
		t.Errorf("too long: %v", err)
	}
}

func TestPutOnce(t *testing.T) {
	v := open(t)
	const writers = 32
	got := make([][]byte, writers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			var err error
			if got[i], err = v.PutOnce(t.Context(), at("p"), fmt.Append(nil, "writer ", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	kept, err := v.Get(t.Context(), at("p"))
	for i := range got {
		if err != nil || !bytes.Equal(got[i], kept) {
			t.Errorf("writer %d was told %q, kept is %q, %v", i, got[i], kept, err)
		}
	}
	if n := len(messages(t, v.js, "VAULT", ">")); n != 1 {
		t.Errorf("%d values", n)
	}
	if err := v.Erase(t.Context(), "acme", "p"); err != nil {
		t.Fatal(err)
	}
	if _, err := v.PutOnce(t.Context(), at("p"), nil); !errors.Is(err, vault.ErrErased) {
		t.Errorf("after Erase: %v", err)
	}
}

func TestNamesAreOneTokenOfASubject(t *testing.T) {
	v := open(t)
	for _, bad := range []string{"", "a.b", "*", ">", "p 1", strings.Repeat("a", 65)} {
		for part, p := range map[string]vault.Place{
			"tenant": {Tenant: bad, Owner: "p", ID: "v"}, "owner": {Tenant: "acme", Owner: bad, ID: "v"}, "id": {Tenant: "acme", Owner: "p", ID: bad},
		} {
			_, once := v.PutOnce(t.Context(), p, nil)
			_, get := v.Get(t.Context(), p)
			calls := map[string]error{"Put": v.Put(t.Context(), p, nil), "PutOnce": once, "Get": get}
			if part != "id" {
				calls["Erase"] = v.Erase(t.Context(), p.Tenant, p.Owner)
			}
			for call, err := range calls {
				if !errors.Is(err, vault.ErrInvalid) {
					t.Errorf("%s with the %s %q: %v", call, part, bad, err)
				}
			}
		}
	}
	if n := len(messages(t, v.js, "VAULT_KEYS", ">")) + len(messages(t, v.js, "VAULT", ">")); n != 0 {
		t.Errorf("%d messages were written", n)
	}
}

// TestAnOwnerHasOneKey keeps several things of two owners.
func TestAnOwnerHasOneKey(t *testing.T) {
	v := open(t)
	place := func(owner, id string) vault.Place { return vault.Place{Tenant: "acme", Owner: owner, ID: id} }
	for _, owner := range []string{"a", "b"} {
		for _, id := range []string{"name", "note"} {
			if err := v.Put(t.Context(), place(owner, id), []byte(owner+id)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(messages(t, v.js, "VAULT_KEYS", ">")); n != 2 {
		t.Errorf("%d keys for two owners", n)
	}
	if _, err := v.Get(t.Context(), place("a", "never")); !errors.Is(err, vault.ErrUnknown) {
		t.Errorf("an id that was never put: %v", err)
	}
	if err := v.Erase(t.Context(), "acme", "a"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"name", "note", "never"} {
		if _, err := v.Get(t.Context(), place("a", id)); !errors.Is(err, vault.ErrErased) {
			t.Errorf("%s of the erased owner: %v", id, err)
		}
		if err := v.Put(t.Context(), place("a", id), nil); !errors.Is(err, vault.ErrErased) {
			t.Errorf("put %s of the erased owner: %v", id, err)
		}
	}
	for _, id := range []string{"name", "note"} {
		if got, err := v.Get(t.Context(), place("b", id)); err != nil || string(got) != "b"+id {
			t.Errorf("%s of the other owner: %q, %v", id, got, err)
		}
	}
	if n := len(messages(t, v.js, "VAULT", ">")); n != 2 {
		t.Errorf("%d values are left, want those of the other owner", n)
	}
}

// TestMovedOrChangedBytesDoNotOpen does in the streams what somebody with the server's rights could.
func TestMovedOrChangedBytesDoNotOpen(t *testing.T) {
	v := open(t)
	ctx := t.Context()
	publish := func(subject string, data []byte) {
		t.Helper()
		if _, err := v.js.Publish(ctx, subject, data); err != nil {
			t.Fatal(err)
		}
	}
	put := func(tenant, owner string) (key, value []byte) {
		t.Helper()
		if err := v.Put(ctx, vault.Place{Tenant: tenant, Owner: owner, ID: "v"}, []byte("of "+owner)); err != nil {
			t.Fatal(err)
		}
		k := messages(t, v.js, "VAULT_KEYS", "vaultkey."+tenant+"."+owner)
		return k[len(k)-1].Data, messages(t, v.js, "VAULT", "vault."+tenant+"."+owner+".v")[0].Data
	}
	keyA, valueA := put("acme", "a")
	expect := func(what, owner string, want error) {
		t.Helper()
		if got, err := v.Get(ctx, at(owner)); !errors.Is(err, want) || got != nil {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	publish("vault.acme.a.other", valueA)
	if got, err := v.Get(ctx, vault.Place{Tenant: "acme", Owner: "a", ID: "other"}); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("a value of another id: %q, %v", got, err)
	}
	put("acme", "b")
	publish("vault.acme.b.v", valueA)
	expect("a value of another owner", "b", vault.ErrDamaged)
	publish("vaultkey.acme.b", keyA)
	expect("key and value of another owner", "b", vault.ErrDamaged)
	put("other", "c")
	keyC, valueC := put("other", "c")
	publish("vault.acme.c.v", valueC)
	publish("vaultkey.acme.c", keyC)
	expect("of another tenant", "c", vault.ErrDamaged)

	for i := range valueA {
		changed := bytes.Clone(valueA)
		changed[i] ^= 0x80
		publish("vault.acme.a.v", changed)
		expect(fmt.Sprintf("value with byte %d changed", i), "a", vault.ErrDamaged)
	}
	for _, short := range [][]byte{nil, {1}, valueA[:20], valueA[:33], valueA[:len(valueA)-1]} {
		publish("vault.acme.a.v", short)
		expect(fmt.Sprintf("value cut to %d", len(short)), "a", vault.ErrDamaged)
	}
	publish("vault.acme.a.v", valueA)
	for _, short := range [][]byte{nil, {1}, keyA[:9], keyA[:20], keyA[:len(keyA)-1], {0, 0}} {
		publish("vaultkey.acme.a", short)
		expect(fmt.Sprintf("key cut to %d", len(short)), "a", vault.ErrDamaged)
	}
	for i := range keyA {
		changed := bytes.Clone(keyA)
		changed[i] ^= 0x80
		publish("vaultkey.acme.a", changed)
		want := vault.ErrDamaged
		if i >= 1 && i < 9 {
			want = vault.ErrWrongKey
		}
		expect(fmt.Sprintf("key with byte %d changed", i), "a", want)
	}
	publish("vaultkey.acme.a", keyA)
	publish("vault.acme.a.v", []byte("nonsense"))
	if err := v.Put(ctx, at("a"), []byte("again")); err != nil {
		t.Errorf("a damaged value cannot be put again: %v", err)
	}
}

func TestAWrongMasterKeyIsNamed(t *testing.T) {
	v := open(t)
	if err := v.Put(t.Context(), at("p"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	wrong := onto(t, v.js, 2)
	_, get := wrong.Get(t.Context(), at("p"))
	for call, err := range map[string]error{"Get": get, "Put": wrong.Put(t.Context(), at("p"), []byte("x"))} {
		if !errors.Is(err, vault.ErrWrongKey) || !strings.Contains(err.Error(), ring(t, 1).ID()) || !strings.Contains(err.Error(), ring(t, 2).ID()) {
			t.Errorf("%s: %v", call, err)
		}
	}
	// To erase needs no key: a lost master must not keep anybody from it.
	if err := wrong.Erase(t.Context(), "acme", "p"); err != nil {
		t.Error(err)
	}
	if _, err := v.Get(t.Context(), at("p")); !errors.Is(err, vault.ErrErased) {
		t.Errorf("after Erase: %v", err)
	}
}

func TestMissingStreamsAreNotMade(t *testing.T) {
	s := eventlogtest.Start(t)
	js, err := jetstream.New(s.Connect())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vault.Open(t.Context(), js, ring(t, 1)); err == nil || !strings.Contains(err.Error(), "VAULT") {
		t.Errorf("Open: %v", err)
	}
	for _, cfg := range vault.Streams(1)[:1] {
		if _, err := js.CreateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := vault.Open(t.Context(), js, ring(t, 1)); err == nil || !strings.Contains(err.Error(), "VAULT_KEYS") {
		t.Errorf("Open: %v", err)
	}
}

func TestKeptAcrossARestart(t *testing.T) {
	v := open(t)
	if err := errors.Join(v.Put(t.Context(), at("p"), []byte("x")), v.Put(t.Context(), at("q"), nil), v.Erase(t.Context(), "acme", "q")); err != nil {
		t.Fatal(err)
	}
	v.server.Restart()
	js, err := jetstream.New(v.server.Connect())
	if err != nil {
		t.Fatal(err)
	}
	again := onto(t, js, 1)
	if got, err := again.Get(t.Context(), at("p")); err != nil || string(got) != "x" {
		t.Errorf("Get: %q, %v", got, err)
	}
	if _, err := again.Get(t.Context(), at("q")); !errors.Is(err, vault.ErrErased) {
		t.Errorf("erased: %v", err)
	}
}
