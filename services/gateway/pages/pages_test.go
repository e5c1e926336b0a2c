package pages

import (
	"bytes"
	"errors"
	"html"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/failure/words"
)

func each(t *testing.T, do func(t *testing.T, locale string, s Sample)) {
	for _, locale := range Locales() {
		for _, s := range Samples(locale) {
			t.Run(locale+"/"+s.Name, func(t *testing.T) { do(t, locale, s) })
		}
	}
}

func TestEveryPage(t *testing.T) {
	seen := map[string]bool{}
	each(t, func(t *testing.T, locale string, s Sample) {
		page, err := s.Page.Render()
		if err != nil {
			t.Fatal(err)
		}
		all := checkPage(t, page, locale)
		if n := len(classed(all, "primary")); n > 1 || n == 0 && !strings.HasPrefix(s.Name, "sent") {
			t.Errorf("%d primary actions, want one", n)
		}
		if status := s.Page.Status(); status < 200 || status > 599 {
			t.Errorf("status %d", status)
		}
		for _, n := range all {
			if n.Data == "body" {
				seen[attr(n, "class")] = true
			}
		}
	})
	for _, kind := range kinds {
		if !seen[kind] {
			t.Errorf("no sample of %s", kind)
		}
	}
}

// TestEveryFailure: each code has its own words on the page and one thing to do, whatever remedies are open.
func TestEveryFailure(t *testing.T) {
	full := Remedies{"/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h", "/i"}
	for _, locale := range Locales() {
		for _, f := range failure.All() {
			for name, remedies := range map[string]Remedies{"all": full, "none": {}} {
				t.Run(locale+"/"+f.Code+"/"+name, func(t *testing.T) {
					p := State{Frame: sampler{locale: locale}.frame(), Failure: f, Remedies: remedies, Sender: "A", Recipient: "b•••@c.example"}
					page, err := p.Render()
					if err != nil {
						t.Fatal(err)
					}
					all := checkPage(t, page, locale)
					if n := len(classed(all, "primary")); n != 1 {
						t.Errorf("%d primary actions, want one", n)
					}
					w := words.For(f.Code, locale)
					for _, said := range []string{w.Title, w.Text, w.Expected} {
						if !strings.Contains(html.UnescapeString(string(page)), said) {
							t.Errorf("the page does not say %q", said)
						}
					}
					if strings.Contains(string(page), f.Code) {
						t.Errorf("the page shows the code")
					}
				})
			}
		}
	}
}

func TestStatePrimary(t *testing.T) {
	for name, tt := range map[string]struct {
		page State
		want string // path or address of the primary action
	}{
		"expired: a new link":              {State{Failure: failure.LinkExpired, Remedies: Remedies{Reissue: "/new", Verify: "/verify"}}, "/new"},
		"expired in grace: verify":         {State{Failure: failure.LinkExpired, Soft: true, Remedies: Remedies{Reissue: "/new", Verify: "/verify"}}, "/verify"},
		"in grace without a way to verify": {State{Failure: failure.LinkExpired, Soft: true, Remedies: Remedies{Reissue: "/new"}}, "/new"},
		"other browser: verify":            {State{Failure: failure.LinkUsed, Remedies: Remedies{Reissue: "/new", Verify: "/verify"}}, "/verify"},
		"signed: the copy":                 {State{Failure: failure.LinkSigned, Remedies: Remedies{Copy: "/copy"}}, "/copy"},
		"signed, no copy yet: help":        {State{Failure: failure.LinkSigned}, "mailto:signing@larkspur.example"},
		"wait: look again":                 {State{Failure: failure.LinkNotYet, Remedies: Remedies{Retry: "/again"}}, "/again"},
		"unknown: help":                    {State{Failure: failure.LinkUnknown}, "mailto:signing@larkspur.example"},
		"nothing open: help":               {State{Failure: failure.LinkExpired}, "mailto:signing@larkspur.example"},
		"no failure given: internal":       {State{Remedies: Remedies{Retry: "/again"}}, "/again"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.page.Frame = sampler{locale: "en"}.frame()
			page, err := tt.page.Render()
			if err != nil {
				t.Fatal(err)
			}
			primary := classed(nodes(t, page), "primary")
			if len(primary) != 1 {
				t.Fatalf("%d primary actions", len(primary))
			}
			got := attr(primary[0], "href")
			if primary[0].Data == "button" {
				got = attr(primary[0].Parent, "action")
			}
			if got != tt.want {
				t.Errorf("primary leads to %q, want %q", got, tt.want)
			}
		})
	}
}

