package eventlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/golang-lru/v2/expirable"
	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/crash"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/mutant"
	"countersign.dev/pkg/telemetry"
	recordv1 "countersign.dev/proto/countersign/record/v1"
)

// keptCommands is how many idempotency keys an aggregate remembers.
const keptCommands = 32

// Command asks something of a state. Decide is pure: the same state and time always give the same fact.
// It returns the fact that follows, or the failure.Error that forbids it; neither means that what is asked for holds already.
type Command[S proto.Message] interface {
	Decide(state S, now time.Time) (proto.Message, error)
}

// Cache keeps newest records near. It is asked first and never trusted with a decision.
type Cache interface {
	// Get returns a record and its sequence; any error is a miss.
	Get(ctx context.Context, k Key) (sequence uint64, record []byte, err error)
	// Put keeps a record unless a newer one is there. It is best effort.
	Put(ctx context.Context, k Key, sequence uint64, record []byte)
}

// By says who asks, and why.
type By struct {
	Actor     *recordv1.Actor
	Cause     *recordv1.Cause
	RequestID string
	// CommandID makes the command idempotent: one that the aggregate has taken changes nothing more. Empty: every call counts.
	CommandID string
}

// Result is an aggregate as it stands after a command.
type Result[S proto.Message] struct {
	State    S
	Sequence uint64
	// Fact is what this call stated; nil when it stated nothing.
	Fact proto.Message
	// Repeated tells that the command had been taken before.
	Repeated bool
}

// Aggregate decides, records and loads the aggregates of one kind.
type Aggregate[S proto.Message] struct {
	log     *Log
	service string
	evolve  func(S, proto.Message) S
	cache   Cache
	glances glances[S]
	clock   clock.Clock
	tracer  trace.Tracer
}

// NewAggregate returns the aggregates of a service whose facts lead from state to state by evolve.
// evolve may change the state that it is given, which is a copy. cache may be nil.
func NewAggregate[S proto.Message](log *Log, service string, evolve func(S, proto.Message) S, c clock.Clock, tracer trace.Tracer, cache Cache) *Aggregate[S] {
	return &Aggregate[S]{
		log: log, service: service, evolve: evolve, cache: cache, clock: c, tracer: tracer,
		glances: glances[S]{kept: expirable.NewLRU[Key, version[S]](glancedMost, nil, glanceFor)},
	}
}

// version is an aggregate as it was read.
type version[S proto.Message] struct {
	state    S
	sequence uint64
	commands []string
}

// Do loads an aggregate, decides, and records what follows at the sequence it read; when another writer was first it decides again.
//
// A refusal, and an answer that needs no fact, are decided on the leader's newest message (decisions 7). After an error that is no
// failure.Error the outcome may be either; the same call with the same CommandID is safe.
func (a *Aggregate[S]) Do(ctx context.Context, k Key, cmd Command[S], by By) (Result[S], error) {
	return a.DoFrom(ctx, k, nil, cmd, by)
}

// View is an aggregate as it was looked at. What follows from it is recorded only if nothing was recorded since.
type View[S proto.Message] struct {
	State    S
	version  version[S]
	decisive bool
}

// Look is Read for what DoFrom decides next, so that the aggregate is fetched once.
func (a *Aggregate[S]) Look(ctx context.Context, k Key) (*View[S], error) {
	v, decisive, err := a.near(ctx, k)
	return &View[S]{State: v.state, version: v, decisive: decisive}, err
}

// DoFrom is Do that begins with what was looked at; nil is to look first.
func (a *Aggregate[S]) DoFrom(ctx context.Context, k Key, from *View[S], cmd Command[S], by By) (Result[S], error) {
	ctx = telemetry.WithRequest(ctx, by.RequestID, k.Tenant)
	ctx, span := a.tracer.Start(ctx, "do "+commandName(cmd), trace.WithAttributes(attribute.String("countersign.aggregate", k.ID)))
	defer span.End()
	res, err := a.do(ctx, k, from, cmd, by)
	switch {
	case err != nil && failure.From(err) != nil:
		span.SetAttributes(attribute.String("countersign.refused", failure.From(err).Code))
	case err != nil:
		span.SetStatus(otelcodes.Error, "not recorded")
	case res.Fact != nil:
		span.SetAttributes(attribute.String("countersign.fact", string(res.Fact.ProtoReflect().Descriptor().Name())))
	}
	return res, err
}

