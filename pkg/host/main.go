package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	// kong: one struct is flags, environment and help at once, so a setting is described in one place.
	"github.com/alecthomas/kong"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/config"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/rpc"
	"countersign.dev/pkg/secret"
	"countersign.dev/pkg/server"
	"countersign.dev/pkg/telemetry"
)

// Program is a service as a process of its own.
type Program struct {
	Name  string
	About string
	// Flags points to the service's own settings, with kong's tags; nil for none.
	Flags any
	// Build makes the service.
	Build func(ctx context.Context, h *Host, tenants *config.Config) (Service, error)
	// Serve returns what the service serves beside its internal gRPC, such as a public port; nil for nothing.
	Serve func(h *Host, s Service) ([]server.Component, error)
}

// flags are the settings that every service has.
type flags struct {
	NATS          string            `help:"NATS server." default:"nats://127.0.0.1:4222" env:"COUNTERSIGN_NATS"`
	Redis         string            `help:"Redis: host:port, several for a Cluster, or redis[s]://host:port?sentinel=NAME." default:"127.0.0.1:6379" env:"COUNTERSIGN_REDIS"`
	RedisPassword string            `help:"File that holds Redis's password." type:"existingfile" env:"COUNTERSIGN_REDIS_PASSWORD_FILE" name:"redis-password-file"`
	Keys          string            `help:"Directory of the keys that 'countersign init' made." default:"data/keys" env:"COUNTERSIGN_KEYS"`
	MountedKeys   bool              `help:"The platform guards the keys directory's modes (a Kubernetes secret)." env:"COUNTERSIGN_MOUNTED_KEYS"`
	Marks         string            `help:"Directory of high-water marks; keep it apart from JetStream's own." default:"data/marks" env:"COUNTERSIGN_MARKS"`
	Listen        string            `help:"Address for the gRPC of other services." default:"127.0.0.1:0" env:"COUNTERSIGN_LISTEN"`
	Metrics       string            `help:"Address for /metrics, /livez and /readyz." default:"127.0.0.1:0" env:"COUNTERSIGN_METRICS"`
	Peer          map[string]string `help:"Where the other services are: name=host:port;... The list may name this one too." env:"COUNTERSIGN_PEERS"`
	Config        string            `help:"Directory of tenant settings (profiles, reminders, escalations, branding)." type:"existingdir" env:"COUNTERSIGN_CONFIG"`
	OTLP          string            `help:"Where traces go: host:port of an OTLP gRPC receiver such as Jaeger." env:"COUNTERSIGN_OTLP" name:"otlp"`
	Sample        float64           `help:"Share of new traces that are recorded; 0 is all." env:"COUNTERSIGN_SAMPLE"`
	LogLevel      slog.Level        `help:"Least level that is logged: debug, info, warn, error." default:"info" env:"COUNTERSIGN_LOG_LEVEL"`
	AllowLazySync bool              `help:"Accept a NATS server that acknowledges before it syncs: a power cut may lose the last moments." env:"COUNTERSIGN_ALLOW_LAZY_SYNC"`
	Probe         bool              `help:"Ask the process that listens on --metrics whether it is ready, and exit: the health check of an image."`
}

// Parser reads the program's command line and environment: the settings that every service has, and its own.
func (p Program) Parser() (*kong.Kong, error) { return p.parser(&flags{}) }

func (p Program) parser(common *flags) (*kong.Kong, error) {
	options := []kong.Option{kong.Name(p.Name), kong.Description(p.About), kong.UsageOnError()}
	if p.Flags != nil {
		options = append(options, kong.Embed(p.Flags))
	}
	return kong.New(common, options...)
}

// Main runs a service until SIGTERM, and exits.
func Main(p Program) {
	common := &flags{}
	parser, err := p.parser(common)
	if err != nil {
		panic(err) // the program's own flags cannot be read
	}
	if _, err := parser.Parse(os.Args[1:]); err != nil {
		parser.FatalIfErrorf(err)
	}
	do := func() error { return run(p, common) }
	if common.Probe {
		do = func() error { return server.Probe(context.Background(), common.Metrics) }
	}
	if err := do(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", p.Name, err)
		os.Exit(1)
	}
}

