package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/natsaccess"
	"countersign.dev/pkg/rpc"
	"countersign.dev/pkg/secret"
	"countersign.dev/pkg/telemetry"
)

// maxSkew is how far a process's clock may be off before it is not ready (decisions 14).
const maxSkew = 2 * time.Second

// Options say what a process stands on.
type Options struct {
	NATS      string // address of the server
	Redis     string // see hot.Connect
	Password  secret.Secret
	MarksDir  string // where high-water marks are kept, outside the record
	Keys      *keys.Ring
	Files     Files
	Clock     clock.Clock
	Telemetry *telemetry.Telemetry
	Logger    *slog.Logger
	Network   *rpc.Network
	LazySync  bool
}

// Base is what the services of one process share.
type Base struct {
	host    Host
	network *rpc.Network
	peers   []*peers
}

// Open connects to NATS and Redis. Close ends the connections.
func Open(o Options) (*Base, error) {
	logger := o.Logger
	nc, err := natsaccess.Connect(o.NATS, o.Keys,
		nats.Name("countersign"), nats.MaxReconnects(-1), nats.ReconnectWait(200*time.Millisecond), nats.ReconnectJitter(100*time.Millisecond, time.Second),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if !nc.IsClosed() && err != nil { // nil is our own Close
				logger.Warn("NATS is away; waiting for it", "error", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { logger.Info("NATS is back") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			logger.Warn("NATS reports an error", "error", err)
		}))
	if err != nil {
		return nil, fmt.Errorf("host: connect to NATS at %s: %w", o.NATS, err)
	}
	rdb, err := hot.Connect(o.Redis, o.Password)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("host: %w", err)
	}
	// A pipeline carries many stories, none of them recorded, and to name its span redisotel would write out every value in it.
	pipelines := redisotel.WithCommandsFilter(func([]redis.Cmder) bool { return true })
	if err := redisotel.InstrumentTracing(rdb, redisotel.WithTracerProvider(o.Telemetry.Tracers), redisotel.WithDBStatement(false), redisotel.WithCallerEnabled(false), pipelines); err != nil {
		nc.Close()
		return nil, errors.Join(err, rdb.Close())
	}
	return &Base{network: o.Network, host: Host{
		NATS: nc, Redis: rdb, Keys: o.Keys, Files: o.Files, Clock: o.Clock, Telemetry: o.Telemetry, Logger: logger,
		Marks: eventlog.NewMarks(o.MarksDir, rdb), LazySync: o.LazySync,
	}}, nil
}

// For returns the process as the named service sees it.
func (b *Base) For(service string) *Host {
	h := b.host
	h.Logger = h.Logger.With("service", service)
	p := newPeers(service, b.network, h.Keys, h.Telemetry)
	b.peers = append(b.peers, p)
	h.Peers = p
	return &h
}

// RunMarks keeps the high-water marks until ctx ends.
func (b *Base) RunMarks(ctx context.Context) error { return b.host.Marks.Run(ctx) }

// Ready says what is missing: the record must take a write (decisions 26), and the clock must agree with everybody's.
// Redis may be away: what it holds is read from the record then.
func (b *Base) Ready(ctx context.Context, service string) error {
	if !b.host.NATS.IsConnected() {
		return errors.New("NATS is not connected")
	}
	m := nats.NewMsg("health." + service)
	if _, err := b.host.NATS.RequestMsgWithContext(ctx, m); err != nil {
		return fmt.Errorf("the record takes no write: %w", err)
	}
	if err := b.host.Marks.Err(); err != nil {
		return fmt.Errorf("the high-water marks are not kept: %w", err)
	}
	if skew, err := clock.Skew(ctx, b.host.Redis); err == nil && skew.Abs() > maxSkew {
		return fmt.Errorf("the clock is %v off Redis's", skew)
	}
	return nil
}

// Close ends all connections, after what was published is out.
func (b *Base) Close() {
	for _, p := range b.peers {
		p.close()
	}
	_ = b.host.NATS.FlushTimeout(5 * time.Second)
	b.host.NATS.Close()
	_ = b.host.Redis.Close()
}
