package proof

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace/noop"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
)

// hearsIn is how long a consumer may be silent after the server that led it is gone: until another leads, which takes 4 to 7 s on a
// quiet machine, and until the process has noticed.
const hearsIn = 20 * time.Second

// silence is longer than a try to write (2 s), and shorter than what makes a leader give up (10 s).
const silence = 5 * time.Second

// TestHearsAgain kills the server that leads a consumer while a process waits for its next message. What the process asked for is lost,
// and nobody tells it.
func TestHearsAgain(t *testing.T) {
	const durable = "hears"
	c := newCluster(t)
	stream := eventlog.FactsStream("hears")
	if _, err := eventlog.Provision(t.Context(), c.js, eventlog.Topology{
		Streams: []jetstream.StreamConfig{eventlog.FactsConfig("hears")}, Consumers: []eventlog.ConsumerSpec{{Stream: stream, Durable: durable}},
	}, 3, func(string) map[string]string { return map[string]string{} }); err != nil {
		t.Fatal(err)
	}
	heard := make(chan struct{}, 16)
	consumer := eventlog.Consumer{
		Service: "hears", Stream: stream, Durable: durable, Workers: 2, Logger: slog.New(slog.DiscardHandler),
		Tracer: noop.NewTracerProvider().Tracer(""), Handle: func(context.Context, eventlog.Message) error { heard <- struct{}{}; return nil },
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() { stop(); running.Wait() })
	running.Go(func() {
		if err := consumer.Run(ctx, c.js); err != nil {
			t.Error(err)
		}
	})
	said := 0
	say := func() {
		said++
		eventlogtest.Eventually(t, "a fact is recorded", func() bool {
			_, err := c.js.Publish(t.Context(), fmt.Sprint("fact.hears.acme.", said), nil, jetstream.WithMsgID(fmt.Sprint(said)))
			return err == nil
		})
	}
	// With two workers it asks for four messages, and after three of them for three more. The servers keep in common who waits, but not
	// for how much: once the fourth has come, and with it all that was asked for first, they know of nobody.
	for range 4 {
		say()
		<-heard
	}
	var led string
	eventlogtest.Eventually(t, "everything is acknowledged, and it waits", func() bool {
		found, err := c.js.Consumer(t.Context(), stream, durable)
		if err != nil {
			return false
		}
		info := found.CachedInfo()
		led = info.Cluster.Leader
		return led != "" && info.NumWaiting == 1 && info.NumAckPending == 0
	})
	c.nodes[led].kill()
	late := time.NewTimer(hearsIn)
	defer late.Stop()
	say()
	select {
	case <-heard:
	case <-late.C:
		t.Errorf("%v after the leader of a consumer was killed, nothing was heard", hearsIn)
	}
}

// TestWritesThroughASilence has the servers that do not lead stop for longer than a try to write may take. The write is neither refused
// nor doubled: it stands once they go on.
func TestWritesThroughASilence(t *testing.T) {
	c := newCluster(t)
	name := eventlog.FactsStream("writes")
	if _, err := eventlog.Provision(t.Context(), c.js, eventlog.Topology{Streams: []jetstream.StreamConfig{eventlog.FactsConfig("writes")}}, 3,
		func(string) map[string]string { return map[string]string{} }); err != nil {
		t.Fatal(err)
	}
	leader := c.leader(name)
	log, err := eventlog.OpenLog(t.Context(), c.connect(leader), name)
	if err != nil {
		t.Fatal(err)
	}
	var silent sync.WaitGroup
	t.Cleanup(silent.Wait)
	for n, server := range c.nodes {
		if n == leader {
			continue
		}
		server.signal(syscall.SIGSTOP)
		silent.Go(func() {
			<-time.After(silence)
			server.signal(syscall.SIGCONT)
		})
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	m := nats.NewMsg("fact.writes.acme.one")
	m.Data = []byte("a fact")
	if _, err := log.Append(ctx, m, "one", 0); err != nil {
		t.Errorf("a write was not taken: %v", err)
	}
	info, err := log.Stream().Info(ctx)
	if err != nil || info.State.Msgs != 1 {
		t.Errorf("%d messages (%v), want 1", info.State.Msgs, err)
	}
}