// TestWait: a known wait takes the place of the usual time, on the page and in the header.
func TestWait(t *testing.T) {
	p := State{Frame: sampler{locale: "de"}.frame(), Failure: failure.RateLimited.After(90500 * time.Millisecond)}
	w := httptest.NewRecorder()
	if err := Write(w, p, Policy{}); err != nil {
		t.Fatal(err)
	}
	if w.Code != 429 || w.Header().Get("Retry-After") != "91" || !strings.Contains(w.Body.String(), "2 Minuten") {
		t.Errorf("%d, Retry-After %q, the page: %v", w.Code, w.Header().Get("Retry-After"), strings.Contains(w.Body.String(), "2 Minuten"))
	}
	if w.Header().Get("Content-Language") != "de" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", w.Header())
	}
}

// hostile is what attackers and unlucky people put into names and titles.
var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onfocus='alert(1)' autofocus x='`, `</title><b id=evil>`, `</textarea><b id=evil>`,
	`javascript:alert(1)`, `{{.Nonce}}`, `&lt;b id=evil&gt;`, "a\x00b\x1b[31m\r\nSet-Cookie: x=1", "gpj.\u202etxet\u202c", "\u2066\u2067\u2068open", "close\u2069\u2069\u2069",
	"zero\u200bwidth\ufeff\u00ad", "tags\U000E0041\U000E007F", "\xff\xfe", strings.Repeat("W", 10_000), strings.Repeat("<", 3000), "מסמך English \u200f",
}

// TestHostileText puts hostile text into every field of every model that is not a path, and looks at what the browser gets.
func TestHostileText(t *testing.T) {
	each(t, func(t *testing.T, locale string, s Sample) {
		for _, evil := range hostile {
			p := reflect.New(reflect.TypeOf(s.Page)).Elem()
			p.Set(reflect.ValueOf(s.Page))
			poison(p, evil)
			page, err := p.Interface().(Page).Render()
			if err != nil {
				t.Fatalf("%.40q: %v", evil, err)
			}
			for _, n := range checkPage(t, page, locale) {
				if attr(n, "id") == "evil" || n.Data == "b" {
					t.Fatalf("%.40q became an element", evil)
				}
			}
			if t.Failed() {
				t.Fatalf("with %.40q", evil)
			}
		}
	})
}

// TestIsolation: a name written from right to left turns nothing around it (security T29).
func TestIsolation(t *testing.T) {
	p := sampler{locale: "en"}.open()
	p.Sender, p.Title, p.Tenant.Name = "דנה", "חוזה", "שלום"
	page, err := p.Render()
	if err != nil {
		t.Fatal(err)
	}
	body := string(page[bytes.Index(page, []byte("<body")):])
	for _, name := range []string{p.Sender, p.Title, p.Tenant.Name} {
		bare := strings.Count(body, name)
		if isolated := strings.Count(body, firstStrongIsolate+name+popDirectionalIsolate); bare == 0 || isolated != bare {
			t.Errorf("%s: %d of %d stand alone", name, isolated, bare)
		}
	}
}

// poison fills all text but paths and the language; slices are copied first.
func poison(v reflect.Value, evil string) {
	switch v.Kind() {
	case reflect.String:
		if v.String() != "" && !strings.HasPrefix(v.String(), "/") {
			v.SetString(evil)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; !slices.Contains([]string{"Locale", "Nonce", "Presented"}, name) { // ours, not foreign
				poison(v.Field(i), evil)
			}
		}
	case reflect.Slice:
		fresh := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(fresh, v)
		v.Set(fresh)
		for i := range v.Len() {
			poison(v.Index(i), evil)
		}
	default: // holds no text
	}
}

