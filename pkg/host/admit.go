package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/limit"
)

// Admission says how often somebody may do something (spec 3), and how long they wait otherwise. It is safe for concurrent use.
//
// Only traffic is counted here, in Redis, which may forget: nobody is kept from signing for want of it. What protects a person,
// such as how many codes and new links they are sent, is counted on the record and forgets nothing.
type Admission struct {
	limiter   *limit.Limiter
	undecided metric.Int64Counter
}

// Admission makes one for a service, which names its metric.
func (h *Host) Admission(service string) (*Admission, error) {
	undecided, err := h.Telemetry.Meter("countersign.dev/services/"+service).Int64Counter("countersign."+service+".unlimited",
		metric.WithDescription("Requests whose limit Redis did not decide, by limit."))
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	return &Admission{limiter: limit.New(h.Redis, h.Keys, limit.Options{}), undecided: undecided}, nil
}

// Spend spends one event of each of the limits, or none. It returns failure.RateLimited, with the time to wait, where one of them
// refuses. While Redis is away each limit's own policy holds: one that fails closed refuses with failure.Unavailable.
func (a *Admission) Spend(ctx context.Context, limits ...limit.Limit) error {
	d, err := a.limiter.Allow(ctx, limits...)
	refusal := failure.RateLimited
	var away *limit.Unavailable
	switch {
	case errors.As(err, &away):
		for _, l := range limits {
			a.undecided.Add(ctx, 1, metric.WithAttributes(attribute.String("limit", l.Name)))
		}
		d, refusal = away.Decision(), failure.Unavailable
	case err != nil:
		return err
	}
	if d.Allowed {
		return nil
	}
	return refusal.After(d.RetryAfter)
}

// Defaults of ClientLimit.
const (
	clientRate  = 100
	clientBurst = 200
)

// ClientLimit is how often a platform's client may call, by REST and gRPC together. Zero values are the defaults.
type ClientLimit struct {
	ClientRate  int `help:"Calls a second that one client of a platform may make, by REST and gRPC together." default:"100" env:"COUNTERSIGN_CLIENT_RATE"`
	ClientBurst int `help:"Calls that one client may make at once." default:"200" env:"COUNTERSIGN_CLIENT_BURST"`
}

// Validate returns an error that names the wrong setting.
func (c ClientLimit) Validate() error {
	if c.ClientRate < 0 || c.ClientBurst < 0 {
		return errors.New("host: --client-rate and --client-burst are 1 or more")
	}
	if err := c.of(auth.Caller{}).Validate(); err != nil {
		return fmt.Errorf("host: --client-rate and --client-burst: %w", err)
	}
	return nil
}

func (c ClientLimit) of(caller auth.Caller) limit.Limit {
	l := limit.Limit{
		Name: "api-client", Key: caller.Tenant + "/" + caller.ID, Count: c.ClientRate, Period: time.Second, Burst: c.ClientBurst, WhenDown: limit.FailOpen,
	}
	if l.Count == 0 {
		l.Count = clientRate
	}
	if l.Burst == 0 {
		l.Burst = clientBurst
	}
	return l
}

// Client returns what admits a call of the context's caller.
func (a *Admission) Client(c ClientLimit) func(context.Context) error {
	return func(ctx context.Context) error { return a.Spend(ctx, c.of(auth.From(ctx))) }
}
