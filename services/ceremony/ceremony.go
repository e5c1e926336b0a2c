// Package ceremony owns documents and how they are signed: it takes them in safely, shows them, and makes the signatures.
package ceremony

import (
	"context"
	"errors"
	"fmt"
	"time"

	// golang-lru: a bounded cache with locks, so that page images are drawn once.
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/pades"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/ceremony/pdf"
	"countersign.dev/services/ceremony/rules"
)

// Name is the service's name in subjects, streams and connections.
const Name = "ceremony"

// AuthorityFile is the PEM file of the authority for PDF signatures, beside the keys.
const AuthorityFile = "pdf-authority"

// signerLife is how long the certificate is valid that a process issues itself at its start.
const signerLife = 365 * 24 * time.Hour

// keptPages is how many page images are kept in memory, at 40 to 120 kB each.
const keptPages = 512

// Config says how documents are read and drawn.
type Config struct {
	PDFCache string `help:"Directory for the compiled PDF renderer (22 MB); empty is the user's cache directory." env:"COUNTERSIGN_PDF_CACHE" name:"pdf-cache" type:"path"`
}

// Topology returns the streams that the service owns and the consumers by which it hears others.
func Topology() eventlog.Topology {
	return eventlog.Topology{
		Streams:   []jetstream.StreamConfig{eventlog.FactsConfig(Name), storeConfig()},
		Consumers: []eventlog.ConsumerSpec{{Stream: eventlog.FactsStream("token"), Durable: Name}},
	}
}

// Service is the running service.
type Service struct {
	h          *host.Host
	log        *eventlog.Log
	ceremonies *eventlog.Aggregate[*ceremonyv1.Ceremony]
	documents  *store
	sandbox    *pdf.Sandbox
	pages      *lru.Cache[string, *ceremonyv1.GetPageResponse]
	signer     *pades.Identity
	links      tokenv1.LinkServiceClient
	directory  tokenv1.DirectoryServiceClient
	identity   identityv1.IdentityServiceClient
}

// New returns the service on a host whose streams `init` has made.
func New(ctx context.Context, h *host.Host, c Config) (*Service, error) {
	log, err := h.Facts(ctx, Name)
	if err != nil {
		return nil, err
	}
	s := &Service{h: h, log: log}
	if s.pages, err = lru.New[string, *ceremonyv1.GetPageResponse](keptPages); err != nil {
		return nil, err
	}
	if s.sandbox, err = pdf.New(pdf.Config{CacheDir: c.PDFCache}); err != nil {
		return nil, err
	}
	if s.signer, err = newSigner(h); err != nil {
		return nil, err
	}
	tokens, err := h.Peers.Dial("token")
	if err != nil {
		return nil, err
	}
	who, err := h.Peers.Dial("identity")
	if err != nil {
		return nil, err
	}
	s.links, s.directory = tokenv1.NewLinkServiceClient(tokens), tokenv1.NewDirectoryServiceClient(tokens)
	s.identity = identityv1.NewIdentityServiceClient(who)
	if s.documents, err = openStore(ctx, log.JetStream(), s.directory); err != nil {
		return nil, err
	}
	s.ceremonies = eventlog.NewAggregate(log, Name, rules.Evolve, h.Clock, h.Tracer(Name), nil)
	return s, nil
}

// newSigner issues the certificate under which this process signs.
func newSigner(h *host.Host) (*pades.Identity, error) {
	text, err := h.Files.Load(AuthorityFile)
	if err != nil {
		return nil, fmt.Errorf("ceremony: the authority for PDF signatures (`countersign init` makes one): %w", err)
	}
	authority, err := pades.ParseIdentity(text)
	if err != nil {
		return nil, fmt.Errorf("ceremony: the authority for PDF signatures: %w", err)
	}
	subject := pades.Subject{CommonName: "Countersign electronic signature", Organization: "Countersign"}
	return authority.Issue(subject, signerLife, h.Clock.Now(""))
}

// Register puts the service's interface on a server for other services.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	ceremonyv1.RegisterCeremonyServiceServer(r, ceremonyServer{s: s})
}

// Run hears until ctx ends and warms the renderer meanwhile, which takes seconds the first time on a machine.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	router := eventlog.NewRouter()
	eventlog.On(router, s.onAccepted)
	eventlog.On(router, s.onErased)
	consumer := s.h.Consumer(Name, eventlog.FactsStream("token"), Name, router.Handle)
	g.Go(func() error { return consumer.Run(ctx, s.log.JetStream()) })
	g.Go(func() error {
		if err := s.sandbox.Warm(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("ceremony: start the PDF helpers: %w", err)
		}
		<-ctx.Done()
		return nil
	})
	err := g.Wait()
	if closeErr := s.sandbox.Close(); err == nil {
		err = closeErr
	}
	return err
}

// ceremonyKey returns the record's name of a request's ceremony.
func (s *Service) ceremonyKey(tenant, requestID string) eventlog.Key {
	return eventlog.Key{Tenant: tenant, ID: eventlog.DeriveID(s.h.Keys, "cer", requestID)}
}

// onAccepted prepares the ceremony of a request from what intake kept of its documents.
func (s *Service) onAccepted(ctx context.Context, e eventlog.Event, f *tokenv1.RequestAccepted) error {
	r := f.GetRequest()
	k := s.ceremonyKey(r.GetTenant(), r.GetId())
	ceremony := &ceremonyv1.Ceremony{Id: k.ID, Tenant: r.GetTenant(), RequestId: r.GetId()}
	for _, d := range r.GetDocuments() {
		document, err := s.documents.describe(ctx, r.GetTenant(), r.GetId(), d.GetId())
		if errors.Is(err, failure.RequestErased) {
			return nil // this is heard so late that nothing is left to prepare
		}
		if err != nil {
			return err
		}
		ceremony.Documents = append(ceremony.Documents, document)
	}
	_, err := s.ceremonies.Do(ctx, k, rules.Prepare{Ceremony: ceremony}, e.By(Name, "prepare"))
	return err
}
