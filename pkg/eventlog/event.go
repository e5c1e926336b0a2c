package eventlog

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	recordv1 "countersign.dev/proto/countersign/record/v1"
)

// Event is a fact as a service hears it: at least once, and out of order where one was held up.
type Event struct {
	Stream   string
	Sequence uint64
	Key      Key
	Record   *recordv1.Record
	Header   nats.Header
}

// Cause returns what a fact that follows from this event names as its cause.
func (e Event) Cause() *recordv1.Cause {
	return &recordv1.Cause{Stream: e.Stream, Sequence: e.Sequence}
}

// CommandID returns the idempotency key of what role does because of this event: a second delivery does nothing more.
func (e Event) CommandID(role string) string {
	return fmt.Sprintf("%s:%s:%d", role, e.Stream, e.Sequence)
}

// By returns what a reaction of the named service is recorded with.
func (e Event) By(service, role string) By {
	return By{
		Actor:     &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_SYSTEM, Ref: service},
		Cause:     e.Cause(),
		RequestID: e.Record.GetRequestId(),
		CommandID: e.CommandID(role),
	}
}

// StateOf returns the state that the event's fact led to; newer facts may have followed.
func StateOf[S proto.Message](e Event) (S, error) {
	state := zero[S]()
	if err := e.Record.GetState().UnmarshalTo(state); err != nil {
		return state, fmt.Errorf("eventlog: state of %s:%d: %w", e.Stream, e.Sequence, err)
	}
	return state, nil
}

// Router leads facts to the handlers of their kind. A fact that nobody registered for is passed over, so a newer release may state new ones.
type Router struct {
	handlers map[protoreflect.FullName][]func(context.Context, Event, proto.Message) error
	every    []func(context.Context, Event, proto.Message) error
}

// NewRouter returns a router without handlers.
func NewRouter() *Router {
	return &Router{handlers: map[protoreflect.FullName][]func(context.Context, Event, proto.Message) error{}}
}

// On has facts of type M handled by f. Register everything before the router is used.
func On[M proto.Message](r *Router, f func(ctx context.Context, e Event, fact M) error) {
	name := zero[M]().ProtoReflect().Descriptor().FullName()
	r.handlers[name] = append(r.handlers[name], func(ctx context.Context, e Event, m proto.Message) error {
		return f(ctx, e, m.(M)) //nolint:errcheck,forcetypeassert // found by the message's own name
	})
}

// OnEvery has every fact handled by f, after the handlers of its kind.
func (r *Router) OnEvery(f func(ctx context.Context, e Event, fact proto.Message) error) {
	r.every = append(r.every, f)
}

// Handle decodes a record and calls the handlers of its fact.
func (r *Router) Handle(ctx context.Context, m Message) error {
	rec := &recordv1.Record{}
	if err := proto.Unmarshal(m.Data, rec); err != nil {
		return Poison(fmt.Errorf("record is unreadable: %w", err))
	}
	_, _, k, err := ParseSubject(m.Subject)
	if err != nil {
		return Poison(err)
	}
	handlers := r.handlers[rec.GetFact().MessageName()]
	if len(handlers)+len(r.every) == 0 {
		return nil
	}
	fact, err := rec.GetFact().UnmarshalNew()
	if err != nil {
		return Poison(fmt.Errorf("fact is unreadable: %w", err))
	}
	e := Event{Stream: m.Stream, Sequence: m.Sequence, Key: k, Record: rec, Header: m.Header}
	ctx = hearing(ctx, e)
	for _, h := range append(handlers[:len(handlers):len(handlers)], r.every...) {
		if err := h(ctx, e, fact); err != nil {
			return err
		}
	}
	return nil
}
