package gateway_test

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/failure/words"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/telemetry"
	"countersign.dev/pkg/telemetry/telemetrytest"
	"countersign.dev/services/gateway"
	"countersign.dev/services/gateway/pages"
)

// TestScannersChangeNothing holds T03: looking, however often and with whatever method, is looking.
func TestScannersChangeNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.browser()
	b.header.Set("User-Agent", "SafeLinks scanner")
	for range 100 {
		got, head := b.get(openPath), b.do(http.MethodHead, openPath, nil)
		if got.StatusCode != http.StatusOK || head.StatusCode != http.StatusOK || head.body != "" || len(got.Cookies()) != 0 {
			t.Fatalf("GET %d, HEAD %d %q, cookies %v", got.StatusCode, head.StatusCode, head.body, got.Cookies())
		}
	}
	for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions, "PROPFIND"} {
		if got := b.do(method, openPath, nil); got.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", method, got.StatusCode)
		}
	}
	// One that sends every form it finds from another origin, or without what the form holds.
	b.header.Set("Sec-Fetch-Site", "cross-site")
	if got := b.submit(b.get(openPath), openPath); got.StatusCode != http.StatusForbidden {
		t.Errorf("from another site: %d", got.StatusCode)
	}
	if w.peers.count("Resolve", "GetPerson", "GetRequest") != len(w.peers.calls) {
		t.Errorf("calls %v", w.peers.calls)
	}
}

func TestWhereFormsComeFrom(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		header map[string]string
		status int
	}{
		"the same origin":            {map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "null"}, http.StatusSeeOther},
		"an old browser":             {map[string]string{"Origin": "null"}, http.StatusSeeOther},
		"no browser":                 {nil, http.StatusSeeOther},
		"another site":               {map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, http.StatusForbidden},
		"a sibling":                  {map[string]string{"Sec-Fetch-Site": "same-site", "Origin": "https://blog.example"}, http.StatusForbidden},
		"an old browser's other tab": {map[string]string{"Origin": "https://evil.example"}, http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			b := w.browser()
			page := b.get(openPath)
			for k, v := range tt.header {
				b.header.Set(k, v)
			}
			if got := b.submit(page, openPath); got.StatusCode != tt.status {
				t.Errorf("got %d, want %d", got.StatusCode, tt.status)
			}
		})
	}
}

func TestHeadersOfEveryAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, _ := w.proved()
	for _, path := range []string{
		openPath, "/s/none", "/s/", "/s/a/b", signPath, signPath + "/pages/" + documentID + "/1.720", signPath + "/document.pdf", signPath + "/nothing",
		"/sign/x", "/sign/", goOnPath, "/continue/demo/x", "/", "/nowhere",
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete} {
			got := b.do(method, path, nil)
			for name, want := range pages.Headers(pages.Policy{}) {
				if got.Header.Get(name) != want {
					t.Errorf("%s %s (%d): %s is %q", method, path, got.StatusCode, name, got.Header.Get(name))
				}
			}
		}
	}
}

func TestCookiesAreBoundToTheHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *gateway.Config, _ *host.Host) { c.PublicURL = "https://sign.example.com" })
	b := w.browser()
	got := b.submit(b.get(openPath), openPath)
	if len(got.Cookies()) != 2 {
		t.Fatalf("cookies %v", got.Cookies())
	}
	for _, c := range got.Cookies() {
		if !strings.HasPrefix(c.Name, "__Host-cs") || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.MaxAge != 0 {
			t.Errorf("cookie %v", c)
		}
	}
	plain := newWorld(t)
	b = plain.browser()
	for _, c := range b.submit(b.get(openPath), openPath).Cookies() {
		if c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || strings.HasPrefix(c.Name, "__Host-") {
			t.Errorf("on loopback http: cookie %v", c)
		}
	}
}

