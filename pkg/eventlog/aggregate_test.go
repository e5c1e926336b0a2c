package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
	recordv1 "countersign.dev/proto/countersign/record/v1"
)

// counter is the smallest aggregate: a number that facts add to.
type counter = *wrapperspb.Int64Value

func evolve(s counter, fact proto.Message) counter {
	s.Value += fact.(counter).GetValue()
	return s
}

// add adds n unless the counter would pass limit.
type add struct{ n, limit int64 }

func (c add) Decide(s counter, _ time.Time) (proto.Message, error) {
	if c.limit > 0 && s.GetValue()+c.n > c.limit {
		return nil, failure.RequestClosed
	}
	return wrapperspb.Int64(c.n), nil
}

var topology = eventlog.Topology{
	Streams:   append(eventlog.SharedStreams(), eventlog.FactsConfig("test")),
	Consumers: []eventlog.ConsumerSpec{{Stream: "FACTS_TEST", Durable: "reader"}},
}

func counters(t testing.TB, nc *nats.Conn) *eventlog.Aggregate[counter] {
	t.Helper()
	log, err := eventlog.OpenLog(t.Context(), nc, "FACTS_TEST")
	if err != nil {
		t.Fatal(err)
	}
	return eventlog.NewAggregate(log, "test", evolve, clock.System(), noop.NewTracerProvider().Tracer(""), nil)
}

var one = eventlog.Key{Tenant: "acme", ID: "one"}

