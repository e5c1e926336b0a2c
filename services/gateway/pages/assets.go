package pages

import (
	"crypto/sha256"
	_ "embed" // the style sheet
	"encoding/hex"
	"net/http"
	"regexp"
	"strconv"
)

// AssetsPrefix is where Assets has to be mounted.
const AssetsPrefix = "/assets/"

//go:embed style.css
var styleSheet string

const iconPath = AssetsPrefix + "icon-1.svg"

const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="#2456c9"/>` +
	`<path d="M8 17l5.5 5.5L24 11" fill="none" stroke="#fff" stroke-width="3.5" stroke-linecap="round" stroke-linejoin="round"/></svg>`

var stylePath = regexp.MustCompile(`^` + AssetsPrefix + `signer-([0-9a-f]{12})-([0-9a-f]{6})\.css$`)

// Stylesheet returns the path of the one style sheet of pages with this accent. It holds a hash of the content, so what
// it names never changes. The colours are part of the file because a strict CSP allows no style in a page.
func Stylesheet(accent string) string {
	digits := hexColour(accent)
	return AssetsPrefix + "signer-" + sum(css(digits)) + "-" + digits + ".css"
}

func css(digits string) string { return accentCSS(digits) + styleSheet }

func sum(content string) string {
	s := sha256.Sum256([]byte(content))
	return hex.EncodeToString(s[:6])
}

// Assets serves the style sheets and the icon under AssetsPrefix. Any accent has one: the file follows from its name.
// A name of another release gets the present content, which is then not to be kept.
func Assets() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		if r.URL.Path == iconPath {
			asset(w, "image/svg+xml", icon, true)
			return
		}
		m := stylePath.FindStringSubmatch(r.URL.Path)
		if m == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		content := css(m[2])
		asset(w, "text/css; charset=utf-8", content, sum(content) == m[1])
	})
}

func asset(w http.ResponseWriter, kind, content string, immutable bool) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(content)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache")
	if immutable {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	_, _ = w.Write([]byte(content)) //nolint:gosec // a style sheet or icon of ours; a reader that went away is its own matter
}
