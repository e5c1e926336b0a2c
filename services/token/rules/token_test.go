package rules_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"countersign.dev/pkg/failure"
	"countersign.dev/services/token/rules"
)

const linkID = "lnk_AAECAwQFBgcICQoLDA0ODw"

func format(t testing.TB, tenant, id string, secret []byte) string {
	t.Helper()
	s, err := rules.FormatToken(rules.Token{Tenant: tenant, LinkID: id, Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTokenRoundTrip(t *testing.T) {
	secret := bytes.Repeat([]byte{0xfb}, rules.SecretSize) // all of base64url's own characters
	for _, tenant := range []string{"a", "demo", "acme-7", strings.Repeat("z", 32)} {
		s := format(t, tenant, linkID, secret)
		if !strings.HasPrefix(s, rules.TokenPrefix) || strings.ContainsAny(s, "+/=?&# \n") {
			t.Errorf("%q does not stand in a URL as it is", s)
		}
		got, err := rules.ParseToken(s)
		if err != nil || got.Tenant != tenant || got.LinkID != linkID || !bytes.Equal(got.Secret, secret) {
			t.Errorf("%s came back as %v, %v", tenant, got, err)
		}
	}
}

func TestFormatTokenRefuses(t *testing.T) {
	secret := make([]byte, rules.SecretSize)
	for name, token := range map[string]rules.Token{
		"nothing":               {},
		"no tenant":             {LinkID: linkID, Secret: secret},
		"a tenant of ours not":  {Tenant: "Acme", LinkID: linkID, Secret: secret},
		"too long a tenant":     {Tenant: strings.Repeat("z", 33), LinkID: linkID, Secret: secret},
		"another kind of id":    {Tenant: "acme", LinkID: "req_AAECAwQFBgcICQoLDA0ODw", Secret: secret},
		"an id without prefix":  {Tenant: "acme", LinkID: strings.TrimPrefix(linkID, "lnk_"), Secret: secret},
		"a short id":            {Tenant: "acme", LinkID: "lnk_AAEC", Secret: secret},
		"an id that is not one": {Tenant: "acme", LinkID: linkID[:len(linkID)-1] + "x", Secret: secret}, // its last bits say nothing
		"a short secret":        {Tenant: "acme", LinkID: linkID, Secret: secret[1:]},
		"a long secret":         {Tenant: "acme", LinkID: linkID, Secret: append(secret[:len(secret):len(secret)], 0)},
	} {
		if s, err := rules.FormatToken(token); err == nil {
			t.Errorf("%s became %s", name, s)
		}
	}
}

// TestEveryTypoIsNoToken: one character changed, dropped, doubled or swapped with the next is told from a token (spec 2.1).
func TestEveryTypoIsNoToken(t *testing.T) {
	s := format(t, "acme", linkID, []byte("0123456789abcdef0123456789abcdef"))
	refused := func(typo string) {
		t.Helper()
		if _, err := rules.ParseToken(typo); !errors.Is(err, failure.LinkUnknown) {
			t.Errorf("%q: error %v", typo, err)
		}
	}
	for i := range s {
		for _, c := range []string{"A", "a", "0", "_", "-", "=", "\n", "\r", " ", "\u00e9"} {
			if c != s[i:i+1] {
				refused(s[:i] + c + s[i+1:])
			}
			refused(s[:i] + c + s[i:])
		}
		refused(s[:i] + s[i+1:])
		refused(s[:i])
		if i+1 < len(s) && s[i] != s[i+1] {
			refused(s[:i] + s[i+1:i+2] + s[i:i+1] + s[i+2:])
		}
	}
	refused(s + "A")
	refused(s + "\n")
	refused(strings.ToUpper(s))
	refused("cs2_" + strings.TrimPrefix(s, rules.TokenPrefix))
	refused(strings.Repeat(s, 1000))
}

// FuzzParseToken: whatever parses is exactly what is formatted from it, so a token has one form; everything else is LINK_UNKNOWN.
func FuzzParseToken(f *testing.F) {
	good := format(f, "acme", linkID, []byte("0123456789abcdef0123456789abcdef"))
	for _, s := range []string{"", "cs1_", good, good + "\n", good[:20] + "\r\n" + good[20:], good + "=", "cs1_====", "cs1_\xff", format(f, "a", linkID, make([]byte, 32))} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		token, err := rules.ParseToken(s)
		if err != nil {
			if !errors.Is(err, failure.LinkUnknown) || token.LinkID != "" || token.Secret != nil {
				t.Fatalf("%q: %v, %v", s, token, err)
			}
			return
		}
		again, err := rules.FormatToken(token)
		if err != nil || again != s {
			t.Fatalf("%q came back as %q, %v", s, again, err)
		}
	})
}
