// Package secret holds values that must never be printed: tokens, codes, passwords, keys.
//
// Whatever is done to a Secret with fmt, slog, encoding/json or a text encoder yields [redacted]. Reveal is the one way
// to the value, and easy to find in a review.
package secret

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Redacted stands wherever a Secret would have been printed, an empty one included: even that nothing is there is not told.
const Redacted = "[redacted]"

// MinRandomBytes is the least Random takes: 128 bits, below which a bearer secret can be guessed (ASVS 11.5.1).
const MinRandomBytes = 16

// ErrFormat means that a Secret was asked to be read by a scanner, which has no bounds.
var ErrFormat = errors.New("secret: cannot be scanned")

// Secret is a value that does not print. The zero Secret is empty. It is not comparable with ==, which takes a time that
// depends on the value; use Equal.
type Secret struct {
	_ [0]func() // forbids ==

	// A pointer, since fmt calls no methods on what it reaches through unexported fields of other structs: there it prints
	// an address instead of the value.
	value *string
}

// New makes value a secret.
func New(value string) Secret { return Secret{value: &value} }

// Random returns nBytes fresh random bytes as unpadded base64url. It panics below MinRandomBytes.
func Random(nBytes int) Secret {
	if nBytes < MinRandomBytes {
		panic(fmt.Sprintf("secret: %d random bytes can be guessed, ask for at least %d", nBytes, MinRandomBytes))
	}
	raw := make([]byte, nBytes)
	_, _ = rand.Read(raw) // never fails: crypto/rand ends the process instead
	return New(base64.RawURLEncoding.EncodeToString(raw))
}

// Reveal returns the value. Call it only where the value leaves for the one place it is meant for.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// Equal compares in constant time, whatever the lengths.
func (s Secret) Equal(other Secret) bool {
	// Hashes first, since ConstantTimeCompare returns early when the lengths differ.
	a, b := sha256.Sum256([]byte(s.Reveal())), sha256.Sum256([]byte(other.Reveal()))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// String returns [redacted].
func (s Secret) String() string { return Redacted }

// GoString returns [redacted].
func (s Secret) GoString() string { return Redacted }

// Format writes [redacted] for every verb and flag, so that %x or %d cannot spell the value out.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// Scan refuses.
func (s *Secret) Scan(fmt.ScanState, rune) error { return ErrFormat }

// LogValue returns [redacted].
func (s Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalJSON returns "[redacted]".
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalText returns [redacted].
func (s Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// UnmarshalText takes the text as the value, so that settings can hold a Secret.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = New(string(text))
	return nil
}
