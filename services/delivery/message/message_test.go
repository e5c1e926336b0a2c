package message_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/html"

	"countersign.dev/pkg/failure"
	"countersign.dev/services/delivery/channel"
	"countersign.dev/services/delivery/message"
)

// each renders every kind in every language.
func each(t *testing.T, change func(message.Kind, *message.Data), check func(t *testing.T, kind message.Kind, d message.Data, r message.Rendered)) {
	t.Helper()
	for _, locale := range message.Locales() {
		for _, kind := range message.Kinds() {
			t.Run(locale+"/"+string(kind), func(t *testing.T) {
				d := message.Sample(kind, locale)
				if change != nil {
					change(kind, &d)
				}
				r, err := message.Render(kind, locale, d)
				if err != nil {
					t.Fatal(err)
				}
				if r.Locale != locale {
					t.Errorf("in %s, want %s", r.Locale, locale)
				}
				check(t, kind, d, r)
			})
		}
	}
}

// TestWords: every key stands in every language, says something, and uses the same values.
func TestWords(t *testing.T) {
	found := map[string]map[string]string{}
	for _, locale := range message.Locales() {
		raw, err := os.ReadFile(filepath.Join("locales", locale+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var tree map[string]any
		if err := yaml.Unmarshal(raw, &tree); err != nil {
			t.Fatal(err)
		}
		flat := map[string]string{}
		flatten(flat, "", tree)
		found[locale] = flat
	}
	if files, err := filepath.Glob("locales/*.yaml"); err != nil || len(files) != len(message.Locales()) {
		t.Errorf("files %v, languages %v", files, message.Locales())
	}
	value := regexp.MustCompile(`\{\{\.\w+\}\}`)
	for _, a := range message.Locales() {
		for key, text := range found[a] {
			for _, b := range message.Locales() {
				other, exists := found[b][key]
				if !exists {
					t.Errorf("%s stands in %s and not in %s", key, a, b)
					continue
				}
				if !strings.HasSuffix(key, ".button") && strings.TrimSpace(text) == "" {
					t.Errorf("%s says nothing in %s", key, a)
				}
				one, two := value.FindAllString(text, -1), value.FindAllString(other, -1)
				sort.Strings(one)
				sort.Strings(two)
				if fmt.Sprint(unique(one)) != fmt.Sprint(unique(two)) {
					t.Errorf("%s uses %v in %s and %v in %s", key, one, a, two, b)
				}
			}
		}
	}
	for _, kind := range message.Kinds() {
		for _, part := range []string{"subject", "preheader", "title", "intro", "button", "note"} {
			if _, ok := found["en"][string(kind)+"."+part]; !ok {
				t.Errorf("no words for %s.%s", kind, part)
			}
		}
	}
}

func flatten(into map[string]string, prefix string, tree map[string]any) {
	for key, v := range tree {
		if inner, ok := v.(map[string]any); ok {
			flatten(into, prefix+key+".", inner)
			continue
		}
		into[prefix+key] = fmt.Sprint(v)
	}
}

func unique(sorted []string) []string {
	var all []string
	for i, s := range sorted {
		if i == 0 || s != sorted[i-1] {
			all = append(all, s)
		}
	}
	return all
}

func TestEveryMessage(t *testing.T) {
	each(t, nil, func(t *testing.T, kind message.Kind, d message.Data, r message.Rendered) {
		if problem := channel.Problem(r.Subject, channel.MaxSubject); r.Subject == "" || problem != "" {
			t.Errorf("subject %q %s", r.Subject, problem)
		}
		text := visible(t, r.HTML)
		for name, body := range map[string]string{"text": oneLine(r.Text), "HTML": text} {
			secret := kind == message.Code
			wantLink := d.Link != "" && !secret && kind != message.AddressChanged
			if strings.Contains(body, d.Link) != wantLink && d.Link != "" {
				t.Errorf("%s: link %t, want %t", name, !wantLink, wantLink)
			}
			if strings.Contains(body, d.Code) != secret {
				t.Errorf("%s: code %t, want %t", name, !secret, secret)
			}
			for _, s := range []string{d.Document, d.Sender, d.Brand.Name, d.Brand.Support, d.Reader} {
				if !strings.Contains(body, s) {
					t.Errorf("%s lacks %q:\n%s", name, s, body)
				}
			}
			if kind == message.Alternate && (!strings.Contains(body, d.Person) || !strings.Contains(body, d.Reason)) {
				t.Errorf("%s does not say for whom and why:\n%s", name, body)
			}
			for _, bad := range []string{"<no value>", "ZgotmplZ", "%!", "{{"} {
				if strings.Contains(body, bad) {
					t.Errorf("%s holds %q:\n%s", name, bad, body)
				}
			}
		}
		if strings.Contains(r.Subject, d.Code) {
			t.Error("the subject shows the code: it would stand on lock screens and in logs")
		}
		for line := range strings.SplitSeq(r.Text, "\n") {
			if utf8.RuneCountInString(line) > 72 && strings.TrimSpace(line) != d.Link {
				t.Errorf("line of %d characters: %s", utf8.RuneCountInString(line), line)
			}
		}
		m := channel.Message{ID: "dlv_1", To: channel.Address{Email: "jane@signer.test"}, From: channel.Address{Email: "sign@acme.test"}, Subject: r.Subject, Text: r.Text, HTML: r.HTML}
		if err := m.Validate(); err != nil {
			t.Errorf("not fit to be sent: %v", err)
		}
		if len(r.HTML) > 40_000 {
			t.Errorf("%d bytes of HTML", len(r.HTML))
		}
	})
}

// TestNothingFromOutside: no picture, script, form, style sheet or tracker; every link is the one link or support's.
func TestNothingFromOutside(t *testing.T) {
	each(t, nil, func(t *testing.T, _ message.Kind, d message.Data, r message.Rendered) {
		buttons := 0
		walk(t, r.HTML, func(n *html.Node) {
			switch n.Data {
			case "img", "script", "iframe", "form", "link", "object", "embed", "svg", "video", "input", "base":
				t.Errorf("element %s", n.Data)
			}
			for _, a := range n.Attr {
				lower := strings.ToLower(a.Val)
				if a.Key == "src" || a.Key == "background" || strings.HasPrefix(a.Key, "on") || strings.Contains(lower, "url(") || strings.Contains(lower, "javascript:") {
					t.Errorf("attribute %s=%q", a.Key, a.Val)
				}
				if a.Key == "href" && a.Val != d.Link && a.Val != "mailto:"+d.Brand.Support {
					t.Errorf("link to %s", a.Val)
				}
			}
			if n.Data == "table" && attr(n, "class") == "button" {
				buttons++
			}
			if n.Data == "table" && attr(n, "role") != "presentation" {
				t.Error("a layout table that screen readers would read as data")
			}
		})
		if strings.Contains(r.HTML, "@import") || strings.Contains(r.HTML, "@font-face") {
			t.Error("loads style from outside")
		}
		if want := strings.Count(r.HTML, `class="link"`); buttons != want {
			t.Errorf("%d buttons, want %d", buttons, want)
		}
	})
}

func TestHostileValues(t *testing.T) {
	hostile := `<img src=x onerror=alert(1)>"'{{.Code}} & ]]>`
	each(t, func(_ message.Kind, d *message.Data) {
		d.Reader, d.Sender, d.Person, d.Document, d.Reason, d.Brand.Name, d.Brand.Support = hostile, hostile, hostile, hostile, hostile, hostile, hostile
		d.Steps = []string{hostile}
	}, func(t *testing.T, kind message.Kind, d message.Data, r message.Rendered) {
		walk(t, r.HTML, func(n *html.Node) {
			if n.Data == "img" {
				t.Error("a value became an element")
			}
		})
		if !strings.Contains(r.Text, "{{.Code}}") || kind != message.Code && strings.Contains(r.Text+r.HTML, d.Code) {
			t.Error("a value was run as a template")
		}
	})
}

func TestHiddenCharactersAreDropped(t *testing.T) {
	each(t, func(_ message.Kind, d *message.Data) {
		spoiled := "A\u202eB\u2066C\u200bD\ufeffE\U000E0041F"
		d.Reader, d.Sender, d.Person, d.Document, d.Brand.Name, d.Reason = spoiled, spoiled, spoiled, spoiled, spoiled, spoiled
	}, func(t *testing.T, _ message.Kind, _ message.Data, r message.Rendered) {
		for _, part := range []string{r.Subject, r.Text, r.HTML} {
			if strings.ContainsFunc(part, func(r rune) bool { return unicode.Is(unicode.Cf, r) }) {
				t.Errorf("hidden character in %+q", part)
			}
		}
		if !strings.Contains(r.Text, "ABCDEF") {
			t.Error("the name is gone")
		}
	})
}

// TestRightToLeft: a Hebrew name is isolated in bodies, and nothing hidden stands in the subject.
func TestRightToLeft(t *testing.T) {
	d := message.Sample(message.Alternate, "en")
	d.Person = "דנה לוי"
	r, err := message.Render(message.Alternate, "en", d)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.Text, "\u2068"+d.Person+"\u2069") || !strings.Contains(r.HTML, "\u2068"+d.Person+"\u2069") {
		t.Error("the name is not isolated")
	}
	if problem := channel.Problem(r.Subject, 300); problem != "" || !strings.Contains(r.Subject, d.Person) {
		t.Errorf("subject %+q %s", r.Subject, problem)
	}
}

func TestRefused(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	for name, tt := range map[string]struct {
		kind   message.Kind
		change func(*message.Data)
		fields string
	}{
		"newline in reader":    {message.Link, func(d *message.Data) { d.Reader = "Jane\r\nBcc: eve@evil.test" }, "reader"},
		"NUL in document":      {message.Link, func(d *message.Data) { d.Document = "a\x00b" }, "document"},
		"line separator":       {message.Link, func(d *message.Data) { d.Sender = "a\u2028b" }, "sender"},
		"endless name":         {message.Link, func(d *message.Data) { d.Reader = long }, "reader"},
		"endless title":        {message.Link, func(d *message.Data) { d.Document = long }, "document"},
		"not UTF-8":            {message.Link, func(d *message.Data) { d.Sender = "\xff" }, "sender"},
		"only hidden":          {message.Link, func(d *message.Data) { d.Document = "\u200b\u202e" }, "document"},
		"no link":              {message.Link, func(d *message.Data) { d.Link = "" }, "link"},
		"script link":          {message.Link, func(d *message.Data) { d.Link = "javascript:alert(1)" }, "link"},
		"data link":            {message.Completed, func(d *message.Data) { d.Link = "data:text/html,x" }, "link"},
		"plain http":           {message.Link, func(d *message.Data) { d.Link = "http://sign.acme.test/s/x" }, "link"},
		"user in link":         {message.Link, func(d *message.Data) { d.Link = "https://sign.acme.test@evil.test/" }, "link"},
		"space in link":        {message.Link, func(d *message.Data) { d.Link = "https://sign.acme.test/a b" }, "link"},
		"relative link":        {message.Link, func(d *message.Data) { d.Link = "//evil.test/" }, "link"},
		"quote in link":        {message.Link, func(d *message.Data) { d.Link = `https://a.test/"onclick="x` }, "link"},
		"no expiry":            {message.Link, func(d *message.Data) { d.Expires = time.Time{} }, "expires"},
		"unknown zone":         {message.Link, func(d *message.Data) { d.Zone = "Mars/Olympus" }, "zone"},
		"zone as a path":       {message.Link, func(d *message.Data) { d.Zone = "../../etc/passwd" }, "zone"},
		"no code":              {message.Code, func(d *message.Data) { d.Code = "" }, "code"},
		"code with letters":    {message.Code, func(d *message.Data) { d.Code = "<b>12" }, "code"},
		"colour with style":    {message.Link, func(d *message.Data) { d.Brand.Colour = "red;background:url(x)" }, "brand.colour"},
		"alternate for nobody": {message.Alternate, func(d *message.Data) { d.Person = "" }, "person"},
		"alternate, no reason": {message.Alternate, func(d *message.Data) { d.Reason = "" }, "reason"},
		"more than all":        {message.Partial, func(d *message.Data) { d.Done = 6 }, "done"},
		"too many steps":       {message.Partial, func(d *message.Data) { d.Steps = make([]string, 11) }, "steps"},
		"no such kind":         {"invoice", func(*message.Data) {}, "kind"},
		"several":              {message.Link, func(d *message.Data) { d.Brand.Name, d.Sender = "", "" }, "brand.name sender"},
	} {
		d := message.Sample(message.Partial, "en")
		d.Reason = "because"
		tt.change(&d)
		_, err := message.Render(tt.kind, "en", d)
		refusal := failure.From(err)
		if !errors.Is(err, failure.RequestInvalid) || refusal == nil {
			t.Errorf("%s: %v, want REQUEST_INVALID", name, err)
			continue
		}
		var fields []string
		for _, f := range refusal.Fields {
			fields = append(fields, f.Path)
		}
		if got := strings.Join(fields, " "); !strings.HasPrefix(got, tt.fields) {
			t.Errorf("%s: fields %q, want %q", name, got, tt.fields)
		}
		if strings.Contains(err.Error(), "eve") || strings.Contains(err.Error(), "evil") {
			t.Errorf("%s: repeats a value: %v", name, err)
		}
	}
}

func TestTimes(t *testing.T) {
	for _, tt := range []struct{ locale, zone, at, want string }{
		{"en", "Europe/Berlin", "2026-03-03T11:00:00Z", "Tuesday, 3 March 2026, 12:00 CET"},
		{"en-US", "Europe/Berlin", "2026-07-01T10:05:00Z", "Wednesday, 1 July 2026, 12:05 CEST"},
		{"de-AT", "Europe/Vienna", "2026-03-03T11:00:00Z", "Dienstag, 3. März 2026, 12:00 Uhr MEZ"},
		{"de", "Europe/Vienna", "2026-07-01T10:05:00Z", "Mittwoch, 1. Juli 2026, 12:05 Uhr MESZ"},
		{"en", "", "2026-12-31T23:59:00Z", "Thursday, 31 December 2026, 23:59 UTC"},
		{"en", "America/New_York", "2026-03-03T04:00:00Z", "Monday, 2 March 2026, 23:00 EST"},
		{"en", "Asia/Kathmandu", "2026-03-03T11:00:00Z", "Tuesday, 3 March 2026, 16:45 UTC+5:45"},
		{"en", "America/Sao_Paulo", "2026-03-03T11:00:00Z", "Tuesday, 3 March 2026, 08:00 UTC-3"},
		{"fr", "Europe/Paris", "2026-03-29T01:00:00Z", "Sunday, 29 March 2026, 03:00 CEST"}, // the hour that summer time skips
		{"", "UTC", "2026-03-03T11:00:00Z", "Tuesday, 3 March 2026, 11:00 UTC"},
	} {
		d := message.Sample(message.Link, tt.locale)
		at, err := time.Parse(time.RFC3339, tt.at)
		if err != nil {
			t.Fatal(err)
		}
		d.Expires, d.Zone = at, tt.zone
		r, err := message.Render(message.Link, tt.locale, d)
		if err != nil || !strings.Contains(oneLine(r.Text), tt.want) {
			t.Errorf("%+v: %v\n%s", tt, err, r.Text)
		}
	}
}

// TestContrast: whatever the brand's colour, text on it and in it can be read (WCAG 1.4.3, 1.4.11).
func TestContrast(t *testing.T) {
	style := regexp.MustCompile(`<a href="[^"]*" style="[^"]*color:(#[0-9a-f]{6})`)
	button := regexp.MustCompile(`class="button"[^>]*bgcolor="(#[0-9a-f]{6})"`)
	brand := regexp.MustCompile(`class="brand"[^>]*color:(#[0-9a-f]{6})`)
	dark := regexp.MustCompile(`\.button \{ background-color: (#[0-9a-f]{6}) !important; \}\s*\.button a \{ color: (#[0-9a-f]{6})`)
	for _, colour := range []string{"#ffffff", "#000000", "#ffff00", "#777777", "#808080", "#2F5BEA", "#ff0000", "#00ff00", "#1b2130", "#fafad2", "#0b6e5f"} {
		d := message.Sample(message.Link, "en")
		d.Brand.Colour = colour
		r, err := message.Render(message.Link, "en", d)
		if err != nil {
			t.Fatal(err)
		}
		get := func(re *regexp.Regexp, n int) string {
			m := re.FindStringSubmatch(r.HTML)
			if m == nil {
				t.Fatalf("%s: no match for %s", colour, re)
			}
			return m[n]
		}
		for what, pair := range map[string]struct {
			a, b string
			min  float64
		}{
			"label on button":       {get(style, 1), get(button, 1), 4.5},
			"button on card":        {get(button, 1), "#ffffff", 3},
			"wordmark on page":      {get(brand, 1), "#ffffff", 4.5},
			"dark: label on button": {get(dark, 2), get(dark, 1), 4.5},
			"dark: button on card":  {get(dark, 1), "#1b2130", 3},
		} {
			if got := message.Contrast(pair.a, pair.b); got < pair.min {
				t.Errorf("%s, %s: %.2f, want %.1f", colour, what, got, pair.min)
			}
		}
	}
}

func TestOptionalParts(t *testing.T) {
	d := message.Sample(message.Completed, "en")
	d.Link, d.Reader, d.Brand.Support, d.Reason = "", "", "", ""
	r, err := message.Render(message.Completed, "en", d)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.Text, "Hello,\n") || strings.Contains(r.HTML, `class="button"`) || strings.Contains(r.Text, "Questions") || strings.Contains(r.Text, "\n\n\n") {
		t.Errorf("%s", r.Text)
	}
	for _, support := range []string{"+49 30 123456", "https://help.acme.test/", "Room 4.12", "javascript:alert(1)", "mailto:x"} {
		d.Brand.Support = support
		r, err := message.Render(message.Completed, "en", d)
		if err != nil || !strings.Contains(r.Text, support) {
			t.Errorf("%s: %v", support, err)
		}
		if plain := !strings.HasPrefix(support, "+") && !strings.HasPrefix(support, "https"); strings.Contains(r.HTML, "<a ") == plain {
			t.Errorf("%s: link %t", support, !plain)
		}
	}
}

