package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/natsaccess"
	"countersign.dev/pkg/telemetry"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// onIntake takes in what a platform published. What it refuses it answers and is done with: only an accident comes back.
func (s *Service) onIntake(ctx context.Context, m eventlog.Message) error {
	tenant, ok := strings.CutPrefix(m.Subject, "intake.")
	if !ok || !eventlog.ValidTenant(tenant) {
		// No platform has such a tenant, so nobody could read an answer.
		return eventlog.Poison(fmt.Errorf("token: subject names no tenant"))
	}
	ctx = telemetry.WithRequest(ctx, "", tenant)
	by := eventlog.By{
		Actor: &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_PLATFORM, Ref: tenant},
		Cause: &recordv1.Cause{Stream: m.Stream, Sequence: m.Sequence},
	}
	id, view, err := s.takeIn(ctx, tenant, m, by)
	if refusal := failure.From(err); refusal != nil && !refusal.Retryable {
		if id == "" {
			id = eventlog.DeriveID(s.h.Keys, "req", tenant, "unreadable", fmt.Sprint(m.Sequence))
		}
		err = s.reject(ctx, tenant, id, fmt.Sprintf("%s:%d", m.Stream, m.Sequence), refusal)
		return errors.Join(err, s.reply(tenant, m, &signingv1.Outcome{Event: "rejected", RequestId: id, Code: refusal.Code, Message: refusal.Text, Fields: problemsOf(refusal)}))
	}
	if err != nil {
		return err
	}
	return s.reply(tenant, m, view)
}

// takeIn reads one intake message and does what it asks. The id is set as soon as it is known. The id of a CloudEvent is the
// idempotency key of the call that it is.
func (s *Service) takeIn(ctx context.Context, tenant string, m eventlog.Message, by eventlog.By) (id string, answer proto.Message, err error) {
	if !mayReply(tenant, m.Reply) {
		return "", nil, failure.RequestUnreadable.WithFields(failure.Field{
			Path: eventlog.ReplyHeader, Problem: "is no subject for answers: it begins with _INBOX. or " + natsaccess.ReplySubject(tenant),
		})
	}
	in, asked, err := read(m)
	if err != nil {
		return "", nil, err
	}
	switch req := asked.(type) {
	case *signingv1.CancelRequest:
		if err := s.contract.Validate(req); err != nil { // as gRPC does before a call
			return "", nil, err
		}
		if req.IdempotencyKey, err = in.key(req.GetIdempotencyKey()); err != nil {
			return req.GetId(), nil, err
		}
		answer, err := s.withdraw(ctx, tenant, req, by)
		return req.GetId(), answer.GetRequest(), err
	case *signingv1.AmendRequest:
		if requestPattern.MatchString(req.GetId()) {
			id = req.GetId()
		}
		if req.IdempotencyKey, err = in.key(req.GetIdempotencyKey()); err != nil {
			return id, nil, err
		}
		answer, err := s.change(ctx, tenant, req, by)
		return id, answer.GetRequest(), err
	case *signingv1.SigningRequest:
		answer, err := s.create(ctx, tenant, in.id, req, by)
		return s.requestID(tenant, req.GetReference()), answer.GetRequest(), err
	default:
		return "", nil, fmt.Errorf("token: nothing takes in %T", asked)
	}
}

// mayReply tells whether an answer may be published where a platform of a tenant asks for it. We may publish anywhere: by us it would
// reach other tenants' intake, and the record itself.
func mayReply(tenant, subject string) bool {
	own, prefixed := strings.CutPrefix(subject, natsaccess.ReplySubject(tenant))
	if !prefixed {
		own, prefixed = strings.CutPrefix(subject, "_INBOX.")
	}
	return subject == "" || prefixed && own != "" && !strings.ContainsAny(own, "*> \t\r\n")
}

// reply answers a publisher that asked for one, as gRPC would. Nobody listening is no error.
func (s *Service) reply(tenant string, m eventlog.Message, answer proto.Message) error {
	if m.Reply == "" || !mayReply(tenant, m.Reply) {
		return nil
	}
	body, err := outcomeJSON.Marshal(answer)
	if err != nil {
		return fmt.Errorf("token: encode reply: %w", err)
	}
	return s.h.NATS.Publish(m.Reply, body)
}

// requestID is derived, so that the subject itself is the unique index of tenant and reference (decisions 4).
func (s *Service) requestID(tenant, reference string) string {
	return eventlog.DeriveID(s.h.Keys, "req", tenant, reference)
}

// digests returns keyed digests of the fields that a message sets, by which a repeat is told from a conflict without keeping what it
// says. A field that a newer release adds, and nobody set, makes no difference.
func (s *Service) digests(r proto.Message) (map[string][]byte, error) {
	out := map[string][]byte{}
	fields := r.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !r.ProtoReflect().Has(f) || f.Name() == "idempotency_key" {
			continue
		}
		only := r.ProtoReflect().New()
		only.Set(f, r.ProtoReflect().Get(f))
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(only.Interface())
		if err != nil {
			return nil, fmt.Errorf("token: digest: %w", err)
		}
		sum := sha256.Sum256(body)
		out[string(f.Name())] = s.h.Keys.MAC("cs.field.v1", []byte(f.Name()), sum[:])[:16]
	}
	return out, nil
}
