package server_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"countersign.dev/pkg/server"
)

func TestProbe(t *testing.T) {
	t.Parallel()
	ready := true
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("asked %s", r.URL.Path)
		}
		if !ready {
			http.Error(w, "NATS is not connected", http.StatusServiceUnavailable)
		}
	}))
	address := s.Listener.Addr().String()
	everywhere := "0.0.0.0" + address[strings.LastIndex(address, ":"):]
	for _, a := range []string{address, everywhere} {
		if err := server.Probe(t.Context(), a); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	ready = false
	if err := server.Probe(t.Context(), address); err == nil || !strings.Contains(err.Error(), "NATS is not connected") {
		t.Errorf("not ready: %v", err)
	}
	s.Close()
	if err := server.Probe(t.Context(), address); err == nil {
		t.Error("nobody listens, and yet it is ready")
	}
	if err := server.Probe(t.Context(), "8080"); err == nil {
		t.Error("no address, and yet it is ready")
	}
}
