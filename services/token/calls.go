package token

import (
	"context"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/telemetry"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// callsName names the stream of calls that may be repeated. They are no facts about a request, so no other service hears them.
const callsName = "call"

// call is a mutating call of a platform.
type call struct {
	method string
	// key is the idempotency key; empty where every call counts.
	key string
	// content is what must be the same when the call is repeated.
	content proto.Message
}

// callID names a call that may be repeated: its key, its method and the tenant are its identity.
func (s *Service) callID(tenant string, c call) string {
	return eventlog.DeriveID(s.h.Keys, "cll", tenant, c.method, c.key)
}

// once carries out a call unless it was carried out already: then it returns the first answer again, for ever. It takes the key
// first, acts under the call's id as command id, and keeps the answer last: a crash in between is made good by the next try.
// A refusal gives the key back; after an accident only the same content may try again.
func once[T proto.Message](ctx context.Context, s *Service, tenant string, c call, by eventlog.By, do func(context.Context, eventlog.By) (T, error)) (T, error) {
	var none T
	if c.key == "" {
		return do(ctx, by)
	}
	k := key(tenant, s.callID(tenant, c))
	digests, err := s.digests(c.content)
	if err != nil {
		return none, err
	}
	taken, err := s.calls.Do(ctx, k, rules.TakeCall{Method: c.method, Digests: digests}, by)
	if err != nil {
		return none, err
	}
	if taken.State.GetStatus() == tokenv1.CallStatus_CALL_STATUS_ANSWERED {
		return answered[T](ctx, s, tenant, taken.State)
	}
	by.CommandID = k.ID
	answer, err := do(ctx, by)
	if failure.From(err) != nil {
		if _, failed := s.calls.Do(ctx, k, rules.ReleaseCall{}, by); failed != nil {
			s.h.Logger.WarnContext(ctx, "the key of a refused call was not given back", "error", failed)
		}
	}
	if err != nil {
		return none, err
	}
	hidden := proto.Clone(answer)
	hide(hidden)
	kept, err := anypb.New(hidden)
	if err != nil {
		return none, err
	}
	res, err := s.calls.Do(ctx, k, rules.AnswerCall{Digests: digests, Answer: kept}, by)
	if err != nil {
		return none, err
	}
	if res.Fact == nil && res.State.GetStatus() == tokenv1.CallStatus_CALL_STATUS_ANSWERED {
		return answered[T](ctx, s, tenant, res.State) // another try of the same call was faster
	}
	return answer, nil
}

// create takes in a request: the one way for NATS, gRPC and REST.
func (s *Service) create(ctx context.Context, tenant, key string, r *signingv1.SigningRequest, by eventlog.By) (*signingv1.CreateResponse, error) {
	c := call{signingv1.SigningRequestService_Create_FullMethodName, key, r}
	return once(ctx, s, tenant, c, by, func(ctx context.Context, by eventlog.By) (*signingv1.CreateResponse, error) {
		by.CommandID = "" // the reference does already what it would
		view, created, err := s.accept(ctx, tenant, r, by)
		if err != nil {
			return nil, err
		}
		return &signingv1.CreateResponse{Request: view, Created: created}, nil
	})
}

// withdraw cancels a request: the one way for NATS, gRPC and REST.
func (s *Service) withdraw(ctx context.Context, tenant string, req *signingv1.CancelRequest, by eventlog.By) (*signingv1.CancelResponse, error) {
	ctx = telemetry.WithRequest(ctx, req.GetId(), tenant)
	if err := validateReason(req.GetReason()); err != nil {
		return nil, err
	}
	c := call{signingv1.SigningRequestService_Cancel_FullMethodName, req.GetIdempotencyKey(), req}
	return once(ctx, s, tenant, c, by, func(ctx context.Context, by eventlog.By) (*signingv1.CancelResponse, error) {
		view, err := s.cancel(ctx, tenant, req.GetId(), req.GetReason(), by)
		return &signingv1.CancelResponse{Request: view}, err
	})
}

// answered returns what a call was answered, with what the vault still has of the people in it.
func answered[T proto.Message](ctx context.Context, s *Service, tenant string, c *tokenv1.Call) (T, error) {
	var none T
	kept, err := c.GetAnswer().UnmarshalNew()
	if err != nil {
		return none, err
	}
	answer, ok := kept.(T)
	if !ok {
		return none, failure.Internal
	}
	return answer, s.reveal(ctx, tenant, answer)
}

// Views of people and of private words, as answers hold them.
type (
	withRequest interface{ GetRequest() *signingv1.RequestView }
	withSigner  interface{ GetSigner() *signingv1.SignerView }
)

// hide takes out of an answer what may stand in the vault alone.
func hide(answer proto.Message) {
	var signers []*signingv1.SignerView
	if a, ok := answer.(withSigner); ok {
		signers = append(signers, a.GetSigner())
	}
	if a, ok := answer.(withRequest); ok {
		v := a.GetRequest()
		v.Reference, v.Title, v.Metadata = "", "", nil
		for _, d := range v.GetDocuments() {
			d.Name = ""
		}
		signers = append(signers, v.GetSigners()...)
	}
	for _, v := range signers {
		v.Name, v.Email = "", ""
		for _, g := range v.GetGenerations() {
			g.Reason, g.EndReason = "", ""
		}
	}
}

// reveal puts back what hide took, but for what was erased meanwhile.
func (s *Service) reveal(ctx context.Context, tenant string, answer proto.Message) error {
	if a, ok := answer.(withSigner); ok {
		return s.reintroduce(ctx, tenant, a.GetSigner())
	}
	a, ok := answer.(withRequest)
	if !ok {
		return nil
	}
	v := a.GetRequest()
	r, err := s.find(ctx, tenant, v.GetId())
	if err != nil {
		return err
	}
	words, err := s.words(ctx, r)
	if err = ignore[*failure.Error](err); err != nil {
		return err
	}
	v.Reference, v.Title, v.Metadata = words.GetReference(), words.GetTitle(), words.GetMetadata()
	for i, d := range v.GetDocuments() {
		if i < len(words.GetDocumentNames()) {
			d.Name = words.GetDocumentNames()[i]
		}
	}
	for _, signer := range v.GetSigners() {
		if err := s.reintroduce(ctx, tenant, signer); err != nil {
			return err
		}
	}
	return nil
}

// reintroduce puts back what hide took of a signer.
func (s *Service) reintroduce(ctx context.Context, tenant string, v *signingv1.SignerView) error {
	link, _, err := s.links.Read(ctx, key(tenant, v.GetId()))
	if err != nil {
		return err
	}
	if err := s.explain(ctx, link, v.GetGenerations()); err != nil {
		return err
	}
	return s.named(ctx, tenant, v)
}

// named says who holds a signer position, where the vault still knows.
func (s *Service) named(ctx context.Context, tenant string, v *signingv1.SignerView) error {
	person, err := s.person(ctx, of(tenant, v.GetId(), v.GetHolder()))
	if err = ignore[*failure.Error](err); err != nil {
		return err
	}
	v.Name, v.Email = person.GetName(), person.GetEmail()
	return nil
}
