package channel_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"countersign.dev/services/delivery/channel"
)

func TestClean(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"plain":                  {"Offer letter", "Offer letter"},
		"accents":                {"Zoë Müller-Łukasz", "Zoë Müller-Łukasz"},
		"bidi override":          {"invoice\u202egnp.exe", "invoicegnp.exe"},
		"isolates":               {"a\u2066b\u2069c", "abc"},
		"zero width space":       {"pay\u200bpal", "paypal"},
		"byte order mark":        {"\ufeffTitle", "Title"},
		"tag characters":         {"Jane\U000E0041\U000E007F", "Jane"},
		"soft hyphen":            {"in\u00advoice", "invoice"},
		"joiner in Latin":        {"pay\u200dpal", "paypal"},
		"joiner in Persian":      {"می\u200cخواهم", "می\u200cخواهم"},
		"joiner in Sinhala":      {"ශ්\u200dරී", "ශ්\u200dරී"},
		"lines become one":       {"a\r\n\tb\u2028c", "a b c"},
		"NUL":                    {"a\x00b", "a b"},
		"ends and runs":          {"  a \u00a0  b ", "a b"},
		"only hidden characters": {"\u200b\u202e", ""},
	} {
		if got := channel.Clean(tt.in); got != tt.want {
			t.Errorf("%s: %+q, want %+q", name, got, tt.want)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, seed := range []string{"", "a\u202eb", "می\u200cخواهم", "a\r\nb", "\xff", "\u200d\u200d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out := channel.Clean(in)
		if utf8.ValidString(in) && channel.Problem(out, len(out)+1) != "" {
			t.Errorf("%+q cleaned to %+q, which is not fit for a header", in, out)
		}
		if again := channel.Clean(out); again != out {
			t.Errorf("%+q cleaned twice: %+q, then %+q", in, out, again)
		}
	})
}

func FuzzScrub(f *testing.F) {
	for _, seed := range []string{"550 <jane@a.test> unknown", "cs1_abcdef", "see https://x.test/cs1_a", "a@b", "\xff@x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out := channel.Scrub(in, "jane roe", "jane")
		if n := utf8.RuneCountInString(out); n > 200 || !utf8.ValidString(out) {
			t.Errorf("%d characters: %q", n, out)
		}
		if strings.Contains(strings.ToLower(out), "jane") {
			t.Errorf("%q scrubbed to %q", in, out)
		}
		if strings.ContainsFunc(out, unicode.IsControl) {
			t.Errorf("control character in %q", out)
		}
	})
}

