package token

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/crash"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/telemetry"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// outcomeJSON is how platforms are told: with the field names of the contract.
var outcomeJSON = protojson.MarshalOptions{UseProtoNames: true}

// OutcomeSubject is where a platform hears about a request.
func OutcomeSubject(tenant, requestID string) string { return "outcome." + tenant + "." + requestID }

// tell publishes an outcome. cause makes it one message however often it is heard (decisions 21). It is not told itself: where something
// stands in the record says how much all tenants do.
func (s *Service) tell(ctx context.Context, tenant, cause string, o *signingv1.Outcome) error {
	id := eventlog.DeriveID(s.h.Keys, "evt", cause)
	body, err := outcomeJSON.Marshal(o)
	if err != nil {
		return fmt.Errorf("token: encode outcome: %w", err)
	}
	m := nats.NewMsg(OutcomeSubject(tenant, o.GetRequestId()))
	m.Data = body
	m.Header.Set("content-type", "application/json")
	m.Header.Set("ce-specversion", "1.0")
	m.Header.Set("ce-id", id)
	m.Header.Set("ce-type", "countersign.signing.v1.Outcome")
	m.Header.Set("ce-source", "countersign/"+Name)
	m.Header.Set("ce-subject", o.GetRequestId())
	ctx, span := telemetry.StartPublish(ctx, s.h.Tracer(Name), OutcomesStream, m.Header)
	defer span.End()
	crash.Point("outcome.before")
	if _, err := s.outcomes.PublishMsg(ctx, m, jetstream.WithMsgID(id)); err != nil {
		return fmt.Errorf("token: publish outcome: %w", err)
	}
	crash.Point("outcome.after")
	return nil
}

// reject tells a platform what was wrong with something it published.
func (s *Service) reject(ctx context.Context, tenant, requestID, cause string, refusal *failure.Error) error {
	return s.tell(ctx, tenant, cause, &signingv1.Outcome{
		Event: "rejected", RequestId: requestID, At: timestamppb.New(s.h.Clock.Now(tenant)),
		Code: refusal.Code, Message: refusal.Text, Fields: problemsOf(refusal),
	})
}

func problemsOf(refusal *failure.Error) []*signingv1.FieldProblem {
	var out []*signingv1.FieldProblem
	for _, f := range refusal.Fields {
		out = append(out, &signingv1.FieldProblem{Path: f.Path, Problem: f.Problem})
	}
	return out
}

// outcome tells a platform what a fact means for its request.
func (s *Service) outcome(ctx context.Context, e eventlog.Event, event string, status signingv1.RequestStatus, position uint32) error {
	return s.tell(ctx, e.Key.Tenant, fmt.Sprintf("%s:%d", e.Stream, e.Sequence), &signingv1.Outcome{
		Event: event, RequestId: e.Record.GetRequestId(), At: e.Record.GetAt(), Status: status, Position: position,
	})
}
