package pages

import "strings"

// Policy is what a tenant's pages may do beyond the strict default. The zero Policy allows nothing more.
type Policy struct {
	FrameAncestors []string // exact origins that may embed the pages, such as https://portal.example
	FormAction     []string // further origins a form may lead to, such as an identity provider's: browsers check redirects too
}

// Headers returns the headers of every response under /s/ and /sign/ (security 3.3), whatever it is: they suit pages,
// redirects, images and downloads. No script runs, nothing comes from elsewhere, nothing is stored or indexed.
//
// With Referrer-Policy no-referrer browsers send `Origin: null` on POST. Cross-origin protection therefore has to rest
// on Sec-Fetch-Site and on the form nonce.
func Headers(p Policy) map[string]string {
	frames := "'none'"
	if len(p.FrameAncestors) > 0 {
		frames = sources(p.FrameAncestors)
	}
	forms := "'self'"
	if len(p.FormAction) > 0 {
		forms += " " + sources(p.FormAction)
	}
	headers := map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; object-src 'none'; base-uri 'none'; " +
			"form-action " + forms + "; frame-ancestors " + frames,
		"Cache-Control":                "no-store",
		"Referrer-Policy":              "no-referrer",
		"X-Robots-Tag":                 "noindex, nofollow",
		"X-Content-Type-Options":       "nosniff",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Strict-Transport-Security":    "max-age=31536000; includeSubDomains",
		"Permissions-Policy":           "camera=(), geolocation=(), microphone=(), payment=(), usb=(), browsing-topics=()",
	}
	if len(p.FrameAncestors) == 0 {
		headers["X-Frame-Options"] = "DENY" // for browsers that know no frame-ancestors
	}
	return headers
}

// sources drops what would end or widen the directive, so that a wrong setting forbids instead of allowing.
func sources(origins []string) string {
	var kept []string
	for _, o := range origins {
		if strings.HasPrefix(o, "https://") && !strings.ContainsAny(o, " \t\r\n;,*'\"") && len(o) > len("https://") {
			kept = append(kept, o)
		}
	}
	if len(kept) == 0 {
		return "'none'"
	}
	return strings.Join(kept, " ")
}
