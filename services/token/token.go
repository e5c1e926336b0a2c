// Package token owns signing requests, links with their sessions, and the vault of personal data.
package token

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"countersign.dev/pkg/config"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/hotstate"
	"countersign.dev/pkg/rpc"
	"countersign.dev/pkg/timer"
	"countersign.dev/pkg/vault"
	auditv1 "countersign.dev/proto/countersign/audit/v1"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// Name is the service's name in subjects, streams and connections.
const Name = "token"

// Streams of the border with platforms.
const (
	IntakeStream   = "INTAKE"
	OutcomesStream = "OUTCOMES"
)

// sweepEvery is how often deadlines are compared with the record, should a timer ever be lost (mechanisms 5).
const sweepEvery = time.Hour

// Topology returns the streams that the service owns and the consumers by which it hears others.
func Topology() eventlog.Topology {
	return eventlog.Merge(timer.Topology(Name), vault.Topology(), eventlog.Topology{
		Streams: []jetstream.StreamConfig{
			eventlog.FactsConfig(Name),
			eventlog.FactsConfig(callsName),
			{
				// Gone once accepted or refused, since it carries names and addresses.
				Name: IntakeStream, Subjects: []string{"intake.*"}, Storage: jetstream.FileStorage,
				Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, MaxBytes: 1 << 30, Duplicates: 24 * time.Hour,
			},
			{
				Name: OutcomesStream, Subjects: []string{"outcome.>"}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld,
				MaxAge: 90 * 24 * time.Hour, AllowDirect: true, Duplicates: 24 * time.Hour,
			},
		},
		Consumers: []eventlog.ConsumerSpec{
			{Stream: IntakeStream, Durable: Name},
			{Stream: eventlog.FactsStream(Name), Durable: Name},
			{Stream: eventlog.FactsStream(Name), Durable: hotDurable},
			{Stream: eventlog.FactsStream("delivery"), Durable: Name},
			{Stream: eventlog.FactsStream("ceremony"), Durable: Name},
			{Stream: eventlog.FactsStream("reminder"), Durable: Name},
			{Stream: eventlog.FactsStream("escalation"), Durable: Name},
		},
	})
}

// Service is the running service.
type Service struct {
	h        *host.Host
	tenants  *config.Config
	contract *rpc.Validator
	requests *eventlog.Aggregate[*tokenv1.Request]
	links    *eventlog.Aggregate[*tokenv1.Link]
	calls    *eventlog.Aggregate[*tokenv1.Call]
	profiles *eventlog.Aggregate[*tokenv1.Profiles]
	vault    *vault.Vault
	timers   *timer.Timers
	cache    *hotstate.Cache
	index    *index
	log      *eventlog.Log
	cursors  cursors
	watches  watches
	beat     time.Duration // how long a watch is silent at most
	lines    chan struct{} // has a place for each line of a batch that is in hand
	outcomes jetstream.JetStream
	ceremony ceremonyv1.CeremonyServiceClient
	identity identityv1.IdentityServiceClient
	audit    auditv1.AuditServiceClient
}

