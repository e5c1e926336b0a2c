package host_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/limit"
	"countersign.dev/pkg/redisserver/redistest"
	"countersign.dev/pkg/telemetry"
)

func admission(t *testing.T, h *host.Host) *host.Admission {
	t.Helper()
	a, err := h.Admission("token")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestClientsAreCountedApart(t *testing.T) {
	a := admission(t, &host.Host{Redis: redistest.Real(t), Keys: ring(t), Telemetry: telemetry.Nop()})
	admit := a.Client(host.ClientLimit{ClientRate: 1, ClientBurst: 2})
	as := func(tenant, id string) context.Context {
		return auth.With(t.Context(), auth.Caller{Kind: auth.Platform, Tenant: tenant, ID: id})
	}
	for range 2 {
		if err := admit(as("acme", "key1")); err != nil {
			t.Fatal(err)
		}
	}
	f := failure.From(admit(as("acme", "key1")))
	if f == nil || f.Code != failure.RateLimited.Code || f.RetryAfter <= 0 || f.RetryAfter > time.Second {
		t.Fatalf("the third call: %v", f)
	}
	for _, other := range []context.Context{as("acme", "key2"), as("rival", "key1")} {
		if err := admit(other); err != nil {
			t.Errorf("another client: %v", err)
		}
	}
}

// TestWithoutRedisEachLimitsPolicyHolds: what shapes traffic is let through and counted, what protects somebody refuses and says so.
func TestWithoutRedisEachLimitsPolicyHolds(t *testing.T) {
	s := redistest.StartReal(t)
	h := &host.Host{Redis: redistest.Client(t, s.Addr()), Keys: ring(t), Telemetry: telemetry.Nop()}
	a := admission(t, h)
	s.Stop()
	if err := a.Client(host.ClientLimit{})(t.Context()); err != nil {
		t.Errorf("traffic: %v", err)
	}
	err := a.Spend(t.Context(), limit.PerMinute("traffic", "k", 20, limit.FailOpen), limit.PerMinute("guesses", "k", 3, limit.FailClosed))
	if f := failure.From(err); f == nil || f.Code != failure.Unavailable.Code || f.RetryAfter != limit.RetryWhenDown {
		t.Errorf("what protects somebody: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Client(host.ClientLimit{})(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who left: %v", err)
	}
	page := httptest.NewRecorder()
	h.Telemetry.MetricsHandler().ServeHTTP(page, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	for _, name := range []string{"api-client", "traffic", "guesses"} {
		if !strings.Contains(page.Body.String(), `countersign_token_unlimited_total{limit="`+name+`"`) {
			t.Errorf("the metric does not tell of %s", name)
		}
	}
}

func TestClientLimitNamesWhatIsWrong(t *testing.T) {
	for _, wrong := range []host.ClientLimit{{ClientRate: -1}, {ClientBurst: -1}, {ClientRate: 2_000_000}} {
		if err := wrong.Validate(); err == nil || !strings.Contains(err.Error(), "--client-rate") {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
	if err := (host.ClientLimit{}).Validate(); err != nil {
		t.Error(err)
	}
}
