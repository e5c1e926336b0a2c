package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/eventlog"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	"countersign.dev/services/countersign/sample"
	"countersign.dev/services/countersign/stack"
)

// handOver is how long a request may take from its publication until its mail is handed over, before the benchmark gives up.
const handOver = time.Minute

// pipeline is all of Countersign, with the development mailbox at its end.
type pipeline struct {
	js     jetstream.JetStream
	handed chan struct{} // one for each mail with a link that the mail server took over
	letter []byte
	run    string
	stored func() (uint64, error)
	asked  atomic.Int64
	seen   map[string]bool // deliveries that were heard of; one goroutine's
}

// newPipeline runs the stack with its own defaults, on free ports and a directory of its own.
func newPipeline(b *testing.B) *pipeline {
	b.Helper()
	var c stack.Config
	parser, err := kong.New(&c, kong.Name("bench"))
	check(b, err)
	args := []string{"--data", filepath.Join(b.TempDir(), "data"), "--log-level", "error"}
	for _, flag := range []string{"http", "grpc", "metrics", "mailbox", "mailbox-smtp", "nats-listen", "redis-listen"} {
		args = append(args, "--"+flag, "127.0.0.1:0")
	}
	_, err = parser.Parse(args)
	check(b, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	ready, ended := make(chan stack.Addresses, 1), make(chan error, 1)
	go func() { ended <- stack.Run(ctx, c, os.Stderr, func(r stack.Running) { ready <- r.Addresses }) }()
	b.Cleanup(func() { cancel(); <-ended })
	select {
	case addresses := <-ready:
		return connect(b, addresses)
	case err := <-ended:
		ended <- err
		b.Fatalf("the stack ended before it was ready: %v", err)
	}
	return nil
}

func connect(b *testing.B, addresses stack.Addresses) *pipeline {
	nc, err := nats.Connect(addresses.NATS)
	check(b, err)
	b.Cleanup(nc.Close)
	p := &pipeline{handed: make(chan struct{}, 4096), letter: sample.Offer("Ada Lovelace"), run: nats.NewInbox()[7:], seen: map[string]bool{}}
	p.js, err = jetstream.New(nc)
	check(b, err)
	// The fact is published after the mail server's answer and before anything follows from it.
	_, err = nc.Subscribe(eventlog.FactSubject("delivery", eventlog.Key{Tenant: tenant, ID: "*"}), p.heard)
	check(b, err)
	check(b, nc.Flush())
	p.stored = func() (total uint64, err error) {
		streams := p.js.ListStreams(b.Context())
		for info := range streams.Info() {
			total += info.State.LastSeq
		}
		return total, streams.Err()
	}
	return p
}

// heard counts mails with links that were handed over, each once: a fact is published again where its acknowledgement is late.
func (p *pipeline) heard(m *nats.Msg) {
	record, accepted := &recordv1.Record{}, &deliveryv1.AttemptAccepted{}
	if proto.Unmarshal(m.Data, record) != nil || record.GetFact().UnmarshalTo(accepted) != nil || accepted.GetKind() != deliveryv1.Kind_KIND_LINK || p.seen[m.Subject] {
		return
	}
	p.seen[m.Subject] = true
	p.handed <- struct{}{}
}

// ask publishes a request and waits until a mail was handed over: with n callers, n requests are always on their way.
func (p *pipeline) ask(ctx context.Context, call int) error {
	p.asked.Add(1)
	body, err := json.Marshal(map[string]any{
		"reference": fmt.Sprintf("bench-%s-%d", p.run, call), "title": "Offer letter",
		"documents": []any{map[string]any{"name": "offer.pdf", "content": p.letter}},
		"signers":   []any{map[string]any{"name": "Ada Lovelace", "email": fmt.Sprintf("ada%d@example.com", call), "locale": "en", "time_zone": "Europe/London"}},
	})
	if err != nil {
		return err
	}
	if _, err := p.js.Publish(ctx, "intake."+tenant, body); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, handOver)
	defer cancel()
	select {
	case <-p.handed:
		return nil
	case <-ctx.Done():
		return errors.New("no mail within a minute")
	}
}