func TestABrowsersSecretIsKeptIfItIsOurs(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		value string
		kept  bool
	}{"ours": {strings.Repeat("b", 43), true}, "too short": {"b", false}, "of other letters": {strings.Repeat("é", 43), false}, "a long one": {strings.Repeat("b", 200), false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			b := w.browser()
			b.header.Set("Cookie", "cs="+tt.value)
			if got := b.submit(b.get(openPath), openPath); got.StatusCode != http.StatusSeeOther || (w.peers.session == tt.value) != tt.kept || len(w.peers.session) != 43 {
				t.Errorf("got %d, the session is %q's", got.StatusCode, w.peers.session)
			}
		})
	}
}

// TestUnknownTokensLookAlike holds T12, and the limit of spec 3 by the real Redis.
func TestUnknownTokensLookAlike(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realRedis(t))
	b := w.browser()
	var first answer
	for i, path := range []string{"/s/" + otherToken, "/s/" + goodToken[:40], "/s/x", "/s/", "/s/" + strings.Repeat("a", 5000), "/s/a/b/c", "/s/%ff%00", "/s/cs1_%2e%2e", "/nowhere", "/s/-"} {
		got := b.get(path)
		if i == 0 {
			first = got
		}
		got.Header.Del("Date")
		first.Header.Del("Date")
		if got.StatusCode != http.StatusNotFound || got.body != first.body || len(got.Header) != len(first.Header) || strings.Contains(got.body, "cs1_") {
			t.Errorf("%s: %d\n%s", path, got.StatusCode, got.body)
		}
	}
	for range 10 {
		b.do(http.MethodPost, "/s/"+otherToken, url.Values{"nonce": {"x"}})
	}
	got := b.get("/s/" + otherToken)
	w.wantTitle(got, http.StatusTooManyRequests, words.For("RATE_LIMITED", "en").Title)
	if got.Header.Get("Retry-After") == "" {
		t.Error("how long to wait is not told")
	}
	// A good link opens all the same, and nobody escapes the limit by what they say about themselves (T45).
	w.wantTitle(b.get(openPath), http.StatusOK, "You have a document to sign")
	b.header.Set("X-Forwarded-For", "203.0.113.9")
	b.header.Set("Forwarded", "for=203.0.113.9")
	b.header.Set("X-Real-IP", "203.0.113.9")
	if got := b.get("/s/" + otherToken); got.StatusCode != http.StatusTooManyRequests {
		t.Errorf("X-Forwarded-For is believed: %d", got.StatusCode)
	}
}

func TestATrustedProxySaysWhoAsks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realRedis(t), func(c *gateway.Config, _ *host.Host) { c.TrustedProxies = []string{"127.0.0.0/8", "10.0.0.0/8"} })
	b := w.browser()
	ask := func(forwarded string) int {
		b.header.Set("X-Forwarded-For", forwarded)
		return b.get("/s/" + otherToken).StatusCode
	}
	for range 20 {
		ask("203.0.113.9")
	}
	for forwarded, want := range map[string]int{
		"203.0.113.9": http.StatusTooManyRequests, "198.51.100.1, 203.0.113.9, 10.1.2.3": http.StatusTooManyRequests,
		"203.0.113.9, 198.51.100.1": http.StatusNotFound, "2001:db8::1": http.StatusNotFound, "nonsense": http.StatusNotFound,
	} {
		if got := ask(forwarded); got != want {
			t.Errorf("%s: %d, want %d", forwarded, got, want)
		}
	}
}

func TestWithoutRedisSignersAreServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 3 {
		w.wantTitle(w.browser().get("/s/"+otherToken), http.StatusNotFound, words.For("LINK_UNKNOWN", "en").Title)
	}
	rec := &recorder{header: http.Header{}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	w.host.Telemetry.MetricsHandler().ServeHTTP(rec, r)
	if !strings.Contains(rec.body.String(), `countersign_gateway_unlimited_total{limit="unknown-token"`) {
		t.Error("the metric does not say so")
	}
}

