package proof

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/redisserver/redistest"
	"countersign.dev/pkg/rpc"
	"countersign.dev/pkg/telemetry"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	"countersign.dev/services/token"
)

const tenant = "acme"

// topology is what the token service needs of a server, with the streams of those whom it hears.
func topology() eventlog.Topology {
	all := eventlog.Merge(token.Topology(), eventlog.Topology{Streams: eventlog.SharedStreams()})
	for _, from := range []string{"delivery", "ceremony", "escalation", "reminder"} {
		all.Streams = append(all.Streams, eventlog.FactsConfig(from))
	}
	return all
}

// deployment is the token service as several processes, each behind a wire, over three NATS servers and a Redis.
type deployment struct {
	t     *testing.T
	nats  *cluster
	redis *redis.Client
	ring  *keys.Ring
	peers *peers
	wires []*wire
	bases []*host.Base // one for each process, by which callers reach it
	calm  *host.Base   // reaches the first process without a wire
}

func deploy(t *testing.T, n int) *deployment {
	t.Helper()
	d := &deployment{t: t, nats: newCluster(t), peers: &peers{}}
	keysDir := filepath.Join(t.TempDir(), "keys")
	var err error
	if d.ring, err = keys.Create(keysDir); err != nil {
		t.Fatal(err)
	}
	if _, err := eventlog.Provision(t.Context(), d.nats.js, topology(), 3, func(string) map[string]string {
		return map[string]string{eventlog.BirthKey: uuid.NewString(), eventlog.KeysKey: d.ring.ID(), eventlog.SyncKey: eventlog.SyncAlways}
	}); err != nil {
		t.Fatal(err)
	}
	redisServer := redistest.StartReal(t)
	d.redis = redistest.Client(t, redisServer.Addr())
	peersAt := d.servePeers()
	var all []*tokenProcess
	for range n {
		all = append(all, newToken(t, d.nats.urls, redisServer.Addr(), keysDir, peersAt))
	}
	for _, p := range all {
		p.wait()
		d.wires = append(d.wires, newWire(t, p.address))
		d.bases = append(d.bases, d.base(d.wires[len(d.wires)-1].address(), redisServer.Addr(), keysDir))
	}
	d.calm = d.base(all[0].address, redisServer.Addr(), keysDir)
	return d
}

// base is a process of callers, who find the token service at an address.
func (d *deployment) base(address, redisAddress, keysDir string) *host.Base {
	d.t.Helper()
	network := rpc.NewNetwork()
	if err := network.At(token.Name, address); err != nil {
		d.t.Fatal(err)
	}
	base, err := host.Open(host.Options{
		NATS: d.nats.urls, Redis: redisAddress, MarksDir: d.t.TempDir(), Keys: d.ring, Files: keys.Dir(keysDir), Clock: clock.System(),
		Telemetry: telemetry.Nop(), Logger: slog.New(slog.DiscardHandler), Network: network,
	})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(base.Close)
	return base
}

// servePeers serves the other services as one process would, and returns where.
func (d *deployment) servePeers() string {
	d.t.Helper()
	tel := telemetry.Nop()
	tel.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	server, err := rpc.NewServer(rpc.Options{Auth: host.PeerAuth(d.ring), Telemetry: tel})
	if err != nil {
		d.t.Fatal(err)
	}
	d.peers.register(server)
	l, err := (&net.ListenConfig{}).Listen(d.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(d.t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	d.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			d.t.Errorf("the peers: %v", err)
		}
	})
	return l.Addr().String()
}

// dial returns a connection of its own to the token service, as a process of callers reaches it.
func (d *deployment) dial(from *host.Base) *grpc.ClientConn {
	d.t.Helper()
	conn, err := from.For("gateway").Peers.Dial(token.Name)
	if err != nil {
		d.t.Fatal(err)
	}
	return conn
}

// state records a fact of another service, as the owner of that family does.
func (d *deployment) state(ctx context.Context, service, id, request string, fact, state proto.Message) error {
	body, err := record(request, fact, state)
	if err != nil {
		return err
	}
	_, err = d.nats.js.Publish(ctx, eventlog.FactSubject(service, eventlog.Key{Tenant: tenant, ID: id}), body)
	return err
}

// record writes a transition as it stands in the record.
func record(request string, fact, state proto.Message) ([]byte, error) {
	f, err := anypb.New(fact)
	if err != nil {
		return nil, err
	}
	s, err := anypb.New(state)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(&recordv1.Record{Fact: f, State: s, RequestId: request, At: timestamppb.New(clock.System().Now(""))})
}