func TestSameInputSameOutput(t *testing.T) {
	want, err := message.Render(message.Partial, "de", message.Sample(message.Partial, "de"))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			got, err := message.Render(message.Partial, "de", message.Sample(message.Partial, "de"))
			if err != nil || got != want {
				t.Errorf("another result (%v)", err)
			}
		})
	}
	all.Wait()
}

func TestPrivateByDefault(t *testing.T) {
	d := message.Sample(message.Link, "en")
	r, err := message.Render(message.Link, "en", d)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", slog.Any("data", d), slog.Any("mail", r))
	if shown := log.String() + fmt.Sprintf("%v %+v %#v %s", d, d, r, r); strings.Contains(shown, "cs1_") || strings.Contains(shown, "Jane") {
		t.Errorf("in the open: %s", shown)
	}
}

func TestPreview(t *testing.T) {
	dir := os.Getenv("COUNTERSIGN_PICTURES")
	if dir == "" {
		dir = t.TempDir()
	}
	for range 2 {
		if err := message.Preview(dir); err != nil {
			t.Fatal(err)
		}
	}
	want := 2*len(message.Kinds())*len(message.Locales()) + 1
	files, err := fs.Glob(os.DirFS(dir), "*.[ht]*")
	if err != nil || len(files) < want {
		t.Errorf("%d files, want %d (%v)", len(files), want, err)
	}
}

