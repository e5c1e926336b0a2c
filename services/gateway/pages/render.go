package pages

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"strings"
	"sync"
	"time"
)

//go:embed templates/*.html
var templateFiles embed.FS

// kinds are the pages there are; each has a template of its name.
var kinds = []string{"open", "state", "verify", "document", "reading", "sent", "signed", "declined"}

// layouts holds every page in every language, keyed by kind and tag.
var layouts = sync.OnceValue(func() map[string]*template.Template {
	all := map[string]*template.Template{}
	for _, tongue := range languages().all {
		shared := template.Must(template.New("layout").Funcs(functions(tongue)).ParseFS(templateFiles, "templates/layout.html", "templates/parts.html"))
		for _, kind := range kinds {
			page := template.Must(shared.Clone())
			all[kind+" "+tongue.tag] = template.Must(page.ParseFS(templateFiles, "templates/"+kind+".html"))
		}
	}
	return all
})

// functions are what templates call; all that shows foreign text goes through one of them.
func functions(t tongue) template.FuncMap {
	return template.FuncMap{
		"t":     t.say,
		"in":    func(d time.Duration) (phrase, error) { return t.span("in", d) },
		"for":   func(d time.Duration) (phrase, error) { return t.span("for", d) },
		"when":  t.when,
		"size":  t.size,
		"show":  shown,
		"note":  func(s string) string { return isolate(CleanLines(s, maxNote)) },
		"plain": func(s string) string { return Clean(s, maxLine) },
		"stamp": func(at time.Time) string { return at.UTC().Format(time.RFC3339) },
		"dict":  dict,
	}
}

// dict makes the arguments of a template part.
func dict(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, fmt.Errorf("pages: a name without a value")
	}
	m := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		m[fmt.Sprint(pairs[i])] = pairs[i+1]
	}
	return m, nil
}

// layoutView is what the layout gets: a page's frame made ready, and the page.
type layoutView struct {
	Frame
	Kind      string // also the class of the body
	Lang, Dir string
	Style     string
	Icon      string
	Initial   string
	Heading   string // the page's one h1, already fit to show; also the title of the window
	Alarm     bool   // the title tells of a problem first
	Help      help
	Languages []choice
	Page      any
}

// choice is a language offered at the foot of a page.
type choice struct{ Tag, Name string }

// render makes the page. Heading is the h1 and the window's title.
func render(kind string, f Frame, heading string, alarm bool, page any) ([]byte, error) {
	speaks := speaker(f.Locale)
	view := layoutView{
		Frame: f, Kind: kind, Lang: speaks.tag, Dir: speaks.direction(), Style: Stylesheet(f.Tenant.Accent), Icon: iconPath,
		Initial: initial(f.Tenant.Name), Heading: heading, Alarm: alarm, Help: f.Tenant.Support.ready(), Page: page,
	}
	if f.Self != "" {
		for _, t := range languages().all {
			name, err := t.say("language.name")
			if err != nil {
				return nil, err
			}
			view.Languages = append(view.Languages, choice{t.tag, name})
		}
	}
	var out bytes.Buffer
	if err := layouts()[kind+" "+speaks.tag].ExecuteTemplate(&out, "layout", view); err != nil {
		return nil, fmt.Errorf("pages: %s: %w", kind, err)
	}
	if out.Len() >= Budget {
		return nil, fmt.Errorf("pages: %s: %d bytes, more than the %d a page may have", kind, out.Len(), Budget)
	}
	return out.Bytes(), nil
}

func initial(name string) string {
	for _, r := range Clean(name, maxLine) {
		return strings.ToUpper(string(r))
	}
	return ""
}

// help is a tenant's support made ready to link to.
type help struct {
	Email, Phone, Tel, URL, Hours string
}

// Any reports whether there is somebody to ask.
func (h help) Any() bool { return h.Email != "" || h.Phone != "" || h.URL != "" }

func (s Support) ready() help {
	h := help{Hours: Clean(s.Hours, maxLine)}
	if email := Clean(s.Email, 254); plainAddress(email) {
		h.Email = email
	}
	if strings.HasPrefix(s.URL, "https://") && Clean(s.URL, 500) == s.URL && !strings.Contains(s.URL, " ") {
		h.URL = s.URL
	}
	var tel strings.Builder
	for i, r := range Clean(s.Phone, 40) {
		if r >= '0' && r <= '9' || r == '+' && i == 0 {
			tel.WriteRune(r)
		}
	}
	if tel.Len() >= 3 {
		h.Phone, h.Tel = Clean(s.Phone, 40), tel.String()
	}
	return h
}

// plainAddress reports whether a is a mailbox that can stand in a mailto link as it is.
func plainAddress(a string) bool {
	local, domain, ok := strings.Cut(a, "@")
	return ok && local != "" && strings.Contains(domain, ".") && !strings.ContainsAny(a, " <>\"'?&%#,;:\\/") && !strings.Contains(domain, "@")
}
