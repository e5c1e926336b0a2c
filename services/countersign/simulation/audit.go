package simulation

import (
	"bytes"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	recordv1 "countersign.dev/proto/countersign/record/v1"
	"countersign.dev/services/audit/rules"
)

// ledger is what the audit service has heard: each stream in its order, one fact at a time.
type ledger struct {
	backlog map[string][]*event
	reach   map[string]uint64 // how far each stream is folded in
}

func newLedger() ledger { return ledger{backlog: map[string][]*event{}, reach: map[string]uint64{}} }

// append hands a fact to the log. The fact's request waits for it.
func (w *world) append(e *event) {
	e.r.waiting++
	w.ledger.backlog[e.service] = append(w.ledger.backlog[e.service], e)
	if len(w.ledger.backlog[e.service]) == 1 {
		w.in(nil, w.soon(50*time.Millisecond), func() { w.foldNext(e.service, false) })
	}
}

// foldNext takes the oldest fact of a stream in, as services/audit/fold.go does.
func (w *world) foldNext(service string, again bool) {
	e := w.ledger.backlog[service][0]
	// An effect never stands before its cause.
	if e.cause.service != "" && w.ledger.reach[e.cause.service] < e.cause.sequence && w.o.broken != noCauseFirst {
		w.in(nil, 200*time.Millisecond, func() { w.foldNext(service, again) })
		return
	}
	died, err := w.perhapsDying(func() error {
		if again && w.folded(e) && w.o.broken != noFolding {
			return nil
		}
		w.point()
		err := w.fold(e)
		w.point()
		return err
	})
	if err != nil {
		w.fail(e.r, "the log cannot take %s: %v", e.name(), err)
	}
	if died || w.oneIn(60) {
		w.in(nil, ackWait, func() { w.foldNext(service, true) })
		return
	}
	w.ledger.reach[service] = e.sequence
	rest := w.ledger.backlog[service][1:]
	w.ledger.backlog[service][0] = nil
	w.ledger.backlog[service] = rest
	if len(rest) > 0 {
		w.in(nil, w.soon(20*time.Millisecond), func() { w.foldNext(service, false) })
	}
	if e.r.waiting--; e.r.waiting == 0 {
		w.retire(e.r)
	}
}

// source is how a leaf names its fact.
func source(e *event) string { return fmt.Sprintf("FACTS:%s:%d", e.service, e.sequence) }

// folded tells whether a fact has its leaf already.
func (w *world) folded(e *event) bool {
	name := fmt.Appendf(nil, `"src":"%s"`, source(e))
	for _, leaf := range e.r.leaves {
		if bytes.Contains(leaf, name) {
			return true
		}
	}
	return false
}

// fold adds the leaf of a fact behind the newest of its request.
func (w *world) fold(e *event) error {
	state, err := anypb.New(e.state)
	if err != nil {
		return err
	}
	tail := rules.Tail{Seq: uint64(len(e.r.leaves))}
	if tail.Seq > 0 {
		tail.Raw = e.r.leaves[tail.Seq-1]
	}
	raw, err := rules.Next(rules.Source{
		EventID: source(e), Stream: "FACTS:" + e.service, Sequence: e.sequence, Service: e.service, Tenant: e.r.tenant, ID: e.id, Fact: e.fact,
		Record: &recordv1.Record{State: state, Actor: e.actor, RequestId: e.r.id, At: timestamppb.New(e.at)},
	}, tail, w.now)
	if err != nil {
		return err
	}
	e.r.leaves = append(e.r.leaves, raw)
	return nil
}

// certified tells whether the log has the end of a request.
func (w *world) certified(r *request) bool {
	for i := len(r.leaves) - 1; i >= 0; i-- {
		if bytes.Contains(r.leaves[i], []byte(`"fin":true`)) {
			return true
		}
	}
	return false
}