type recorder struct {
	header http.Header
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
func (r *recorder) WriteHeader(int)             {}

// TestNothingLeaks holds T43 and T44 for what the gateway sees: the whole way, and everything that goes wrong.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	sink := telemetrytest.NewSink(t)
	logs := &lines{}
	tel, err := telemetry.Setup(t.Context(), telemetry.Options{Service: "countersign-gateway", OTLPEndpoint: sink.Endpoint(), Stderr: logs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Shutdown(context.WithoutCancel(t.Context())) })
	w := newWorld(t, func(_ *gateway.Config, h *host.Host) { h.Telemetry, h.Logger = tel, tel.Log })
	b := w.browser()
	b.header.Set("Traceparent", "00-11111111111111111111111111111111-2222222222222222-01")
	b.header.Set("Tracestate", "evil=1")
	b.header.Set("Baggage", "evilbaggage="+strings.Repeat("x", 8000))
	b.header.Set("X-Forwarded-For", "203.0.113.77")
	b.header.Set("User-Agent", "Telltale/1.0 \u202e{\"level\":\"ERROR\"}")

	page := b.submit(b.get(openPath), openPath)
	page = b.follow(page)
	page = b.submit(page, signPath+"/code", "code", "999999")
	page = b.follow(b.submit(page, signPath+"/code", "code", rightCode))
	page = b.follow(b.submit(page, signPath+"/sign", "agree", "yes", "name", "Ada King"))
	w.wantTitle(page, http.StatusOK, "Thank you, you have signed")
	// Telemetry takes out what begins like our tokens; what does not must not even come so far.
	const mangled = "almost-a-token-31415926535"
	for _, path := range []string{"/s/" + mangled, "/s/" + mangled + "/more?token=" + mangled, "//s//" + mangled, "//s//" + goodToken, "/S/" + goodToken, "/x/../s/" + goodToken, "/v1/" + goodToken, "/?t=" + goodToken, "/s/" + goodToken + "/more", "/sign/demo/" + goodToken} {
		b.get(path)
	}
	w.peers.set(func() {
		w.peers.resolveErr = status.Error(codes.Unknown, "the token "+goodToken+" of ada@example.com is no good")
	})
	if got := b.get(openPath); got.StatusCode != http.StatusInternalServerError || got.shows("no good") {
		t.Errorf("an accident: %d\n%s", got.StatusCode, got.body)
	}
	if err := tel.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}

	secret := b.cookies()["cs"]
	sink.AssertNone(t, goodToken, goodToken[8:40], mangled, secret, "127.0.0.1", "203.0.113.77", "Telltale", rightCode, "999999", "ada@example.com", "Ada King", "Ada Lovelace", "Offer letter", "evilbaggage", "evil=1")
	for _, leaked := range []string{goodToken, mangled, secret, "203.0.113.77", "Telltale", rightCode, "ada@example.com", "Ada King", "Offer letter"} {
		if strings.Contains(logs.String(), leaked) {
			t.Errorf("%q was logged:\n%s", leaked, logs.String())
		}
	}
	spans := sink.Wait(t, 5*time.Second, func(all []telemetrytest.Span) bool {
		return len(telemetrytest.Request(all, requestID)) > 5
	})
	named := map[string]bool{}
	for _, span := range spans {
		named[span.Name] = true
		if span.TraceID == "11111111111111111111111111111111" {
			t.Errorf("a stranger's trace is continued by %s", span.Name)
		}
		if span.ParentID == "" && span.Attr("countersign.request_id") == requestID && !strings.Contains(strings.Join(span.LinksTo, " "), "0af7651916cd43dd8448eb211c80319c") {
			t.Errorf("the visit %s does not continue the story of its link: %v", span.Name, span.LinksTo)
		}
	}
	if !named["GET /s/{token}"] || !named["POST /sign/{tenant}/{link}/sign"] {
		t.Errorf("spans are named %v", named)
	}
}

func TestThePeersAreAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.peers.set(func() { w.peers.resolveErr = status.Error(codes.Unavailable, "gone") })
	got := w.browser().get(openPath)
	w.wantTitle(got, http.StatusServiceUnavailable, words.For("UNAVAILABLE", "en").Title)
	if !got.shows(`href="` + openPath + `"`) {
		t.Errorf("no way to try again:\n%s", got.body)
	}
	w.peers.set(func() { w.peers.resolveErr = nil })
	b, page := w.proved()
	w.peers.set(func() { w.peers.signErr = failure.Unavailable })
	if got := b.submit(page, signPath+"/sign", "agree", "yes", "name", "Ada"); got.StatusCode != http.StatusServiceUnavailable || !got.shows(`href="`+signPath+`"`) {
		t.Errorf("while signing: %d\n%s", got.StatusCode, got.body)
	}
}

