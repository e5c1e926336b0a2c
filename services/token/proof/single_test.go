package proof

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/config"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/rpc"
	"countersign.dev/pkg/telemetry"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token"
)

// place is what a process of the token service stands on.
type place struct {
	nats, redis, marks, keys string
	ring                     *keys.Ring
	clock                    clock.Clock
	tenants                  *config.Config
	logs                     *logs
}

// single is the token service in this process, asked over memory as the other services of one process ask it.
type single struct {
	base      *host.Base
	js        jetstream.JetStream
	links     tokenv1.LinkServiceClient
	platform  signingv1.SigningRequestServiceClient
	directory tokenv1.DirectoryServiceClient
	ended     chan error // why it ended by itself
	stop      func()
}

// startSingle starts the service as a process does, or returns why it refuses to.
func startSingle(t *testing.T, p place, others *peers) (s *single, err error) {
	t.Helper()
	tel := telemetry.Nop()
	tel.Log = slog.New(telemetry.NewHandler(p.logs, slog.LevelWarn))
	network := rpc.NewNetwork()
	base, err := host.Open(host.Options{
		NATS: p.nats, Redis: p.redis, MarksDir: p.marks, Keys: p.ring, Files: keys.Dir(p.keys), Clock: p.clock, Telemetry: tel, Logger: tel.Log, Network: network,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s = &single{base: base, ended: make(chan error, 1)}
	running := make(chan struct{}, 16)
	parts := 0
	background := func(run func(context.Context) error) {
		parts++
		go func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				select {
				case s.ended <- err:
				default:
				}
			}
			running <- struct{}{}
		}()
	}
	stop := sync.OnceFunc(func() {
		cancel()
		for range parts {
			<-running
		}
		base.Close()
	})
	s.stop = stop
	defer func() {
		if err != nil {
			stop()
		}
	}()
	starting, done := context.WithTimeout(ctx, 20*time.Second)
	defer done()
	h := base.For(token.Name)
	service, err := token.New(starting, h, p.tenants)
	if err != nil {
		return nil, err
	}
	components, err := host.Components(h, token.Name, service, network)
	if err != nil {
		return nil, err
	}
	for _, c := range components {
		background(c.Run)
	}
	background(base.RunMarks)
	for _, name := range []string{"ceremony", "identity", "audit"} {
		server, err := rpc.NewServer(rpc.Options{Auth: auth.OnBehalf(auth.InProcess()), Telemetry: tel})
		if err != nil {
			return nil, err
		}
		others.register(server)
		l, err := network.Listen(name)
		if err != nil {
			return nil, err
		}
		background(func(ctx context.Context) error { return server.Serve(ctx, l) })
	}
	if s.js, err = jetstream.New(h.NATS); err != nil {
		return nil, err
	}
	var conn *grpc.ClientConn
	if conn, err = base.For("gateway").Peers.Dial(token.Name); err != nil {
		return nil, err
	}
	s.links, s.platform, s.directory = tokenv1.NewLinkServiceClient(conn), signingv1.NewSigningRequestServiceClient(conn), tokenv1.NewDirectoryServiceClient(conn)
	return s, nil
}

// settled waits until the service has heard all there is, or has ended by itself: then it returns why.
func (s *single) settled(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	var ended error
	every(ctx, 10*time.Millisecond, func() {
		select {
		case ended = <-s.ended:
			stop()
			return
		default:
		}
		if s.heard(ctx) {
			stop()
		}
	})
	return ended
}

// heard tells whether no consumer of the service has anything left.
func (s *single) heard(ctx context.Context) bool {
	for _, c := range token.Topology().Consumers {
		consumer, err := s.js.Consumer(ctx, c.Stream, c.Durable)
		if err != nil {
			return false
		}
		stream, err := s.js.Stream(ctx, c.Stream)
		if err != nil {
			return false
		}
		info := consumer.CachedInfo()
		behind := len(c.Filters) == 0 && info.AckFloor.Stream < stream.CachedInfo().State.LastSeq
		if behind || info.NumPending+uint64(info.NumAckPending) > 0 {
			return false
		}
	}
	return true
}

// connect returns a connection of the test's own, which ends with it.
func connect(t *testing.T, url string) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

// request is one of n signers, all of whose turn it is at once.
func request(reference, profile string, n int) *signingv1.SigningRequest {
	r := &signingv1.SigningRequest{
		Reference: reference, Title: "A lease", Profile: profile, Documents: []*signingv1.Document{{Name: "a.pdf", Content: []byte("%PDF-1.7 a document")}},
	}
	for i := range n {
		r.Signers = append(r.Signers, &signingv1.Signer{Name: fmt.Sprint("Signer ", i), Email: fmt.Sprintf("s%d@example.com", i), Locale: "en", TimeZone: "UTC"})
	}
	return r
}
