package gateway_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	// goccy/go-yaml writes the file of keys as the keyring reads it.
	"github.com/goccy/go-yaml"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/secret"
	"countersign.dev/services/gateway"
	"countersign.dev/services/gateway/rest"
)

const goodBody = `{"reference":"offer-2026-117","title":"Offer letter","profile":"standard","integration":"hr","template":"offer","value":{"currency_code":"EUR","units":"52000"},
 "documents":[{"name":"offer.pdf","content":"JVBERi0="}],
 "signers":[{"name":"Ada Lovelace","email":"ada@example.com","locale":"en","time_zone":"Europe/Berlin","group":1,
   "alternates":[{"name":"Grace Hopper","email":"grace@example.com"}],"manager":{"name":"C. Babbage","email":"cb@example.com"}}]}`

// call is a platform's request to REST.
type call struct {
	method, path, body string
	header             map[string]string
}

func (w *world) call(c call) (answer, rest.Problem) {
	w.t.Helper()
	var body io.Reader
	if c.body != "" {
		body = strings.NewReader(c.body)
	}
	r, err := http.NewRequestWithContext(w.t.Context(), c.method, w.url+c.path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	if c.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for k, v := range c.header {
		r.Header.Set(k, v)
		if k == "Host" {
			r.Host = v
		}
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	var p rest.Problem
	if resp.Header.Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(text, &p); err != nil {
			w.t.Fatalf("a problem that is no JSON: %v: %s", err, text)
		}
	}
	return answer{resp, string(text)}, p
}

func TestAPlatformCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got, _ := w.call(call{method: http.MethodPost, path: "/v1/requests", body: goodBody})
	var view map[string]any
	if err := json.Unmarshal([]byte(got.body), &view); err != nil {
		t.Fatal(err)
	}
	if got.StatusCode != http.StatusCreated || got.Header.Get("Location") != "/v1/requests/"+requestID || view["id"] != requestID || view["accepted_at"] != "2026-12-02T12:00:00Z" {
		t.Errorf("created: %d %v\n%s", got.StatusCode, got.Header, got.body)
	}
	if c := w.peers.platform; c.Kind != auth.Demo || c.Tenant != auth.DemoTenant || c.Via != gateway.Name {
		t.Errorf("token was called by %+v", c)
	}
	if s := w.peers.created; s.GetSigners()[0].GetTimeZone() != "Europe/Berlin" || s.GetValue().GetUnits() != 52000 || string(s.GetDocuments()[0].GetContent()) != "%PDF-" {
		t.Errorf("token was given %v", s)
	}
	w.peers.set(func() { w.peers.alreadyThere = true })
	if got, _ := w.call(call{method: http.MethodPost, path: "/v1/requests", body: goodBody}); got.StatusCode != http.StatusOK {
		t.Errorf("the same again: %d", got.StatusCode)
	}
	if got, _ := w.call(call{method: http.MethodGet, path: "/v1/requests/" + requestID}); got.StatusCode != http.StatusOK || !strings.Contains(got.body, `"status":"REQUEST_STATUS_IN_PROGRESS"`) {
		t.Errorf("get: %d %s", got.StatusCode, got.body)
	}
	if got, _ := w.call(call{method: http.MethodGet, path: "/v1/requests?page_size=7"}); got.StatusCode != http.StatusOK || !strings.Contains(got.body, `"next_page_token":"7"`) {
		t.Errorf("list: %d %s", got.StatusCode, got.body)
	}
	got, _ = w.call(call{method: http.MethodPost, path: "/v1/requests/" + requestID + "/signers/1:reissue", body: `{"reason":"lost"}`, header: map[string]string{"Idempotency-Key": "k-1"}})
	if r := w.peers.reissue; got.StatusCode != http.StatusOK || r.GetIdempotencyKey() != "k-1" || r.GetSigner() != "1" || r.GetReason() != "lost" || r.GetId() != requestID {
		t.Errorf("reissue: %d %s, token was given %v", got.StatusCode, got.body, r)
	}
	change := `{"deadline":"2026-12-24T17:00:00Z","signers":[{"signer":"1","email":"ada@byron.example","group":2}],"metadata":{"stage":""},"reason":"she moved"}`
	got, _ = w.call(call{method: http.MethodPatch, path: "/v1/requests/" + requestID, body: change, header: map[string]string{"Idempotency-Key": "k-2"}})
	if r := w.peers.amend; got.StatusCode != http.StatusOK || !strings.Contains(got.body, `"deadline":"2026-12-24T17:00:00Z"`) || r.GetIdempotencyKey() != "k-2" ||
		r.GetId() != requestID || r.GetSigners()[0].GetEmail() != "ada@byron.example" || r.GetSigners()[0].Name != nil || r.GetSigners()[0].GetGroup() != 2 {
		t.Errorf("amend: %d %s, token was given %v", got.StatusCode, got.body, r)
	}
	if got, _ = w.call(call{method: http.MethodPost, path: "/v1/requests/" + requestID + "/signers/1:reissue"}); got.StatusCode != http.StatusOK || w.peers.reissue.GetIdempotencyKey() != "" {
		t.Errorf("reissue without a body: %d %s", got.StatusCode, got.body)
	}
}

