package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"countersign.dev/pkg/failure"
)

var (
	pepper = bytes.Repeat([]byte{7}, 32)
	noon   = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
)

func generate(t *testing.T, n NewKey) (string, Key) {
	t.Helper()
	plain, k, err := GenerateKey(pepper, noon, n)
	if err != nil {
		t.Fatal(err)
	}
	return plain.Reveal(), k
}

func acme() NewKey {
	return NewKey{Tenant: "acme", Name: "HR system", Scopes: []string{RequestsWrite}, Life: time.Hour}
}

func writeKeys(t *testing.T, path string, keys ...Key) {
	t.Helper()
	data, err := yaml.Marshal(KeyFile{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestKeyring(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.yaml")
	plain, key := generate(t, acme())
	foreign, _ := generate(t, acme()) // well formed, not ours
	fenced := acme()
	fenced.AllowIPs = []string{"192.0.2.0/24"}
	inside, fencedKey := generate(t, fenced)
	writeKeys(t, path, key, fencedKey)
	if raw, _ := os.ReadFile(path); bytes.Contains(raw, []byte(plain[20:40])) {
		t.Fatal("the file holds the key itself")
	}
	now := noon
	ring, err := LoadKeyring(path, pepper, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	mistyped := []byte(plain)
	mistyped[30] ^= 1
	mixed := foreign[:len(keyPrefix)] + key.ID + foreign[len(keyPrefix)+keyIDLen:len(foreign)-keySumLen]
	for name, tt := range map[string]struct {
		authorization string
		at            time.Time
		peer          string
		err           error
	}{
		"right":                      {authorization: "Bearer " + plain},
		"scheme in lower case":       {authorization: "bearer " + plain},
		"the last instant":           {authorization: "Bearer " + plain, at: noon.Add(time.Hour - 1)},
		"at its expiry":              {authorization: "Bearer " + plain, at: noon.Add(time.Hour), err: failure.Unauthenticated},
		"no header":                  {err: ErrAbsent},
		"another scheme":             {authorization: "Basic " + plain, err: failure.Unauthenticated},
		"mistyped":                   {authorization: "Bearer " + string(mistyped), err: failure.Unauthenticated},
		"unknown":                    {authorization: "Bearer " + foreign, err: failure.Unauthenticated},
		"known id, another's secret": {authorization: "Bearer " + mixed + checksum(mixed), err: failure.Unauthenticated},
		"blank around":               {authorization: "Bearer  " + plain, err: failure.Unauthenticated},
		"from its network":           {authorization: "Bearer " + inside, peer: "192.0.2.9"},
		"from its network, mapped":   {authorization: "Bearer " + inside, peer: "::ffff:192.0.2.9"},
		"from another network":       {authorization: "Bearer " + inside, peer: "198.51.100.1", err: failure.Unauthenticated},
		"from no network":            {authorization: "Bearer " + inside, err: failure.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			now = noon
			if !tt.at.IsZero() {
				now = tt.at
			}
			e := Evidence{Authorization: tt.authorization}
			if tt.peer != "" {
				e.Peer = &net.TCPAddr{IP: net.ParseIP(tt.peer), Port: 1}
			}
			got, err := ring.Authenticate(context.Background(), e)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err == nil && (got.Tenant != "acme" || got.Kind != Platform || !got.Has(RequestsWrite) || got.Has(RequestsRead)) {
				t.Errorf("got %+v", got)
			}
			if err != nil && got.Kind != Nobody {
				t.Errorf("refused, and yet %+v", got)
			}
		})
	}
}

func TestAnotherPepperKnowsNoKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.yaml")
	plain, key := generate(t, acme())
	writeKeys(t, path, key)
	ring, err := LoadKeyring(path, bytes.Repeat([]byte{8}, 32), func() time.Time { return noon })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Authenticate(context.Background(), Evidence{Authorization: "Bearer " + plain}); !errors.Is(err, failure.Unauthenticated) {
		t.Errorf("error %v", err)
	}
	if _, err := LoadKeyring(path, pepper[:31], func() time.Time { return noon }); err == nil {
		t.Error("a short pepper was taken")
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.json")
	first, firstKey := generate(t, acme())
	second, secondKey := generate(t, acme())
	writeJSON := func(keys ...Key) {
		data, err := json.Marshal(KeyFile{Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writeJSON(firstKey)
	ring, err := LoadKeyring(path, pepper, func() time.Time { return noon })
	if err != nil {
		t.Fatal(err)
	}
	known := func(plain string) bool {
		_, err := ring.Authenticate(context.Background(), Evidence{Authorization: "Bearer " + plain})
		return err == nil
	}
	if !known(first) || known(second) {
		t.Fatal("wrong from the start")
	}
	writeJSON(firstKey, secondKey)
	if err := ring.Reload(); err != nil || !known(first) || !known(second) {
		t.Errorf("during rotation both hold: error %v", err)
	}
	if err := os.WriteFile(path, []byte("keys: [{id: x}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ring.Reload(); err == nil || !known(second) {
		t.Errorf("a broken file: error %v, and the keys from before are kept: %v", err, known(second))
	}
	writeJSON(secondKey)
	if err := ring.Reload(); err != nil || known(first) || !known(second) {
		t.Errorf("a key taken out is refused: error %v", err)
	}
}

func TestKeyFileNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, good := generate(t, acme())
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"unknown key":  {"keys:\n  - id: aaaaaaaaaa\n    tennant: acme\n", []string{"tennant", "[3:"}},
		"everything":   {"keys: [{id: A, tenant: Acme, scopes: ['*'], allow_ips: [nowhere], hmac: zz}]", []string{"id:", "tenant:", "scopes[0]", "expires:", "allow_ips[0]", "hmac:", RequestsWrite}},
		"no scope":     {"keys: [{id: aaaaaaaaaa, tenant: acme}]", []string{"scopes:"}},
		"no YAML":      {"keys: [", []string{"keys.yaml"}},
		"id twice":     {mustYAML(t, good, good), []string{"stands twice"}},
		"longer lived": {mustYAML(t, func() Key { k := good; k.Expires = k.Created.AddDate(2, 0, 0); return k }()), []string{"a year at most"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "keys.yaml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadKeyring(path, pepper, func() time.Time { return noon })
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not named in %v", w, err)
				}
			}
		})
	}
}

func TestAnEmptyFileHasNoKeys(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ring, err := LoadKeyring(path, pepper, func() time.Time { return noon })
	if err != nil || ring.Len() != 0 {
		t.Errorf("error %v", err)
	}
}

func mustYAML(t *testing.T, keys ...Key) string {
	t.Helper()
	data, err := yaml.Marshal(KeyFile{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestGenerateRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*NewKey){
		"no tenant":    func(n *NewKey) { n.Tenant = "" },
		"wildcard":     func(n *NewKey) { n.Scopes = []string{"*"} },
		"no life":      func(n *NewKey) { n.Life = 0 },
		"too long":     func(n *NewKey) { n.Life = MaxKeyLife + time.Second },
		"no network":   func(n *NewKey) { n.AllowIPs = []string{"10.0.0.1"} },
		"essay a name": func(n *NewKey) { n.Name = strings.Repeat("x", 201) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := acme()
			change(&n)
			if _, _, err := GenerateKey(pepper, noon, n); err == nil {
				t.Error("made")
			}
		})
	}
	if _, _, err := GenerateKey(pepper[:31], noon, acme()); !errors.Is(err, errPepper) {
		t.Errorf("short pepper: %v", err)
	}
}

func FuzzParseKey(f *testing.F) {
	plain, _, err := GenerateKey(pepper, noon, acme())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain.Reveal())
	f.Add("")
	f.Add("csk_live_")
	f.Fuzz(func(t *testing.T, in string) {
		id, ok := parseKey(in)
		if ok && (len(id) != keyIDLen || !strings.HasPrefix(in, keyPrefix+id+"_")) {
			t.Errorf("id %q of %q", id, in)
		}
	})
}

// TestAKeyComesAndGoesWhileItIsFollowed: without a restart a new key is known within seconds, and one that was taken out is refused; a
// damaged file changes nothing.
func TestAKeyComesAndGoesWhileItIsFollowed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.yaml")
	first, firstKey := generate(t, acme())
	second, secondKey := generate(t, acme())
	writeKeys(t, path, firstKey)
	ring, err := LoadKeyring(path, pepper, func() time.Time { return noon })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ring.Follow(ctx, slog.New(slog.DiscardHandler)) }()
	known := func(plain string) bool {
		_, err := ring.Authenticate(ctx, Evidence{Authorization: "Bearer " + plain})
		return err == nil
	}
	becomes := func(what string, first1, second1 bool) {
		t.Helper()
		deadline := time.After(30 * time.Second)
		for known(first) != first1 || known(second) != second1 {
			select {
			case <-deadline:
				t.Fatalf("not soon: %s", what)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	writeKeys(t, path, firstKey, secondKey)
	becomes("a second key", true, true)
	if err := os.WriteFile(path, []byte("keys: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ring.Reload(); err == nil || !known(first) || !known(second) {
		t.Errorf("damaged: %v", err)
	}
	writeKeys(t, path, secondKey)
	becomes("the first key is gone", false, true)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
