package hosttest

import (
	"errors"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
)

// Rewind makes the consumers of facts in t anew, as a restore does: whoever runs on them hears everything from the beginning, each
// fact as if for the first time. Stop the service first, and start it after.
func (w *World) Rewind(t eventlog.Topology) {
	w.t.Helper()
	anew := eventlog.Topology{}
	for _, c := range t.Consumers {
		if !strings.HasPrefix(c.Stream, "FACTS_") {
			continue
		}
		if err := w.JS.DeleteConsumer(w.t.Context(), c.Stream, c.Durable); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			w.t.Fatal(err)
		}
		anew.Consumers = append(anew.Consumers, c)
	}
	w.NATS.Provision(w.NATS.Connect(), anew)
}

// Settled waits until the consumers in t have handled everything there is.
func (w *World) Settled(t eventlog.Topology) {
	w.t.Helper()
	eventlogtest.Eventually(w.t, "everything is heard", func() bool {
		for _, c := range t.Consumers {
			stream, err := w.JS.Stream(w.t.Context(), c.Stream)
			if err != nil {
				w.t.Fatal(err)
			}
			consumer, err := stream.Consumer(w.t.Context(), c.Durable)
			if err != nil {
				w.t.Fatal(err)
			}
			info := consumer.CachedInfo()
			// A consumer learns of what was stored a moment after the publisher does: what it does not count yet is seen in the stream.
			behind := len(c.Filters) == 0 && info.AckFloor.Stream < stream.CachedInfo().State.LastSeq
			if behind || info.NumPending+uint64(info.NumAckPending) > 0 {
				return false
			}
		}
		return true
	})
}

// Dead returns the names under which a service's dead letters lie: what it could not handle.
func (w *World) Dead() []string {
	w.t.Helper()
	var subjects []string
	for _, m := range w.Messages("DEAD", ">") {
		subjects = append(subjects, m.Subject+": "+m.Header.Get(eventlog.DeadErrorHeader))
	}
	return subjects
}

// Messages returns what a stream holds, by subject or filter, oldest first.
func (w *World) Messages(stream, filter string) []*jetstream.RawStreamMsg {
	w.t.Helper()
	s, err := w.JS.Stream(w.t.Context(), stream)
	if err != nil {
		w.t.Fatal(err)
	}
	var all []*jetstream.RawStreamMsg
	for next := uint64(1); ; {
		m, err := s.GetMsg(w.t.Context(), next, jetstream.WithGetMsgSubject(filter))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return all
		}
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, m)
		next = m.Sequence + 1
	}
}

// Private fails the test where one of these values stands in any stream, in a header of it, or in the log.
func (w *World) Private(values ...string) {
	w.t.Helper()
	look := func(where, content string) {
		for _, v := range values {
			if v != "" && strings.Contains(content, v) {
				w.t.Errorf("%s holds %q", where, v)
			}
		}
	}
	names := w.JS.StreamNames(w.t.Context())
	for stream := range names.Name() {
		for _, m := range w.Messages(stream, ">") {
			look(stream+" "+m.Subject, m.Subject+string(m.Data))
			for k, all := range m.Header {
				look(stream+" "+m.Subject+" "+k, strings.Join(all, " "))
			}
		}
	}
	if err := names.Err(); err != nil {
		w.t.Fatal(err)
	}
	look("the log", w.Logs.String())
}
