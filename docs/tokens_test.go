package docs

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"strings"
	"testing"
	"time"

	"countersign.dev/pkg/auth"
	"countersign.dev/services/token/rules"
)

// TestScannersFindSecrets: the expressions that the page gives to a security team find every token and key, whole, and nothing else.
func TestScannersFindSecrets(t *testing.T) {
	given := regexp.MustCompile(`(?m)^regex = '''(.+)'''$`).FindAllStringSubmatch(read(t, "docs/tokens.md"), -1)
	if len(given) != 2 {
		t.Fatalf("the page has %d expressions", len(given))
	}
	token, key := regexp.MustCompile(given[0][1]), regexp.MustCompile(given[1][1])
	for n := 1; n <= 32; n++ {
		for _, fill := range []byte{0x00, 0xff, 0xfb, byte(n)} {
			id := "lnk_" + base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{fill}, 16))
			text, err := rules.FormatToken(rules.Token{Tenant: strings.Repeat("a", n), LinkID: id, Secret: bytes.Repeat([]byte{fill}, rules.SecretSize)})
			if err != nil {
				t.Fatal(err)
			}
			for _, around := range []string{"https://sign.example/s/%s", "token=%s&x=1", "%s", "(%s)\n", `"%s"`} {
				if got := token.FindString(strings.Replace(around, "%s", text, 1)); got != text {
					t.Fatalf("of a token of a tenant of %d letters it finds %q", n, got)
				}
			}
			if key.MatchString(text) {
				t.Fatal("a token is taken for a key")
			}
		}
	}
	for range 50 {
		secret, _, err := auth.GenerateKey(make([]byte, 32), time.Unix(0, 0), auth.NewKey{Tenant: "acme", Name: "hr", Scopes: []string{auth.RequestsRead}, Life: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		if got := key.FindString("Authorization: Bearer " + secret.Reveal() + "\n"); got != secret.Reveal() {
			t.Fatalf("of a key it finds %q", got)
		}
		if token.MatchString(secret.Reveal()) {
			t.Fatal("a key is taken for a token")
		}
	}
	for _, other := range []string{"cs1_", "cs1_short", "cs10_" + strings.Repeat("a", 80), "csk_live_x", "csk_live_id_secret", "the prefixes cs1_ and csk_live_"} {
		if token.MatchString(other) || key.MatchString(other) {
			t.Errorf("%q is taken for a secret", other)
		}
	}
}