func (a *Aggregate[S]) do(ctx context.Context, k Key, from *View[S], cmd Command[S], by By) (_ Result[S], err error) {
	if err := k.Validate(); err != nil {
		return Result[S]{}, err
	}
	if from == nil {
		if from, err = a.Look(ctx, k); err != nil {
			return Result[S]{}, err
		}
	}
	v, decisive := from.version, from.decisive
	for {
		if by.CommandID != "" && slices.Contains(v.commands, by.CommandID) {
			return Result[S]{State: v.state, Sequence: v.sequence, Repeated: true}, nil
		}
		now := a.clock.Now(k.Tenant)
		fact, refusal := cmd.Decide(v.state, now)
		if fact == nil || refusal != nil {
			if !decisive {
				if v, err = a.leader(ctx, k); err != nil {
					return Result[S]{}, err
				}
				decisive = true
				continue
			}
			return Result[S]{State: v.state, Sequence: v.sequence}, refusal
		}
		next, err := a.record(ctx, k, v, fact, by, now)
		if err == nil {
			return Result[S]{State: next.state, Sequence: next.sequence, Fact: fact}, nil
		}
		if !errors.Is(err, ErrConflict) {
			return Result[S]{}, err
		}
		if err := pause(ctx, time.Millisecond, 10*time.Millisecond); err != nil {
			return Result[S]{}, ErrUnknown
		}
		if v, err = a.leader(ctx, k); err != nil {
			return Result[S]{}, err
		}
		decisive = true
	}
}

