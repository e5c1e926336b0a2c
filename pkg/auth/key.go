package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"countersign.dev/pkg/secret"
)

// A key reads csk_live_<id>_<secret><checksum>: id is 10 characters, secret 52 (256 bits), checksum 7 (CRC-32 of all
// before it), in lower-case base32. The prefix lets scanners find a leaked key, the checksum tells a typo from a guess
// before anything is looked up.
const (
	keyPrefix    = "csk_live_"
	keyIDBytes   = 6
	keyBytes     = 32
	keyIDLen     = 10
	keySecretLen = 52
	keySumLen    = 7
)

// MaxKeyLife is the longest a key may live: a year (security.md 4.4).
const MaxKeyLife = 366 * 24 * time.Hour

var (
	base32Lower   = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	tenantPattern = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)
	keyIDPattern  = regexp.MustCompile(`^[a-z2-7]{10}$`)
)

// Key is what we keep of an API key: enough to know it again, nothing to make it from.
type Key struct {
	ID       string    `json:"id"                  yaml:"id"`
	Tenant   string    `json:"tenant"              yaml:"tenant"`
	Name     string    `json:"name"                yaml:"name"` // what it is for, in the owner's words
	Scopes   []string  `json:"scopes"              yaml:"scopes"`
	Created  time.Time `json:"created"             yaml:"created"`
	Expires  time.Time `json:"expires"             yaml:"expires"`             // from this instant on it opens nothing
	AllowIPs []string  `json:"allow_ips,omitempty" yaml:"allow_ips,omitempty"` // networks it may be used from; empty = any
	HMAC     string    `json:"hmac"                yaml:"hmac"`                // HMAC-SHA256 of the whole key under the pepper, in hex
}

// NewKey is what to make a key for.
type NewKey struct {
	Tenant   string
	Name     string
	Scopes   []string
	Life     time.Duration // up to MaxKeyLife
	AllowIPs []string
}

// GenerateKey makes a key valid from now on. The Secret is shown to its owner once; the Key goes into the file. pepper is
// the process's own key for this purpose, at least 32 bytes.
func GenerateKey(pepper []byte, now time.Time, n NewKey) (secret.Secret, Key, error) {
	raw := make([]byte, keyIDBytes+keyBytes)
	_, _ = rand.Read(raw) // never fails: crypto/rand ends the process instead
	id := base32Lower.EncodeToString(raw[:keyIDBytes])
	body := keyPrefix + id + "_" + base32Lower.EncodeToString(raw[keyIDBytes:])
	plain := body + checksum(body)
	now = now.UTC().Truncate(time.Second)
	k := Key{ID: id, Tenant: n.Tenant, Name: n.Name, Scopes: n.Scopes, Created: now, Expires: now.Add(n.Life), AllowIPs: n.AllowIPs}
	k.HMAC = hex.EncodeToString(keyMAC(pepper, plain))
	if problems := k.problems(); len(problems) > 0 {
		return secret.Secret{}, Key{}, fmt.Errorf("auth: no key made: %s", strings.Join(problems, "; "))
	}
	if len(pepper) < sha256.Size {
		return secret.Secret{}, Key{}, errPepper
	}
	return secret.New(plain), k, nil
}

var errPepper = errors.New("auth: the pepper of API keys is shorter than 32 bytes")

// parseKey returns the id of a well-formed key; a typo in it is found here.
func parseKey(plain string) (id string, ok bool) {
	rest, ok := strings.CutPrefix(plain, keyPrefix)
	if !ok || len(rest) != keyIDLen+1+keySecretLen+keySumLen || rest[keyIDLen] != '_' {
		return "", false
	}
	body := plain[:len(plain)-keySumLen]
	return rest[:keyIDLen], checksum(body) == plain[len(body):]
}

func checksum(body string) string {
	return base32Lower.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(body))))
}

func keyMAC(pepper []byte, plain string) []byte {
	m := hmac.New(sha256.New, pepper)
	m.Write([]byte("countersign api key\x00"))
	m.Write([]byte(plain))
	return m.Sum(nil)
}

// problems names everything that is wrong with a key's entry.
func (k Key) problems() []string {
	var p []string
	bad := func(format string, args ...any) { p = append(p, fmt.Sprintf(format, args...)) }
	if !keyIDPattern.MatchString(k.ID) {
		bad("id: 10 characters a-z and 2-7 are accepted")
	}
	if !tenantPattern.MatchString(k.Tenant) {
		bad("tenant: 1 to 32 characters a-z, 0-9 and - are accepted")
	}
	if len(k.Name) > 200 {
		bad("name: at most 200 bytes are accepted")
	}
	if len(k.Scopes) == 0 {
		bad("scopes: give at least one of %s", strings.Join(Scopes(), ", "))
	}
	for i, s := range k.Scopes {
		if !slices.Contains(Scopes(), s) {
			bad("scopes[%d]: accepted are %s", i, strings.Join(Scopes(), ", "))
		}
	}
	if k.Created.IsZero() || !k.Expires.After(k.Created) || k.Expires.Sub(k.Created) > MaxKeyLife {
		bad("expires: must be after created, by a year at most")
	}
	for i, n := range k.AllowIPs {
		if _, err := netip.ParsePrefix(n); err != nil {
			bad("allow_ips[%d]: a network such as 192.0.2.0/24 is accepted", i)
		}
	}
	if mac, err := hex.DecodeString(k.HMAC); err != nil || len(mac) != sha256.Size {
		bad("hmac: 64 hexadecimal digits are accepted")
	}
	return p
}
