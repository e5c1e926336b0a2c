package pages

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/failure/words"
)

// TestStatesOfALink is the table of spec 2.7: every state that a link's page may be in is a registered failure with its own words, one
// next step and the time that takes, and its page shows all three in each language. A valid link's page is no failure.
func TestStatesOfALink(t *testing.T) {
	const minute, day = time.Minute, 24 * time.Hour
	table := map[string]struct {
		failure  *failure.Error
		status   int
		next     string
		expected time.Duration // 0 = at once, or it is up to somebody else: the words say so
	}{
		"soft-expired":     {failure.LinkExpired, http.StatusGone, "reissue", minute},
		"expired":          {failure.LinkExpired, http.StatusGone, "reissue", minute},
		"superseded":       {failure.LinkSuperseded, http.StatusGone, "reissue", minute},
		"used":             {failure.LinkUsed, http.StatusConflict, "verify", minute},
		"delegated":        {failure.LinkDelegated, http.StatusGone, "none", 0},
		"readdressed":      {failure.LinkReaddressed, http.StatusGone, "ask-sender", 0},
		"already-signed":   {failure.LinkSigned, http.StatusConflict, "none", 0},
		"already-declined": {failure.LinkDeclined, http.StatusConflict, "ask-sender", 0},
		"cancelled":        {failure.LinkCancelled, http.StatusGone, "ask-sender", 0},
		"deadline-passed":  {failure.RequestExpired, http.StatusGone, "ask-sender", 0},
		"revoked":          {failure.LinkRevoked, http.StatusGone, "ask-sender", 0},
		"not-your-turn":    {failure.LinkNotYet, http.StatusConflict, "wait", 0},
		"on-hold":          {failure.LinkOnHold, http.StatusConflict, "wait", day}, // under investigation
		"provider-down":    {failure.ProviderDown, http.StatusServiceUnavailable, "retry", 15 * minute},
	}
	titles := map[string]map[string]string{} // locale, title -> code
	for _, locale := range Locales() {
		titles[locale] = map[string]string{}
		seen := 0
		for _, s := range (sampler{locale: locale}).states() {
			name := strings.TrimPrefix(s.Name, "state-")
			want, ok := table[name]
			if !ok {
				continue
			}
			seen++
			f := failure.Lookup(want.failure.Code)
			if f == nil || f.HTTP != want.status || f.Next != want.next || f.Expected != want.expected {
				t.Errorf("%s: registered as %+v, want %+v", name, f, want)
				continue
			}
			said := words.For(f.Code, locale)
			if other, taken := titles[locale][said.Title]; taken && other != f.Code {
				t.Errorf("%s: %s and %s have the same words", locale, other, f.Code)
			}
			titles[locale][said.Title] = f.Code
			page, err := s.Page.Render()
			if err != nil {
				t.Fatal(err)
			}
			all := nodes(t, page)
			shown := text(named(all, "main")[0])
			for part, words := range map[string]string{"title": said.Title, "time": said.Expected} {
				if words == "" || !strings.Contains(shown, words) && name != "soft-expired" { // which has words of its own
					t.Errorf("%s, %s: the page lacks the %s %q", locale, name, part, words)
				}
			}
			if n := len(classed(all, "primary")); n != 1 {
				t.Errorf("%s, %s: %d primary actions", locale, name, n)
			}
		}
		if seen != len(table) {
			t.Errorf("%s: %d of %d states have a page", locale, seen, len(table))
		}
		page, err := (sampler{locale: locale}).open().Render()
		if err != nil {
			t.Fatal(err)
		}
		if n := len(classed(nodes(t, page), "primary")); n != 1 {
			t.Errorf("%s: a valid link's page has %d primary actions", locale, n)
		}
	}
}