func TestLongForms(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, page := w.proved()
	if got := b.submit(page, signPath+"/decline", "reason", strings.Repeat("x", 70<<10)); got.StatusCode != failure.RequestUnreadable.HTTP || w.peers.count("Decline") != 0 {
		t.Errorf("got %d", got.StatusCode)
	}
}

func TestSmallFiles(t *testing.T) {
	t.Parallel()
	apps := filepath.Join(t.TempDir(), "apps.json")
	if err := os.WriteFile(apps, []byte(`{"applinks":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *gateway.Config, _ *host.Host) {
		c.AppleApps, c.SecurityContact = apps, "mailto:security@example.com"
	})
	b := w.browser()
	for path, want := range map[string]struct{ kind, text string }{
		"/livez":      {"text/plain; charset=utf-8", "live"},
		"/robots.txt": {"text/plain; charset=utf-8", "Disallow: /\n"},
		"/.well-known/apple-app-site-association": {"application/json", `{"applinks":{}}`},
		"/.well-known/security.txt":               {"text/plain; charset=utf-8", "Contact: mailto:security@example.com\nExpires: 2027-05-31T12:00:00Z\n"},
		pages.Stylesheet("#1f4e79"):               {"text/css; charset=utf-8", "body"},
	} {
		if got := b.get(path); got.StatusCode != http.StatusOK || got.Header.Get("Content-Type") != want.kind || !strings.Contains(got.body, want.text) {
			t.Errorf("%s: %d %q %.200q", path, got.StatusCode, got.Header.Get("Content-Type"), got.body)
		}
	}
	if got := b.get("/.well-known/assetlinks.json"); got.StatusCode != http.StatusNotFound {
		t.Errorf("a file that is not configured: %d", got.StatusCode)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	keys := "keys.yaml"
	for name, tt := range map[string]struct {
		config gateway.Config
		wrong  []string
	}{
		"loopback":                      {gateway.Config{HTTP: "127.0.0.1:0"}, nil},
		"everywhere, with all it needs": {gateway.Config{HTTP: ":8080", PublicURL: "https://sign.example.com", APIKeys: keys, TrustedProxies: []string{"10.0.0.0/8"}}, nil},
		"behind a local proxy":          {gateway.Config{HTTP: "127.0.0.1:8080", PublicURL: "https://sign.example.com/"}, nil},
		"a local name":                  {gateway.Config{HTTP: "127.0.0.1:8080", PublicURL: "http://localhost:8080"}, nil},
		"everywhere, open":              {gateway.Config{HTTP: ":8080"}, []string{"without authentication", "--public-url is missing"}},
		"everywhere, in clear":          {gateway.Config{HTTP: ":8080", PublicURL: "http://sign.example.com", APIKeys: keys}, []string{"has to be https"}},
		"nonsense": {
			gateway.Config{HTTP: "127.0.0.1:0", PublicURL: "https://u:p@sign.example.com/x?y", TrustedProxies: []string{"10.0.0.1"}, SecurityContact: "me"},
			[]string{"is no origin", "is no network", "--security-contact"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := tt.config.Validate()
			if (err != nil) != (len(tt.wrong) > 0) {
				t.Fatalf("error %v", err)
			}
			for _, want := range tt.wrong {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in %v", want, err)
				}
			}
		})
	}
}

func TestServeListensAndDrains(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s, err := gateway.New(t.Context(), w.host, gateway.Config{HTTP: "127.0.0.1:0"}, defaults())
	if err != nil {
		t.Fatal(err)
	}
	component, address, err := s.Serve()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- component.Run(ctx) }()
	w.url = "http://" + address
	w.wantTitle(w.browser().get(openPath), http.StatusOK, "You have a document to sign")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
