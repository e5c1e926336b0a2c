package audit_test

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/anypb"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/audit"
)

// forgetful has the ledger forget in no time which leaves it has seen.
func forgetful(c *jetstream.StreamConfig) { c.Duplicates = 100 * time.Millisecond }

// TestEveryFactIsALeaf: one each, in the order of cause and effect, each request a chain of its own; heard again, nothing is added.
func TestEveryFactIsALeaf(t *testing.T) {
	w := start(t)
	n := w.life("req_1")
	m := w.life("req_2")
	leaves := w.wantOnce("req_1", n)
	w.wantOnce("req_2", m)
	if first := leaves[0]; first.Type != "cs.request.created" || first.Actor.Kind != "signer" || first.Info["signers"] != "1" {
		t.Errorf("the first leaf is %+v", first)
	}
	if i := slices.IndexFunc(leaves, func(l leaf) bool { return l.Fin }); i < 0 || leaves[i].Type != "cs.request.completed" ||
		slices.ContainsFunc(leaves[i+1:], func(l leaf) bool { return l.Fin }) {
		t.Errorf("the end is leaf %d", i+1)
	}
	w.again()
	if got := w.wantOnce("req_1", n); !slices.EqualFunc(leaves, got, func(a, b leaf) bool { return a.Src == b.Src && a.Prev == b.Prev }) {
		t.Error("heard again, the log is another")
	}
	w.done(0)
}

// TestHeardAgainMuchLater: the server has forgotten the first leaf of a fact; the log has not.
func TestHeardAgainMuchLater(t *testing.T) {
	w := start(t, forgetful)
	n := w.life("req_1")
	w.wantOnce("req_1", n)
	last := w.Clock.Now("")
	eventlogtest.Eventually(t, "the server has forgotten", func() bool { return w.Clock.Now("").Sub(last) > 300*time.Millisecond })
	w.again()
	w.wantOnce("req_1", n)
	w.done(0)
}

// TestLostAcknowledgement: the leaf stands, the acknowledgement of the fact did not get through, and the fact comes a second time.
func TestLostAcknowledgement(t *testing.T) {
	w := start(t, forgetful)
	w.begin("req_1")
	w.wantOnce("req_1", 1)
	w.stop()
	w.Rewind(w.topology)
	consumer, err := w.JS.Consumer(t.Context(), "FACTS_TOKEN", audit.Name)
	if err != nil {
		t.Fatal(err)
	}
	fact, err := consumer.Next()
	if err != nil {
		t.Fatal(err)
	}
	if err := fact.Nak(); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.wantOnce("req_1", 1)
	w.done(0)
}

// TestEffectsWaitForTheirCause: whatever is heard first, the cause stands first.
func TestEffectsWaitForTheirCause(t *testing.T) {
	w := start(t)
	link := &tokenv1.Link{Id: linkID, Tenant: tenant, RequestId: "req_1"}
	// The last link of the chain of causes is heard first.
	w.says("reminder", "rem_1", "req_1", &deliveryv1.DeliverySkipped{}, &deliveryv1.Delivery{}, cause("delivery", 2))
	w.says("delivery", "dlv_1", "req_1", &deliveryv1.DeliveryPlanned{}, &deliveryv1.Delivery{}, cause("token", 2))
	w.says("delivery", "dlv_1", "req_1", &deliveryv1.AttemptAccepted{}, &deliveryv1.Delivery{}, cause("delivery", 1))
	eventlogtest.Eventually(t, "all of them are in hand", func() bool {
		return w.inHand("reminder")+w.inHand("delivery") == 2
	})
	if kept := w.Messages(audit.LedgerStream, ">"); len(kept) != 0 {
		t.Errorf("%d leaves before there is a cause", len(kept))
	}
	accepted := w.begin("req_1")
	w.says("token", linkID, "req_1", &tokenv1.LinkIssued{LinkId: linkID}, link, accepted)
	leaves := w.wantOnce("req_1", 5)
	var order []string
	for _, l := range leaves {
		order = append(order, l.Src)
	}
	if want := []string{"FACTS_TOKEN:1", "FACTS_TOKEN:2", "FACTS_DELIVERY:1", "FACTS_DELIVERY:2", "FACTS_REMINDER:1"}; !slices.Equal(order, want) {
		t.Errorf("order %v", order)
	}
	w.done(0)
}

