package gateway

import (
	"crypto/hmac"
	"encoding/base64"
	"net/http"
	"regexp"
	"slices"

	"countersign.dev/pkg/secret"
	"countersign.dev/services/gateway/pages"
)

// The cookies there are. None is ever set without a POST, but for the language somebody chose.
const (
	browserCookie  = "cs"       // the browser's secret (decisions 24)
	knownCookie    = "cs-links" // which links this browser has shown a token of
	languageCookie = "cs-lang"
)

const (
	secretBytes = 32
	knownBytes  = 12 // of a MAC for each link
	knownLinks  = 20 // the newest are remembered
)

// secretForm is base64url of secretBytes bytes.
var secretForm = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// cookieName binds a cookie to this host and to https; over plain http, which is loopback, browsers refuse that.
func (s *Service) cookieName(name string) string {
	if s.settings.secure() {
		return "__Host-" + name
	}
	return name
}

// cookie returns a cookie's value; "" where there is none.
func (s *Service) cookie(r *http.Request, name string) string {
	c, err := r.Cookie(s.cookieName(name))
	if err != nil {
		return ""
	}
	return c.Value
}

// setCookie sets one that ends with the browser's session and that no script reads.
func (s *Service) setCookie(w http.ResponseWriter, name, value string) {
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // Secure but on plain loopback, where no browser would keep it
		Name: s.cookieName(name), Value: value, Path: "/", HttpOnly: true, Secure: s.settings.secure(), SameSite: http.SameSiteLaxMode,
	})
}

// browserOf returns the secret of a browser; zero where it has none, or one that we did not make.
func (s *Service) browserOf(r *http.Request) secret.Secret {
	if value := s.cookie(r, browserCookie); secretForm.MatchString(value) {
		return secret.New(value)
	}
	return secret.Secret{}
}

// newBrowser makes the secret of a browser that has none, out of the random part of the form it sends. A form sent twice,
// by a double tap or over a poor line, is then one browser, and not another one that took its link.
func (s *Service) newBrowser(seed []byte) secret.Secret {
	return secret.New(base64.RawURLEncoding.EncodeToString(s.h.Keys.MAC("cs.newbrowser.v1", seed)[:secretBytes]))
}

// remember sets the cookies of a browser that has shown a token of a link: its secret, and that it knows the link.
func (s *Service) remember(w http.ResponseWriter, r *http.Request, v *visit) {
	s.setCookie(w, browserCookie, v.browser.Reveal())
	mine := s.knownMAC(v)
	links := slices.DeleteFunc(s.known(r), func(one []byte) bool { return hmac.Equal(one, mine) })
	links = append(links, mine)
	links = links[max(0, len(links)-knownLinks):]
	s.setCookie(w, knownCookie, base64.RawURLEncoding.EncodeToString(slices.Concat(links...)))
}

// knows tells whether a browser once showed a token of the link, while the same person held it.
func (s *Service) knows(r *http.Request, v *visit) bool {
	mine := s.knownMAC(v)
	return slices.ContainsFunc(s.known(r), func(one []byte) bool { return hmac.Equal(one, mine) })
}

func (s *Service) knownMAC(v *visit) []byte {
	return s.h.Keys.MAC("cs.known.v1", []byte(v.browser.Reveal()), []byte(v.at.tenant), []byte(v.at.link), []byte(v.link.GetHolderId()))[:knownBytes]
}

func (s *Service) known(r *http.Request) [][]byte {
	raw, err := base64.RawURLEncoding.DecodeString(s.cookie(r, knownCookie))
	if err != nil || len(raw)%knownBytes != 0 || len(raw) > knownBytes*knownLinks {
		return nil
	}
	return slices.Collect(slices.Chunk(raw, knownBytes))
}

// languageParameter is how a page is asked for in another language.
const languageParameter = "lang"

// chosenLanguage returns the language somebody asked for, now or before; "" where nobody did.
func (s *Service) chosenLanguage(r *http.Request) string {
	for _, tag := range []string{r.URL.Query().Get(languageParameter), s.cookie(r, languageCookie)} {
		if slices.Contains(pages.Locales(), tag) {
			return tag
		}
	}
	return ""
}

// keepLanguage remembers a language that was asked for just now.
func (s *Service) keepLanguage(w http.ResponseWriter, r *http.Request) {
	if tag := r.URL.Query().Get(languageParameter); slices.Contains(pages.Locales(), tag) {
		s.setCookie(w, languageCookie, tag)
	}
}
