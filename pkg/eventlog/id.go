package eventlog

import (
	"encoding/base64"

	"countersign.dev/pkg/keys"
)

// DeriveID returns the id that always belongs to the same parts: prefix_ and 22 characters that tell nothing without the key.
// An aggregate that follows from something else has such an id, so that a repeated cause makes nothing new (decisions 4).
func DeriveID(ring *keys.Ring, prefix string, parts ...string) string {
	raw := make([][]byte, 0, len(parts)+1)
	raw = append(raw, []byte(prefix))
	for _, p := range parts {
		raw = append(raw, []byte(p))
	}
	return prefix + "_" + base64.RawURLEncoding.EncodeToString(ring.MAC("cs.id.v1", raw...)[:16])
}
