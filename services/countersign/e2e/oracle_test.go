package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/pades"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	"countersign.dev/services/audit/rules"
	"countersign.dev/services/countersign/signer"
)

// oracle reads the record itself and checks the promises: nothing lost, nothing twice in effect.
type oracle struct {
	t  *testing.T
	in *instance
	js jetstream.JetStream

	// memo keeps what was read once, for a record that is at rest; nil reads anew each time.
	memo map[string][]*jetstream.RawStreamMsg
}

func (in *instance) oracle(t *testing.T) *oracle {
	t.Helper()
	nc, err := nats.Connect(in.Addresses.NATS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return &oracle{t: t, in: in, js: js}
}

// all returns every message of a stream under a filter.
func (o *oracle) all(ctx context.Context, stream, filter string) []*jetstream.RawStreamMsg {
	o.t.Helper()
	if known, ok := o.memo[stream+" "+filter]; ok {
		return known
	}
	st, err := o.js.Stream(ctx, stream)
	if err != nil {
		o.t.Fatalf("stream %s: %v", stream, err)
	}
	var out []*jetstream.RawStreamMsg
	for next := uint64(1); ; {
		m, err := st.GetMsg(ctx, next, jetstream.WithGetMsgSubject(filter))
		if err != nil {
			if strings.Contains(err.Error(), "no message found") || strings.Contains(err.Error(), "message not found") {
				if o.memo != nil {
					o.memo[stream+" "+filter] = out
				}
				return out
			}
			o.t.Fatalf("read %s: %v", stream, err)
		}
		out = append(out, m)
		next = m.Sequence + 1
	}
}

// outcomes returns what the platform was told of a request, in order.
func (o *oracle) outcomes(ctx context.Context, id string) []string {
	var events []string
	for _, m := range o.all(ctx, "OUTCOMES", "outcome.demo."+id) {
		out := &signingv1.Outcome{}
		if err := protojson.Unmarshal(m.Data, out); err != nil {
			o.t.Fatal(err)
		}
		events = append(events, out.GetEvent())
	}
	return events
}

// quiet waits until every consumer has handled everything and nothing is due.
func (o *oracle) quiet(ctx context.Context) {
	o.t.Helper()
	busy := ""
	if err := persist(ctx, o.in, func() error {
		busy = o.busy(ctx)
		if busy != "" {
			return fmt.Errorf("%s", busy)
		}
		return nil
	}); err != nil {
		o.t.Fatalf("it does not come to rest: %v", err)
	}
}

func (o *oracle) busy(ctx context.Context) string {
	for name := range o.js.StreamNames(ctx).Name() {
		st, err := o.js.Stream(ctx, name)
		if err != nil {
			return err.Error()
		}
		for info := range st.ListConsumers(ctx).Info() {
			if info.Config.Durable != "" && (info.NumPending > 0 || info.NumAckPending > 0) {
				return fmt.Sprintf("consumer %s of %s has %d to do and %d in hand", info.Name, name, info.NumPending, info.NumAckPending)
			}
		}
	}
	return ""
}

// completedOnce checks a completed request: told once, signed once, every fact in the audit trail once, in a chain that holds.
func (o *oracle) completedOnce(ctx context.Context, id, email string, signatures int) {
	o.t.Helper()
	events := o.outcomes(ctx, id)
	count := map[string]int{}
	for _, e := range events {
		count[e]++
	}
	if count["accepted"] != 1 || count["completed"] != 1 || count["progress"] != signatures-1 || len(events) != signatures+1 {
		o.t.Errorf("request %s: the platform was told %v", id, events)
	}
	o.chain(ctx, id)
	person := signer.New(email, o.in.Addresses.Mailbox)
	mail, err := person.Await(ctx, func(m signer.Mail) bool { return len(m.Attachments) == 2 }, map[string]bool{})
	if err != nil {
		o.t.Fatal(err)
	}
	signed, err := person.Attachment(ctx, mail, "-signed.pdf")
	if err != nil {
		o.t.Fatal(err)
	}
	found, err := pades.Verify(signed, nil)
	if err != nil || len(found) != signatures {
		o.t.Fatalf("request %s: %d signatures, %v; want %d", id, len(found), err, signatures)
	}
	for _, s := range found {
		if !s.Intact || s.Altered() {
			o.t.Errorf("request %s: signature %s does not hold: %v %v", id, s.Field, s.Problems, s.Changes)
		}
	}
}

// chain checks that the audit trail of a request holds together and has each of its facts exactly once.
func (o *oracle) chain(ctx context.Context, id string) {
	o.t.Helper()
	var facts map[string]string
	var leaves [][]byte
	eventually(ctx, o.t, "the audit trail hears of request "+id, func() bool {
		// Leaves first: a fact that is recorded between the two reads then counts as not heard of yet, not as a leaf too many.
		leaves = nil
		for _, m := range o.all(ctx, "LEDGER", "ledger.leaf."+id) {
			leaves = append(leaves, m.Data)
		}
		facts = o.sources(ctx, id)
		return len(leaves) >= len(facts) || o.memo != nil
	})
	told := map[string]int{}
	for _, raw := range leaves {
		leaf, err := rules.Parse(raw)
		if err != nil {
			o.t.Fatal(err)
		}
		told[leaf.Src]++
	}
	if err := rules.CheckChain(leaves); err != nil {
		o.t.Errorf("request %s: %v", id, err)
	}
	for source, name := range facts {
		if n := told[source]; n != 1 {
			o.t.Errorf("request %s: fact %s (%s) has %d leaves", id, source, name, n)
		}
	}
	if len(facts) != len(leaves) || len(facts) == 0 {
		o.t.Errorf("request %s: %d facts and %d leaves", id, len(facts), len(leaves))
	}
}

// sources returns the facts of a request by where they are recorded.
func (o *oracle) sources(ctx context.Context, id string) map[string]string {
	o.t.Helper()
	facts := map[string]string{}
	for _, service := range []string{"token", "delivery", "identity", "ceremony", "reminder", "escalation"} {
		stream := eventlog.FactsStream(service)
		for _, m := range o.all(ctx, stream, "fact."+service+".>") {
			record := &recordv1.Record{}
			if err := proto.Unmarshal(m.Data, record); err != nil {
				o.t.Fatal(err)
			}
			if record.GetRequestId() == id {
				facts[fmt.Sprintf("%s:%d", stream, m.Sequence)] = string(record.GetFact().MessageName().Name())
			}
		}
	}
	return facts
}

// nothingDead checks that no message was given up.
func (o *oracle) nothingDead(ctx context.Context) {
	o.t.Helper()
	for _, m := range o.all(ctx, "DEAD", "dead.>") {
		o.t.Errorf("dead letter on %s: %s", m.Subject, m.Header.Get(eventlog.DeadErrorHeader))
	}
	for _, m := range o.all(ctx, "ADVISORIES", ">") {
		var advisory struct{ Stream, Reason string }
		if err := json.Unmarshal(m.Data, &advisory); err != nil {
			o.t.Fatal(err)
		}
		// A work queue deletes what is acknowledged. Killed right after, the consumer's own state may not know yet: the server then
		// finds the message gone. Nothing but an acknowledgement deletes there.
		queue := strings.HasPrefix(advisory.Stream, "TIMERS_") || advisory.Stream == "INTAKE"
		if !queue || advisory.Reason != "Unacknowledged message was deleted" {
			o.t.Errorf("the server dropped something: %s: %s", m.Subject, advisory.Reason)
		}
	}
}

// linkMails counts the mails to somebody that hold a link.
func (o *oracle) linkMails(ctx context.Context, email string) int {
	mails, err := signer.New(email, o.in.Addresses.Mailbox).Mails(ctx)
	if err != nil {
		o.t.Fatal(err)
	}
	n := 0
	for _, m := range mails {
		if m.Link() != "" {
			n++
		}
	}
	return n
}
