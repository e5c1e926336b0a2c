// Package stack runs all of Countersign in one process, on embedded servers where none are given. It only wires: what the services
// do here they do as processes of their own.
package stack

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/config"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/natsserver"
	"countersign.dev/pkg/pades"
	"countersign.dev/pkg/redisserver"
	"countersign.dev/pkg/rpc"
	"countersign.dev/pkg/server"
	"countersign.dev/pkg/telemetry"
	"countersign.dev/services/ceremony"
	"countersign.dev/services/delivery"
	"countersign.dev/services/gateway"
	"countersign.dev/services/identity"
)

// Config says where everything is. Addresses to listen on may have port 0.
type Config struct {
	Data      string `help:"Directory that keeps keys and state; a second start finds it." default:"data" env:"COUNTERSIGN_DATA" type:"path"`
	ConfigDir string `help:"Directory of tenant settings (profiles, reminders, escalations, branding)." type:"existingdir" env:"COUNTERSIGN_CONFIG" name:"config"`

	Gateway     gateway.Config `embed:""`
	Metrics     string         `help:"Address for /metrics, /livez and /readyz." default:"127.0.0.1:9464" env:"COUNTERSIGN_METRICS"`
	Mailbox     string         `help:"Address for the page of the development mailbox." default:"127.0.0.1:8025" env:"COUNTERSIGN_MAILBOX"`
	MailboxSMTP string         `help:"Address where the development mailbox takes mail." default:"127.0.0.1:1025" env:"COUNTERSIGN_MAILBOX_SMTP" name:"mailbox-smtp"`

	NATS         string `help:"Use this NATS server instead of the embedded one." env:"COUNTERSIGN_NATS" name:"nats"`
	NATSListen   string `help:"Address of the embedded NATS server." default:"127.0.0.1:4222" env:"COUNTERSIGN_NATS_LISTEN" name:"nats-listen"`
	NATSAccounts string `help:"File of accounts for the embedded NATS server, made by 'countersign keys nats'; without it whoever reaches the server may do everything." type:"existingfile" env:"COUNTERSIGN_NATS_ACCOUNTS" name:"nats-accounts"`
	Redis        string `help:"Use this Redis instead of one of our own." env:"COUNTERSIGN_REDIS"`
	RedisListen  string `help:"Address of our own Redis." default:"127.0.0.1:6379" env:"COUNTERSIGN_REDIS_LISTEN" name:"redis-listen"`
	SMTP         string `help:"Send mail through this relay (host:port) instead of to the development mailbox." env:"COUNTERSIGN_SMTP" name:"smtp"`

	SyncEvery     time.Duration `help:"Have the embedded NATS sync its disk this often instead of before each acknowledgement: faster, and a power cut may lose the last moments." env:"COUNTERSIGN_SYNC_EVERY" name:"sync-every"`
	AllowLazySync bool          `help:"Accept a NATS server that acknowledges before it syncs." env:"COUNTERSIGN_ALLOW_LAZY_SYNC"`
	OTLP          string        `help:"Where traces go: host:port of an OTLP gRPC receiver such as Jaeger." env:"COUNTERSIGN_OTLP" name:"otlp"`
	Sample        float64       `help:"Share of new traces that are recorded; 0 is all." env:"COUNTERSIGN_SAMPLE"`
	LogLevel      slog.Level    `help:"Least level that is logged: debug, info, warn, error." default:"info" env:"COUNTERSIGN_LOG_LEVEL"`

	SMTPTLS string `help:"How the relay is reached: starttls, implicit or none (loopback only)." default:"none" enum:"starttls,implicit,none" env:"COUNTERSIGN_SMTP_TLS" name:"smtp-tls"`

	GRPC     string          `help:"Address for platforms' gRPC." default:"127.0.0.1:9090" env:"COUNTERSIGN_GRPC" name:"grpc"`
	Delivery delivery.Config `embed:""`
	Identity identity.Config `embed:"" prefix:"identity-"`
	Ceremony ceremony.Config `embed:""`
}

