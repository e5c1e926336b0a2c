package rules

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"regexp"
	"strings"

	"countersign.dev/pkg/failure"
)

// TokenPrefix lets scanners find leaked tokens (spec 2.1). The digit is the format's version.
const TokenPrefix = "cs1_"

// SecretSize is how many random bytes a token has: twice the 128 bits that spec 2.1 asks for.
const SecretSize = 32

const (
	linkPrefix = "lnk_"
	linkSize   = 16
	sumSize    = 4
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	tenantForm = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)
)

// Token is a token taken apart: where its link is, and the secret. It must not be printed.
type Token struct {
	Tenant string
	LinkID string
	Secret []byte
}

// FormatToken writes a token: prefix, then in base64url the tenant with its length, the link's 16 bytes, the secret, and a checksum
// by which a typing error is told from a guess. linkID must be one of ours.
func FormatToken(t Token) (string, error) {
	encoded, ours := strings.CutPrefix(t.LinkID, linkPrefix)
	id, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if !ours || err != nil || len(id) != linkSize || len(t.Secret) != SecretSize || !tenantForm.MatchString(t.Tenant) {
		return "", failure.LinkUnknown
	}
	body := make([]byte, 0, 1+len(t.Tenant)+linkSize+SecretSize+sumSize)
	body = append(body, byte(len(t.Tenant)))
	body = append(body, t.Tenant...)
	body = append(body, id...)
	body = append(body, t.Secret...)
	body = binary.BigEndian.AppendUint32(body, sum(body))
	return TokenPrefix + base64.RawURLEncoding.EncodeToString(body), nil
}

// ParseToken takes a token apart. Whatever is not exactly a token is LINK_UNKNOWN, the same as a token whose link is not there:
// a token has one form.
func ParseToken(s string) (Token, error) {
	encoded, ours := strings.CutPrefix(s, TokenPrefix)
	// The decoder passes over line breaks.
	if !ours || len(encoded) > 128 || strings.ContainsAny(encoded, "\r\n") {
		return Token{}, failure.LinkUnknown
	}
	body, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(body) == 0 {
		return Token{}, failure.LinkUnknown
	}
	n := int(body[0])
	if len(body) != 1+n+linkSize+SecretSize+sumSize {
		return Token{}, failure.LinkUnknown
	}
	checked, given := body[:len(body)-sumSize], binary.BigEndian.Uint32(body[len(body)-sumSize:])
	tenant := string(body[1 : 1+n])
	if sum(checked) != given || !tenantForm.MatchString(tenant) {
		return Token{}, failure.LinkUnknown
	}
	return Token{
		Tenant: tenant,
		LinkID: linkPrefix + base64.RawURLEncoding.EncodeToString(body[1+n:1+n+linkSize]),
		Secret: body[1+n+linkSize : 1+n+linkSize+SecretSize],
	}, nil
}

// sum covers the prefix too, so that a token of another version is no token of this one.
func sum(body []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(TokenPrefix), castagnoli), castagnoli, body)
}
