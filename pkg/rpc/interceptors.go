package rpc

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime/debug"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/telemetry"
)

// errDraining is why the context of a stream ends when the server stops.
var errDraining = errors.New("rpc: the server is stopping")

// unary is what stands around every call that is answered once: one function of each, since a chain of interceptors makes each of its
// links anew for every call.
func (e *edge) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	ctx, call := e.tracing.begin(ctx, info.FullMethod)
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, e.panicked(ctx, info.FullMethod, p)
		}
		e.tracing.end(ctx, call, err)
	}()
	ctx = withStory(ctx, req) // so that the line about a failure names the request
	if resp, err = e.inTime(ctx, req, info.FullMethod, next); err != nil {
		return nil, e.toStatus(ctx, info.FullMethod, err)
	}
	return resp, nil
}

func (e *edge) inTime(ctx context.Context, req any, method string, next grpc.UnaryHandler) (any, error) {
	if _, set := ctx.Deadline(); !set {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, e.options.Deadline)
		defer cancel()
	}
	resp, err := e.admitted(ctx, req, method, next)
	return resp, whyLate(ctx, err)
}

// admitted asks who calls, what may be called, and whether the message is valid, before it answers.
func (e *edge) admitted(ctx context.Context, req any, method string, next grpc.UnaryHandler) (any, error) {
	ctx, err := auth.Enter(ctx, e.options.Auth, method)
	if err != nil {
		return nil, err
	}
	if err := e.admit(ctx, method); err != nil {
		return nil, err
	}
	ctx = withStory(ctx, req)
	if m, ok := req.(proto.Message); ok {
		if err := e.validator.Validate(m); err != nil {
			return nil, err
		}
	}
	return next(ctx, req)
}

func (e *edge) followStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	ctx, call := e.tracing.begin(ss.Context(), info.FullMethod)
	defer func() {
		if p := recover(); p != nil {
			err = e.panicked(ctx, info.FullMethod, p)
		}
		e.tracing.end(ctx, call, err)
	}()
	return next(srv, &stream{ServerStream: ss, ctx: ctx})
}

func (e *edge) panicked(ctx context.Context, method string, p any) error {
	e.log.ErrorContext(ctx, "a call panicked", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	return failure.Internal.GRPCStatus().Err()
}

func (e *edge) mapStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := next(srv, ss); err != nil {
		return e.toStatus(ss.Context(), info.FullMethod, err)
	}
	return nil
}

func (e *edge) deadlineStream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	defer context.AfterFunc(e.draining, func() { cancel(errDraining) })()
	if _, set := ctx.Deadline(); !set {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, e.options.StreamDeadline)
		defer stop()
	}
	return whyLate(ctx, next(srv, &stream{ServerStream: ss, ctx: ctx}))
}

// whyLate says of an error that came of a context which has ended why it ended. What a handler decided before stands.
func whyLate(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || failure.From(err) != nil {
		return err
	}
	if errors.Is(context.Cause(ctx), errDraining) {
		return failure.Unavailable
	}
	return &timing{ctx.Err()}
}

func (e *edge) admitStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := e.admit(ss.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, &stream{ServerStream: ss, ctx: withStory(ss.Context(), nil), validator: e.validator})
}

// admit applies Options.Admit and Options.Scopes to platforms and the demo. Health and reflection are not part of it.
func (e *edge) admit(ctx context.Context, method string) error {
	if ownMethod(method) || auth.From(ctx).Kind == auth.Internal {
		return nil
	}
	if e.options.Admit != nil {
		if err := e.options.Admit(ctx); err != nil {
			return err
		}
	}
	if e.options.Scopes == nil {
		return nil
	}
	scope, ok := e.options.Scopes[method]
	if !ok {
		scope, ok = e.options.Scopes[method[:strings.LastIndexByte(method, '/')+1]]
	}
	if !ok {
		return failure.PermissionDenied
	}
	return auth.Require(ctx, scope)
}

// ownMethod tells gRPC's own services that we serve: their status codes are part of their protocol.
func ownMethod(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.") || strings.HasPrefix(method, "/grpc.reflection.")
}

// stream is a server stream with a context of its own; with a validator, every message received is validated.
type stream struct {
	grpc.ServerStream
	ctx       context.Context //nolint:containedctx // a stream's context can be replaced in no other way
	validator *Validator
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		if status.Code(err) == codes.ResourceExhausted {
			return &wireError{err}
		}
		return err // io.EOF must arrive as it is
	}
	if msg, ok := m.(proto.Message); ok && s.validator != nil {
		return s.validator.Validate(msg)
	}
	return nil
}

// idPattern is what an id may look like (decisions 5); anything else a caller sends does not reach spans and logs.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// withStory marks spans and log lines of a call with the request it names (a field request_id) and the caller's tenant.
func withStory(ctx context.Context, req any) context.Context {
	var request string
	if m, ok := req.(interface{ GetRequestId() string }); ok && idPattern.MatchString(m.GetRequestId()) {
		request = m.GetRequestId()
	}
	tenant := auth.From(ctx).Tenant
	if m, ok := req.(interface{ GetTenant() string }); tenant == "" && ok && idPattern.MatchString(m.GetTenant()) {
		tenant = m.GetTenant()
	}
	return telemetry.WithRequest(ctx, request, tenant)
}
