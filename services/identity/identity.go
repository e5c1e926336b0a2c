// Package identity verifies signers step by step, and owns what was verified.
package identity

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/host"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	"countersign.dev/services/identity/rules"
)

// Name is the service's name in subjects, streams and connections.
const Name = "identity"

// Config is every setting of the service. Durations take any value from a second on.
type Config struct {
	CodeLife  time.Duration `help:"How long a one-time code is good for." default:"10m" env:"COUNTERSIGN_IDENTITY_CODE_LIFE"`
	CodeTries int           `help:"Answers that one code bears, 1 to 64." default:"5" env:"COUNTERSIGN_IDENTITY_CODE_TRIES"`
	Cooldown  time.Duration `help:"Wait between two codes to one signer; 0 is none." default:"30s" env:"COUNTERSIGN_IDENTITY_COOLDOWN"`

	ShortWindow time.Duration `help:"Window of the short limit on codes." default:"10m" env:"COUNTERSIGN_IDENTITY_SHORT_WINDOW"`
	ShortSends  int           `help:"Codes to one signer within the short window, 1 to 64." default:"3" env:"COUNTERSIGN_IDENTITY_SHORT_SENDS"`
	LongWindow  time.Duration `help:"Window of the long limit on codes." default:"24h" env:"COUNTERSIGN_IDENTITY_LONG_WINDOW"`
	LongSends   int           `help:"Codes to one signer within the long window, 1 to 64." default:"10" env:"COUNTERSIGN_IDENTITY_LONG_SENDS"`

	LockAfter  int           `help:"Wrong codes within the lock window that lock a signer, 1 to 64." default:"10" env:"COUNTERSIGN_IDENTITY_LOCK_AFTER"`
	LockWindow time.Duration `help:"Window in which wrong codes are counted." default:"1h" env:"COUNTERSIGN_IDENTITY_LOCK_WINDOW"`
	Lock       time.Duration `help:"How long the first lock lasts; each further one lasts twice as long." default:"15m" env:"COUNTERSIGN_IDENTITY_LOCK"`
	LockMost   time.Duration `help:"The longest lock." default:"720h" env:"COUNTERSIGN_IDENTITY_LOCK_MOST"`
	Ceiling    int           `help:"Wrong codes without a right one from which on every lock is the longest, up to 100." default:"100" env:"COUNTERSIGN_IDENTITY_CEILING"`

	EvidenceLife time.Duration `help:"How long a proved mailbox is good for, in the browser that proved it." default:"1h" env:"COUNTERSIGN_IDENTITY_EVIDENCE_LIFE"`
}

// Defaults returns the settings of spec 5.2 and security 2.3.
func Defaults() Config { return Config(rules.Defaults()) }

// Validate names every setting that is out of its range.
func (c Config) Validate() error {
	if err := rules.Limits(c).Validate(); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	return nil
}

// Topology returns the stream that the service owns. It hears nobody.
func Topology() eventlog.Topology {
	return eventlog.Topology{Streams: []jetstream.StreamConfig{eventlog.FactsConfig(Name)}}
}

// Service is the running service.
type Service struct {
	identityv1.UnimplementedIdentityServiceServer

	h             *host.Host
	limits        rules.Limits
	verifications *eventlog.Aggregate[*identityv1.Verification]
	answers       metric.Int64Counter
}

// New returns the service on a host whose stream `init` has made.
func New(ctx context.Context, h *host.Host, c Config) (*Service, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	log, err := h.Facts(ctx, Name)
	if err != nil {
		return nil, err
	}
	answers, err := h.Telemetry.Meter("countersign.dev/services/identity").Int64Counter("countersign.identity.answers",
		metric.WithDescription("Codes that were typed, by what became of them: passed, wrong, slip, expired, locked."))
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return &Service{
		h: h, limits: rules.Limits(c), answers: answers,
		verifications: eventlog.NewAggregate(log, Name, rules.Evolve, h.Clock, h.Tracer(Name), nil),
	}, nil
}

// Register puts the service's interface on a server for other services.
func (s *Service) Register(r grpc.ServiceRegistrar) { identityv1.RegisterIdentityServiceServer(r, s) }

// Run waits for ctx to end: the service works only while it is asked.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