// TestModel: a page that lacks what it cannot do without, or would lead off this origin, is not made at all.
func TestModel(t *testing.T) {
	f := sampler{locale: "en"}
	open, doc := f.open(), f.documents()[0].Page.(Document)
	for name, change := range map[string]func() Page{
		"no tenant":        func() Page { p := open; p.Tenant.Name = " "; return p },
		"no way to review": func() Page { p := open; p.Review = ""; return p },
		"another origin":   func() Page { p := open; p.Review = "https://evil.example/"; return p },
		"scheme-relative":  func() Page { p := open; p.Review = "//evil.example/"; return p },
		"backslash":        func() Page { p := open; p.NotMe = `/\evil.example`; return p },
		"script":           func() Page { p := open; p.Self = "javascript:alert(1)"; return p },
		"remedy elsewhere": func() Page { return State{Frame: open.Frame, Remedies: Remedies{Proof: "//evil.example"}} },
		"no document":      func() Page { p := doc; p.Papers = nil; return p },
		"picture elsewhere": func() Page {
			p := doc
			p.Papers = []Paper{{Title: "a", Download: "/a", Sheets: []Sheet{{Src: "http://x"}}}}
			return p
		},
		"long, nowhere to go": func() Page {
			p := doc
			p.Papers = []Paper{{Title: "a", Download: "/a", Sheets: f.sheets(MaxSheets + 1)}}
			return p
		},
		"nobody to verify": func() Page { return Verify{Frame: open.Frame, Sent: true, Submit: "/x"} },
		"code to nowhere":  func() Page { return Verify{Frame: open.Frame, Sent: true, To: Destination{Masked: "a"}} },
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			w.Code = 0
			if err := Write(w, change(), Policy{}); !errors.Is(err, ErrModel) {
				t.Errorf("Write: %v, want ErrModel", err)
			}
			if w.Body.Len() > 0 || len(w.Header()) > 0 {
				t.Error("something was written all the same")
			}
		})
	}
}

// TestLong: a document of any length and any amount of text keeps every page within its budget.
func TestLong(t *testing.T) {
	doc := sampler{locale: "de"}.documents()[0].Page.(Document)
	for name, paper := range map[string]Paper{
		"520 pages":         {Title: "a", Download: "/a", Reading: "/r", Sheets: sampler{}.sheets(520)},
		"a wall of quotes":  {Title: "a", Download: "/a", Reading: "/r", Sheets: []Sheet{{Src: "/s", Width: 720, Height: 1018, Text: strings.Repeat(`"'<&>`, 20_000)}}},
		"text by the metre": {Title: "a", Download: "/a", Reading: "/r", Sheets: []Sheet{{Src: "/s", Width: 720, Height: 1018, Text: strings.Repeat("a line of text\n\n", 9_000)}}},
	} {
		t.Run(name, func(t *testing.T) {
			doc.Papers = []Paper{paper, paper, paper}
			page, err := doc.Render()
			if err != nil {
				t.Fatal(err)
			}
			checkPage(t, page, "de")
			reading := Reading{Frame: doc.Frame, Title: "a", Sheet: paper.Sheets[0], Number: 1, Of: len(paper.Sheets), Back: "/sign"}
			if page, err = reading.Render(); err != nil {
				t.Fatal(err)
			}
			checkPage(t, page, "de")
		})
	}
}

func TestShares(t *testing.T) {
	for name, tt := range map[string]struct{ sheets, want []int }{
		"one, short":      {[]int{3}, []int{3}},
		"one, long":       {[]int{120}, []int{50}},
		"short one whole": {[]int{120, 4}, []int{46, 4}},
		"long ones share": {[]int{100, 2, 100}, []int{24, 2, 24}},
		"none at all":     {[]int{0, 60}, []int{0, 50}},
	} {
		t.Run(name, func(t *testing.T) {
			var papers []Paper
			for _, n := range tt.sheets {
				papers = append(papers, Paper{Sheets: make([]Sheet, n)})
			}
			if got := shares(papers); !slices.Equal(got, tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestFieldNames(t *testing.T) {
	page, err := sampler{locale: "en"}.documents()[0].Page.Render()
	if err != nil {
		t.Fatal(err)
	}
	code, err := sampler{locale: "en"}.verifications()[1].Page.Render()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{FieldNonce, FieldCode, FieldAgree, FieldName, FieldReason, FieldDisclosure, FieldConsentSum, FieldIntentSum, FieldPresented} {
		if !bytes.Contains(append(page, code...), []byte(` name="`+name+`"`)) {
			t.Errorf("no field %q", name)
		}
	}
}

func TestLastResort(t *testing.T) {
	page := LastResort()
	if err := wellFormed(page); err != nil {
		t.Error(err)
	}
	checkPolicy(t, nodes(t, page))
}

func TestPreview(t *testing.T) {
	if err := Preview(t.TempDir()); err != nil {
		t.Error(err)
	}
}
