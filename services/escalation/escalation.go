// Package escalation owns what is done when a signature does not come.
package escalation

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
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/escalation/rules"
)

// Name is the service's name in subjects, streams and connections.
const Name = "escalation"

// sweepEvery is how often deadlines are compared with the record, should a timer ever be lost (mechanisms 5).
const sweepEvery = time.Hour

// hears is whose facts the service reacts to; its own arm its timers.
var hears = []string{Name, "reminder", "delivery", "token"}

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
	h           *host.Host
	tenants     *config.Config
	escalations *eventlog.Aggregate[*escalationv1.Escalation]
	timers      *timer.Timers
	js          jetstream.JetStream
	links       tokenv1.LinkServiceClient
	directory   tokenv1.DirectoryServiceClient
}

// New returns the service on a host whose streams `init` has made. Policies come from the tenants' settings.
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
		return nil, fmt.Errorf("escalation: %w", err)
	}
	return &Service{
		h: h, tenants: tenants, timers: timers, js: log.JetStream(),
		escalations: eventlog.NewAggregate(log, Name, rules.Evolve, h.Clock, h.Tracer(Name), nil),
		links:       tokenv1.NewLinkServiceClient(token), directory: tokenv1.NewDirectoryServiceClient(token),
	}, nil
}

// Register adds nothing: nobody asks the service.
func (s *Service) Register(grpc.ServiceRegistrar) {}

// Run hears and fires until ctx ends, and finishes what is in hand.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	routers := map[string]*eventlog.Router{Name: s.ownFacts(), "reminder": s.reminderFacts(), "delivery": s.deliveryFacts(), "token": s.tokenFacts()}
	for _, from := range hears {
		c := s.h.Consumer(Name, eventlog.FactsStream(from), Name, routers[from].Handle)
		g.Go(func() error { return c.Run(ctx, s.js) })
	}
	g.Go(func() error { return s.timers.Run(ctx, s.fire) })
	g.Go(func() error { return s.sweep(ctx) })
	return g.Wait()
}

// key names the one escalation of a generation of a link.
func (s *Service) key(tenant, linkID string, generation uint32) eventlog.Key {
	return eventlog.Key{Tenant: tenant, ID: eventlog.DeriveID(s.h.Keys, "esc", linkID, fmt.Sprint(generation))}
}

var triggers = map[escalationv1.Trigger]config.Trigger{
	escalationv1.Trigger_TRIGGER_REMINDERS_EXHAUSTED: config.RemindersExhausted,
	escalationv1.Trigger_TRIGGER_LINK_LAPSED:         config.LinkLapsed,
	escalationv1.Trigger_TRIGGER_DELIVERY_FAILED:     config.DeliveryFailed,
}

var actions = map[config.Action]escalationv1.Action{
	config.NotifyManager:    escalationv1.Action_ACTION_NOTIFY_MANAGER,
	config.RouteToAlternate: escalationv1.Action_ACTION_ROUTE_ALTERNATE,
	config.TellPlatform:     escalationv1.Action_ACTION_TELL_PLATFORM,
	config.Cancel:           escalationv1.Action_ACTION_CANCEL,
}

// policy returns what the policy that a link's profile names says of a trigger; where the profile names none, the one that the
// settings give it, and the standard policy where that is gone.
func (s *Service) policy(tenant string, profile *tokenv1.Profile, trigger escalationv1.Trigger) rules.Policy {
	name := profile.GetEscalation()
	if name == "" {
		p, _ := s.tenants.Profile(tenant, profile.GetName())
		name = p.Escalation
	}
	set, ok := s.tenants.Escalation(tenant, name)
	if !ok {
		set, _ = s.tenants.Escalation(tenant, config.Standard)
	}
	digest := set.Digest()
	policy := rules.Policy{Name: set.Name, SHA256: digest[:]}
	for _, step := range set.For(triggers[trigger]) {
		policy.Steps = append(policy.Steps, rules.Step{Wait: step.Wait.Std(), Action: actions[step.Action]})
	}
	return policy
}
