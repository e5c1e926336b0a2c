package keys_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"countersign.dev/pkg/keys"
)

const pemText = "-----BEGIN CERTIFICATE-----\nAAECAw==\n-----END CERTIFICATE-----\n"

func TestCreateThenOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "keys")
	made, err := keys.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := keys.Open(dir)
	if err != nil || opened.ID() != made.ID() || !bytes.Equal(opened.Derive("a", 32), made.Derive("a", 32)) {
		t.Fatalf("opened %v, made %v, error %v", opened, made, err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "master.key"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v (%v)", path, info.Mode().Perm(), want, err)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	if _, err := keys.Create(dir); !errors.Is(err, keys.ErrExists) {
		t.Errorf("a second Create: %v, want ErrExists", err)
	}
	if again, err := keys.Open(dir); err != nil || again.ID() != made.ID() {
		t.Errorf("a refused Create changed the key: %v, %v", again, err)
	}
}

func TestOneOfManyCreatesWins(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	var won atomic.Int64
	var winner atomic.Value
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			switch r, err := keys.Create(dir); {
			case err == nil:
				won.Add(1)
				winner.Store(r.ID())
			case !errors.Is(err, keys.ErrExists):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r, err := keys.Open(dir)
	if err != nil || won.Load() != 1 || r.ID() != winner.Load() {
		t.Errorf("%d won, Open gives %v, %v", won.Load(), r, err)
	}
}

func TestOpenSaysWhatToDo(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(dir string) error
		want  error
		says  string
	}{
		"no directory":   {os.RemoveAll, keys.ErrMissing, "restore it from the backup"},
		"no master":      {func(d string) error { return os.Remove(filepath.Join(d, "master.key")) }, keys.ErrMissing, "master.key"},
		"open file":      {func(d string) error { return os.Chmod(filepath.Join(d, "master.key"), 0o640) }, keys.ErrMode, "chmod 0600"},
		"open directory": {func(d string) error { return os.Chmod(d, 0o755) }, keys.ErrMode, "chmod 0700"},
		"short master":   {func(d string) error { return os.Truncate(filepath.Join(d, "master.key"), 31) }, keys.ErrFormat, "holds 31 bytes instead of 32"},
		"empty master":   {func(d string) error { return os.Truncate(filepath.Join(d, "master.key"), 0) }, keys.ErrFormat, "holds 0 bytes"},
		"long master":    {func(d string) error { return os.Truncate(filepath.Join(d, "master.key"), 33) }, keys.ErrFormat, "holds 33 bytes"},
		"master is no file": {func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, "master.key")), os.Mkdir(filepath.Join(d, "master.key"), 0o700))
		}, nil, "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "keys")
			if _, err := keys.Create(dir); err != nil {
				t.Fatal(err)
			}
			if err := tt.spoil(dir); err != nil {
				t.Fatal(err)
			}
			_, err := keys.Open(dir)
			if err == nil || (tt.want != nil && !errors.Is(err, tt.want)) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Open: %v; want %v that says %q", err, tt.want, tt.says)
			}
			if _, err := keys.OpenMounted(dir); errors.Is(tt.want, keys.ErrMode) != (err == nil) {
				t.Errorf("OpenMounted: %v", err)
			}
		})
	}
}

func ring(t *testing.T, fill byte) *keys.Ring {
	t.Helper()
	r, err := keys.NewRing(bytes.Repeat([]byte{fill}, keys.MasterSize))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The values on disk depend on these derivations: computed here a second time, from RFC 5869 and RFC 2104.
func TestDerivationsNeverChange(t *testing.T) {
	master := bytes.Repeat([]byte{7}, 32)
	r := ring(t, 7)
	want, _ := hkdf.Key(sha256.New, master, nil, "key\x00vault.kek.v1", 32)
	if got := r.Derive("vault.kek.v1", 32); !bytes.Equal(got, want) {
		t.Errorf("Derive gives %x, want %x", got, want)
	}
	key, _ := hkdf.Key(sha256.New, master, nil, "mac\x00link.v1", 32)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("\x00\x00\x00\x00\x00\x00\x00\x02ab\x00\x00\x00\x00\x00\x00\x00\x01c"))
	if got := r.MAC("link.v1", []byte("ab"), []byte("c")); !bytes.Equal(got, mac.Sum(nil)) {
		t.Errorf("MAC gives %x, want %x", got, mac.Sum(nil))
	}
	id, _ := hkdf.Key(sha256.New, master, nil, "id\x00", 8)
	if r.ID() != hex.EncodeToString(id) {
		t.Errorf("ID is %s, want %x", r.ID(), id)
	}
}

