package token

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/natsaccess"
	"countersign.dev/pkg/rpc"
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
	in, err := unwrap(m)
	if err != nil {
		return "", nil, err
	}
	switch in.kind {
	case "", "countersign.signing.v1.SigningRequest":
		req := &signingv1.SigningRequest{}
		if err := decode(in, req); err != nil {
			return "", nil, err
		}
		answer, err := s.create(ctx, tenant, in.id, req, by)
		return s.requestID(tenant, req.GetReference()), answer.GetRequest(), err
	case "countersign.signing.v1.CancelRequest":
		req := &signingv1.CancelRequest{}
		if err := decode(in, req); err != nil {
			return "", nil, err
		}
		if !requestPattern.MatchString(req.GetId()) {
			return "", nil, failure.RequestInvalid.WithFields(failure.Field{Path: "id", Problem: "is no request id, for example req_..."})
		}
		req.IdempotencyKey = in.id
		answer, err := s.withdraw(ctx, tenant, req, by)
		return req.GetId(), answer.GetRequest(), err
	case "countersign.signing.v1.AmendRequest":
		req := &signingv1.AmendRequest{}
		if err := decode(in, req); err != nil {
			return "", nil, err
		}
		if requestPattern.MatchString(req.GetId()) {
			id = req.GetId()
		}
		req.IdempotencyKey = in.id
		answer, err := s.change(ctx, tenant, req, by)
		return id, answer.GetRequest(), err
	default:
		return "", nil, failure.RequestUnreadable.WithFields(failure.Field{
			Path: "ce-type",
			Problem: "is not taken in here; known are countersign.signing.v1.SigningRequest (or none), countersign.signing.v1.AmendRequest " +
				"and countersign.signing.v1.CancelRequest",
		})
	}
}

// cloudEvent is what is taken of one.
type cloudEvent struct {
	kind, id, contentType string
	data                  []byte
}

// longestID is how many bytes the id of a CloudEvent may have, as an idempotency key elsewhere.
const longestID = 128

// unwrap takes a CloudEvent apart: binary mode in headers, structured mode in JSON, or none at all (decisions 22).
func unwrap(m eventlog.Message) (cloudEvent, error) {
	in := cloudEvent{kind: m.Header.Get("ce-type"), id: m.Header.Get("ce-id"), contentType: mediaType(m.Header), data: m.Data}
	if in.contentType == "application/cloudevents+json" {
		var envelope struct {
			Type            string          `json:"type"`
			ID              string          `json:"id"`
			DataContentType string          `json:"datacontenttype"`
			Data            json.RawMessage `json:"data"`
			DataBase64      []byte          `json:"data_base64"`
		}
		if err := json.Unmarshal(m.Data, &envelope); err != nil {
			return in, failure.RequestUnreadable.WithFields(failure.Field{Path: "$", Problem: "is no CloudEvent in JSON"})
		}
		in = cloudEvent{envelope.Type, envelope.ID, strings.ToLower(envelope.DataContentType), envelope.Data}
		if len(envelope.DataBase64) > 0 {
			in.data = envelope.DataBase64
		}
	}
	if len(in.id) > longestID {
		return in, failure.RequestUnreadable.WithFields(failure.Field{Path: "ce-id", Problem: fmt.Sprintf("is longer than %d bytes", longestID)})
	}
	return in, nil
}

func mediaType(h nats.Header) string {
	t := h.Get("content-type")
	if t == "" {
		t = h.Get("Content-Type")
	}
	t, _, _ = strings.Cut(t, ";")
	return strings.ToLower(strings.TrimSpace(t))
}

// decode reads protobuf where the content type says so, and JSON else.
func decode(in cloudEvent, into proto.Message) error {
	if in.contentType == "application/protobuf" || in.contentType == "application/x-protobuf" {
		if err := proto.Unmarshal(in.data, into); err != nil {
			return failure.RequestUnreadable.WithFields(failure.Field{Path: "$", Problem: "is no protobuf message of this kind"})
		}
		return nil
	}
	return rpc.DecodeJSON(in.data, into)
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