// Addresses is where a running stack is reached: the line that `up --json` prints.
type Addresses struct {
	Ready   bool   `json:"ready"`
	HTTP    string `json:"http"`
	GRPC    string `json:"grpc"`
	NATS    string `json:"nats"`
	Redis   string `json:"redis"`
	Mailbox string `json:"mailbox"`
	SMTP    string `json:"smtp"`
	Metrics string `json:"metrics"`
}

// Running is what Run tells when everything is ready.
type Running struct {
	Addresses
	// RedisKind says what Redis it is, in words.
	RedisKind string
}

// authorityLife is how long the development authority for PDF signatures is valid.
const authorityLife = 10 * 365 * 24 * time.Hour

// Describe says in words where everything is.
func (r Running) Describe() string {
	out := fmt.Sprintf("Countersign is ready.\n\n  signers' pages, REST  %s\n  gRPC                  %s\n", r.HTTP, r.GRPC)
	if r.Mailbox != "" {
		out += fmt.Sprintf("  mailbox               %s\n", r.Mailbox)
	}
	out += fmt.Sprintf("  NATS                  %s\n  Redis                 %s", r.NATS, r.Redis)
	if r.RedisKind != "" {
		out += " (" + r.RedisKind + ")"
	}
	return out + fmt.Sprintf("\n  metrics               %s\n", r.Metrics)
}

// stack is what Run builds up and takes down.
type stack struct {
	config     Config
	telemetry  *telemetry.Telemetry
	ring       *keys.Ring
	tenants    *config.Config
	base       *host.Base
	nats       *natsserver.Server // nil where the record is on a server of one's own
	network    *rpc.Network
	addresses  Addresses
	redisKind  string
	components []server.Component
	undo       []func()
}

// Run runs everything until ctx ends, and drains. ready is called once, when every part is ready.
func Run(ctx context.Context, c Config, logs *os.File, ready func(Running)) (err error) {
	tel, err := telemetry.Setup(ctx, telemetry.Options{
		Service: "countersign", OTLPEndpoint: c.OTLP, SampleRatio: c.Sample, Level: c.LogLevel, Stderr: logs, Global: true,
	})
	if err != nil {
		return err
	}
	defer func() {
		flush, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err = errors.Join(err, tel.Shutdown(flush))
	}()
	s := &stack{config: c, telemetry: tel, network: rpc.NewNetwork()}
	defer s.takeDown()
	if err := s.openData(); err != nil {
		return err
	}
	if err := s.startServers(ctx); err != nil {
		return err
	}
	if err := s.addMailbox(); err != nil {
		return err
	}
	if err := s.addServices(ctx); err != nil {
		return err
	}
	return s.serve(ctx, ready)
}

// takeDown undoes what was started, last first.
func (s *stack) takeDown() {
	for i := len(s.undo) - 1; i >= 0; i-- {
		s.undo[i]()
	}
}

func (s *stack) path(elements ...string) string {
	return filepath.Join(append([]string{s.config.Data}, elements...)...)
}

// OpenKeys opens the keys of a data directory; in an empty one it makes them, with the authority for PDF signatures.
func OpenKeys(data string) (*keys.Ring, error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	dir := filepath.Join(data, "keys")
	ring, err := keys.Open(dir)
	if errors.Is(err, keys.ErrMissing) {
		entries, readErr := os.ReadDir(data)
		if readErr != nil {
			return nil, readErr
		}
		if len(entries) > 0 {
			return nil, fmt.Errorf("%w; %s holds state already, which new keys could not read", err, data)
		}
		ring, err = keys.Create(dir)
	}
	if err != nil {
		return nil, err
	}
	if _, err := keys.Dir(dir).Load(ceremony.AuthorityFile); errors.Is(err, keys.ErrMissing) {
		authority, err := pades.NewAuthority(pades.Subject{CommonName: "Countersign development authority", Organization: "Countersign"}, authorityLife, clock.System().Now(""))
		if err != nil {
			return nil, err
		}
		text, err := authority.PEM()
		if err != nil {
			return nil, err
		}
		return ring, keys.Dir(dir).Store(ceremony.AuthorityFile, text)
	} else if err != nil {
		return nil, err
	}
	return ring, nil
}

