package gateway

import (
	"crypto/hmac"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"slices"
	"time"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/secret"
	"countersign.dev/services/gateway/pages"
)

// A form nonce shows that a form is from a page of ours, for this scope (security.md 2.5). There are two kinds:
//
//   - a bound one is a MAC over the browser's secret, and good as long as that is;
//   - a loose one, for pages that come before any cookie, is random bytes with a MAC over them and the half day, and good for
//     12 to 24 hours. Its scope holds the token, or the link and its holder, so nobody has one who has not been shown the page.
const (
	nonceLabel  = "cs.form.v1"
	nonceSum    = 16
	nonceRandom = 16
	nonceLife   = 12 * time.Hour
)

// boundNonce is for pages of a browser that has a secret.
func (s *Service) boundNonce(browser secret.Secret, scope string) string {
	return base64.RawURLEncoding.EncodeToString(s.boundSum(browser, scope))
}

func (s *Service) boundSum(browser secret.Secret, scope string) []byte {
	return s.h.Keys.MAC(nonceLabel, []byte("bound"), []byte(scope), []byte(browser.Reveal()))[:nonceSum]
}

// looseNonce is for pages of a browser that may have none.
func (s *Service) looseNonce(scope string) string {
	random := make([]byte, nonceRandom)
	_, _ = rand.Read(random) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(slices.Concat(random, s.looseSum(scope, random, s.halfDay())))
}

func (s *Service) looseSum(scope string, random []byte, halfDay int64) []byte {
	when := binary.BigEndian.AppendUint64(nil, uint64(halfDay))
	return s.h.Keys.MAC(nonceLabel, []byte("loose"), []byte(scope), random, when)[:nonceSum]
}

func (s *Service) halfDay() int64 { return s.h.Clock.Now("").Unix() / int64(nonceLife/time.Second) }

// isBound tells whether a form came from a page of this browser.
func (s *Service) isBound(r *http.Request, browser secret.Secret, scope string) bool {
	sum, err := base64.RawURLEncoding.DecodeString(r.PostForm.Get(pages.FieldNonce))
	return err == nil && !browser.IsZero() && hmac.Equal(sum, s.boundSum(browser, scope))
}

// isLoose tells whether a form came from a page shown to whoever had the token, and returns its random part.
func (s *Service) isLoose(r *http.Request, scope string) (seed []byte, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(r.PostForm.Get(pages.FieldNonce))
	if err != nil || len(raw) != nonceRandom+nonceSum {
		return nil, false
	}
	random, sum, now := raw[:nonceRandom], raw[nonceRandom:], s.halfDay()
	return random, hmac.Equal(sum, s.looseSum(scope, random, now)) || hmac.Equal(sum, s.looseSum(scope, random, now-1))
}

// sameSite refuses what a page of somebody else sent. Our pages have Referrer-Policy no-referrer, so browsers too old for
// Sec-Fetch-Site send "Origin: null": from them the nonce alone decides.
func (s *Service) sameSite(r *http.Request) error {
	if r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Origin") == "null" {
		return nil
	}
	if s.settings.public != nil && r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Origin") == s.settings.public.Scheme+"://"+s.settings.public.Host {
		return nil // a proxy may have changed the Host
	}
	if s.cross.Check(r) != nil {
		return failure.FormStale
	}
	return nil
}
