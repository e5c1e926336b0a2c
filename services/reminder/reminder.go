// Package reminder owns the plans by which signers are reminded.
package reminder

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"countersign.dev/pkg/config"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/timer"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/reminder/rules"
)

// Name is the service's name in subjects, streams and connections.
const Name = "reminder"

// sweepEvery is how often deadlines are compared with the record, should a timer ever be lost (mechanisms 5).
const sweepEvery = time.Hour

// hears is whose facts the service reacts to; its own arm its timers.
var hears = []string{Name, "delivery", "token", "ceremony"}

// Topology returns the streams that the service owns and the consumers by which it hears others.
func Topology() eventlog.Topology {
	t := eventlog.Topology{Streams: []jetstream.StreamConfig{eventlog.FactsConfig(Name)}}
	for _, from := range hears {
		t.Consumers = append(t.Consumers, eventlog.ConsumerSpec{
			Stream: eventlog.FactsStream(from), Durable: Name, Filters: []string{"fact." + from + ".>"},
		})
	}
	return eventlog.Merge(timer.Topology(Name), t)
}

// Service is the running service.
type Service struct {
	h         *host.Host
	tenants   *config.Config
	plans     *eventlog.Aggregate[*reminderv1.Plan]
	timers    *timer.Timers
	js        jetstream.JetStream
	links     tokenv1.LinkServiceClient
	directory tokenv1.DirectoryServiceClient
}

// New returns the service on a host whose streams `init` has made. Plans come from the tenants' settings.
func New(ctx context.Context, h *host.Host, tenants *config.Config) (*Service, error) {
	log, err := h.Facts(ctx, Name)
	if err != nil {
		return nil, err
	}
	timers, err := timer.Open(ctx, h.NATS, Name, h.Clock, h.Logger, h.Tracer(Name))
	if err != nil {
		return nil, err
	}
	token, err := h.Peers.Dial("token")
	if err != nil {
		return nil, fmt.Errorf("reminder: %w", err)
	}
	return &Service{
		h: h, tenants: tenants, timers: timers, js: log.JetStream(),
		plans: eventlog.NewAggregate(log, Name, rules.Evolve, h.Clock, h.Tracer(Name), nil),
		links: tokenv1.NewLinkServiceClient(token), directory: tokenv1.NewDirectoryServiceClient(token),
	}, nil
}

// Register adds nothing: nobody asks the service.
func (s *Service) Register(grpc.ServiceRegistrar) {}

// Run hears and fires until ctx ends, and finishes what is in hand.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	routers := map[string]*eventlog.Router{Name: s.ownFacts(), "delivery": s.deliveryFacts(), "token": s.tokenFacts(), "ceremony": s.ceremonyFacts()}
	for _, from := range hears {
		c := s.h.Consumer(Name, eventlog.FactsStream(from), Name, routers[from].Handle)
		g.Go(func() error { return c.Run(ctx, s.js) })
	}
	g.Go(func() error { return s.timers.Run(ctx, s.fire) })
	g.Go(func() error { return s.sweep(ctx) })
	return g.Wait()
}

// key names the one plan of a generation of a link.
func (s *Service) key(tenant, linkID string, generation uint32) eventlog.Key {
	return eventlog.Key{Tenant: tenant, ID: eventlog.DeriveID(s.h.Keys, "rem", linkID, fmt.Sprint(generation))}
}

// policy returns the plan that a link's profile names, or the one that the settings give that profile where it names none; the
// standard one where that is gone.
func (s *Service) policy(tenant string, profile *tokenv1.Profile) (rules.Policy, string) {
	name := profile.GetReminders()
	if name == "" {
		p, _ := s.tenants.Profile(tenant, profile.GetName())
		name = p.Reminders
	}
	plan, ok := s.tenants.Reminders(tenant, name)
	if !ok {
		plan, _ = s.tenants.Reminders(tenant, config.Standard)
	}
	return rules.Policy{
		Offsets: durations(plan.Offsets), PartialOffsets: durations(plan.PartialOffsets),
		FinalWait: plan.ExhaustedAfter.Std(), RotateWithin: plan.RotateWithin.Std(), MaxPerDay: plan.MaxPerDay,
		Quiet: rules.Quiet{From: timeOfDay(plan.QuietHours.From), Until: timeOfDay(plan.QuietHours.To), Weekends: plan.QuietHours.Weekends},
	}, plan.TimeZone
}

func durations(all []config.Duration) []time.Duration {
	out := make([]time.Duration, 0, len(all))
	for _, d := range all {
		out = append(out, d.Std())
	}
	return out
}

func timeOfDay(t config.TimeOfDay) time.Duration {
	h, m := t.Clock()
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute
}
