package auth

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"
)

// The metadata by which an internal service says for whom it asks.
const (
	behalfID     = "countersign-caller-id"
	behalfTenant = "countersign-caller-tenant"
	behalfKind   = "countersign-caller-kind"
	behalfScopes = "countersign-caller-scopes"
)

// Outgoing returns ctx such that the next gRPC call says that it is made on behalf of ctx's caller. Calls of an internal
// caller, and of nobody, are made in the dialler's own name: ctx is returned as it is.
func Outgoing(ctx context.Context) context.Context {
	c := From(ctx)
	if c.Kind != Platform && c.Kind != Demo {
		return ctx
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	md = md.Copy()
	if md == nil {
		md = metadata.MD{}
	}
	md.Set(behalfID, c.ID)
	md.Set(behalfTenant, c.Tenant)
	md.Set(behalfKind, c.Kind.String())
	md.Set(behalfScopes, strings.Join(c.Scopes, " "))
	return metadata.NewOutgoingContext(ctx, md)
}

// OnBehalf lets an internal service pass on for whom it asks: the caller is then that platform, with its tenant and its
// scopes, and Via names the service. From any other caller what Outgoing writes is ignored, so a stranger who sends it
// gains nothing. It never raises anybody to Internal.
func OnBehalf(inner Authenticator) Authenticator {
	return Func(func(ctx context.Context, e Evidence) (Caller, error) {
		c, err := inner.Authenticate(ctx, e)
		if err != nil || c.Kind != Internal || e.behalf[behalfKind] == "" {
			return c, err
		}
		kind := kindNamed(e.behalf[behalfKind])
		if kind != Platform && kind != Demo || !tenantPattern.MatchString(e.behalf[behalfTenant]) {
			return Caller{}, ErrAbsent
		}
		scopes := slices.DeleteFunc(strings.Fields(e.behalf[behalfScopes]), func(s string) bool { return !slices.Contains(Scopes(), s) })
		return Caller{ID: e.behalf[behalfID], Tenant: e.behalf[behalfTenant], Scopes: scopes, Kind: kind, Via: c.ID}, nil
	})
}
