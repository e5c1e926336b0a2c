package token

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
	// XChaCha20-Poly1305 bears random nonces however many cursors are given out.
	"golang.org/x/crypto/chacha20poly1305"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/keys"
)

// cursors seals places in a list or in the record: a cursor tells its holder nothing, cannot be made up, and is good only for whom and
// what it was made for.
type cursors struct{ aead cipher.AEAD }

func newCursors(ring *keys.Ring) (cursors, error) {
	aead, err := chacha20poly1305.NewX(ring.Derive("cs.cursor.v1", chacha20poly1305.KeySize))
	if err != nil {
		return cursors{}, fmt.Errorf("token: cursors: %w", err)
	}
	return cursors{aead}, nil
}

// seal writes a place; bound is what has to be the same when it is read.
func (c cursors) seal(place []byte, bound ...string) string {
	nonce := make([]byte, chacha20poly1305.NonceSizeX, chacha20poly1305.NonceSizeX+len(place)+chacha20poly1305.Overhead)
	_, _ = rand.Read(nonce) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(c.aead.Seal(nonce, nonce, place, binding(bound)))
}

// open reads a place; ok is false for what was not sealed with the same bound.
func (c cursors) open(text string, bound ...string) (place []byte, ok bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) < chacha20poly1305.NonceSizeX {
		return nil, false
	}
	place, err = c.aead.Open(nil, raw[:chacha20poly1305.NonceSizeX], raw[chacha20poly1305.NonceSizeX:], binding(bound))
	return place, err == nil
}

// sealAfter writes the place behind a sequence of a stream.
func (c cursors) sealAfter(stream jetstream.Stream, sequence uint64, bound ...string) string {
	return c.seal(binary.BigEndian.AppendUint64([]byte(birth(stream)+"\x00"), sequence), bound...)
}

// openAfter reads the sequence of a place in a stream. It refuses what is no cursor of whom and what bound says, and one of another
// record than this.
func (c cursors) openAfter(stream jetstream.Stream, cursor string, bound ...string) (uint64, error) {
	raw, ok := c.open(cursor, bound...)
	if !ok || len(raw) < 9 {
		return 0, failure.RequestInvalid.WithFields(failure.Field{Path: "after", Problem: "is no cursor that this tenant was given"})
	}
	end := len(raw) - 8
	if string(raw[:end]) != birth(stream)+"\x00" {
		return 0, failure.CursorGone
	}
	return binary.BigEndian.Uint64(raw[end:]), nil
}

// birth names a stream: one made anew has another.
func birth(stream jetstream.Stream) string {
	return stream.CachedInfo().Config.Metadata[eventlog.BirthKey]
}

// binding joins strings so that no two lists of them are the same.
func binding(parts []string) []byte {
	var joined []byte
	for _, p := range parts {
		joined = append(binary.BigEndian.AppendUint32(joined, uint32(len(p))), p...)
	}
	return joined
}