func run(p Program, f *flags) (err error) {
	tel, err := telemetry.Setup(context.Background(), telemetry.Options{
		Service: "countersign-" + p.Name, OTLPEndpoint: f.OTLP, SampleRatio: f.Sample, Level: f.LogLevel, Stderr: os.Stderr, Global: true,
	})
	if err != nil {
		return err
	}
	server.Memory(tel.Log)
	ctx, stop := server.Signals(context.Background(), tel.Log, os.Exit)
	defer stop()
	defer func() {
		flush, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err = errors.Join(err, tel.Shutdown(flush))
	}()
	base, tenants, network, err := f.open(tel, p.Name)
	if err != nil {
		return err
	}
	defer base.Close()
	h := base.For(p.Name)
	s, err := p.Build(ctx, h, tenants)
	if err != nil {
		return err
	}
	components, err := Components(h, p.Name, s, network)
	if err != nil {
		return err
	}
	if err := auth.CheckListener(f.Listen, true); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", f.Listen)
	if err != nil {
		return fmt.Errorf("listen for other services: %w", err)
	}
	internal, err := internalServer(h, s)
	if err != nil {
		return err
	}
	components = append(components, server.Component{Name: p.Name + "-grpc", Run: func(ctx context.Context) error { return internal.Serve(ctx, listener) }})
	if p.Serve != nil {
		more, err := p.Serve(h, s)
		if err != nil {
			return err
		}
		components = append(components, more...)
	}
	components = append(components,
		server.Component{Name: "marks", Run: base.RunMarks},
		server.Component{Name: "record", Run: waitFor, Ready: func(ctx context.Context) error { return base.Ready(ctx, p.Name) }})
	return serve(ctx, h, f.Metrics, listener, components)
}

// waitFor runs a component that is only asked whether it is ready.
func waitFor(ctx context.Context) error { <-ctx.Done(); return nil }

// serve runs the components with a page for probes and metrics beside them.
func serve(ctx context.Context, h *Host, address string, internal net.Listener, components []server.Component) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for metrics: %w", err)
	}
	mux := http.NewServeMux()
	probes := server.HTTP("metrics", &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}, l, time.Second)
	group := server.New(server.Options{Log: h.Logger}, append([]server.Component{probes}, components...)...)
	mux.Handle("/", group.Handler())
	mux.Handle("/metrics", h.Telemetry.MetricsHandler())
	h.Logger.InfoContext(ctx, "serving", "grpc", internal.Addr().String(), "metrics", l.Addr().String())
	return group.Run(ctx)
}

// open reads keys and settings and connects.
func (f *flags) open(tel *telemetry.Telemetry, self string) (*Base, *config.Config, *rpc.Network, error) {
	openKeys, files := keys.Open, Files(keys.Dir(f.Keys))
	if f.MountedKeys {
		openKeys, files = keys.OpenMounted, keys.Mounted(f.Keys)
	}
	ring, err := openKeys(f.Keys)
	if err != nil {
		return nil, nil, nil, err
	}
	tenants := config.Default()
	if f.Config != "" {
		if tenants, err = config.Load(f.Config); err != nil {
			return nil, nil, nil, err
		}
	}
	network := rpc.NewNetwork()
	for name, address := range f.Peer {
		if name == self {
			continue // one list for all services: this one is here
		}
		if err := network.At(name, address); err != nil {
			return nil, nil, nil, err
		}
	}
	var password secret.Secret
	if f.RedisPassword != "" {
		text, err := os.ReadFile(f.RedisPassword)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("read Redis's password: %w", err)
		}
		password = secret.New(strings.TrimSpace(string(text))) // an editor ends a file with a line break
	}
	base, err := Open(Options{
		NATS: f.NATS, Redis: f.Redis, Password: password, MarksDir: f.Marks, Keys: ring, Files: files, Clock: clock.System(),
		Telemetry: tel, Logger: tel.Log, Network: network, LazySync: f.AllowLazySync,
	})
	return base, tenants, network, err
}

// Components returns the parts by which a service runs in this process: its gRPC over memory, and its consumers.
func Components(h *Host, name string, s Service, network *rpc.Network) ([]server.Component, error) {
	listener, err := network.Listen(name)
	if err != nil {
		return nil, err
	}
	internal, err := internalServer(h, s)
	if err != nil {
		return nil, err
	}
	return []server.Component{
		{Name: name + "-memory", Run: func(ctx context.Context) error { return internal.Serve(ctx, listener) }},
		{Name: name, Run: s.Run},
	}, nil
}

// internalServer makes a server that only services of the same deployment may call.
func internalServer(h *Host, s Service) (*rpc.Server, error) {
	internal, err := rpc.NewServer(rpc.Options{Auth: PeerAuth(h.Keys), Telemetry: h.Telemetry})
	if err != nil {
		return nil, err
	}
	s.Register(internal)
	return internal, nil
}
