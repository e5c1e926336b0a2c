package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"runtime/debug"
	"strings"

	// otelhttp gives spans and metrics of HTTP their standard names.
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"countersign.dev/pkg/secret"
	"countersign.dev/pkg/telemetry"
	"countersign.dev/services/gateway/pages"
)

const (
	tokenPrefix = "/s/"  // where links lead
	tokenMark   = "cs1_" // what every token begins with (spec 2.1)
	hiddenPath  = "/s/-" // what stands for a path with a token
	hiddenOther = "/-"   // what stands for a path that holds a token where none belongs
)

// arrival is what a request brought that no span, log line or metric may see: its token, and whose it is.
type arrival struct {
	token  secret.Secret
	remote string
	header http.Header // as it arrived
}

type arrivalKey struct{}

func arrivalOf(ctx context.Context) arrival {
	a, _ := ctx.Value(arrivalKey{}).(arrival)
	return a
}

// tokenOf returns the token of a request to /s/; zero where it has none.
func tokenOf(r *http.Request) secret.Secret { return arrivalOf(r.Context()).token }

// personal are the headers by which somebody can be told from others, beside the peer's address.
var personal = []string{"X-Forwarded-For", "Forwarded", "User-Agent"}

// shield moves tokens, addresses and the browser's description out of the request, into its context (security.md 3.6). It has
// to be the outermost handler: instrumentation records what a request holds when it arrives.
func shield(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := arrival{remote: r.RemoteAddr, header: r.Header}
		hidden := &url.URL{Path: r.URL.Path, RawQuery: r.URL.RawQuery}
		clean := path.Clean("/" + r.URL.Path)
		switch {
		case strings.HasPrefix(clean+"/", tokenPrefix):
			// A mail program may have taken the full stop or bracket after a link for a part of it.
			a.token = secret.New(strings.TrimRight(strings.TrimPrefix(clean+"/", tokenPrefix), "/.,;:!?)>]'\""))
			hidden = &url.URL{Path: hiddenPath, RawQuery: onlyLanguage(r.URL.RawQuery)}
		case strings.Contains(r.URL.Path, tokenMark), strings.Contains(r.URL.RawQuery, tokenMark):
			hidden = &url.URL{Path: hiddenOther}
		}
		header := r.Header.Clone()
		for _, name := range personal {
			delete(header, name)
		}
		inner := r.WithContext(context.WithValue(r.Context(), arrivalKey{}, a))
		inner.URL, inner.RequestURI, inner.RemoteAddr, inner.Header = hidden, hidden.RequestURI(), "", header
		next.ServeHTTP(w, inner)
	})
}

func onlyLanguage(query string) string {
	values, err := url.ParseQuery(query)
	if err != nil || !values.Has(languageParameter) {
		return ""
	}
	return url.Values{languageParameter: values[languageParameter][:1]}.Encode()
}

// unshield gives the handlers back what shield hid, but for the token, which stays in the context.
func unshield(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := arrivalOf(r.Context())
		inner := r.WithContext(r.Context())
		inner.Header, inner.RemoteAddr = a.header, a.remote
		defer func() { r.Pattern = inner.Pattern }() // the span's name is made of it, also after a panic
		next.ServeHTTP(w, inner)
	})
}

// traced makes a span of each request. It begins a trace of its own: a stranger's traceparent is linked to and decides
// nothing, and baggage is not read (security.md T43).
func (s *Service) traced(next http.Handler) http.Handler {
	name := "gateway" // a name from the Host header would be a stranger's, and a new series of every metric
	if s.settings.public != nil {
		name = s.settings.public.Host
	}
	return otelhttp.NewHandler(next, Name,
		otelhttp.WithTracerProvider(s.h.Telemetry.Tracers), otelhttp.WithMeterProvider(s.h.Telemetry.Meters),
		otelhttp.WithPropagators(telemetry.Propagator()), otelhttp.WithServerName(name),
		otelhttp.WithPublicEndpointFn(func(*http.Request) bool { return true }),
		otelhttp.WithFilter(func(r *http.Request) bool {
			return r.URL.Path != "/livez" && r.URL.Path != "/robots.txt" && !strings.HasPrefix(r.URL.Path, pages.AssetsPrefix)
		}))
}

// strict puts the headers of signers' pages on every answer; who needs others sets them over these.
func strict(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range pages.Headers(pages.Policy{}) {
			w.Header().Set(name, value)
		}
		next.ServeHTTP(w, r)
	})
}

// recovered answers a panic with a page, and logs it without what the request held.
func (s *Service) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p) // an answer that was cut on purpose
			}
			s.h.Logger.ErrorContext(r.Context(), "a request panicked", "route", r.Pattern, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			lastResort(w)
		}()
		next.ServeHTTP(w, r)
	})
}

func lastResort(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusInternalServerError)
	_, _ = w.Write(pages.LastResort()) // nothing more can be done
}

// address returns who asks: the peer, or where the peer is a proxy we trust, the last address before our own proxies.
func (s *Service) address(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	at := ap.Addr().Unmap()
	if err != nil || !s.trusts(at) {
		return at
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			return at
		}
		if at = hop.Unmap(); !s.trusts(at) {
			return at
		}
	}
	return at
}

func (s *Service) trusts(a netip.Addr) bool {
	for _, p := range s.settings.proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