func TestPurposesAreApart(t *testing.T) {
	a, b := ring(t, 1), ring(t, 2)
	seen := map[string]string{}
	for name, v := range map[string][]byte{
		"key x": a.Derive("x", 32), "key y": a.Derive("y", 32), "other master": b.Derive("x", 32),
		"no parts": a.MAC("x"), "one empty part": a.MAC("x", nil), "two empty parts": a.MAC("x", nil, nil),
		"ab|c": a.MAC("x", []byte("ab"), []byte("c")), "a|bc": a.MAC("x", []byte("a"), []byte("bc")), "abc": a.MAC("x", []byte("abc")),
		"other label": a.MAC("y", []byte("abc")), "other ring": b.MAC("x", []byte("abc")),
	} {
		if other, ok := seen[string(v)]; ok {
			t.Errorf("%s and %s are equal", name, other)
		}
		seen[string(v)] = name
	}
	if len(a.Derive("x", keys.MaxDerived)) != keys.MaxDerived || a.ID() == b.ID() {
		t.Error("lengths or ids are wrong")
	}
	for _, n := range []int{0, -1, keys.MaxDerived + 1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Derive of %d bytes did not panic", n)
				}
			}()
			a.Derive("x", n)
		}()
	}
	if _, err := keys.NewRing(make([]byte, 16)); !errors.Is(err, keys.ErrFormat) {
		t.Errorf("a short master: %v", err)
	}
}

func TestRingDoesNotPrint(t *testing.T) {
	r := ring(t, 0xAB)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "ring", r)
	out := log.String() + fmt.Sprintf("%v %+v %#v %s %x %d %q", r, r, r, r, r, r, struct{ R *keys.Ring }{r})
	if lower := strings.ToLower(out); strings.Contains(lower, "abab") || strings.Contains(lower, "171") || strings.Contains(lower, "0xab,") {
		t.Errorf("printed: %s", out)
	}
	if !strings.Contains(log.String(), r.ID()) {
		t.Errorf("the id is missing: %s", log.String())
	}
}

func TestDirKeepsPEM(t *testing.T) {
	d := keys.Dir(filepath.Join(t.TempDir(), "keys"))
	if _, err := d.Load("ca"); !errors.Is(err, keys.ErrMissing) {
		t.Errorf("nothing stored: %v", err)
	}
	if err := d.Store("ca", []byte(pemText)); err != nil {
		t.Fatal(err)
	}
	if err := d.Store("ca", []byte(pemText)); !errors.Is(err, keys.ErrExists) {
		t.Errorf("stored twice: %v", err)
	}
	twice := []byte(pemText + pemText)
	if err := d.Replace("ca", twice); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Load("ca"); err != nil || !bytes.Equal(got, twice) {
		t.Errorf("Load: %q, %v", got, err)
	}
	if info, err := os.Stat(filepath.Join(string(d), "ca.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	for _, text := range []string{"", "text", pemText + "tail", pemText[:40]} {
		if err := d.Store("bad", []byte(text)); !errors.Is(err, keys.ErrFormat) {
			t.Errorf("Store(%q): %v", text, err)
		}
	}
	for _, name := range []string{"", "../ca", "a/b", "CA", ".hidden", "-x", strings.Repeat("a", 65), "a.pem", "a\x00"} {
		if err := d.Store(name, []byte(pemText)); err == nil {
			t.Errorf("Store took the name %q", name)
		}
		if _, err := d.Load(name); err == nil || errors.Is(err, keys.ErrMissing) {
			t.Errorf("Load of %q: %v", name, err)
		}
	}
	if err := os.Chmod(filepath.Join(string(d), "ca.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load("ca"); !errors.Is(err, keys.ErrMode) {
		t.Errorf("an open file: %v", err)
	}
	if _, err := d.LoadMounted("ca"); err != nil {
		t.Errorf("LoadMounted: %v", err)
	}
}