// New returns the service on a host whose streams `init` has made.
func New(ctx context.Context, h *host.Host, tenants *config.Config) (*Service, error) {
	log, err := h.Facts(ctx, Name)
	if err != nil {
		return nil, err
	}
	calls, err := h.Facts(ctx, callsName)
	if err != nil {
		return nil, err
	}
	if _, err := eventlog.OpenLog(ctx, h.NATS, OutcomesStream); err != nil {
		return nil, err // without it platforms are told nothing, and nobody would notice
	}
	v, err := vault.Open(ctx, log.JetStream(), h.Keys)
	if err != nil {
		return nil, err
	}
	for _, kept := range v.Logs() {
		// A vault that went back in time would bring erased people back.
		if err := h.Marks.Check(ctx, kept.Stream()); err != nil {
			return nil, err
		}
	}
	v.MarkWith(h.Marks.Note)
	timers, err := timer.Open(ctx, h.NATS, Name, h.Clock, h.Logger, h.Tracer(Name))
	if err != nil {
		return nil, err
	}
	contract, err := rpc.NewValidator()
	if err != nil {
		return nil, err
	}
	sealed, err := newCursors(h.Keys)
	if err != nil {
		return nil, err
	}
	s := &Service{
		h: h, tenants: tenants, contract: contract, vault: v, timers: timers, outcomes: log.JetStream(),
		log: log, cursors: sealed, beat: watchBeat, lines: make(chan struct{}, linesOfAll),
	}
	for peer, use := range map[string]func(grpc.ClientConnInterface){
		"ceremony": func(c grpc.ClientConnInterface) { s.ceremony = ceremonyv1.NewCeremonyServiceClient(c) },
		"identity": func(c grpc.ClientConnInterface) { s.identity = identityv1.NewIdentityServiceClient(c) },
		"audit":    func(c grpc.ClientConnInterface) { s.audit = auditv1.NewAuditServiceClient(c) },
	} {
		conn, err := h.Peers.Dial(peer)
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		use(conn)
	}
	store := hot.New(h.Redis, hot.DefaultTimeout)
	s.cache = hotstate.NewCache(HotState(), store, h.Logger)
	s.requests = eventlog.NewAggregate(log, Name, rules.EvolveRequest, h.Clock, h.Tracer(Name), s.cache)
	s.links = eventlog.NewAggregate(log, Name, rules.EvolveLink, h.Clock, h.Tracer(Name), s.cache)
	s.calls = eventlog.NewAggregate(calls, callsName, rules.EvolveCall, h.Clock, h.Tracer(Name), nil)
	s.profiles = eventlog.NewAggregate(log, Name, rules.EvolveProfiles, h.Clock, h.Tracer(Name), s.cache)
	s.index = &index{rdb: h.Redis, store: store, requests: s.requests}
	return s, s.publish(ctx)
}

// Register puts the service's interfaces on a server for other services.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	tokenv1.RegisterLinkServiceServer(r, linkServer{s: s})
	tokenv1.RegisterDirectoryServiceServer(r, directoryServer{s: s})
	s.RegisterPublic(r)
}

// RegisterPublic puts on a server only what platforms may call.
func (s *Service) RegisterPublic(r grpc.ServiceRegistrar) {
	signingv1.RegisterSigningRequestServiceServer(r, signingServer{s: s})
	signingv1.RegisterProfileServiceServer(r, profileServer{s: s})
	signingv1.RegisterLinkServiceServer(r, platformLinkServer{s: s})
}

// Run hears and fires until ctx ends, and finishes what is in hand.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	js := s.outcomes
	intake := s.h.Consumer(Name, IntakeStream, Name, s.onIntake)
	intake.Seal = s.vault.Seal
	g.Go(func() error { return intake.Run(ctx, js) })
	for _, from := range []string{Name, "delivery", "ceremony", "reminder", "escalation"} {
		c := s.h.Consumer(Name, eventlog.FactsStream(from), Name, s.hears(from).Handle)
		g.Go(func() error { return c.Run(ctx, js) })
	}
	g.Go(func() error { return s.h.Consumer(Name, eventlog.FactsStream(Name), hotDurable, s.onHot).Run(ctx, js) })
	g.Go(func() error { return s.timers.Run(ctx, s.fire) })
	g.Go(func() error { return s.sweep(ctx) })
	return g.Wait()
}

// key returns the record's name of an aggregate.
func key(tenant, id string) eventlog.Key { return eventlog.Key{Tenant: tenant, ID: id} }

// ignore drops refusals: for a reaction they mean that the world has moved on.
func ignore[T error](err error) error {
	var refusal T
	if errors.As(err, &refusal) {
		return nil
	}
	return err
}

// nowOf returns the world's clock.
func nowOf(h *host.Host) func() time.Time { return func() time.Time { return h.Clock.Now("") } }
