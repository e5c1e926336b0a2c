// Package audit folds every fact into a log that shows any change made to it later, and draws the certificate of completion from it.
package audit

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"countersign.dev/pkg/config"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/pades"
	auditv1 "countersign.dev/proto/countersign/audit/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/audit/rules"
)

// Name is the service's name in subjects, streams and connections.
const Name = "audit"

// LedgerStream holds the leaves.
const LedgerStream = "LEDGER"

// sealerLife is how long the certificate is valid by which a process seals certificates of completion.
const sealerLife = 365 * 24 * time.Hour

// heard are the services whose facts are folded in.
var heard = []string{"token", "delivery", "identity", "ceremony", "reminder", "escalation"}

// Topology returns the streams that the service owns and the consumers by which it hears others, each in its stream's order.
func Topology() eventlog.Topology {
	t := eventlog.Topology{Streams: []jetstream.StreamConfig{{
		Name: LedgerStream, Subjects: []string{"ledger.leaf.*"}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew,
		DenyDelete: true, DenyPurge: true, AllowDirect: true, Duplicates: 10 * time.Minute, MaxMsgSize: rules.MaxLeaf + 4<<10,
	}}}
	for _, from := range heard {
		t.Consumers = append(t.Consumers, eventlog.ConsumerSpec{Stream: eventlog.FactsStream(from), Durable: Name, MaxAckPending: 1})
	}
	return t
}

// Service is the running service.
type Service struct {
	h         *host.Host
	tenants   *config.Config
	ledger    *eventlog.Log
	sealer    *pades.Identity
	directory tokenv1.DirectoryServiceClient

	mu     sync.Mutex
	reach  map[string]uint64 // how far each stream is folded in
	raised chan struct{}     // closed and replaced when reach rises
}

// New returns the service on a host whose streams `init` has made.
func New(ctx context.Context, h *host.Host, tenants *config.Config, authorityFile string) (*Service, error) {
	ledger, err := h.Open(ctx, LedgerStream)
	if err != nil {
		return nil, err
	}
	s := &Service{h: h, tenants: tenants, ledger: ledger, reach: map[string]uint64{}, raised: make(chan struct{})}
	for _, from := range heard {
		c, err := ledger.JetStream().Consumer(ctx, eventlog.FactsStream(from), Name)
		if err != nil {
			return nil, fmt.Errorf("audit: consumer of %s (made by `countersign init`): %w", eventlog.FactsStream(from), err)
		}
		s.reach[eventlog.FactsStream(from)] = c.CachedInfo().AckFloor.Stream
	}
	text, err := h.Files.Load(authorityFile)
	if err != nil {
		return nil, fmt.Errorf("audit: the authority for PDF signatures (`countersign init` makes one): %w", err)
	}
	authority, err := pades.ParseIdentity(text)
	if err != nil {
		return nil, fmt.Errorf("audit: the authority for PDF signatures: %w", err)
	}
	subject := pades.Subject{CommonName: "Countersign certificate of completion", Organization: "Countersign"}
	if s.sealer, err = authority.Issue(subject, sealerLife, h.Clock.Now("")); err != nil {
		return nil, err
	}
	conn, err := h.Peers.Dial("token")
	if err != nil {
		return nil, err
	}
	s.directory = tokenv1.NewDirectoryServiceClient(conn)
	return s, nil
}

// Register puts the service's interface on a server for other services.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	auditv1.RegisterAuditServiceServer(r, auditServer{s: s})
}

// Run folds facts in until ctx ends. A fact that waits for its cause then is handed back, for the next process to wait with.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, from := range heard {
		consumer := s.h.Consumer(Name, eventlog.FactsStream(from), Name, func(work context.Context, m eventlog.Message) error { return s.fold(work, ctx.Done(), from, m) })
		consumer.Workers = 1
		g.Go(func() error { return consumer.Run(ctx, s.ledger.JetStream()) })
	}
	return g.Wait()
}
