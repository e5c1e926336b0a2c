package gateway

import (
	"net/http"
	"net/netip"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/failure"
	"countersign.dev/services/gateway/rest"
)

// api is REST for platforms: who calls is known before anything is read. A page in a browser on this machine, whoever
// wrote it, is no platform.
func (s *Service) api() http.Handler {
	refuse := func(w http.ResponseWriter, r *http.Request, err error) { rest.WriteProblem(w, r, s.h.Logger, err) }
	known := auth.HTTP(s.platforms(), refuse, s.rest)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.cross.Check(r) != nil {
			refuse(w, r, failure.PermissionDenied)
			return
		}
		// A key that is bound to networks is bound to where its client is, not to our proxy.
		if at := s.address(r); at.IsValid() {
			if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && peer.Addr().Unmap() != at {
				r.RemoteAddr = netip.AddrPortFrom(at, 0).String()
			}
		}
		known.ServeHTTP(w, r)
	})
}