func value(t testing.TB, a *eventlog.Aggregate[counter], k eventlog.Key) int64 {
	t.Helper()
	s, _, err := a.Load(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return s.GetValue()
}

func TestOneOfManyWins(t *testing.T) {
	s := eventlogtest.Start(t)
	nc := s.Connect()
	s.Provision(nc, topology)
	a := counters(t, nc)
	var won, refused atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			_, err := a.Do(t.Context(), one, add{n: 1, limit: 1}, eventlog.By{})
			switch {
			case err == nil:
				won.Add(1)
			case errors.Is(err, failure.RequestClosed):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || refused.Load() != 63 || value(t, a, one) != 1 {
		t.Errorf("%d won, %d were refused, the counter is at %d", won.Load(), refused.Load(), value(t, a, one))
	}
}

func TestACommandCountsOnce(t *testing.T) {
	s := eventlogtest.Start(t)
	nc := s.Connect()
	s.Provision(nc, topology)
	a := counters(t, nc)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			if _, err := a.Do(t.Context(), one, add{n: 1}, eventlog.By{CommandID: fmt.Sprint("command", i%4)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := value(t, a, one); got != 4 {
		t.Errorf("4 commands, each 8 times, made %d", got)
	}
	res, err := a.Do(t.Context(), one, add{n: 1}, eventlog.By{CommandID: "command0"})
	if err != nil || !res.Repeated || res.Fact != nil {
		t.Errorf("a repeat answered %+v, %v", res, err)
	}
}

// TestLostAcknowledgements cuts the wire behind stored writes while callers repeat what they got no answer to: each command counts once.
func TestLostAcknowledgements(t *testing.T) {
	s := eventlogtest.Start(t)
	direct := s.Connect()
	s.Provision(direct, topology)
	proxy := s.Proxy()
	a := counters(t, proxy.Connect())
	const commands = 12
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watched := counters(t, direct)
	for i := range int64(commands) {
		proxy.LoseAnswers()
		done := make(chan error, 1)
		go func() {
			by := eventlog.By{CommandID: fmt.Sprint("command", i)}
			for {
				try, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
				_, err := a.Do(try, one, add{n: 1}, by)
				cancel()
				if err == nil || ctx.Err() != nil {
					done <- err
					return
				}
			}
		}()
		proxy.Heal()
		if i%2 == 0 { // and once more, in the middle of whatever is under way now
			proxy.LoseAnswers()
			proxy.Heal()
		}
		if err := <-done; err != nil {
			t.Fatalf("command %d: %v", i, err)
		}
		if got := value(t, watched, one); got != i+1 {
			t.Fatalf("after %d commands the counter is at %d", i+1, got)
		}
	}
}

// TestAQuestionIsPutAgain lets the answer to a read be lost: who asks without a deadline, as consumers do, is answered all the same.
func TestAQuestionIsPutAgain(t *testing.T) {
	s := eventlogtest.Start(t)
	direct := s.Connect()
	js := s.Provision(direct, topology)
	subject := eventlog.FactSubject("test", one)
	if _, err := js.Publish(t.Context(), subject, []byte("there")); err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func(*eventlog.Log, context.Context, string) (eventlog.Entry, error){
		"$JS.API.STREAM.MSG.GET.>": (*eventlog.Log).LeaderLast, "$JS.API.DIRECT.GET.>": (*eventlog.Log).Last,
	} {
		proxy := s.Proxy()
		log, err := eventlog.OpenLog(t.Context(), proxy.Connect(), "FACTS_TEST")
		if err != nil {
			t.Fatal(err)
		}
		asked, err := direct.SubscribeSync(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := direct.Flush(); err != nil {
			t.Fatal(err)
		}
		proxy.LoseAnswers()
		done := make(chan error, 1)
		go func() {
			got, err := read(log, context.WithoutCancel(t.Context()), subject)
			if err == nil && string(got.Data) != "there" {
				err = fmt.Errorf("read %q", got.Data)
			}
			done <- err
		}()
		if _, err := asked.NextMsg(time.Minute); err != nil {
			t.Fatal(err)
		}
		proxy.Heal()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%s: the reader still waits for the answer that was lost", name)
		}
	}
}

// TestAppendFindsOutWhatATimeoutHid lets exactly the acknowledgement of a stored write be lost.
func TestAppendFindsOutWhatATimeoutHid(t *testing.T) {
	s := eventlogtest.Start(t)
	direct := s.Connect()
	js := s.Provision(direct, topology)
	proxy := s.Proxy()
	log, err := eventlog.OpenLog(t.Context(), proxy.Connect(), "FACTS_TEST")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "FACTS_TEST")
	if err != nil {
		t.Fatal(err)
	}
	proxy.LoseAnswers()
	type outcome struct {
		seq uint64
		err error
	}
	done := make(chan outcome, 1)
	subject := eventlog.FactSubject("test", one)
	go func() {
		m := nats.NewMsg(subject)
		m.Data = []byte("mine")
		seq, err := log.Append(t.Context(), m, "id-1", 0)
		done <- outcome{seq, err}
	}()
	eventlogtest.Eventually(t, "the write is stored", func() bool {
		_, err := stream.GetLastMsgForSubject(t.Context(), subject)
		return err == nil
	})
	// Somebody else goes on from it before its writer hears anything.
	if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: subject, Data: []byte("theirs")}, jetstream.WithExpectLastSequencePerSubject(1)); err != nil {
		t.Fatal(err)
	}
	proxy.Heal()
	if got := <-done; got.err != nil || got.seq != 1 {
		t.Errorf("Append returned %d, %v; it was stored as 1", got.seq, got.err)
	}
	m := nats.NewMsg(subject)
	if _, err := log.Append(t.Context(), m, "id-2", 0); !errors.Is(err, eventlog.ErrConflict) {
		t.Errorf("another's write looks like %v", err)
	}
}

func TestRecordSurvivesARestart(t *testing.T) {
	s := eventlogtest.Start(t)
	nc := s.Connect()
	s.Provision(nc, topology)
	a := counters(t, nc)
	for range 3 {
		if _, err := a.Do(t.Context(), one, add{n: 1}, eventlog.By{}); err != nil {
			t.Fatal(err)
		}
	}
	s.Restart()
	if _, err := a.Do(t.Context(), one, add{n: 1}, eventlog.By{}); err != nil {
		t.Fatal(err)
	}
	if got := value(t, a, one); got != 4 {
		t.Errorf("the counter is at %d", got)
	}
}

func TestMissingStreamIsNotMade(t *testing.T) {
	nc := eventlogtest.Start(t).Connect()
	if _, err := eventlog.OpenLog(t.Context(), nc, "FACTS_TEST"); err == nil {
		t.Error("a missing stream was opened")
	}
}

// TestConsume: a fact is handled until it succeeds, a poisoned message goes to the dead letters, sealed, and the others flow on.
func TestConsume(t *testing.T) {
	s := eventlogtest.Start(t)
	nc := s.Connect()
	js := s.Provision(nc, topology)
	a := counters(t, nc)
	for _, n := range []int64{1, 2, 3} {
		if _, err := a.Do(t.Context(), one, add{n: n}, eventlog.By{RequestID: "req_1"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := js.Publish(t.Context(), "fact.test.acme.bad", []byte("\xff\xff private words")); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	heard := map[int64]int{}
	router := eventlog.NewRouter()
	eventlog.On(router, func(_ context.Context, e eventlog.Event, f counter) error {
		mu.Lock()
		defer mu.Unlock()
		heard[f.GetValue()]++
		switch {
		case f.GetValue() == 2 && heard[2] < 3:
			return failure.Unavailable
		case f.GetValue() == 3 && heard[3] == 1:
			panic("once")
		case e.Record.GetRequestId() != "req_1":
			return errors.New("the record came without its request")
		}
		return nil
	})
	consumer := &eventlog.Consumer{
		Service: "reader", Stream: "FACTS_TEST", Durable: "reader", Handle: router.Handle,
		Seal:   func(b []byte) ([]byte, error) { return append([]byte("sealed "), byte(len(b))), nil },
		Logger: slog.New(slog.DiscardHandler), Tracer: noop.NewTracerProvider().Tracer(""),
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- consumer.Run(ctx, js) }()
	eventlogtest.Eventually(t, "everything is handled", func() bool {
		c, err := js.Consumer(t.Context(), "FACTS_TEST", "reader")
		if err != nil {
			return false
		}
		info := c.CachedInfo()
		return info.NumPending == 0 && info.NumAckPending == 0
	})
	cancel()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if heard[1] != 1 || heard[2] != 3 || heard[3] != 2 {
		t.Errorf("heard %v", heard)
	}
	dead, err := js.Stream(t.Context(), "DEAD")
	if err != nil {
		t.Fatal(err)
	}
	m, err := dead.GetLastMsgForSubject(t.Context(), "dead.reader.FACTS_TEST")
	if err != nil {
		t.Fatal(err)
	}
	if string(m.Data[:7]) != "sealed " || m.Header.Get(eventlog.DeadSequenceHeader) != "4" || m.Header.Get(nats.MsgIdHdr) != "reader/FACTS_TEST/4" {
		t.Errorf("the dead letter is %q with %v", m.Data, m.Header)
	}
}

func TestSweepSeesEveryAggregate(t *testing.T) {
	s := eventlogtest.Start(t)
	nc := s.Connect()
	s.Provision(nc, topology)
	a := counters(t, nc)
	var wg sync.WaitGroup
	const many = 1100 // more than one page
	slots := make(chan int, many)
	for i := range many {
		slots <- i
	}
	close(slots)
	for range 16 {
		wg.Go(func() {
			for i := range slots {
				if _, err := a.Do(t.Context(), eventlog.Key{Tenant: "acme", ID: fmt.Sprintf("c_%d", i)}, add{n: int64(i)}, eventlog.By{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := a.Do(t.Context(), one, add{n: 1}, eventlog.By{}); err != nil {
		t.Fatal(err)
	}
	sum, count := int64(0), 0
	err := eventlog.Sweep(t.Context(), a, "fact.test.>", "c_", func(_ eventlog.Key, s counter, _ uint64) error {
		sum, count = sum+s.GetValue(), count+1
		return nil
	})
	if err != nil || count != many || sum != many*(many-1)/2 {
		t.Errorf("swept %d aggregates with sum %d, %v", count, sum, err)
	}
}

func TestMarksRefuseARecordThatWentBack(t *testing.T) {
	s := eventlogtest.Start(t)
	nc := s.Connect()
	js := s.Provision(nc, topology)
	dir := t.TempDir()
	stream, err := js.Stream(t.Context(), "FACTS_TEST")
	if err != nil {
		t.Fatal(err)
	}
	marks := eventlog.NewMarks(dir, nil)
	if err := marks.Check(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	a := counters(t, nc)
	res, err := a.Do(t.Context(), one, add{n: 1}, eventlog.By{Actor: &recordv1.Actor{Ref: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	marks.Note("FACTS_TEST", res.Sequence)
	if err := marks.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := eventlog.NewMarks(dir, nil).Check(t.Context(), stream); err != nil {
		t.Errorf("the record as it was is refused: %v", err)
	}
	// The stream is lost and somebody makes a new one, with the same birth but nothing in it.
	if err := js.DeleteStream(t.Context(), "FACTS_TEST"); err != nil {
		t.Fatal(err)
	}
	s.Provision(nc, topology)
	if stream, err = js.Stream(t.Context(), "FACTS_TEST"); err != nil {
		t.Fatal(err)
	}
	if err := eventlog.NewMarks(dir, nil).Check(t.Context(), stream); err == nil {
		t.Error("a record that went back in time is not refused")
	}
}