func TestScrub(t *testing.T) {
	for in, want := range map[string]string{
		"5.1.1 <jane.roe@signer.test>: Recipient address rejected": "5.1.1 <[address]>: Recipient address rejected",
		"5.1.1 User jane.roe unknown":                              "5.1.1 User [private] unknown",
		"Bad JANE ROE":                                             "Bad [private]",
		"see https://help.test/?q=jane for more":                   "see [link] for more",
		"token cs1_AbCd-_9 seen":                                   "token [token] seen",
		"number +49 30 1234567 invalid":                            "number [number] invalid",
		"two\nlines\r\nhere":                                       "two lines here",
		"a " + strings.Repeat("k", 40):                             "a [opaque]",
		"4.7.1 Greylisted, try again in 300 seconds":               "4.7.1 Greylisted, try again in 300 seconds",
		"queued as 4ZqX1y0Kz":                                      "queued as 4ZqX1y0Kz",
		`"jane roe"@signer.test refused`:                           "[address] refused",
	} {
		if got := channel.Scrub(in, "Jane Roe", "jane.roe", "x"); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := channel.Scrub(strings.Repeat("ä ", 500)); utf8.RuneCountInString(got) != 200 {
		t.Errorf("%d characters", utf8.RuneCountInString(got))
	}
}

func TestReadingReplies(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"Greylisted for 5 minutes":        5 * time.Minute,
		"try again in 300 seconds":        5 * time.Minute,
		"please retry after 30s":          30 * time.Second,
		"wait 90 min":                     time.Hour,
		"mailbox has 300 seconds of data": 0,
		"try later":                       0,
	} {
		if got := channel.WaitIn(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	for _, tt := range []struct {
		code       int
		text, want string
	}{
		{550, "5.1.1 no", "5.1.1"}, {550, "no (5.7.1)", "5.7.1"}, {550, "2.0.0 odd", ""}, {550, "from 15.1.1.9", ""}, {451, "4.7.1\n4.7.1 later", "4.7.1"},
	} {
		if got := channel.EnhancedIn(tt.code, tt.text); got != tt.want {
			t.Errorf("%d %q: %q, want %q", tt.code, tt.text, got, tt.want)
		}
	}
	for enhanced, want := range map[string]channel.Scope{
		"5.1.1": channel.ScopeRecipient, "5.1.10": channel.ScopeRecipient, "5.1.8": channel.ScopeProvider, "5.2.2": channel.ScopeRecipient,
		"5.2.3": channel.ScopeMessage, "5.3.4": channel.ScopeMessage, "5.3.0": channel.ScopeProvider, "5.6.0": channel.ScopeMessage,
		"4.4.1": channel.ScopeProvider, "5.7.1": channel.ScopeProvider, "5.0.0": "", "5.1.0": "", "": "",
	} {
		if got := channel.ScopeOf(enhanced); got != want {
			t.Errorf("%s: %q, want %q", enhanced, got, want)
		}
	}
	for text, want := range map[string]string{
		"2.0.0 Ok: queued as 4ZqX1y0Kz": "4ZqX1y0Kz", "OK id=1tF3kL-000001-AB": "1tF3kL-000001-AB", "fine": "",
	} {
		if got := channel.QueueIDIn(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestPrivateByDefault(t *testing.T) {
	m := channel.Message{ID: "dlv_1", To: channel.Address{Name: "Jane", Email: "jane@signer.test"}, Text: "cs1_secret"}
	var log strings.Builder
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("sending", slog.Any("message", m), slog.Any("to", m.To))
	for _, shown := range []string{log.String(), fmt.Sprintf("%v %+v %#v %s %q", m, m, m, m.To, m.To), fmt.Sprint(&m.To, []channel.Address{m.To})} {
		if strings.Contains(shown, "jane") || strings.Contains(shown, "Jane") || strings.Contains(shown, "cs1_") {
			t.Errorf("in the open: %s", shown)
		}
	}
}

func TestValidate(t *testing.T) {
	valid := func() channel.Message {
		return channel.Message{ID: "dlv_1", To: channel.Address{Email: "jane@signer.test"}, From: channel.Address{Email: "sign@acme.test"}, Subject: "s", Text: "t"}
	}
	for name, tt := range map[string]struct {
		change func(*channel.Message)
		wrong  string // part of the diagnostic; empty = valid
	}{
		"valid":               {func(*channel.Message) {}, ""},
		"IDN domain":          {func(m *channel.Message) { m.To.Email = "jane@bücher.example" }, ""},
		"international local": {func(m *channel.Message) { m.To.Email = "zoë@signer.test" }, ""},
		"plus and dots":       {func(m *channel.Message) { m.To.Email = "a.b+c_d=e@signer.test" }, ""},
		"Persian title":       {func(m *channel.Message) { m.Subject = "می\u200cخواهم" }, ""},
		"no at":               {func(m *channel.Message) { m.To.Email = "jane" }, "to address"},
		"two ats":             {func(m *channel.Message) { m.To.Email = "jane@a@b.test" }, "to"},
		"space":               {func(m *channel.Message) { m.To.Email = "ja ne@signer.test" }, "to address"},
		"angle brackets":      {func(m *channel.Message) { m.To.Email = "<jane@signer.test>" }, "to"},
		"route":               {func(m *channel.Message) { m.To.Email = "jane@signer.test>\r\nRCPT TO:<eve@evil.test" }, "to"},
		"address literal":     {func(m *channel.Message) { m.To.Email = "jane@[127.0.0.1]" }, "to domain"},
		"two addresses":       {func(m *channel.Message) { m.To.Email = "jane@signer.test,eve@evil.test" }, "to"},
		"dots":                {func(m *channel.Message) { m.To.Email = "jane..roe@signer.test" }, "to address"},
		"phone":               {func(m *channel.Message) { m.To.Phone = "030 1234" }, "phone"},
		"return path":         {func(m *channel.Message) { m.ReturnPath = "a b@x.test" }, "return-path"},
		"own From field":      {func(m *channel.Message) { m.Headers = map[string]string{"From": "eve@evil.test"} }, "headers"},
		"own Content-Type":    {func(m *channel.Message) { m.Headers = map[string]string{"content-type": "text/html"} }, "headers"},
		"field name breaks":   {func(m *channel.Message) { m.Headers = map[string]string{"X: y\r\nBcc": "eve@evil.test"} }, "headers"},
		"field value breaks":  {func(m *channel.Message) { m.Headers = map[string]string{"X-Y": "a\r\nBcc: eve@evil.test"} }, "headers"},
		"no text":             {func(m *channel.Message) { m.Text = "" }, "text is missing"},
		"NUL in text":         {func(m *channel.Message) { m.Text = "a\x00" }, "control"},
		"text not UTF-8":      {func(m *channel.Message) { m.Text = "\xff" }, "UTF-8"},
		"huge text":           {func(m *channel.Message) { m.Text = strings.Repeat("x", channel.MaxBody+1) }, "text"},
		"file with a folder": {func(m *channel.Message) {
			m.Attached = []channel.Attachment{{Name: "../x.pdf", ContentType: "application/pdf"}}
		}, "folders"},
		"file with a bidi override": {func(m *channel.Message) {
			m.Attached = []channel.Attachment{{Name: "x\u202efdp.exe", ContentType: "application/pdf"}}
		}, "attachments"},
		"file of no type": {func(m *channel.Message) {
			m.Attached = []channel.Attachment{{Name: "x.pdf", ContentType: "pdf\r\nX: y"}}
		}, "content type"},
	} {
		m := valid()
		tt.change(&m)
		err := m.Validate()
		if (err == nil) != (tt.wrong == "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
			t.Errorf("%s: %v, want %q", name, err, tt.wrong)
		}
		if err != nil && (strings.Contains(err.Error(), "jane") || strings.Contains(err.Error(), "eve")) {
			t.Errorf("%s: repeats a value: %v", name, err)
		}
	}
}
