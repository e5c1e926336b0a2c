package message

import (
	"embed"
	"fmt"
	htmltemplate "html/template"
	"net/mail"
	"regexp"
	"strings"
	"text/template"
	"unicode/utf8"

	"countersign.dev/services/delivery/channel"
)

//go:embed templates
var templateFiles embed.FS

var (
	asHTML = htmltemplate.Must(htmltemplate.ParseFS(templateFiles, "templates/message.html"))
	asText = template.Must(template.New("").Funcs(template.FuncMap{"wrap": wrap, "rule": rule, "label": label}).ParseFS(templateFiles, "templates/message.txt"))
)

// Render writes the message of a kind in the language nearest to locale (BCP 47). The same input gives the same output.
// It returns failure.RequestInvalid, naming every field, for data that must not be shown or is missing.
func Render(kind Kind, locale string, data Data) (Rendered, error) {
	d, zone, err := clean(kind, data)
	if err != nil {
		return Rendered{}, err
	}
	w := speak(locale)
	expires := ""
	if !d.Expires.IsZero() {
		expires = w.moment(d.Expires, zone)
	}
	subject := channel.Clean(w.say(string(kind)+".subject", map[string]any{"Document": d.Document, "Person": d.Person, "Sender": d.Sender}))
	v := newView(w, kind, d, expires)
	if w.err != nil {
		return Rendered{}, w.err
	}
	v.Subject = shorten(subject, channel.MaxSubject)
	var html, text strings.Builder
	if err := asHTML.ExecuteTemplate(&html, "message.html", v); err != nil {
		return Rendered{}, fmt.Errorf("render %s as HTML: %w", kind, err)
	}
	if err := asText.ExecuteTemplate(&text, "message.txt", v); err != nil {
		return Rendered{}, fmt.Errorf("render %s as text: %w", kind, err)
	}
	return Rendered{Subject: v.Subject, Text: tidy(text.String()), HTML: html.String(), Locale: w.locale}, nil
}

// view is what the templates see: sentences that are ready, in the reader's language.
type view struct {
	Locale, Subject, Preheader, Title, Greeting, Intro string
	Facts                                              []fact
	Code                                               string
	Progress                                           string
	Percent                                            int
	StepsTitle                                         string
	Steps                                              []string
	Link, Button, CopyLink, Note, Personal             string
	Brand, Questions, SupportLink, Sent                string
	Paint                                              paint
}

type fact struct {
	Label, Value string
	Strong       bool
}

// paint holds the brand's colours, each readable where it is used. Type CSS: they are computed, not given.
type paint struct {
	Brand, Button, ButtonInk, DarkBrand, DarkButton, DarkButtonInk htmltemplate.CSS
}

func newView(w *words, kind Kind, d Data, expires string) view {
	values := map[string]any{
		"Reader": isolated(d.Reader), "Sender": isolated(d.Sender), "Person": isolated(d.Person), "Document": isolated(d.Document),
		"Brand": isolated(d.Brand.Name), "Support": d.Brand.Support, "Expires": expires, "Done": d.Done, "Total": d.Total,
	}
	own := func(key string) string { return w.say(string(kind)+"."+key, values) }
	common := func(key string) string { return w.say("common."+key, values) }
	v := view{
		Locale: w.locale, Brand: d.Brand.Name, Code: d.Code, Link: d.Link, Steps: d.Steps, Paint: palette(d.Brand.Colour),
		Title: own("title"), Preheader: own("preheader"), Intro: own("intro"), Note: own("note"), Sent: common("sent"), Greeting: common("greeting"),
	}
	if d.Reader == "" {
		v.Greeting = common("greeting_unnamed")
	}
	v.Facts = []fact{{common("document"), d.Document, true}, {common("from"), d.Sender, false}}
	if d.Reason != "" {
		v.Facts = append(v.Facts, fact{common("reason"), d.Reason, false})
	}
	if kind == Code {
		v.Facts = nil // the code is the one thing to see
	} else if expires != "" {
		v.Facts = append(v.Facts, fact{common("until"), expires, false})
	}
	if d.Total > 0 {
		v.Progress, v.Percent = common("progress"), 100*d.Done/d.Total
	}
	if len(d.Steps) > 0 {
		v.StepsTitle = common("steps")
	}
	if d.Link != "" {
		v.Button, v.CopyLink, v.Personal = own("button"), common("copy_link"), common("personal")
	}
	if d.Brand.Support != "" {
		v.Questions = common("questions")
		v.SupportLink = supportLink(d.Brand.Support)
	}
	return v
}

var phoneLike = regexp.MustCompile(`^\+?[0-9][0-9 ()/.-]{4,20}$`)

// supportLink makes a link of a support contact where it plainly is one.
func supportLink(contact string) string {
	if a, err := mail.ParseAddress(contact); err == nil && a.Name == "" && a.Address == contact {
		return "mailto:" + contact
	}
	if phoneLike.MatchString(contact) {
		return "tel:" + strings.Map(func(r rune) rune {
			if r == '+' || r >= '0' && r <= '9' {
				return r
			}
			return -1
		}, contact)
	}
	if validLink(contact) {
		return contact
	}
	return ""
}

// Backgrounds of the card in both schemes; templates/message.html uses the same.
var (
	lightCard = white
	darkCard  = parseColour("#1b2130")
)

func palette(hex string) paint {
	brand := parseColour(hex)
	css := func(c rgb) htmltemplate.CSS { return htmltemplate.CSS(c.String()) } //nolint:gosec // computed from three numbers
	button, dark := brand.visible(lightCard, 3), brand.visible(darkCard, 3)
	return paint{
		Brand: css(brand.visible(lightCard, 4.5)), Button: css(button), ButtonInk: css(over(button)),
		DarkBrand: css(brand.visible(darkCard, 5.5)), DarkButton: css(dark), DarkButtonInk: css(over(dark)),
	}
}

func shorten(s string, limit int) string {
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	return string([]rune(s)[:limit-1]) + "…"
}
