package vault_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"countersign.dev/pkg/vault"
)

func TestSeal(t *testing.T) {
	s := vault.NewSealer(ring(t, 1))
	for _, plaintext := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("intake "), 1<<16)} {
		one, err := s.Seal(plaintext)
		two, err2 := s.Seal(plaintext)
		if err != nil || err2 != nil || bytes.Equal(one, two) || len(plaintext) > 8 && bytes.Contains(one, plaintext[:8]) {
			t.Fatalf("Seal: equal %v, %v, %v", bytes.Equal(one, two), err, err2)
		}
		for _, sealed := range [][]byte{one, two} {
			if got, err := vault.NewSealer(ring(t, 1)).Unseal(sealed); err != nil || !bytes.Equal(got, plaintext) {
				t.Errorf("Unseal: %d bytes, %v", len(got), err)
			}
		}
		if _, err := vault.NewSealer(ring(t, 2)).Unseal(one); !errors.Is(err, vault.ErrWrongKey) {
			t.Errorf("under another key: %v", err)
		}
	}
}

// vector is "plaintext" sealed by version 1 under a master key of 32 bytes 0x01: what was sealed once must always open.
const vector = "01b887a9e1678ec6e037a8dc2a6ef119b4ae5619e6737efa11135be9a28f58cfde8c1e5a3104582d65ab2b22726038dbcfb9d910467edb2addcedc6559810821e3f3"

// FuzzUnseal changes sealed bytes in every way: they open as they were or not at all, and never panic.
func FuzzUnseal(f *testing.F) {
	s := vault.NewSealer(ring(f, 1))
	good, err := hex.DecodeString(vector)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{})
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(good[:9])
	f.Add(append(bytes.Clone(good), 0))
	f.Add(make([]byte, 9))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		got, err := s.Unseal(sealed)
		if bytes.Equal(sealed, good) != (err == nil) || err == nil && string(got) != "plaintext" {
			t.Errorf("%x: %q, %v", sealed, got, err)
		}
		if err != nil && !errors.Is(err, vault.ErrDamaged) && !errors.Is(err, vault.ErrWrongKey) {
			t.Errorf("%x: %v", sealed, err)
		}
	})
}
