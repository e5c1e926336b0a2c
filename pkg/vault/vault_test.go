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
	if _, err := v.Get(ctx, "acme", "p1"); !errors.Is(err, vault.ErrUnknown) {
		t.Errorf("nothing kept: %v", err)
	}
	for _, value := range [][]byte{[]byte("Ada Lovelace"), {}, []byte("Ada King"), bytes.Repeat([]byte{0xFF}, vault.MaxValue)} {
		for range 2 { // the second writes nothing
			if err := v.Put(ctx, "acme", "p1", value); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := v.Get(ctx, "acme", "p1"); err != nil || !bytes.Equal(got, value) {
			t.Errorf("Get: %d bytes, %v; want %d", len(got), err, len(value))
		}
	}
	if got := messages(t, v.js, "VAULT_KEYS", ">"); len(got) != 1 {
		t.Errorf("%d keys for one id", len(got))
	}
	if got := messages(t, v.js, "VAULT", ">"); len(got) != 1 || got[0].Sequence != 4 {
		t.Errorf("%d values, the newest is message %d; want one, the fourth", len(got), got[0].Sequence)
	}
	if _, err := v.Get(ctx, "other", "p1"); !errors.Is(err, vault.ErrUnknown) {
		t.Errorf("another tenant: %v", err)
	}
	if err := v.Put(ctx, "acme", "p1", make([]byte, vault.MaxValue+1)); !errors.Is(err, vault.ErrInvalid) {
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
			if got[i], err = v.PutOnce(t.Context(), "acme", "p", fmt.Append(nil, "writer ", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	kept, err := v.Get(t.Context(), "acme", "p")
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
	if _, err := v.PutOnce(t.Context(), "acme", "p", nil); !errors.Is(err, vault.ErrErased) {
		t.Errorf("after Erase: %v", err)
	}
}

func TestNamesAreOneTokenOfASubject(t *testing.T) {
	v := open(t)
	for _, bad := range [][2]string{{"", "p"}, {"acme", ""}, {"acme", "a.b"}, {"acme", "*"}, {"acme", ">"}, {"Acme", "p"}, {"a.b", "p"}, {"acme", "p 1"}, {"acme", strings.Repeat("a", 65)}} {
		_, once := v.PutOnce(t.Context(), bad[0], bad[1], nil)
		_, get := v.Get(t.Context(), bad[0], bad[1])
		_, many := v.GetMany(t.Context(), bad[0], []string{bad[1]})
		for call, err := range map[string]error{
			"Put": v.Put(t.Context(), bad[0], bad[1], nil), "PutOnce": once, "Get": get, "GetMany": many, "Erase": v.Erase(t.Context(), bad[0], bad[1]),
		} {
			if !errors.Is(err, vault.ErrInvalid) {
				t.Errorf("%s(%q): %v", call, bad, err)
			}
		}
	}
}

func TestGetMany(t *testing.T) {
	v := open(t)
	ctx := t.Context()
	var ids []string
	for i := range 300 { // more than one batch
		id := fmt.Sprint("p", i)
		ids = append(ids, id, id) // asked for twice
		var err error
		switch i % 10 {
		case 1: // never kept
		case 2:
			err = v.Erase(ctx, "acme", id)
		default:
			err = v.Put(ctx, "acme", id, []byte(id))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := v.GetMany(ctx, "acme", ids)
	if err != nil || len(got) != 300 {
		t.Fatalf("%d results, %v", len(got), err)
	}
	for i := range 300 {
		id := fmt.Sprint("p", i)
		want := map[int]error{1: vault.ErrUnknown, 2: vault.ErrErased}[i%10]
		if r := got[id]; !errors.Is(r.Err, want) || want == nil && string(r.Value) != id {
			t.Errorf("%s: %q, %v; want %v", id, r.Value, r.Err, want)
		}
	}
	if got, err := v.GetMany(ctx, "empty", []string{"a", "b"}); err != nil || !errors.Is(got["a"].Err, vault.ErrUnknown) {
		t.Errorf("none there: %v, %v", got, err)
	}
	if got, err := v.GetMany(ctx, "acme", nil); err != nil || len(got) != 0 {
		t.Errorf("none asked: %v, %v", got, err)
	}
	if _, err := v.GetMany(ctx, "acme", make([]string, vault.MaxMany+1)); !errors.Is(err, vault.ErrInvalid) {
		t.Errorf("too many: %v", err)
	}
}

// TestGetManyWithoutItsBatches has the answers to its batches come too late, which the client library ends without an error.
func TestGetManyWithoutItsBatches(t *testing.T) {
	v := open(t)
	v.ImpatientBatches()
	ids := []string{"a", "b", "c", "d"}
	if err := errors.Join(v.Put(t.Context(), "acme", "a", []byte("of a")), v.Put(t.Context(), "acme", "b", []byte("of b")), v.Erase(t.Context(), "acme", "c")); err != nil {
		t.Fatal(err)
	}
	got, err := v.GetMany(t.Context(), "acme", ids)
	if err != nil || string(got["a"].Value) != "of a" || string(got["b"].Value) != "of b" ||
		!errors.Is(got["c"].Err, vault.ErrErased) || !errors.Is(got["d"].Err, vault.ErrUnknown) {
		t.Errorf("%v, %v", got, err)
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
	put := func(tenant, id string) (key, value []byte) {
		t.Helper()
		if err := v.Put(ctx, tenant, id, []byte("of "+id)); err != nil {
			t.Fatal(err)
		}
		k := messages(t, v.js, "VAULT_KEYS", "vaultkey."+tenant+"."+id)
		return k[len(k)-1].Data, messages(t, v.js, "VAULT", "vault."+tenant+"."+id)[0].Data
	}
	keyA, valueA := put("acme", "a")
	expect := func(what, id string, want error) {
		t.Helper()
		got, err := v.Get(ctx, "acme", id)
		many, err2 := v.GetMany(ctx, "acme", []string{id})
		if !errors.Is(err, want) || got != nil || err2 != nil || !errors.Is(many[id].Err, want) {
			t.Errorf("%s: %q, %v; many: %v, %v", what, got, err, many, err2)
		}
	}
	put("acme", "b")
	publish("vault.acme.b", valueA)
	expect("a value of another id", "b", vault.ErrDamaged)
	publish("vaultkey.acme.b", keyA)
	expect("key and value of another id", "b", vault.ErrDamaged)
	put("other", "c")
	keyC, valueC := put("other", "c")
	publish("vault.acme.c", valueC)
	publish("vaultkey.acme.c", keyC)
	expect("of another tenant", "c", vault.ErrDamaged)

	for i := range valueA {
		changed := bytes.Clone(valueA)
		changed[i] ^= 0x80
		publish("vault.acme.a", changed)
		expect(fmt.Sprintf("value with byte %d changed", i), "a", vault.ErrDamaged)
	}
	for _, short := range [][]byte{nil, {1}, valueA[:20], valueA[:33], valueA[:len(valueA)-1]} {
		publish("vault.acme.a", short)
		expect(fmt.Sprintf("value cut to %d", len(short)), "a", vault.ErrDamaged)
	}
	publish("vault.acme.a", valueA)
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
	publish("vault.acme.a", []byte("nonsense"))
	if err := v.Put(ctx, "acme", "a", []byte("again")); err != nil {
		t.Errorf("a damaged value cannot be put again: %v", err)
	}
}

func TestAWrongMasterKeyIsNamed(t *testing.T) {
	v := open(t)
	if err := v.Put(t.Context(), "acme", "p", []byte("x")); err != nil {
		t.Fatal(err)
	}
	wrong := onto(t, v.js, 2)
	_, get := wrong.Get(t.Context(), "acme", "p")
	for call, err := range map[string]error{"Get": get, "Put": wrong.Put(t.Context(), "acme", "p", []byte("x"))} {
		if !errors.Is(err, vault.ErrWrongKey) || !strings.Contains(err.Error(), ring(t, 1).ID()) || !strings.Contains(err.Error(), ring(t, 2).ID()) {
			t.Errorf("%s: %v", call, err)
		}
	}
	// To erase needs no key: a lost master must not keep anybody from it.
	if err := wrong.Erase(t.Context(), "acme", "p"); err != nil {
		t.Error(err)
	}
	if _, err := v.Get(t.Context(), "acme", "p"); !errors.Is(err, vault.ErrErased) {
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
	if err := errors.Join(v.Put(t.Context(), "acme", "p", []byte("x")), v.Put(t.Context(), "acme", "q", nil), v.Erase(t.Context(), "acme", "q")); err != nil {
		t.Fatal(err)
	}
	v.server.Restart()
	js, err := jetstream.New(v.server.Connect())
	if err != nil {
		t.Fatal(err)
	}
	again := onto(t, js, 1)
	if got, err := again.Get(t.Context(), "acme", "p"); err != nil || string(got) != "x" {
		t.Errorf("Get: %q, %v", got, err)
	}
	if _, err := again.Get(t.Context(), "acme", "q"); !errors.Is(err, vault.ErrErased) {
		t.Errorf("erased: %v", err)
	}
}
