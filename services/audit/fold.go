package audit

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/crash"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/telemetry"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	"countersign.dev/services/audit/rules"
)

// patience is how long a fact waits for the one that caused it before it is handed back.
const patience = 20 * time.Second

// leafSubject is where a request's leaves are.
func leafSubject(requestID string) string { return "ledger.leaf." + requestID }

// errUnfit marks a fact that no repetition makes a leaf of.
var errUnfit = errors.New("audit: a fact cannot be folded in")

// fold appends the leaf of a fact. What cannot be folded in goes to the dead letters at once: it never stops the others, nor what
// follows from it.
func (s *Service) fold(ctx context.Context, stopping <-chan struct{}, service string, m eventlog.Message) error {
	source, err := read(service, m)
	if err == nil {
		ctx = telemetry.WithRequest(ctx, source.Record.GetRequestId(), source.Tenant)
		if err := s.await(ctx, stopping, source.Record.GetCause()); err != nil {
			return err
		}
		err = s.append(ctx, source, s.heardBefore(m))
	}
	switch {
	case errors.Is(err, errUnfit):
		err = eventlog.Poison(err)
	case err != nil:
		return err
	}
	s.rise(m.Stream, m.Sequence)
	return err
}

// read takes a fact apart.
func read(service string, m eventlog.Message) (rules.Source, error) {
	record := &recordv1.Record{}
	_, _, k, err := eventlog.ParseSubject(m.Subject)
	if err == nil {
		err = proto.Unmarshal(m.Data, record)
	}
	var fact proto.Message
	if err == nil {
		fact, err = record.GetFact().UnmarshalNew()
	}
	switch {
	case err != nil:
	case !eventlog.ValidToken(record.GetRequestId()):
		err = errors.New("the record names no request")
	case m.Header.Get("ce-id") == "":
		err = errors.New("the event has no id")
	}
	if err != nil {
		return rules.Source{}, fmt.Errorf("%w: %w", errUnfit, err)
	}
	return rules.Source{
		EventID: m.Header.Get("ce-id"), Stream: m.Stream, Sequence: m.Sequence, Service: service, Tenant: k.Tenant, ID: k.ID,
		Record: record, Fact: fact, Trace: traceID(m.Header),
	}, nil
}

// heardBefore tells whether a fact may have its leaf already. The server itself drops a second leaf of a fact for as long as it
// remembers the first; an older fact is looked up, since a consumer that `init` made anew hears all of them as if for the first time.
func (s *Service) heardBefore(m eventlog.Message) bool {
	remembered := s.ledger.Stream().CachedInfo().Config.Duplicates
	return m.Deliveries > 1 || s.h.Clock.Now("").Sub(m.Stored) > remembered/2
}

// traceID returns the trace of a W3C traceparent, so that a leaf leads to its trace.
func traceID(h nats.Header) string {
	parts := strings.Split(h.Get("traceparent"), "-")
	if len(parts) != 4 {
		return ""
	}
	return parts[1]
}

// await holds a fact back until the one that caused it is in: so no effect stands before its cause (audit.md 1.5.1). It cannot
// wait in a circle, since each stream is in the order of time and a cause comes before its effect.
func (s *Service) await(ctx context.Context, stopping <-chan struct{}, cause *recordv1.Cause) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		s.mu.Lock()
		reach, followed := s.reach[cause.GetStream()]
		raised := s.raised
		s.mu.Unlock()
		if !followed || reach >= cause.GetSequence() {
			return nil
		}
		select {
		case <-raised:
		case <-stopping:
			return failure.Unavailable
		case <-ctx.Done():
			return failure.Unavailable
		}
	}
}

// rise notes that a stream is folded in up to sequence.
func (s *Service) rise(stream string, sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sequence > s.reach[stream] {
		s.reach[stream] = sequence
		close(s.raised)
		s.raised = make(chan struct{})
	}
}

// append adds a leaf behind the newest of its request. A second writer is caught by the expected sequence; a fact that was folded in
// before its acknowledgement was lost is found among the leaves.
func (s *Service) append(ctx context.Context, source rules.Source, again bool) error {
	subject := leafSubject(source.Record.GetRequestId())
	for {
		last, err := s.ledger.LeaderLast(ctx, subject)
		if errors.Is(err, eventlog.ErrNotFound) {
			last, err = eventlog.Entry{}, nil
		}
		if err != nil {
			return err
		}
		tail := rules.Tail{Raw: last.Data}
		if last.Sequence > 0 {
			leaf, err := rules.Parse(last.Data)
			if err != nil {
				return fmt.Errorf("%w: the newest leaf of request %s: %w", errUnfit, source.Record.GetRequestId(), err)
			}
			tail.Seq = leaf.Seq
		}
		if again {
			if folded, err := s.folded(ctx, source); err != nil || folded {
				return err
			}
		}
		raw, err := rules.Next(source, tail, s.h.Clock.Now(""))
		if err != nil {
			return fmt.Errorf("%w: %w", errUnfit, err)
		}
		m := nats.NewMsg(subject)
		m.Data = raw
		crash.Point("audit.append")
		_, err = s.ledger.Append(ctx, m, source.EventID, last.Sequence)
		if errors.Is(err, eventlog.ErrConflict) {
			again = true
			continue
		}
		crash.Point("audit.appended")
		return err
	}
}

// folded tells whether a fact has its leaf already.
func (s *Service) folded(ctx context.Context, source rules.Source) (bool, error) {
	leaves, err := s.leaves(ctx, source.Record.GetRequestId())
	if err != nil {
		return false, err
	}
	src := fmt.Sprintf("%s:%d", source.Stream, source.Sequence)
	for i, raw := range leaves {
		leaf, err := rules.Parse(raw)
		if err != nil {
			return false, fmt.Errorf("%w: leaf %d of request %s: %w", errUnfit, i+1, source.Record.GetRequestId(), err)
		}
		if leaf.Src == src {
			return true, nil
		}
	}
	return false, nil
}

// leaves returns a request's leaves in order.
func (s *Service) leaves(ctx context.Context, requestID string) ([][]byte, error) {
	var out [][]byte
	subject := leafSubject(requestID)
	for next := uint64(1); ; {
		m, err := s.ledger.Stream().GetMsg(ctx, next, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("audit: read the ledger: %w", err)
		}
		out = append(out, m.Data)
		next = m.Sequence + 1
	}
}

// hashOf returns a leaf's hash as bytes.
func hashOf(raw []byte) []byte {
	h, _ := hex.DecodeString(rules.Hash(raw))
	return h
}
