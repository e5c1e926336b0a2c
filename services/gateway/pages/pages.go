// Package pages makes what a signer sees: a view model in, one HTML page out.
//
// Every page works without script, weighs under 50 kB, speaks the signer's language, and ends in one thing to do (spec
// 2.7 and 9). The package is pure: it asks nobody, keeps nothing and reads no clock; whoever serves a page fills its
// model. Text that came from outside may be given raw: it is cleaned, isolated and escaped here, wherever it stands.
package pages

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Budget is the most bytes a page may have (spec 9). Render refuses to make a longer one.
const Budget = 50_000

// Names of the form fields that come back by POST.
const (
	FieldNonce      = "nonce"      // Frame.Nonce, in every form
	FieldCode       = "code"       // Verify: the one-time code, maybe with blanks
	FieldAgree      = "agree"      // Document: "yes" when the box is ticked
	FieldName       = "name"       // Document: the typed signature
	FieldReason     = "reason"     // Document: why the signer declines; may be empty
	FieldDisclosure = "disclosure" // Document: id, version and language of the consent text shown, as "id/version/locale"
	FieldConsentSum = "consent"    // Document: SHA-256 of that text, hexadecimal
	FieldIntentSum  = "intent"     // Document: SHA-256 of the words of intent shown, hexadecimal
	FieldPresented  = "presented"  // Document: Document.Presented, given back
)

// Page is one whole page.
type Page interface {
	// Status is the HTTP status to serve it with. The page itself never shows it.
	Status() int
	// Render returns the HTML. It fails on a model that lacks what the page cannot do without, and never in part.
	Render() ([]byte, error)
	// Language is the page's BCP 47 tag.
	Language() string
}

// Frame is what every page has around its content.
type Frame struct {
	Locale string         // wanted language; the nearest of Locales is taken (see Match)
	Tenant Tenant         // on whose behalf we ask
	Zone   *time.Location // the signer's; nil is UTC. Times are shown with their zone
	Nonce  string         // form nonce, put into every form as FieldNonce (security 2.5)
	Self   string         // path of a GET that shows this page again; with it other languages are offered as ?lang=xx
}

// Language is the tag of the language the page is written in.
func (f Frame) Language() string { return Match(f.Locale) }

// Tenant is the sender's appearance and whom to ask.
type Tenant struct {
	Name             string  // as signers know it; must not be empty
	Accent           string  // brand colour #rrggbb; made readable where it is not; empty or malformed is the house colour
	Logo             string  // path on this origin; empty shows the name's first letter
	Support          Support // who helps
	DelegationPolicy string  // who may stand in for a signer, in the tenant's own words; shown where that matters
}

// Support is where a signer gets help. What is empty or malformed is left out.
type Support struct {
	Email string // plain address
	Phone string // as people write it, such as +49 30 1234567
	URL   string // https only
	Hours string // when somebody answers, in the tenant's own words
}

// Write serves a page: it is rendered first, so that a failure changes nothing and can be answered otherwise (see LastResort).
func Write(w http.ResponseWriter, p Page, policy Policy) error {
	body, err := p.Render()
	if err != nil {
		return err
	}
	h := w.Header()
	for name, value := range Headers(policy) {
		h.Set(name, value)
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", p.Language())
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if waiting, ok := p.(interface{ retryAfter() time.Duration }); ok && waiting.retryAfter() > 0 {
		seconds := (waiting.retryAfter() + time.Second - 1) / time.Second
		h.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	w.WriteHeader(p.Status())
	_, err = w.Write(body)
	return err
}

// ErrModel is wrapped by every complaint about a page's model.
var ErrModel = errors.New("pages: the page's model is incomplete")

// need complains unless every value is there. Pairs of name and value.
func need(pairs ...string) error {
	for i := 0; i+1 < len(pairs); i += 2 {
		if strings.TrimSpace(pairs[i+1]) == "" {
			return fmt.Errorf("%w: no %s", ErrModel, pairs[i])
		}
	}
	return nil
}

// local complains about a path that would leave this origin. An empty one is fine.
func local(paths ...string) error {
	for _, p := range paths {
		if p == "" {
			continue
		}
		if !strings.HasPrefix(p, "/") || strings.HasPrefix(p, "//") || strings.ContainsAny(p, "\\\r\n\t") {
			return fmt.Errorf("%w: a path must begin with one slash and stay on this origin", ErrModel)
		}
	}
	return nil
}

// check joins complaints about a model with those about its frame.
func (f Frame) check(complaints ...error) error {
	return errors.Join(append(complaints, need("tenant name", f.Tenant.Name), local(f.Self, f.Tenant.Logo))...)
}

// LastResort is a page that cannot fail, for when nothing else can be shown: no template, no tenant, both languages.
// Serve it with status 500 and the usual Headers.
func LastResort() []byte {
	return bytes.Clone(lastResort)
}

var lastResort = []byte(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Something went wrong on our side</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark"></head>
<body><main><h1>Something went wrong on our side</h1>
<p>It is not your fault, and nothing is lost. Please open the link in your message again in about a minute.
If it still does not work, please answer that message.</p>
<section lang="de"><h2>Bei uns ist etwas schiefgegangen</h2>
<p>Es liegt nicht an Ihnen, und es geht nichts verloren. Bitte öffnen Sie den Link in Ihrer Nachricht in etwa einer Minute noch einmal.
Wenn er dann nicht funktioniert, antworten Sie bitte auf jene Nachricht.</p></section></main></body></html>
`)
