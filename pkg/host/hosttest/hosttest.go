// Package hosttest gives tests of a service what it stands on: a real NATS server, and peers over memory through the same
// interceptors as in production.
package hosttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/pades"
	"countersign.dev/pkg/rpc"
	"countersign.dev/pkg/telemetry"
	recordv1 "countersign.dev/proto/countersign/record/v1"
)

// World is where services under test live. Its Redis is nil.
type World struct {
	t       testing.TB
	NATS    *eventlogtest.Server
	JS      jetstream.JetStream
	Clock   clock.Clock
	Keys    *keys.Ring
	Network *rpc.Network
	Logs    *Logs
	files   keys.Dir
	marks   string
}

// New starts a server with the streams of these topologies and those that all services share. Everything ends with the test.
func New(t testing.TB, c clock.Clock, topologies ...eventlog.Topology) *World {
	t.Helper()
	master := make([]byte, keys.MasterSize)
	_, _ = rand.Read(master)
	ring, err := keys.NewRing(master)
	if err != nil {
		t.Fatal(err)
	}
	w := &World{t: t, NATS: eventlogtest.Start(t), Clock: c, Keys: ring, Network: rpc.NewNetwork(), Logs: &Logs{}, files: keys.Dir(filepath.Join(t.TempDir(), "keys")), marks: t.TempDir()}
	w.JS = w.NATS.Provision(w.NATS.Connect(), eventlog.Merge(append(topologies, eventlog.Topology{Streams: eventlog.SharedStreams()})...))
	return w
}

// Host returns a process of the named service, with a connection of its own.
func (w *World) Host(service string) *host.Host {
	return &host.Host{
		NATS: w.NATS.Connect(), Keys: w.Keys, Files: w.files, Clock: w.Clock, Telemetry: telemetry.Nop(), Logger: slog.New(telemetry.NewHandler(w.Logs, slog.LevelDebug)),
		Marks: eventlog.NewMarks(w.marks, nil), Peers: &peers{w: w, self: service, conns: map[string]*grpc.ClientConn{}},
	}
}

// Authority makes an authority for PDF signatures, as `init` does, under the name of its file, and returns whom a reader has to trust.
func (w *World) Authority(file string) *x509.CertPool {
	w.t.Helper()
	authority, err := pades.NewAuthority(pades.Subject{CommonName: "Authority of a test"}, time.Hour, w.Clock.Now(""))
	if err != nil {
		w.t.Fatal(err)
	}
	text, err := authority.PEM()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.files.Store(file, text); err != nil {
		w.t.Fatal(err)
	}
	return authority.Roots()
}

// Serve answers calls to a name until the test ends. What goes wrong is logged with what the services log.
func (w *World) Serve(name string, register func(grpc.ServiceRegistrar)) {
	w.t.Helper()
	tel := telemetry.Nop()
	tel.Log = slog.New(telemetry.NewHandler(w.Logs, slog.LevelDebug))
	server, err := rpc.NewServer(rpc.Options{Auth: auth.OnBehalf(auth.InProcess()), Telemetry: tel})
	if err != nil {
		w.t.Fatal(err)
	}
	register(server)
	listener, err := w.Network.Listen(name)
	if err != nil {
		w.t.Fatal(err)
	}
	w.background(func(ctx context.Context) error { return server.Serve(ctx, listener) })
}

// Run runs a service until the test ends or the function it returns is called, which waits for it.
func (w *World) Run(s host.Service) (stop func()) {
	w.t.Helper()
	return w.background(s.Run)
}

func (w *World) background(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			w.t.Errorf("run: %v", err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// Publish records a fact and the state it led to, as the owner of that family would, and returns its sequence.
func (w *World) Publish(service string, k eventlog.Key, requestID string, fact, state proto.Message) uint64 {
	w.t.Helper()
	pack := func(m proto.Message) *anypb.Any {
		a, err := anypb.New(m)
		if err != nil {
			w.t.Fatal(err)
		}
		return a
	}
	body, err := proto.Marshal(&recordv1.Record{Fact: pack(fact), State: pack(state), RequestId: requestID, At: timestamppb.New(w.Clock.Now(k.Tenant))})
	if err != nil {
		w.t.Fatal(err)
	}
	ack, err := w.JS.Publish(w.t.Context(), eventlog.FactSubject(service, k), body)
	if err != nil {
		w.t.Fatal(err)
	}
	return ack.Sequence
}

// Facts returns what was recorded of a service's aggregates, oldest first, by subject or filter such as fact.identity.>.
func (w *World) Facts(service, filter string) []Fact {
	w.t.Helper()
	stream, err := w.JS.Stream(w.t.Context(), eventlog.FactsStream(service))
	if err != nil {
		w.t.Fatal(err)
	}
	var facts []Fact
	for seq := uint64(1); ; seq++ {
		m, err := stream.GetMsg(w.t.Context(), seq, jetstream.WithGetMsgSubject(filter))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return facts
		}
		if err != nil {
			w.t.Fatal(err)
		}
		rec := &recordv1.Record{}
		if err := proto.Unmarshal(m.Data, rec); err != nil {
			w.t.Fatal(err)
		}
		fact, err := rec.GetFact().UnmarshalNew()
		if err != nil {
			w.t.Fatal(err)
		}
		facts = append(facts, Fact{Subject: m.Subject, Sequence: m.Sequence, Record: rec, Fact: fact, Bytes: m.Data})
		seq = m.Sequence
	}
}

// Fact is a recorded transition.
type Fact struct {
	Subject  string
	Sequence uint64
	Record   *recordv1.Record
	Fact     proto.Message
	Bytes    []byte
}

// Name returns the fact's short name.
func (f Fact) Name() string { return string(f.Fact.ProtoReflect().Descriptor().Name()) }

// Names returns the short names of facts.
func Names(facts []Fact) []string {
	names := make([]string, 0, len(facts))
	for _, f := range facts {
		names = append(names, f.Name())
	}
	return names
}

// Logs keeps what services log.
type Logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write keeps a line.
func (l *Logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String returns all lines.
func (l *Logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// peers dials over the world's network.
type peers struct {
	w     *World
	self  string
	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

// Dial implements host.Peers.
func (p *peers) Dial(service string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.conns[service]; c != nil {
		return c, nil
	}
	c, err := rpc.Dial(service, rpc.DialOptions{Self: p.self, Network: p.w.Network, Deadline: 10 * time.Second})
	if err != nil {
		return nil, err
	}
	p.conns[service] = c
	p.w.t.Cleanup(func() { _ = c.Close() })
	return c, nil
}
