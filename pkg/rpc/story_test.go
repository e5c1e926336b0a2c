package rpc

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/telemetry"
)

type asking struct{ request, tenant string }

func (a asking) GetRequestId() string { return a.request }
func (a asking) GetTenant() string    { return a.tenant }

func TestACallNamesItsRequest(t *testing.T) {
	t.Parallel()
	platform := auth.Caller{ID: "k", Tenant: "acme", Kind: auth.Platform}
	for name, tt := range map[string]struct {
		caller auth.Caller
		req    any
		want   string
	}{
		"request and the caller's tenant": {platform, asking{"req_1", "other"}, `"request_id":"req_1","tenant":"acme"`},
		"a service names the tenant":      {auth.Caller{ID: "s", Kind: auth.Internal}, asking{"req_1", "acme"}, `"request_id":"req_1","tenant":"acme"`},
		"what is no id is not told":       {auth.Caller{}, asking{"x\ny", strings.Repeat("a", 65)}, ``},
		"a message without either":        {auth.Caller{}, struct{}{}, ``},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			slog.New(telemetry.NewHandler(&out, nil)).InfoContext(withStory(auth.With(t.Context(), tt.caller), tt.req), "m")
			if !strings.Contains(out.String(), tt.want) || tt.want == "" && strings.Contains(out.String(), "request_id") {
				t.Errorf("logged %s", out.String())
			}
		})
	}
}
