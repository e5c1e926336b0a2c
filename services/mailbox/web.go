package mailbox

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/mail"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

//go:embed pages
var files embed.FS

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"address": address, "initial": initial, "when": when, "size": size, "colour": colour,
}).ParseFS(files, "pages/*.html"))

// handler serves the page and the API. No page carries a script; the list reloads itself.
func (m *Mailbox) handler() http.Handler {
	mux := http.NewServeMux()
	m.api(mux)
	mux.HandleFunc("GET /{$}", m.showList)
	mux.HandleFunc("GET /view/{id}", m.showMessage)
	mux.HandleFunc("GET /view/{id}/html", m.showHTML)
	mux.HandleFunc("POST /delete", m.deleteAll)
	mux.HandleFunc("POST /view/{id}/delete", m.deleteOne)
	mux.HandleFunc("GET /chaos", m.showChaos)
	mux.HandleFunc("POST /chaos", m.formChaos)
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, files, "pages/style.css")
	})
	return m.guard(http.NewCrossOriginProtection().Handler(mux))
}

// guard keeps other web sites out: the mails hold links and codes. A site that points its own name at 127.0.0.1 is
// turned away by the Host, one that posts here by the Origin.
func (m *Mailbox) guard(next http.Handler) http.Handler {
	local := false
	if addr, ok := m.config.HTTP.Addr().(*net.TCPAddr); ok {
		local = addr.IP.IsLoopback()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if local && !loopbackHost(r.Host) {
			http.Error(w, "This mailbox answers on localhost only.", http.StatusMisdirectedRequest)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self' data:; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func loopbackHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func (m *Mailbox) render(w http.ResponseWriter, page string, data any) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, page, data); err != nil {
		m.config.Logger.Error("page not rendered", slog.String("page", page), slog.Any("error", err))
		http.Error(w, "This page could not be shown.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = b.WriteTo(w)
}

type listPage struct {
	Title      string
	Query      string
	Find       bool // show the search form, and do not reload under the fingers of who types
	Refresh    bool // reload after some seconds
	Address    string
	List       listing
	Chaos      bool
	Newer      string // URL of the page before, empty = none
	Older      string
	From, Till int
}

func (m *Mailbox) showList(w http.ResponseWriter, r *http.Request) {
	start, err := number(r, "start", 0, 0, 1<<30)
	if err != nil {
		refuse(w, err)
		return
	}
	p := listPage{Query: r.URL.Query().Get("query"), Address: m.config.SMTP.Addr().String()}
	p.List = m.page(p.Query, start, pageDefault)
	p.Find = r.URL.Query().Has("find") || p.Query != ""
	p.Refresh = start == 0 && !p.Find
	p.From, p.Till = start+1, start+p.List.Count
	p.Title = "Mailbox"
	if p.List.Unread > 0 {
		p.Title = "(" + strconv.Itoa(p.List.Unread) + ") Mailbox"
	}
	t := m.Chaos()
	p.Chaos = t.Sender.Probability+t.Recipient.Probability+t.Authentication.Probability > 0
	at := func(n int) string {
		return "/?" + url.Values{"start": {strconv.Itoa(n)}, "query": {p.Query}}.Encode()
	}
	if start > 0 {
		p.Newer = at(max(0, start-pageDefault))
	}
	if p.Till < p.List.MessagesCount {
		p.Older = at(start + pageDefault)
	}
	m.render(w, "list.html", p)
}

type messagePage struct {
	Message
	Title  string
	View   string // html, phone, text, headers, source
	Fields []field
	Source string
}

type field struct{ Name, Value string }

func (m *Mailbox) showMessage(w http.ResponseWriter, r *http.Request) {
	id, raw, err := m.store.raw(r.PathValue("id"))
	if err != nil {
		m.notFound(w, err)
		return
	}
	p := messagePage{Message: parse(id, raw).Message, View: r.URL.Query().Get("as")}
	p.Title = p.Subject
	if p.View == "" {
		p.View = "html"
	}
	if p.HTML == "" && (p.View == "html" || p.View == "phone") {
		p.View = "text"
	}
	switch p.View {
	case "headers":
		p.Fields = fields(raw)
	case "source":
		p.Source = strings.ToValidUTF8(string(raw[:min(len(raw), maxRequest)]), "�")
	}
	m.render(w, "message.html", p)
}

// fields lists the header in the order of the mail.
func fields(raw []byte) []field {
	head, _, _ := bytes.Cut(bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")), []byte("\n\n"))
	unfolded := regexp.MustCompile(`\n[ \t]+`).ReplaceAll(head, []byte(" "))
	var all []field
	for line := range strings.SplitSeq(strings.ToValidUTF8(string(unfolded), "�"), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			all = append(all, field{name, strings.TrimSpace(value)})
		}
	}
	return all
}

var contentID = regexp.MustCompile(`(?i)\bcid:([^"'\s)>]+)`)

// showHTML is what the frame shows: the mail's own HTML, sandboxed, without scripts, forms and anything from outside.
// Links open in a new tab, out of the sandbox.
func (m *Mailbox) showHTML(w http.ResponseWriter, r *http.Request) {
	id, raw, err := m.store.raw(r.PathValue("id"))
	if err != nil {
		m.notFound(w, err)
		return
	}
	message := parse(id, raw).Message
	body := contentID.ReplaceAllStringFunc(message.HTML, func(link string) string {
		for _, a := range message.Inline {
			if a.ContentID == link[len("cid:"):] {
				return "/api/v1/message/" + id + "/part/" + url.PathEscape(a.PartID)
			}
		}
		return link
	})
	h := w.Header()
	h.Set("Content-Security-Policy", "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; base-uri 'self'; frame-ancestors 'self'")
	h.Set("Content-Type", "text/html; charset=utf-8")
	if !strings.HasPrefix(strings.ToLower(strings.TrimSpace(body)), "<!doctype") {
		body = "<!doctype html>" + body
	}
	// After the doctype, so that the mail's own one still counts.
	end := strings.Index(body, ">") + 1
	_, _ = fmt.Fprint(w, body[:end], `<base target="_blank">`, body[end:])
}

func (m *Mailbox) notFound(w http.ResponseWriter, err error) {
	if !errors.Is(err, fs.ErrNotExist) {
		m.config.Logger.Error("mail not read", slog.Any("error", err))
	}
	w.WriteHeader(http.StatusNotFound)
	m.render(w, "gone.html", nil)
}

func (m *Mailbox) deleteAll(w http.ResponseWriter, r *http.Request) {
	m.thenList(w, r, m.store.delete())
}

func (m *Mailbox) deleteOne(w http.ResponseWriter, r *http.Request) {
	m.thenList(w, r, m.store.delete(r.PathValue("id")))
}

func (m *Mailbox) thenList(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		m.config.Logger.ErrorContext(r.Context(), "mail not deleted", slog.Any("error", err))
		http.Error(w, "The mail could not be deleted.", http.StatusInternalServerError)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

type chaosPage struct {
	Title    string
	Triggers Triggers
	Problem  string
}

func (m *Mailbox) showChaos(w http.ResponseWriter, _ *http.Request) {
	m.render(w, "chaos.html", chaosPage{Title: "Chaos", Triggers: m.Chaos()})
}

func (m *Mailbox) formChaos(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
	read := func(name string) Trigger {
		code, err1 := strconv.Atoi(r.PostFormValue(name + "-code"))
		probability, err2 := strconv.Atoi(r.PostFormValue(name + "-probability"))
		if err1 != nil || err2 != nil {
			return Trigger{ErrorCode: -1}
		}
		return Trigger{ErrorCode: code, Probability: probability}
	}
	t := Triggers{Sender: read("sender"), Recipient: read("recipient"), Authentication: read("authentication")}
	if err := m.SetChaos(t); err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		m.render(w, "chaos.html", chaosPage{Title: "Chaos", Triggers: m.Chaos(), Problem: err.Error()})
		return
	}
	http.Redirect(w, r, "/chaos", http.StatusSeeOther)
}

func address(a *mail.Address) string {
	switch {
	case a == nil:
		return "unknown sender"
	case a.Name != "":
		return a.Name
	}
	return a.Address
}

func initial(a *mail.Address) string {
	for _, r := range address(a) {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return string(unicode.ToUpper(r))
		}
	}
	return "?"
}

// colour gives each sender one of eight colours of the style sheet.
func colour(a *mail.Address) int {
	sum := 0
	for _, r := range address(a) {
		sum = (sum*31 + int(r)) % 8
	}
	return sum
}

func when(t time.Time) string { return t.UTC().Format("2 Jan 15:04 MST") }

func size(bytes int) string {
	switch {
	case bytes < 1000:
		return strconv.Itoa(bytes) + " B"
	case bytes < 1_000_000:
		return strconv.FormatFloat(float64(bytes)/1000, 'f', 1, 64) + " kB"
	}
	return strconv.FormatFloat(float64(bytes)/1_000_000, 'f', 1, 64) + " MB"
}
