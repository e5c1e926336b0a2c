package delivery

import (
	"context"
	"errors"
	"math/rand/v2"

	"google.golang.org/grpc/codes"

	"countersign.dev/pkg/crash"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/telemetry"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	"countersign.dev/services/delivery/channel"
	"countersign.dev/services/delivery/rules"
)

// attempt sends a message if it is due and records what came of it. It returns the delivery as it stands after, with its sequence.
//
// A crash between hand-over and record sends the message again under the same Message-ID, which mail clients fold (spec 4.8).
func (s *Service) attempt(ctx context.Context, k eventlog.Key) (*deliveryv1.Delivery, uint64, error) {
	d, sequence, err := s.deliveries.Load(ctx, k)
	if err != nil {
		return nil, 0, err
	}
	if due, _ := rules.Due(d, s.h.Clock.Now(k.Tenant)); !due {
		return d, sequence, nil
	}
	ctx = telemetry.WithRequest(ctx, d.GetRequestId(), d.GetTenant())
	ctx, span := s.h.Tracer(Name).Start(ctx, "attempt "+d.GetKind().String())
	defer span.End()

	outcome, err := s.send(ctx, d)
	if err != nil {
		return nil, 0, err
	}
	by := eventlog.By{Actor: &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_SYSTEM, Ref: Name}, RequestID: d.GetRequestId()}
	res, err := s.deliveries.Do(ctx, k, outcome, by)
	if err != nil {
		return nil, 0, err
	}
	return res.State, res.Sequence, nil
}

// moot returns the refusal that says that a message no longer makes sense; nil for an error that passes or that somebody has to mend:
// a peer that does not take our credentials, or not what we ask, says nothing about the message.
func moot(err error) *failure.Error {
	refusal := failure.From(err)
	if refusal == nil || refusal.Retryable {
		return nil
	}
	switch refusal.Kind {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument:
		return nil
	default:
		return refusal
	}
}

// send composes and hands over a message, and returns the command that records what came of it. An error means that it could not be
// composed for now: the attempt does not count.
func (s *Service) send(ctx context.Context, d *deliveryv1.Delivery) (eventlog.Command[*deliveryv1.Delivery], error) {
	attempt := d.GetAttempts() + 1
	message, err := s.compose(ctx, d)
	if refusal := moot(err); refusal != nil {
		return rules.Skip{Code: refusal.Code}, nil
	}
	if err != nil {
		return nil, err
	}
	crash.Point("delivery.send")
	receipt, err := s.mail.Send(ctx, message)
	if err == nil {
		crash.Point("delivery.sent")
		return rules.Accept{Attempt: attempt, Provider: receipt.Provider}, nil
	}
	var refused *channel.Failure
	if !errors.As(err, &refused) {
		return nil, err
	}
	return rules.Fail{
		Attempt: attempt, Code: uint32(refused.Code), Enhanced: refused.Enhanced, Diagnostic: refused.Diagnostic,
		// What is the relay's fault may be mended, or another relay may take it: only the recipient's and the message's faults are final.
		Permanent: !refused.Temporary && refused.Scope != channel.ScopeProvider, RetryAfter: refused.RetryAfter,
		Jitter: rand.Float64(), Retry: s.config.retry(), //nolint:gosec // jitter, not a secret
	}, nil
}
