package telemetry

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestScrub(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ in, want string }{
		"plain text stays":               {"link lnk_42 opened", "link lnk_42 opened"},
		"umlauts and emoji stay":         {"Grüße 🙂 كتاب", "Grüße 🙂 كتاب"},
		"link token":                     {"GET /s/cs1_AbCdEfGh0123456789-_x now", "GET /s/[redacted] now"},
		"short look-alike is no token":   {"cs1_short", "cs1_short"},
		"API key":                        {"Bearer csk_live_k3f9x_abcdefghij", "Bearer [redacted]"},
		"webhook secret":                 {"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "[redacted]"},
		"mail address":                   {"to <ada.l+x@mail.acme.test>: 550", "to <[redacted]>: 550"},
		"mail address in a URL":          {"/lost?who=ada%40acme.test&x=1", "/lost?[redacted]&x=1"},
		"mail address in unicode":        {"jürgen@bücher.example", "[redacted]"},
		"credentials in a URL":           {"nats://u:pw@nats.internal.test:4222", "nats://u:[redacted]:4222"},
		"module version is no address":   {"go.opentelemetry.io/otel@v1.47.0", "go.opentelemetry.io/otel@v1.47.0"},
		"phone number":                   {"sms to +4915112345678.", "sms to [redacted]."},
		"time zone is no phone number":   {"12:00+0200", "12:00+0200"},
		"escape sequence":                {"a\x1b[31mred\x00", "a[31mred"},
		"line break is a space":          {"one\ntwo\r\n{\"level\"", "one two  {\"level\""},
		"bidirectional override":         {"invoice\u202efdp.exe", "invoicefdp.exe"},
		"zero width hides no address":    {"ada\u200b@acme.te\u200dst", "[redacted]"},
		"tag characters":                 {"x\U000e0041y", "xy"},
		"invalid UTF-8":                  {"a\xff\xfeb", "a\uFFFDb"},
		"C1 control":                     {"a\u0085b\u009fc", "abc"},
		"line separator":                 {"a\u2028b", "a b"},
		"six digits alone are no secret": {"sequence 123456", "sequence 123456"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := Scrub(tt.in); got != tt.want {
				t.Errorf("Scrub(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func TestScrubCutsWhatIsTooLong(t *testing.T) {
	t.Parallel()
	got := Scrub(strings.Repeat("é", maxText))
	if len(got) > maxText+len(" [cut]") || !strings.HasSuffix(got, " [cut]") || !utf8.ValidString(got) {
		t.Errorf("%d bytes, ends in %q", len(got), got[len(got)-10:])
	}
}

func TestScrubUnderAKey(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ key, in, want string }{
		"six digits under code":     {"code", "123456", "[redacted]"},
		"eight digits inside":       {"challenge.otp", "got 12345678 want more", "got [redacted] want more"},
		"a failure's code stays":    {"code", "LINK_EXPIRED", "LINK_EXPIRED"},
		"a status stays":            {"code", "404", "404"},
		"anything under secret":     {"http.Authorization", "Basic abc", "[redacted]"},
		"an empty secret is empty":  {"token", "", ""},
		"a longer name is no match": {"encoder", "123456", "123456"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := scrubUnder(tt.key, tt.in); got != tt.want {
				t.Errorf("scrubUnder(%q, %q) = %q, want %q", tt.key, tt.in, got, tt.want)
			}
		})
	}
}

func FuzzScrub(f *testing.F) {
	for _, s := range []string{"", "cs1_AbCdEfGh0123456789", "a@b.cd", "\u202e\x1b\xff", "cs1_\u200bAbCdEfGh0123456789", "+4915112345678", "a%40b.cd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got := Scrub(in)
		if !utf8.ValidString(got) {
			t.Fatalf("not UTF-8: %q", got)
		}
		for _, r := range got {
			if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
				t.Fatalf("%q keeps %U", got, r)
			}
		}
		if tokens.MatchString(got) || emails.MatchString(got) || phones.MatchString(got) {
			t.Fatalf("%q still holds a secret", got)
		}
		if again := Scrub(got); again != got && len(in) <= maxText {
			t.Fatalf("not stable: %q, then %q", got, again)
		}
	})
}