func FuzzRender(f *testing.F) {
	f.Add("Jane", "Offer", "https://a.test/s/1", "en", "UTC")
	f.Add("J\u202e", "{{.}}", "http://localhost:8080/s/1", "de", "Europe/Berlin")
	f.Fuzz(func(t *testing.T, name, document, link, locale, zone string) {
		d := message.Sample(message.Alternate, "en")
		d.Reader, d.Person, d.Document, d.Reason, d.Link, d.Zone = name, name, document, name+document, link, zone
		r, err := message.Render(message.Alternate, locale, d)
		if err != nil {
			if !errors.Is(err, failure.RequestInvalid) {
				t.Fatal(err)
			}
			return
		}
		m := channel.Message{ID: "dlv_1", To: channel.Address{Email: "jane@signer.test"}, From: channel.Address{Email: "sign@acme.test"}, Subject: r.Subject, Text: r.Text, HTML: r.HTML}
		if err := m.Validate(); err != nil {
			t.Errorf("not fit to be sent: %v %+q", err, r.Subject)
		}
	})
}

func walk(t *testing.T, source string, visit func(*html.Node)) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(source))
	if err != nil {
		t.Fatal(err)
	}
	for n := range root.Descendants() {
		if n.Type == html.ElementNode {
			visit(n)
		}
	}
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// visible returns the text of a page without its head.
func visible(t *testing.T, source string) string {
	t.Helper()
	root, err := html.Parse(strings.NewReader(source))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for n := range root.Descendants() {
		if n.Type == html.TextNode && n.Parent.Data != "style" && n.Parent.Data != "title" {
			b.WriteString(n.Data + " ")
		}
	}
	return oneLine(b.String())
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
