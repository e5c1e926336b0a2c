package gateway

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/limit"
)

// Limits of spec 3. Both shape traffic, so they fail open: nobody is kept from signing because Redis is away.
const (
	unknownPerMinute = 20 // unknown or malformed tokens, per client address
	clientPerSecond  = 100
	clientBurst      = 200
)

// admitUnknown counts an unknown token against its sender's address. Good ones are not counted, and open whatever was tried
// from the same address: people behind one address do not block each other, and a token cannot be guessed anyway.
func (s *Service) admitUnknown(r *http.Request) error {
	return s.admit(r.Context(), limit.PerMinute("unknown-token", network(s.address(r)), unknownPerMinute, limit.FailOpen))
}

// admitPlatform counts a call against the client that makes it.
func (s *Service) admitPlatform(ctx context.Context) error {
	c := auth.From(ctx)
	return s.admit(ctx, limit.Limit{
		Name: "api-client", Key: c.Tenant + "/" + c.ID, Count: clientPerSecond, Period: time.Second, Burst: clientBurst, WhenDown: limit.FailOpen,
	})
}

func (s *Service) admit(ctx context.Context, l limit.Limit) error {
	d, err := s.limiter.Allow(ctx, l)
	var away *limit.Unavailable
	switch {
	case errors.As(err, &away):
		s.unlimited.Add(ctx, 1, metric.WithAttributes(attribute.String("limit", l.Name)))
		d = away.Decision()
	case err != nil:
		return err
	}
	if d.Allowed {
		return nil
	}
	return failure.RateLimited.After(d.RetryAfter)
}

// network is whom an address stands for: itself, or the /64 that one customer has of IPv6 (security.md 2.3).
func network(a netip.Addr) string {
	if !a.IsValid() {
		return "unknown"
	}
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}
