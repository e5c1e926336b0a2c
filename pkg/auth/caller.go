// Package auth says who calls: an interceptor always yields a Caller with its tenant and scopes, whatever the transport.
//
// Four ways lead to one, and a listener is given those that fit it: the in-memory connection of a service in the same
// process (InProcess), a client certificate between processes (MutualTLS), an API key (Keyring), and on a loopback
// listener nothing at all, for the tenant "demo" (Loopback). What a caller says about itself in headers counts only where an
// internal service passes on for whom it asks (OnBehalf).
package auth

import (
	"context"
	"log/slog"
	"slices"

	"countersign.dev/pkg/failure"
)

// Kind is what sort of caller it is.
type Kind int

// The kinds. The zero Kind is nobody, who may nothing.
const (
	Nobody   Kind = iota
	Internal      // one of our services
	Platform      // a system of a tenant
	Demo          // somebody on this machine, as tenant "demo"
)

// String returns the kind in lower case.
func (k Kind) String() string {
	switch k {
	case Internal:
		return "internal"
	case Platform:
		return "platform"
	case Demo:
		return "demo"
	default:
		return "nobody"
	}
}

func kindNamed(name string) Kind {
	for _, k := range []Kind{Internal, Platform, Demo} {
		if k.String() == name {
			return k
		}
	}
	return Nobody
}

// DemoTenant is the one tenant of callers that show no credentials.
const DemoTenant = "demo"

// The scopes a platform's key may carry (security.md 4.4). There is no wildcard.
const (
	RequestsRead       = "requests:read"
	RequestsWrite      = "requests:write"
	RequestsErase      = "requests:erase"
	RecipientsWrite    = "recipients:write"
	LinksReissue       = "links:reissue"
	DelegationsApprove = "delegations:approve"
	EvidenceExport     = "evidence:export"
	ConfigWrite        = "config:write"
	AuditRead          = "audit:read"
)

// Scopes returns every scope there is.
func Scopes() []string {
	return []string{RequestsRead, RequestsWrite, RequestsErase, RecipientsWrite, LinksReissue, DelegationsApprove, EvidenceExport, ConfigWrite, AuditRead}
}

// Caller is who calls. The zero Caller is nobody.
type Caller struct {
	ID     string   // a service's name, a key's id, or "demo"
	Tenant string   // the tenant it acts for; an internal caller without one acts for any
	Scopes []string // what it may do there; an internal caller needs none
	Kind   Kind
	Via    string // the internal service that asks on this caller's behalf; empty = it asks itself
}

// Has reports whether the caller holds scope. An internal caller holds every scope.
func (c Caller) Has(scope string) bool {
	return c.Kind == Internal || c.Kind != Nobody && slices.Contains(c.Scopes, scope)
}

// May reports whether the caller may touch what belongs to tenant. Refuse as if the thing did not exist: that another
// tenant has it is not told.
func (c Caller) May(tenant string) bool {
	switch {
	case c.Kind == Nobody || tenant == "":
		return false
	case c.Kind == Internal && c.Tenant == "":
		return true
	default:
		return c.Tenant == tenant
	}
}

// LogValue names the caller without its scopes.
func (c Caller) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", c.ID), slog.String("tenant", c.Tenant), slog.String("kind", c.Kind.String()), slog.String("via", c.Via))
}

type callerKey struct{}

// With returns ctx as called by c.
func With(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// From returns who called; nobody where no interceptor ran.
func From(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// Require refuses with failure.Unauthenticated or failure.PermissionDenied unless the caller of ctx holds scope.
func Require(ctx context.Context, scope string) error {
	c := From(ctx)
	switch {
	case c.Kind == Nobody:
		return failure.Unauthenticated
	case !c.Has(scope):
		return failure.PermissionDenied
	default:
		return nil
	}
}

// Tenant returns the tenant a call is for: the caller's own, or the one named in the call where an internal service may
// name any. A platform that names another than its own is refused with failure.PermissionDenied.
func Tenant(ctx context.Context, named string) (string, error) {
	c := From(ctx)
	switch {
	case c.Kind == Nobody:
		return "", failure.Unauthenticated
	case named == "" && c.Tenant != "":
		return c.Tenant, nil
	case c.May(named):
		return named, nil
	default:
		return "", failure.PermissionDenied
	}
}
