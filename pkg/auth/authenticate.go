package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"countersign.dev/pkg/failure"
)

// Evidence is what a call and its connection show about who is calling. Nothing in it is trusted by itself.
type Evidence struct {
	Authorization string // the header or metadata of that name
	Peer, Local   net.Addr
	TLS           *tls.ConnectionState // nil without TLS
	Host          string               // the host the caller asked for
	Proxied       bool                 // somebody between us and the caller has put its mark on the call

	behalf map[string]string // the headers of OnBehalf
}

// An Authenticator tells from evidence who calls. It returns ErrAbsent when the evidence holds nothing of its kind, and
// failure.Unauthenticated when it does, but what it holds is not good.
type Authenticator interface {
	Authenticate(ctx context.Context, e Evidence) (Caller, error)
}

// ErrAbsent means that a call carries no credentials of the kind looked for.
var ErrAbsent = errors.New("auth: no credentials of this kind")

// Func makes a function an Authenticator.
type Func func(ctx context.Context, e Evidence) (Caller, error)

// Authenticate calls f.
func (f Func) Authenticate(ctx context.Context, e Evidence) (Caller, error) { return f(ctx, e) }

// FirstOf asks one after another until one finds credentials of its kind. Bad credentials end the search: a wrong key is
// never a caller without a key.
func FirstOf(all ...Authenticator) Authenticator {
	return Func(func(ctx context.Context, e Evidence) (Caller, error) {
		for _, a := range all {
			if c, err := a.Authenticate(ctx, e); !errors.Is(err, ErrAbsent) {
				return c, err
			}
		}
		return Caller{}, ErrAbsent
	})
}

// Fixed takes every call for c's. It is for a connection that only one caller can have, such as one end of a pipe.
func Fixed(c Caller) Authenticator {
	return Func(func(context.Context, Evidence) (Caller, error) { return c, nil })
}

// Addr is the address of an in-memory connection. Only this process can make one, so the name in it is true.
type Addr struct{ Service string }

// Network returns "memory".
func (a Addr) Network() string { return "memory" }

// String returns "memory:" and the name of the service that dialled.
func (a Addr) String() string { return "memory:" + a.Service }

// InProcess takes a call over an in-memory connection for the service that dialled it.
func InProcess() Authenticator {
	return Func(func(_ context.Context, e Evidence) (Caller, error) {
		a, ok := e.Peer.(Addr)
		if !ok {
			return Caller{}, ErrAbsent
		}
		if a.Service == "" {
			return Caller{}, failure.Unauthenticated
		}
		return Caller{ID: a.Service, Kind: Internal}, nil
	})
}

// MutualTLS takes a call over TLS for the service its client certificate names, if that is one of services: the URI
// spiffe://<trustDomain>/ns/<environment>/sa/<service> (security.md 4.1). The listener's TLS configuration must verify
// client certificates against our own authority alone; an unverified one counts as none.
func MutualTLS(trustDomain string, services ...string) Authenticator {
	return Func(func(_ context.Context, e Evidence) (Caller, error) {
		if e.TLS == nil || len(e.TLS.VerifiedChains) == 0 || len(e.TLS.PeerCertificates) == 0 {
			return Caller{}, ErrAbsent
		}
		uris := e.TLS.PeerCertificates[0].URIs
		if len(uris) != 1 { // SPIFFE X.509-SVID 2: exactly one
			return Caller{}, failure.Unauthenticated
		}
		name, ok := serviceOf(uris[0], trustDomain)
		if !ok || !slices.Contains(services, name) {
			return Caller{}, failure.Unauthenticated
		}
		return Caller{ID: name, Kind: Internal}, nil
	})
}

func serviceOf(id *url.URL, trustDomain string) (string, bool) {
	part := strings.Split(strings.TrimPrefix(id.Path, "/"), "/")
	if id.Scheme != "spiffe" || id.Host != trustDomain || len(part) != 4 || part[0] != "ns" || part[2] != "sa" {
		return "", false
	}
	return part[3], part[3] != ""
}

// demoAllowed keeps the demo on this machine: both ends of the connection, and the host asked for, must be loopback,
// and nobody may stand between. The host keeps out a page in a browser on this machine whose own name resolves here.
func demoAllowed(e Evidence) bool {
	return !e.Proxied && loopbackAddr(e.Peer) && loopbackAddr(e.Local) && loopbackHost(e.Host)
}

// Loopback takes a call without credentials for tenant "demo" with every scope, on a loopback connection alone.
func Loopback() Authenticator {
	return Func(func(_ context.Context, e Evidence) (Caller, error) {
		if e.Authorization != "" || !demoAllowed(e) {
			return Caller{}, ErrAbsent
		}
		return Caller{ID: DemoTenant, Tenant: DemoTenant, Scopes: Scopes(), Kind: Demo}, nil
	})
}

func loopbackAddr(a net.Addr) bool {
	if a == nil {
		return false
	}
	if a, ok := a.(*net.TCPAddr); ok {
		return a.IP.IsLoopback()
	}
	ap, err := netip.ParseAddrPort(a.String())
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// loopbackHost takes a host with or without a port. An empty one is none.
func loopbackHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761 6.3: never anywhere else
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func peerIP(a net.Addr) (netip.Addr, bool) {
	if a == nil {
		return netip.Addr{}, false
	}
	ap, err := netip.ParseAddrPort(a.String())
	return ap.Addr().Unmap(), err == nil
}
