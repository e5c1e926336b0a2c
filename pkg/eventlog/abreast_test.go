package eventlog_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	recordv1 "countersign.dev/proto/countersign/record/v1"
)

// TestHeardBeforeTheLeaderHasIt hears a fact that the stream does not have yet, as it is where a server that does not lead was quicker.
// A reaction must not take that for an aggregate that never was.
func TestHeardBeforeTheLeaderHasIt(t *testing.T) {
	server := eventlogtest.Start(t)
	nc := server.Connect()
	server.Provision(nc, topology)
	a := counters(t, nc)
	read := int64(-1)
	router := eventlog.NewRouter()
	eventlog.On(router, func(ctx context.Context, e eventlog.Event, _ *wrapperspb.Int64Value) error {
		s, _, err := a.Load(ctx, e.Key)
		read = s.GetValue()
		return err
	})
	eventlog.On(router, func(ctx context.Context, e eventlog.Event, limit *wrapperspb.UInt64Value) error {
		_, err := a.Do(ctx, one, add{n: 5, limit: int64(limit.GetValue())}, eventlog.By{}) //nolint:gosec // small
		return err
	})
	hear := func(fact proto.Message) error {
		body, err := anypb.New(fact)
		if err != nil {
			t.Fatal(err)
		}
		data, err := proto.Marshal(&recordv1.Record{Fact: body})
		if err != nil {
			t.Fatal(err)
		}
		return router.Handle(t.Context(), eventlog.Message{Stream: "FACTS_TEST", Subject: eventlog.FactSubject("test", one), Sequence: 1, Data: data})
	}
	if err := hear(wrapperspb.Int64(1)); !errors.Is(err, eventlog.ErrBehind) {
		t.Errorf("a fact that is not there yet: %v, and %d was read; want %v", err, read, eventlog.ErrBehind)
	}
	if err := hear(wrapperspb.UInt64(1)); !errors.Is(err, eventlog.ErrBehind) {
		t.Errorf("a refusal for want of it: %v, want %v", err, eventlog.ErrBehind)
	}
	if _, err := a.Do(t.Context(), one, add{n: 1}, eventlog.By{}); err != nil {
		t.Fatal(err)
	}
	if err := hear(wrapperspb.Int64(1)); err != nil || read != 1 {
		t.Errorf("a fact that is there: %v, and %d was read; want 1", err, read)
	}
}
