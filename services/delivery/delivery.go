// Package delivery owns messages to people and their attempts: what is sent, when it is tried again, when it is given up.
package delivery

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/config"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/timer"
	auditv1 "countersign.dev/proto/countersign/audit/v1"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/delivery/channel"
	"countersign.dev/services/delivery/rules"
)

// Name is the service's name in subjects, streams and connections.
const Name = "delivery"

// sweepEvery is how often what should have been tried is looked for, should a timer ever be lost.
const sweepEvery = time.Hour

// Config says how messages are sent.
type Config struct {
	// PublicURL is where signers reach the gateway: the links in messages begin with it. It is the gateway's own setting too.
	PublicURL string        `kong:"-"`
	MailFrom  string        `help:"Address that messages come from." env:"COUNTERSIGN_MAIL_FROM" default:"countersign@localhost.localdomain" name:"mail-from"`
	RetryBase time.Duration `help:"Longest wait after the first failed attempt; it doubles with each." env:"COUNTERSIGN_RETRY_BASE" default:"30s" name:"retry-base"`
	RetryCap  time.Duration `help:"Longest wait between two attempts." env:"COUNTERSIGN_RETRY_CAP" default:"1h" name:"retry-cap"`
	Attempts  uint32        `help:"How often a message is tried." env:"COUNTERSIGN_ATTEMPTS" default:"8"`
	GiveUp    time.Duration `help:"How long a message is tried." env:"COUNTERSIGN_GIVE_UP" default:"24h" name:"give-up"`
}

// Validate names what cannot work.
func (c Config) Validate() error {
	switch {
	case c.RetryBase <= 0 || c.RetryCap < c.RetryBase:
		return fmt.Errorf("delivery: retry-base must be above 0 and at most retry-cap")
	case c.Attempts == 0:
		return fmt.Errorf("delivery: attempts must be at least 1")
	case c.GiveUp <= 0:
		return fmt.Errorf("delivery: give-up must be above 0")
	}
	return nil
}

func (c Config) retry() rules.Retry {
	return rules.Retry{Base: c.RetryBase, Cap: c.RetryCap, Attempts: c.Attempts, GiveUp: c.GiveUp}
}

// Topology returns the streams that the service owns and the consumers by which it hears others.
func Topology() eventlog.Topology {
	t := eventlog.Merge(timer.Topology(Name))
	t.Streams = append(t.Streams, eventlog.FactsConfig(Name))
	for _, from := range heard {
		t.Consumers = append(t.Consumers, eventlog.ConsumerSpec{Stream: eventlog.FactsStream(from), Durable: Name})
	}
	return t
}

var heard = []string{Name, "token", "identity", "reminder", "escalation"}

// Service is the running service.
type Service struct {
	h          *host.Host
	config     Config
	tenants    *config.Config
	deliveries *eventlog.Aggregate[*deliveryv1.Delivery]
	timers     *timer.Timers
	mail       channel.Sender

	log       *eventlog.Log
	links     tokenv1.LinkServiceClient
	directory tokenv1.DirectoryServiceClient
	identity  identityv1.IdentityServiceClient
	ceremony  ceremonyv1.CeremonyServiceClient
	audit     auditv1.AuditServiceClient
}

// New returns the service on a host whose streams `init` has made. mail sends what goes by email.
func New(ctx context.Context, h *host.Host, c Config, tenants *config.Config, mail channel.Sender) (*Service, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	log, err := h.Facts(ctx, Name)
	if err != nil {
		return nil, err
	}
	timers, err := timer.Open(ctx, h.NATS, Name, h.Clock, h.Logger, h.Tracer(Name))
	if err != nil {
		return nil, err
	}
	s := &Service{h: h, config: c, tenants: tenants, timers: timers, mail: mail, log: log}
	s.deliveries = eventlog.NewAggregate(log, Name, rules.Evolve, h.Clock, h.Tracer(Name), nil)
	for peer, use := range map[string]func(grpc.ClientConnInterface){
		"token": func(c grpc.ClientConnInterface) {
			s.links, s.directory = tokenv1.NewLinkServiceClient(c), tokenv1.NewDirectoryServiceClient(c)
		},
		"identity": func(c grpc.ClientConnInterface) { s.identity = identityv1.NewIdentityServiceClient(c) },
		"ceremony": func(c grpc.ClientConnInterface) { s.ceremony = ceremonyv1.NewCeremonyServiceClient(c) },
		"audit":    func(c grpc.ClientConnInterface) { s.audit = auditv1.NewAuditServiceClient(c) },
	} {
		conn, err := h.Peers.Dial(peer)
		if err != nil {
			return nil, fmt.Errorf("delivery: %w", err)
		}
		use(conn)
	}
	return s, nil
}

// Register has nothing to register: what a delivery does is heard, not asked.
func (s *Service) Register(grpc.ServiceRegistrar) {}

// Run hears, sends and fires until ctx ends, and finishes what is in hand.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, from := range heard {
		c := s.h.Consumer(Name, eventlog.FactsStream(from), Name, s.hears(from).Handle)
		g.Go(func() error { return c.Run(ctx, s.log.JetStream()) })
	}
	g.Go(func() error { return s.timers.Run(ctx, s.fire) })
	g.Go(func() error { return s.sweep(ctx) })
	return g.Wait()
}

// fire tries what is due, decided from the record.
func (s *Service) fire(ctx context.Context, k eventlog.Key) (time.Time, uint64, error) {
	d, sequence, err := s.attempt(ctx, k)
	if err != nil {
		return time.Time{}, 0, err
	}
	return rules.Deadline(d), sequence, nil
}

// sweep arms what a lost timer forgot, at start and every hour.
func (s *Service) sweep(ctx context.Context) error {
	return clock.Every(ctx, sweepEvery, func() error {
		err := eventlog.Sweep(ctx, s.deliveries, "fact."+Name+".>", "dlv_", func(k eventlog.Key, d *deliveryv1.Delivery, sequence uint64) error {
			if due := rules.Deadline(d); !due.IsZero() {
				return s.timers.Arm(ctx, k, due, sequence)
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			s.h.Logger.WarnContext(ctx, "sweep of deadlines was cut short; the next one comes within the hour", "error", err)
		}
		return nil
	})
}