// record publishes the transition from v by fact.
func (a *Aggregate[S]) record(ctx context.Context, k Key, v version[S], fact proto.Message, by By, now time.Time) (version[S], error) {
	next := version[S]{state: a.evolve(proto.CloneOf(v.state), fact), commands: v.commands}
	if by.CommandID != "" {
		next.commands = append(slices.Clone(v.commands), by.CommandID)
		next.commands = next.commands[max(0, len(next.commands)-keptCommands):]
	}
	factAny, err := anypb.New(fact)
	if err != nil {
		return next, fmt.Errorf("eventlog: encode fact: %w", err)
	}
	stateAny, err := anypb.New(next.state)
	if err != nil {
		return next, fmt.Errorf("eventlog: encode state: %w", err)
	}
	body, err := proto.Marshal(&recordv1.Record{
		Fact: factAny, State: stateAny, Actor: by.Actor, RequestId: by.RequestID, Cause: by.Cause,
		CommandIds: next.commands, At: timestamppb.New(now),
	})
	if err != nil {
		return next, fmt.Errorf("eventlog: encode record: %w", err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return next, fmt.Errorf("eventlog: %w", err)
	}
	msg := nats.NewMsg(FactSubject(a.service, k))
	msg.Data = body
	setCloudEvent(msg.Header, id.String(), string(fact.ProtoReflect().Descriptor().FullName()), a.service, by.RequestID, now)
	ctx, span := telemetry.StartPublish(ctx, a.tracer, string(fact.ProtoReflect().Descriptor().Name()), msg.Header)
	defer span.End()
	if next.sequence, err = a.log.Append(ctx, msg, id.String(), v.sequence); err != nil {
		return next, err
	}
	crash.Point("record.stored")
	a.glances.put(k, next)
	if a.cache != nil {
		a.cache.Put(context.WithoutCancel(ctx), k, next.sequence, body) // the caller may leave: the fact stands
	}
	return next, nil
}

// Read returns an aggregate for showing: from the cache, or from any replica, written back. The zero state and 0 when there is none.
func (a *Aggregate[S]) Read(ctx context.Context, k Key) (S, uint64, error) {
	v, _, err := a.near(ctx, k)
	return v.state, v.sequence, err
}

// Load returns an aggregate as the leader has it, for whatever cannot be undone. The zero state and 0 when there is none.
func (a *Aggregate[S]) Load(ctx context.Context, k Key) (S, uint64, error) {
	v, err := a.leader(ctx, k)
	return v.state, v.sequence, err
}

// near reads from the cache, or from any replica. It tells whether what it read may decide.
func (a *Aggregate[S]) near(ctx context.Context, k Key) (v version[S], decisive bool, err error) {
	if a.cache != nil {
		if seq, body, err := a.cache.Get(ctx, k); err == nil {
			if v, err := a.decode(Entry{Sequence: seq, Data: body}); err == nil {
				return v, mutant.CacheTrusted, nil
			}
		}
	}
	e, err := a.log.Last(ctx, FactSubject(a.service, k))
	if errors.Is(err, ErrNotFound) {
		return version[S]{state: zero[S]()}, false, nil
	}
	if err != nil {
		return v, false, err
	}
	if v, err = a.decode(e); err == nil && a.cache != nil {
		a.cache.Put(ctx, k, e.Sequence, e.Data)
	}
	return v, false, err
}

func (a *Aggregate[S]) leader(ctx context.Context, k Key) (version[S], error) {
	e, err := a.log.presentTo(ctx, FactSubject(a.service, k))
	if errors.Is(err, ErrNotFound) {
		return version[S]{state: zero[S]()}, nil
	}
	if err != nil {
		return version[S]{}, err
	}
	v, err := a.decode(e)
	if err == nil && a.cache != nil {
		a.cache.Put(ctx, k, e.Sequence, e.Data)
	}
	return v, err
}

func (a *Aggregate[S]) decode(e Entry) (version[S], error) {
	rec := &recordv1.Record{}
	if err := proto.Unmarshal(e.Data, rec); err != nil {
		return version[S]{}, fmt.Errorf("eventlog: record %s:%d: %w", a.log.Name(), e.Sequence, err)
	}
	state := zero[S]()
	if err := rec.GetState().UnmarshalTo(state); err != nil {
		return version[S]{}, fmt.Errorf("eventlog: state of %s:%d: %w", a.log.Name(), e.Sequence, err)
	}
	return version[S]{state: state, sequence: e.Sequence, commands: rec.GetCommandIds()}, nil
}

// StateIn returns the state in a record as it is stored.
func StateIn[S proto.Message](record []byte) (S, error) {
	state, rec := zero[S](), &recordv1.Record{}
	if err := proto.Unmarshal(record, rec); err != nil {
		return state, fmt.Errorf("eventlog: unreadable record: %w", err)
	}
	if err := rec.GetState().UnmarshalTo(state); err != nil {
		return state, fmt.Errorf("eventlog: state of a record: %w", err)
	}
	return state, nil
}

// zero returns an empty message of the type S.
func zero[S proto.Message]() S {
	var s S
	return s.ProtoReflect().Type().New().Interface().(S) //nolint:errcheck // the type's own message is an S
}

func commandName(cmd any) string {
	name := fmt.Sprintf("%T", cmd)
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '.' {
			return name[i+1:]
		}
	}
	return name
}

// setCloudEvent sets the headers of a CloudEvent in binary mode (CloudEvents NATS binding 1.0).
func setCloudEvent(h nats.Header, id, kind, service, subject string, at time.Time) {
	h.Set("ce-specversion", "1.0")
	h.Set("ce-id", id)
	h.Set("ce-type", kind)
	h.Set("ce-source", "countersign/"+service)
	h.Set("ce-subject", subject)
	h.Set("ce-time", at.UTC().Format(time.RFC3339Nano))
	h.Set("content-type", "application/protobuf")
}

// History calls visit with every state that an aggregate was in, oldest first, and the fact that led to it. It reads message by
// message: for aggregates that change rarely.
func (a *Aggregate[S]) History(ctx context.Context, k Key, visit func(state S, rec *recordv1.Record) error) error {
	if err := k.Validate(); err != nil {
		return err
	}
	for next := uint64(1); ; {
		e, err := a.log.LeaderNext(ctx, FactSubject(a.service, k), next)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		rec := &recordv1.Record{}
		if err := proto.Unmarshal(e.Data, rec); err != nil {
			return fmt.Errorf("eventlog: record %s:%d: %w", a.log.Name(), e.Sequence, err)
		}
		v, err := a.decode(e)
		if err != nil {
			return err
		}
		if err := visit(v.state, rec); err != nil {
			return err
		}
		next = e.Sequence + 1
	}
}
