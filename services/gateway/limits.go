package gateway

import (
	"net/http"
	"net/netip"

	"countersign.dev/pkg/limit"
)

// unknownPerMinute is how many unknown or malformed tokens an address may send (spec 3). It shapes traffic, so it fails open: nobody
// is kept from signing because Redis is away.
const unknownPerMinute = 20

// admitUnknown counts an unknown token against its sender's address. Good ones are not counted, and open whatever was tried
// from the same address: people behind one address do not block each other, and a token cannot be guessed anyway.
func (s *Service) admitUnknown(r *http.Request) error {
	return s.admission.Spend(r.Context(), limit.PerMinute("unknown-token", network(s.address(r)), unknownPerMinute, limit.FailOpen))
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
