package simulation

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	recordv1 "countersign.dev/proto/countersign/record/v1"
)

// keptCommands is how many idempotency keys an aggregate remembers.
const keptCommands = 32

// entry is the record of one aggregate: its newest state, and the one before, which a stale copy may still have.
type entry struct {
	state, before proto.Message
	sequence      uint64
	commands      []string
}

// event is a fact as it was recorded.
type event struct {
	r        *request
	service  string
	sequence uint64 // in the stream of its service
	id       string // of the aggregate
	at       time.Time
	fact     proto.Message
	state    proto.Message
	actor    *recordv1.Actor
	cause    cause
}

func (e *event) name() string { return string(e.fact.ProtoReflect().Descriptor().Name()) }

// cause is the event that led to a fact; the zero cause is a call.
type cause struct {
	service  string
	sequence uint64
}

// by says who asks, and why.
type by struct {
	cause   cause
	command string // makes it idempotent
	actor   *recordv1.Actor
}

// because is what a reaction to an event is recorded with.
func (e *event) because(service, role string) by {
	return by{
		cause: cause{e.service, e.sequence}, command: fmt.Sprintf("%s:%s:%d", role, e.service, e.sequence),
		actor: &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_SYSTEM, Ref: service},
	}
}

// bySigner is what a signer's act is recorded with.
func bySigner(person string) by {
	return by{actor: &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_SIGNER, Ref: person}}
}

// byPlatform is what a platform's act is recorded with.
func byPlatform() by {
	return by{actor: &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_PLATFORM, Ref: "key_1"}}
}

// byService is what a service's own act is recorded with.
func byService(name string) by {
	return by{actor: &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_SYSTEM, Ref: name}}
}

type command[S proto.Message] interface {
	Decide(state S, now time.Time) (proto.Message, error)
}

// family is the aggregates of one kind.
type family[S proto.Message] struct {
	service string
	evolve  func(S, proto.Message) S
}

// load returns the newest state of an aggregate; the zero state when there is none. It must not be changed.
func (f family[S]) load(r *request, id string) S { return f.of(r.entry(f.service, id).state) }

// stale returns a state such as Redis may have it: now and then the one before.
func (f family[S]) stale(w *world, r *request, id string) S {
	e := r.entry(f.service, id)
	if e.before != nil && w.oneIn(8) {
		return f.of(e.before)
	}
	return f.of(e.state)
}

func (f family[S]) of(m proto.Message) S {
	if s, ok := m.(S); ok {
		return s
	}
	var s S
	return s.ProtoReflect().Type().New().Interface().(S) //nolint:errcheck,forcetypeassert // the type's own message is an S
}

// do decides and records, as an aggregate of the record does: what was decided on a stale copy is decided again. It returns the state
// after it, and the fact that this call stated.
func (f family[S]) do(w *world, r *request, id string, c command[S], b by) (S, proto.Message, error) {
	e := r.entry(f.service, id)
	state := f.of(e.state)
	if b.command != "" && slices.Contains(e.commands, b.command) && w.o.broken != noCommandIDs {
		return state, nil, nil
	}
	now := w.clock()
	if e.before != nil && w.oneIn(20) {
		fact, err := c.Decide(f.of(e.before), now)
		if fact != nil && err == nil && w.o.broken == noExpectedSequence {
			state = f.evolve(proto.CloneOf(f.of(e.before)), fact)
			w.record(r, f.service, id, e, fact, state, b)
			return state, fact, nil
		}
		w.faults["stale copy"]++
	}
	fact, err := c.Decide(state, now)
	if fact == nil || err != nil {
		return state, nil, err
	}
	w.point()
	state = f.evolve(proto.CloneOf(state), fact)
	w.record(r, f.service, id, e, fact, state, b)
	w.point()
	return state, fact, nil
}

// record stores a transition, checks it, and lets everybody hear of it.
func (w *world) record(r *request, service, id string, e *entry, fact, state proto.Message, b by) {
	w.streams[service]++
	before := e.state
	e.before, e.state, e.sequence = e.state, state, w.streams[service]
	if b.command != "" {
		e.commands = append(e.commands, b.command)
		e.commands = e.commands[max(0, len(e.commands)-keptCommands):]
	}
	ev := &event{r: r, service: service, sequence: e.sequence, id: id, at: w.now, fact: fact, state: state, actor: b.actor, cause: b.cause}
	r.trail = append(r.trail, ev)
	w.facts[ev.name()]++
	w.checkOnce(ev, b.command)
	w.checkFact(ev, before)
	for _, c := range hearers[service] {
		w.deliver(r, c.name+" of "+ev.name(), w.latency(ev), func() error { return c.hear(w, ev) })
	}
	w.append(ev)
}

// hearer is a service that hears another's facts.
type hearer struct {
	name string
	hear func(*world, *event) error
}

var hearers map[string][]hearer

func init() { //nolint:gochecknoinits // the services hear each other in a circle
	hearers = map[string][]hearer{
		"token":      {{"token", tokenHears}, {"delivery", deliveryHears}, {"ceremony", ceremonyHears}, {"reminder", reminderHears}, {"escalation", escalationHears}},
		"delivery":   {{"token", tokenHears}, {"delivery", deliveryHears}, {"reminder", reminderHears}, {"escalation", escalationHears}},
		"identity":   {{"delivery", deliveryHears}},
		"ceremony":   {{"token", tokenHears}, {"reminder", reminderHears}},
		"reminder":   {{"token", tokenHears}, {"delivery", deliveryHears}, {"reminder", reminderHears}, {"escalation", escalationHears}},
		"escalation": {{"token", tokenHears}, {"delivery", deliveryHears}, {"escalation", escalationHears}},
	}
}

// timer is when an aggregate is looked at again.
type timer struct {
	version uint64 // sequence of the record that the deadline comes from
	armed   uint64
}

// arm has an aggregate's timer fire at due, or at once. A timer that a newer record armed is left alone.
func (w *world) arm(r *request, service, id string, due time.Time, version uint64, fire func() (time.Time, uint64, error)) {
	if due.IsZero() || w.o.broken == noTimers {
		return
	}
	k := service + "/" + id
	if t, there := r.timers[k]; there && t.version > version {
		return
	}
	w.point()
	r.armed++
	mine := r.armed
	r.timers[k] = timer{version, mine}
	w.point()
	late := w.soon(time.Second)
	if w.oneIn(100) {
		w.faults["timer late"]++
		late = w.upTo(6 * time.Hour)
	}
	if due.Before(w.now) {
		due = w.now
	}
	w.at(r, due.Add(late), func() {
		if t, there := r.timers[k]; there && t.armed == mine {
			delete(r.timers, k)
		} else if !w.oneIn(10) {
			return // replaced; now and then it fires all the same
		}
		w.deliver(r, "timer of "+service, 0, func() error {
			next, version, err := fire()
			if err == nil {
				w.arm(r, service, id, next, version, fire)
			}
			return err
		})
	})
}