// openData opens keys and tenant settings.
func (s *stack) openData() (err error) {
	if s.ring, err = OpenKeys(s.config.Data); err != nil {
		return err
	}
	s.tenants = config.Default()
	if s.config.ConfigDir != "" {
		s.tenants, err = config.Load(s.config.ConfigDir)
	}
	return err
}

func (s *stack) now() time.Time { return clock.System().Now("") }

// startServers starts or finds NATS and Redis, makes the streams on an empty server, and connects.
func (s *stack) startServers(ctx context.Context) error {
	c := s.config
	if s.addresses.Redis = c.Redis; c.Redis == "" {
		r, err := redisserver.Start(ctx, redisserver.Options{Addr: c.RedisListen, Log: s.telemetry.Log})
		if err != nil {
			return err
		}
		s.undo = append(s.undo, r.Stop)
		s.addresses.Redis, s.redisKind = r.Addr(), string(r.Kind())
	}
	if s.addresses.NATS = c.NATS; c.NATS == "" {
		n, err := natsserver.Start(natsserver.Options{
			Listen: c.NATSListen, Dir: s.path("nats"), Key: hex.EncodeToString(s.ring.Derive("cs.nats.v1", 32)), SyncEvery: c.SyncEvery,
			Accounts: c.NATSAccounts,
		})
		if err != nil {
			return err
		}
		s.undo = append(s.undo, n.Stop)
		s.addresses.NATS, s.nats = n.URL(), n
		init := Init{Data: c.Data, NATS: n.URL(), Replicas: 1, embedded: true, syncsAlways: c.SyncEvery == 0}
		if _, err := init.Run(ctx, s.ring); err != nil {
			return err
		}
	}
	base, err := host.Open(host.Options{
		NATS: s.addresses.NATS, Redis: s.addresses.Redis, MarksDir: s.path("marks"), Keys: s.ring, Files: keys.Dir(s.path("keys")), Clock: clock.System(),
		Telemetry: s.telemetry, Logger: s.telemetry.Log, Network: s.network, LazySync: c.AllowLazySync || c.SyncEvery > 0,
	})
	if err != nil {
		return err
	}
	s.base = base
	s.undo = append(s.undo, base.Close)
	return nil
}

// serve adds probes and metrics and runs all parts.
func (s *stack) serve(ctx context.Context, ready func(Running)) error {
	l, err := net.Listen("tcp", s.config.Metrics)
	if err != nil {
		return fmt.Errorf("listen for metrics: %w", err)
	}
	s.addresses.Metrics = "http://" + l.Addr().String() + "/metrics"
	mux := http.NewServeMux()
	probes := server.HTTP("metrics", &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}, l, time.Second)
	announce := server.Component{Name: "announcement", Run: func(ctx context.Context) error {
		s.addresses.Ready = true
		ready(Running{Addresses: s.addresses, RedisKind: s.redisKind})
		<-ctx.Done()
		return nil
	}}
	record := server.Component{
		Name: "record", Run: func(ctx context.Context) error { <-ctx.Done(); return nil },
		Ready: func(ctx context.Context) error { return s.base.Ready(ctx, "countersign") },
	}
	marks := server.Component{Name: "marks", Run: s.base.RunMarks}
	all := append([]server.Component{probes, marks, record}, s.components...)
	if s.nats != nil {
		all = append(all, server.Component{Name: "disk", Run: record.Run, Ready: func(context.Context) error { return s.nats.Health() }})
	}
	group := server.New(server.Options{Log: s.telemetry.Log}, append(all, announce)...)
	mux.Handle("/", group.Handler())
	mux.Handle("/metrics", s.telemetry.MetricsHandler())
	return group.Run(ctx)
}

// Topology is what all services need of the server.
func Topology() eventlog.Topology {
	return eventlog.Merge(append([]eventlog.Topology{{Streams: eventlog.SharedStreams()}}, topologies...)...)
}
