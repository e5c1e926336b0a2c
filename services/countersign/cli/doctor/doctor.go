// Package doctor looks at everything a running Countersign stands on, from outside and without changing anything, and says of each
// thing whether it is well, and what to do where it is not.
package doctor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/keys"
)

// patience is how long one examination may take.
const patience = 10 * time.Second

// Level is how well something is.
type Level string

// Levels.
const (
	OK   Level = "ok"
	Warn Level = "warn" // it works; somebody should look at it
	Fail Level = "fail" // it does not work, or does not keep what it promises
)

// Finding is what was found out about one thing.
type Finding struct {
	Check  string `json:"check"`
	Level  Level  `json:"level"`
	Detail string `json:"detail"`
	Next   string `json:"next,omitempty"` // what to do
}

// Patient is where everything is. An empty address is not looked at.
type Patient struct {
	GRPC     *grpc.ClientConn  // nil is not looked at
	GRPCName string            // its address, for words
	NATS     string            // URL
	Keys     *keys.Ring        // by which NATS knows the services; nil where it takes everybody
	Redis    string            // as pkg/hot reads it
	SMTP     string            // host:port
	SMTPTLS  string            // starttls, implicit or none
	HTTP     string            // origin of signers' pages and REST
	Metrics  string            // origin of /readyz and /metrics
	Expected eventlog.Topology // what must be on the server, beside what every installation has
}

// Examine looks at everything at once. The findings are in the same order each time.
func Examine(ctx context.Context, p Patient) []Finding {
	examinations := []func(context.Context, Patient) []Finding{examineGRPC, examineHTTP, examineReady, examineNATS, examineRedis, examineSMTP}
	found := make([][]Finding, len(examinations))
	var wg sync.WaitGroup
	for i, examine := range examinations {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			found[i] = examine(ctx, p)
		})
	}
	wg.Wait()
	var all []Finding
	for _, f := range found {
		all = append(all, f...)
	}
	return all
}

func ok(check, format string, args ...any) Finding {
	return Finding{Check: check, Level: OK, Detail: fmt.Sprintf(format, args...)}
}

func warn(check, next, format string, args ...any) Finding {
	return Finding{Check: check, Level: Warn, Detail: fmt.Sprintf(format, args...), Next: next}
}

func fail(check, next, format string, args ...any) Finding {
	return Finding{Check: check, Level: Fail, Detail: fmt.Sprintf(format, args...), Next: next}
}