func (w *world) inHand(service string) int {
	w.t.Helper()
	c, err := w.JS.Consumer(w.t.Context(), eventlog.FactsStream(service), audit.Name)
	if err != nil {
		w.t.Fatal(err)
	}
	return c.CachedInfo().NumAckPending
}

// TestRestarted: process and server stop in the middle of it, and the chain goes on where it was.
func TestRestarted(t *testing.T) {
	w := start(t)
	var n [2]int
	for range 3 {
		n[0] += w.life("req_1")
		w.stop()
		n[1] += w.life("req_2")
		w.start()
	}
	n[0] += w.life("req_1")
	w.NATS.Restart()
	eventlogtest.Eventually(t, "the server is back", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := w.JS.AccountInfo(ctx)
		return err == nil
	})
	n[1] += w.life("req_2")
	w.wantOnce("req_1", n[0])
	w.wantOnce("req_2", n[1])
	w.done(0)
}

// TestStopsAtOnce: who waits for a cause that does not come does not hold up the end of the process, and the fact is not lost.
func TestStopsAtOnce(t *testing.T) {
	w := start(t)
	w.says("delivery", "dlv_1", "req_1", &deliveryv1.DeliveryPlanned{}, &deliveryv1.Delivery{}, cause("token", 1))
	eventlogtest.Eventually(t, "it is in hand", func() bool { return w.inHand("delivery") == 1 })
	elapsed := clock.Stopwatch()
	w.stop()
	if took := elapsed(); took > 10*time.Second {
		t.Errorf("it took %v to stop", took)
	}
	w.start()
	w.begin("req_1")
	w.wantOnce("req_1", 2)
	w.done(0)
}

// TestWhatCannotBeFolded goes to the dead letters; neither the others nor what follows from it are stopped.
func TestWhatCannotBeFolded(t *testing.T) {
	w := start(t)
	r := request("req_1")
	long := request("req_1")
	for range 400 {
		long.Seats = append(long.Seats, &tokenv1.Seat{Position: uint32(len(long.GetSeats())) + 1, Commitments: map[string][]byte{"signer.name": digest(1)}})
	}
	bad := []*recordv1.Record{
		{RequestId: "req_1", Fact: &anypb.Any{TypeUrl: "type.googleapis.com/countersign.unheard.v1.Of", Value: []byte("x")}},
		{Fact: w.packed(&tokenv1.RequestCancelled{}), State: w.packed(r)},
		{RequestId: "req 1.>", Fact: w.packed(&tokenv1.RequestCancelled{}), State: w.packed(r)},
		{RequestId: "req_1", Fact: w.packed(&tokenv1.RequestAccepted{Request: long}), State: w.packed(r)},
	}
	for _, record := range bad {
		w.publish("token", "req_1", record)
	}
	for _, header := range []string{"", rand.Text()} { // no id; no record
		m := nats.NewMsg("fact.token.acme.req_1")
		m.Data = []byte("\xff\xff no record")
		if header == "" {
			m.Data = nil
		}
		m.Header.Set("ce-id", header)
		if _, err := w.JS.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	w.says("delivery", "dlv_1", "req_1", &deliveryv1.DeliveryPlanned{}, &deliveryv1.Delivery{}, cause("token", 6))
	w.Settled(w.topology)
	if leaves := w.leaves("req_1"); len(leaves) != 1 || leaves[0].Src != "FACTS_DELIVERY:1" {
		t.Errorf("leaves %v", leaves)
	}
	for _, dead := range w.Dead() {
		if !strings.Contains(dead, "a fact cannot be folded in") {
			t.Error(dead)
		}
	}
	w.done(len(bad) + 2)
}
