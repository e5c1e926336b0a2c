package pages

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestAccentContrast: whatever colour a tenant has, text and buttons can be read in both schemes (WCAG 2.2 1.4.3, 1.4.11).
func TestAccentContrast(t *testing.T) {
	check := func(t rapid.TB, accent rgb) {
		for name, s := range map[string]struct {
			palette
			ground, surface rgb
		}{
			"light": {lightPalette(accent), lightGround, lightSurface},
			"dark":  {darkPalette(accent), darkGround, darkSurface},
		} {
			for what, c := range map[string][2]float64{
				"text on ground":  {contrast(s.Text, s.ground), contrastText},
				"text on surface": {contrast(s.Text, s.surface), contrastText},
				"text on tint":    {contrast(s.Text, s.Tint), contrastText},
				"text on button":  {contrast(s.On, s.Fill), contrastText},
				"button's edge":   {contrast(s.Edge, s.surface), contrastShape},
			} {
				if c[0] < c[1] {
					t.Errorf("%v %s: %s %.2f, want %.1f", accent, name, what, c[0], c[1])
				}
			}
		}
	}
	for _, digits := range []string{"000000", "ffffff", "ffff00", "808080", "ff0000", "00ff00", "0000ff", houseAccent, "1f6f5c"} {
		check(t, parseHex(digits))
	}
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.IntRange(0, 255)
		check(t, rgb{float64(part.Draw(t, "r")), float64(part.Draw(t, "g")), float64(part.Draw(t, "b"))})
	})
}

// TestSurfaces: the colours accent.go reckons with are those of the sheet.
func TestSurfaces(t *testing.T) {
	light, dark, _ := strings.Cut(styleSheet, "@media (prefers-color-scheme: dark)")
	for name, ok := range map[string]bool{
		"light ground": strings.Contains(light, "--ground: "+lightGround.String()), "light surface": strings.Contains(light, "--surface: #fff;"),
		"dark ground": strings.Contains(dark, "--ground: "+darkGround.String()), "dark surface": strings.Contains(dark, "--surface: "+darkSurface.String()),
	} {
		if !ok {
			t.Errorf("%s differs", name)
		}
	}
}

func TestAssets(t *testing.T) {
	get := func(method, path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		Assets().ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w
	}
	style := Stylesheet("#FFD400")
	if style == Stylesheet("#1f6f5c") || style != Stylesheet("ffd400") {
		t.Error("a sheet a colour, however it is written")
	}
	if Stylesheet("") != Stylesheet("red; } body { display: none") || Stylesheet("") != Stylesheet("#12345g") {
		t.Error("what is no colour is the house colour")
	}
	for name, tt := range map[string]struct {
		method, path string
		status       int
		cache        string
	}{
		"style":             {"GET", style, 200, "public, max-age=31536000, immutable"},
		"any other colour":  {"GET", Stylesheet("#123456"), 200, "public, max-age=31536000, immutable"},
		"of another build":  {"GET", "/assets/signer-000000000000-123456.css", 200, "no-cache"},
		"icon":              {"GET", iconPath, 200, "public, max-age=31536000, immutable"},
		"no such":           {"GET", "/assets/../pages.go", 404, ""},
		"not even a colour": {"GET", "/assets/signer-000000000000-12345z.css", 404, ""},
		"post":              {"POST", style, 405, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := get(tt.method, tt.path)
			if w.Code != tt.status || w.Header().Get("Cache-Control") != tt.cache {
				t.Errorf("%d %q, want %d %q", w.Code, w.Header().Get("Cache-Control"), tt.status, tt.cache)
			}
		})
	}
	if n := get("GET", style).Body.Len(); n >= 15_000 {
		t.Errorf("the sheet has %d bytes, more than 15 kB", n)
	}
	if strings.Contains(styleSheet, "url(") || strings.Contains(styleSheet, "@import") {
		t.Error("the sheet fetches something")
	}
}

func TestHeaders(t *testing.T) {
	h := Headers(Policy{})
	for name, want := range map[string]string{
		"Content-Security-Policy":    "default-src 'none'; style-src 'self'; img-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
		"Cache-Control":              "no-store",
		"Referrer-Policy":            "no-referrer",
		"X-Robots-Tag":               "noindex, nofollow",
		"X-Content-Type-Options":     "nosniff",
		"Cross-Origin-Opener-Policy": "same-origin",
		"Strict-Transport-Security":  "max-age=31536000; includeSubDomains",
		"X-Frame-Options":            "DENY",
	} {
		if h[name] != want {
			t.Errorf("%s: %q, want %q", name, h[name], want)
		}
	}
	open := Headers(Policy{FrameAncestors: []string{"https://portal.example"}, FormAction: []string{"https://login.example"}})
	if csp := open["Content-Security-Policy"]; !strings.HasSuffix(csp, "form-action 'self' https://login.example; frame-ancestors https://portal.example") || open["X-Frame-Options"] != "" {
		t.Errorf("open: %q, %q", csp, open["X-Frame-Options"])
	}
	for _, bad := range []string{"*", "https://*", "https://a.example; script-src *", "http://a.example", "https://", "https://a.example\r\nX: y", "'unsafe-inline'"} {
		if csp := Headers(Policy{FrameAncestors: []string{bad}})["Content-Security-Policy"]; !strings.HasSuffix(csp, "frame-ancestors 'none'") {
			t.Errorf("%q: %q", bad, csp)
		}
	}
	for name := range h {
		if http.CanonicalHeaderKey(name) != name {
			t.Errorf("%s is not in canonical form", name)
		}
	}
}
