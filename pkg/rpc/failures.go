package rpc

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"countersign.dev/pkg/failure"
)

// timing is a call's own context having ended: its deadline, or its caller gone.
type timing struct{ cause error }

func (t *timing) Error() string { return t.cause.Error() }
func (t *timing) Unwrap() error { return t.cause }

// wireError is gRPC's own word about a message, such as one that is too large; its text is fit for the caller.
type wireError struct{ error }

func (w *wireError) Unwrap() error { return w.error }

// toStatus turns what a handler returned into what goes over the wire. A failure goes as it is, unwrapped, since gRPC
// would send the text of everything wrapped around it. An accident is logged, once and here, and goes without its text.
func (e *edge) toStatus(ctx context.Context, method string, err error) error {
	if f := failure.From(err); f != nil {
		return f.GRPCStatus().Err()
	}
	var late *timing
	if errors.As(err, &late) {
		if errors.Is(late, context.Canceled) {
			return status.Error(codes.Canceled, "the caller went away")
		}
		e.log.WarnContext(ctx, "a call ran out of time", "method", method)
		return status.Error(codes.DeadlineExceeded, "this took longer than the call allowed")
	}
	var wire *wireError
	if errors.As(err, &wire) {
		return wire.error
	}
	st, isStatus := status.FromError(err)
	switch {
	case isStatus && (st.Code() == codes.Unimplemented || ownMethod(method)):
		return st.Err()
	case isStatus && (st.Code() == codes.Unavailable || st.Code() == codes.DeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		// Somebody we asked does not answer, though our own call has time left: the caller may try again.
		e.log.WarnContext(ctx, "a call could not reach what it needs", "method", method, "error", err)
		return failure.Unavailable.GRPCStatus().Err()
	default:
		e.log.ErrorContext(ctx, "a call failed", "method", method, "error", err)
		return failure.Internal.GRPCStatus().Err()
	}
}
