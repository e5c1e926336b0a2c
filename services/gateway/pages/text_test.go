package pages

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"plain":                   {"Jana Weiß", "Jana Weiß"},
		"white space folded":      {"  a \t b\r\n\nc ", "a b c"},
		"control":                 {"a\x00b\x1b[31mc\x7f", "ab[31mc"},
		"direction override":      {"fdp.\u202egpj\u202c", "fdp.gpj"},
		"isolates":                {"\u2066a\u2067b\u2068c\u2069", "abc"},
		"zero width, soft hyphen": {"pay\u200bpal\ufeff\u00ad", "paypal"},
		"tags":                    {"a\U000E0041\U000E007Fb", "ab"},
		"invisible letters":       {"a\u3164b\u115fc\u034fd", "abcd"},
		"line separators":         {"a\u2028b\u2029c", "a b c"},
		"joiner in Persian":       {"می\u200cخواهم", "می\u200cخواهم"},
		"joiner in Hindi":         {"क्\u200dष", "क्\u200dष"},
		"joiner in Latin":         {"pay\u200cpal\u200d", "paypal"},
		"joiner first":            {"\u200dabc", "abc"},
		"not UTF-8":               {"a\xffb", "ab"},
		"private use":             {"a\ue000b", "ab"},
		"cut":                     {strings.Repeat("ä", 300), strings.Repeat("ä", 200) + "…"},
		"only rubbish":            {"\u200b\u202e\x00 ", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Clean(tt.in, maxLine); got != tt.want {
				t.Errorf("Clean(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
	if got := CleanLines("a\r\n\r\n\r\n  b \u202e\nc\n\n", 10); got != "a\n\nb\nc" {
		t.Errorf("CleanLines = %q", got)
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s, 50)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > 52 {
			t.Errorf("%q: invalid or too long", got)
		}
		if again := Clean(got, 50); again != got && !strings.HasSuffix(got, "…") {
			t.Errorf("cleaning twice: %q, then %q", got, again)
		}
		for _, r := range got {
			if unicode.Is(unicode.Cf, r) && r != 0x200c && r != 0x200d || unicode.IsControl(r) {
				t.Errorf("%U is left", r)
			}
		}
	})
}

func TestMask(t *testing.T) {
	for in, want := range map[string]string{
		"jana.weiss@mail.example": "j•••@mail.example", "ö@x.example": "ö•••@x.example", "@x.example": "•••", "nobody": "•••", "a@": "•••", "": "•••",
		`"a@b"@c.example`: `"•••@c.example`,
	} {
		if got := MaskEmail(in); got != want {
			t.Errorf("MaskEmail(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"+49 170 5550167": "•••67", "12345": "•••", "": "•••", "not a number": "•••"} {
		if got := MaskPhone(in); got != want {
			t.Errorf("MaskPhone(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSupport(t *testing.T) {
	for name, tt := range map[string]struct {
		in   Support
		want help
	}{
		"all":            {Support{"a@b.example", "+49 (30) 555-0142", "https://b.example/help", "9 to 5"}, help{"a@b.example", "+49 (30) 555-0142", "+49305550142", "https://b.example/help", "9 to 5"}},
		"script as URL":  {Support{URL: "javascript:alert(1)"}, help{}},
		"plain http":     {Support{URL: "http://b.example"}, help{}},
		"mail with head": {Support{Email: "a@b.example?bcc=c@d.example"}, help{}},
		"no domain":      {Support{Email: "a@localhost"}, help{}},
		"no number":      {Support{Phone: "call us"}, help{}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tt.in.ready(); got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}