// TestProblems has every way to be refused: the status, the code, the fields, and that nothing of what was sent comes back.
func TestProblems(t *testing.T) {
	t.Parallel()
	const private = "Geheim"
	big := `{"reference":"` + base64.StdEncoding.EncodeToString(make([]byte, 7<<20)) + `"}`
	post := func(body string) call { return call{method: http.MethodPost, path: "/v1/requests", body: body} }
	for name, tt := range map[string]struct {
		call   call
		err    error // what token answers
		status int
		code   string // "" is about:blank
		field  string
		wait   string
	}{
		"no JSON":               {post(`{"title": ` + private), nil, 400, "REQUEST_UNREADABLE", "$", ""},
		"an unknown field":      {post(`{"titel":"` + private + `"}`), nil, 400, "REQUEST_UNREADABLE", "titel", ""},
		"deep inside":           {post(`{"signers":[{"name":"` + private + `","mail":"` + private + `"}]}`), nil, 400, "REQUEST_UNREADABLE", "mail", ""},
		"a field twice":         {post(`{"title":"` + private + `","title":"b"}`), nil, 400, "REQUEST_UNREADABLE", "title", ""},
		"another kind":          {post(`{"signers":[{"group":"` + private + `"}]}`), nil, 400, "REQUEST_UNREADABLE", "group", ""},
		"no base64":             {post(`{"documents":[{"content":"` + private + `!"}]}`), nil, 400, "REQUEST_UNREADABLE", "content", ""},
		"a list":                {post(`["` + private + `"]`), nil, 400, "REQUEST_UNREADABLE", "$", ""},
		"something after it":    {post(goodBody + private), nil, 400, "REQUEST_UNREADABLE", "$", ""},
		"no UTF-8":              {post("{\"title\":\"" + private + "\xff\"}"), nil, 400, "REQUEST_UNREADABLE", "$", ""},
		"very deep":             {post(strings.Repeat(`{"value":`, 20000)), nil, 400, "REQUEST_UNREADABLE", "", ""},
		"__proto__":             {post(`{"__proto__":{"x":1}}`), nil, 400, "REQUEST_UNREADABLE", "__proto__", ""},
		"too large":             {post(big), nil, 413, "REQUEST_UNREADABLE", "$", ""},
		"no content type":       {call{http.MethodPost, "/v1/requests", goodBody, map[string]string{"Content-Type": "text/plain"}}, nil, 400, "REQUEST_UNREADABLE", "$", ""},
		"an unknown parameter":  {call{method: http.MethodGet, path: "/v1/requests?page_sise=7"}, nil, 422, "REQUEST_INVALID", "page_sise", ""},
		"a parameter elsewhere": {call{method: http.MethodGet, path: "/v1/requests/" + requestID + "?page_size=7"}, nil, 422, "REQUEST_INVALID", "page_size", ""},
		"a parameter of a kind": {call{method: http.MethodGet, path: "/v1/requests?page_size=" + private}, nil, 422, "REQUEST_INVALID", "page_size", ""},
		"a rule of the contract": {
			call{method: http.MethodPost, path: "/v1/requests/" + requestID + "/signers/1:reissue", body: `{"reason":"` + strings.Repeat(private, 100) + `"}`},
			nil, 422, "REQUEST_INVALID", "reason", "",
		},
		"a rule of token":     {post(goodBody), failure.RequestInvalid.WithFields(failure.Field{Path: "signers[0].email", Problem: "is no mail address"}), 422, "REQUEST_INVALID", "signers[0].email", ""},
		"a conflict":          {post(goodBody), failure.RequestConflict, 409, "REQUEST_CONFLICT", "", ""},
		"too often":           {post(goodBody), failure.RateLimited.After(1500 * time.Millisecond), 429, "RATE_LIMITED", "", "2"},
		"not allowed":         {post(goodBody), failure.PermissionDenied, 403, "PERMISSION_DENIED", "", ""},
		"not there":           {call{method: http.MethodGet, path: "/v1/requests/req_2"}, nil, 404, "REQUEST_UNKNOWN", "", ""},
		"an accident":         {post(goodBody), status.Error(codes.Unknown, "disk of "+private+" is on fire"), 500, "INTERNAL", "", ""},
		"token is away":       {post(goodBody), status.Error(codes.Unavailable, private), 503, "UNAVAILABLE", "", ""},
		"two keys":            {call{http.MethodPost, "/v1/requests/" + requestID + "/signers/1:reissue", `{"idempotency_key":"a"}`, map[string]string{"Idempotency-Key": "b"}}, nil, 422, "REQUEST_INVALID", "idempotency_key", ""},
		"a key too long":      {call{http.MethodPost, "/v1/requests/" + requestID + "/signers/1:reissue", `{}`, map[string]string{"Idempotency-Key": strings.Repeat("k", 200)}}, nil, 422, "REQUEST_INVALID", "idempotency_key", ""},
		"no such path":        {call{method: http.MethodGet, path: "/v1/nothing"}, nil, 404, "", "", ""},
		"no such method":      {call{method: http.MethodDelete, path: "/v1/requests"}, nil, 405, "", "", ""},
		"another page's form": {call{http.MethodPost, "/v1/requests", goodBody, map[string]string{"Sec-Fetch-Site": "cross-site"}}, nil, 403, "PERMISSION_DENIED", "", ""},
		"a wrong key":         {call{http.MethodGet, "/v1/requests", "", map[string]string{"Authorization": "Bearer csk_live_x"}}, nil, 401, "UNAUTHENTICATED", "", ""},
		"behind a proxy":      {call{http.MethodGet, "/v1/requests", "", map[string]string{"X-Forwarded-For": "127.0.0.1"}}, nil, 401, "UNAUTHENTICATED", "", ""},
		"another host":        {call{http.MethodGet, "/v1/requests", "", map[string]string{"Host": "rebound.example"}}, nil, 401, "UNAUTHENTICATED", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.peers.set(func() { w.peers.signingErr = tt.err })
			got, p := w.call(tt.call)
			if got.StatusCode != tt.status || p.Status != tt.status || p.Code != tt.code || p.Title == "" || got.Header.Get("Retry-After") != tt.wait {
				t.Fatalf("got %d, Retry-After %q\n%s", got.StatusCode, got.Header.Get("Retry-After"), got.body)
			}
			if tt.wait == "2" && p.Wait != "1.5s" { // as gRPC's RetryInfo has it
				t.Errorf("to wait 1.5 s, it says %q", p.Wait)
			}
			if want := strings.ToLower(tt.code); p.Type != want && (want != "" || p.Type != "about:blank") {
				t.Errorf("type %q", p.Type)
			}
			if tt.field != "" && (len(p.Fields) == 0 || p.Fields[0].Path != tt.field || p.Fields[0].Problem == "") {
				t.Errorf("fields %v, want %s", p.Fields, tt.field)
			}
			if strings.Contains(got.body, private) || strings.Contains(w.logs.String(), "ada@example.com") {
				t.Errorf("what was sent comes back: %s\n%s", got.body, w.logs)
			}
			if got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("headers %v", got.Header)
			}
			if (tt.status == 401) != (got.Header.Get("WWW-Authenticate") != "") {
				t.Errorf("WWW-Authenticate is %q", got.Header.Get("WWW-Authenticate"))
			}
		})
	}
}

func TestPlatformsShowTheirKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.yaml")
	var plain secret.Secret
	w := newWorld(t, func(c *gateway.Config, h *host.Host) {
		var key auth.Key
		var err error
		plain, key, err = auth.GenerateKey(h.Keys.Derive("cs.apikey.v1", 32), noon, auth.NewKey{Tenant: "acme", Name: "crm", Scopes: []string{auth.RequestsRead}, Life: 24 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		file, err := yaml.Marshal(auth.KeyFile{Keys: []auth.Key{key}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		c.APIKeys = path
	})
	get := func(header map[string]string) int {
		got, _ := w.call(call{method: http.MethodGet, path: "/v1/requests/" + requestID, header: header})
		return got.StatusCode
	}
	// What a caller says about itself is not heard (T45).
	if got := get(map[string]string{
		"Authorization": "Bearer " + plain.Reveal(), "X-Tenant": "other", "Grpc-Metadata-Countersign-Caller-Tenant": "other", "Grpc-Metadata-Countersign-Caller-Kind": "internal", "Grpc-Timeout": "1n",
	}); got != http.StatusOK {
		t.Fatalf("with the key: %d", got)
	}
	if c := w.peers.platform; c.Kind != auth.Platform || c.Tenant != "acme" || len(c.Scopes) != 1 || c.Scopes[0] != auth.RequestsRead {
		t.Errorf("token was called by %+v", c)
	}
	w.clock.Advance(25 * time.Hour)
	if got := get(map[string]string{"Authorization": "Bearer " + plain.Reveal()}); got != http.StatusUnauthorized {
		t.Errorf("with a key that has expired: %d", got)
	}
}

func TestAClientHasALimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, realRedis(t))
	for i := range 400 {
		got, p := w.call(call{method: http.MethodGet, path: "/v1/requests/" + requestID})
		if got.StatusCode == http.StatusTooManyRequests {
			if i < 200 || p.Code != "RATE_LIMITED" || got.Header.Get("Retry-After") == "" {
				t.Errorf("after %d calls: %s", i, got.body)
			}
			return
		}
	}
	t.Skip("this machine makes fewer than 100 calls a second")
}
