package pages

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

// released are the sums of texts that were shown to people. A text that changes needs a new version and a new line here.
var released = map[string]string{
	"consent-electronic/2026-11/en": "aff5bbb3065f68479d909feea770e258283b2461971f40aeb86e2d89c3304a3b",
	"consent-electronic/2026-11/de": "2b8fcc9f73cdca12b2c6f10143f6029553706249bd07d5dc663ca03df3277b7b",
	"intent-to-sign/2026-11/en":     "8ea894deb9b05870d2a570fa1825eb0b1cab6b044e08e484c873566d683bb692",
	"intent-to-sign/2026-11/de":     "f16332b256f452e6fa176fd8fcf512b6e5611561b806f23e1223a5db8687f76a",
}

func TestReleasedTexts(t *testing.T) {
	for _, locale := range Locales() {
		for _, s := range []Statement{Disclosure(locale), Intent(locale)} {
			sum := sha256.Sum256([]byte(s.Text))
			if s.SHA256 != hex.EncodeToString(sum[:]) {
				t.Errorf("%s: the sum is not that of the text", s.Name())
			}
			if released[s.Name()] != s.SHA256 {
				t.Errorf("%s has changed: give it a new version\n%q: %q,", s.Name(), s.Name(), s.SHA256)
			}
		}
	}
	if Disclosure("de-CH") != Disclosure("de") || Disclosure("tlh") != Disclosure("en") {
		t.Error("the language is not matched as elsewhere")
	}
}

// TestShownIsHashed: the page shows the words whose sum it carries, all of them and in order (ESIGN 7001(c)).
func TestShownIsHashed(t *testing.T) {
	fold := func(s string) string { return strings.Join(strings.Fields(strings.ReplaceAll(s, "# ", "")), " ") }
	for _, locale := range Locales() {
		page, err := sampler{locale: locale}.documents()[0].Page.Render()
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]string{}
		for _, n := range nodes(t, page) {
			if id := attr(n, "id"); id != "" {
				found[id] = fold(text(n))
			}
			if attr(n, "type") == "hidden" {
				found["field "+attr(n, "name")] = attr(n, "value")
			}
		}
		consent, intent := Disclosure(locale), Intent(locale)
		for what, want := range map[string]string{
			"disclosure": fold(consent.Text), "intent": fold(intent.Text),
			"field disclosure": consent.Name(), "field consent": consent.SHA256, "field intent": intent.SHA256,
		} {
			if found[what] != want {
				t.Errorf("%s: %s is\n%q, want\n%q", locale, what, found[what], want)
			}
		}
	}
}
