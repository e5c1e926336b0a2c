package auth

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"countersign.dev/pkg/failure"
)

// Enter puts the caller of a gRPC method into the context, and refuses with failure.Unauthenticated where there is none.
// Health checks are asked by who has no credentials, and answered without.
func Enter(ctx context.Context, a Authenticator, method string) (context.Context, error) {
	if strings.HasPrefix(method, "/grpc.health.v1.Health/") {
		return ctx, nil
	}
	c, err := identify(ctx, a, grpcEvidence(ctx))
	if err != nil {
		return nil, err
	}
	return With(ctx, c), nil
}

// StreamServer is Enter for streams. A platform whose credentials are no longer good, such as a key that was taken out, loses its
// streams within seconds: their context ends.
func StreamServer(a Authenticator) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, err := Enter(ss.Context(), a, info.FullMethod)
		if err != nil {
			return err
		}
		ctx, done := whileGood(ctx, a, grpcEvidence(ctx))
		defer done()
		err = next(srv, &stream{ss, ctx})
		if err != nil && errors.Is(context.Cause(ctx), failure.Unauthenticated) {
			return failure.Unauthenticated
		}
		return err
	}
}

// whileGood returns a context that ends, because of failure.Unauthenticated, once a platform would no longer be let in. Others are who
// they are.
func whileGood(ctx context.Context, a Authenticator, e Evidence) (context.Context, func()) {
	if From(ctx).Kind != Platform {
		return ctx, func() {}
	}
	ctx, end := context.WithCancelCause(ctx)
	go func() {
		again := time.NewTicker(followEvery)
		defer again.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-again.C:
			}
			if _, err := identify(ctx, a, e); failure.From(err) != nil {
				end(failure.Unauthenticated)
			}
		}
	}()
	return ctx, func() { end(nil) }
}

type stream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // a stream's context can be replaced in no other way
}

func (s *stream) Context() context.Context { return s.ctx }

// identify never lets nobody through, whatever the authenticator returns.
func identify(ctx context.Context, a Authenticator, e Evidence) (Caller, error) {
	if a == nil {
		return Caller{}, failure.Unauthenticated
	}
	c, err := a.Authenticate(ctx, e)
	switch {
	case errors.Is(err, ErrAbsent), err == nil && c.Kind == Nobody:
		return Caller{}, failure.Unauthenticated
	case err != nil:
		return Caller{}, err
	default:
		return c, nil
	}
}

func grpcEvidence(ctx context.Context) Evidence {
	var e Evidence
	if p, ok := peer.FromContext(ctx); ok {
		e.Peer, e.Local = p.Addr, p.LocalAddr
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			state := info.State
			e.TLS = &state
		}
	}
	if _, memory := e.Peer.(Addr); !memory { // who dials over memory is known by that
		e.Authorization, e.Host = one(ctx, "authorization"), one(ctx, ":authority")
		e.Proxied = len(metadata.ValueFromIncomingContext(ctx, "x-forwarded-for")) > 0 || len(metadata.ValueFromIncomingContext(ctx, "forwarded")) > 0
	}
	if kind := one(ctx, behalfKind); kind != "" {
		e.behalf = map[string]string{behalfKind: kind}
		for _, key := range []string{behalfID, behalfTenant, behalfScopes} {
			e.behalf[key] = one(ctx, key)
		}
	}
	return e
}

// one returns the value of key in a call's metadata; said twice, it is not said at all, since readers could differ on which one counts.
func one(ctx context.Context, key string) string {
	if v := metadata.ValueFromIncomingContext(ctx, key); len(v) == 1 {
		return v[0]
	}
	return ""
}

// HTTP is Enter for HTTP handlers (Authorization: Bearer). refuse writes the answer to a caller who is not let in;
// nil writes a problem of RFC 9457.
func HTTP(a Authenticator, refuse func(http.ResponseWriter, *http.Request, error), next http.Handler) http.Handler {
	if refuse == nil {
		refuse = problem
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := identify(r.Context(), a, httpEvidence(r))
		if err != nil {
			refuse(w, r, err)
			return
		}
		ctx, done := whileGood(With(r.Context(), c), a, httpEvidence(r))
		defer done()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func httpEvidence(r *http.Request) Evidence {
	e := Evidence{TLS: r.TLS, Host: r.Host, Peer: textAddr(r.RemoteAddr)}
	e.Local, _ = r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if v := r.Header.Values("Authorization"); len(v) == 1 {
		e.Authorization = v[0]
	}
	e.Proxied = r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != ""
	return e
}

// textAddr is an address that net/http gives as text.
type textAddr string

func (a textAddr) Network() string { return "tcp" }
func (a textAddr) String() string  { return string(a) }

func problem(w http.ResponseWriter, _ *http.Request, err error) {
	f := failure.From(err)
	if f == nil {
		f = failure.Internal
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if f.HTTP == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="countersign"`)
	}
	w.WriteHeader(f.HTTP)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": strings.ToLower(f.Code), "title": f.Text, "status": f.HTTP, "code": f.Code}) // the caller may be gone
}
