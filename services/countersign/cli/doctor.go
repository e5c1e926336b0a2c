package cli

import (
	"context"
	"fmt"
	"strings"

	"countersign.dev/pkg/keys"
	"countersign.dev/services/countersign/cli/doctor"
)

// DoctorCmd examines what a running Countersign stands on.
type DoctorCmd struct {
	Client `embed:""`

	NATS    string `help:"NATS server." default:"nats://127.0.0.1:4222" env:"COUNTERSIGN_NATS" name:"nats" group:"Where to look (- leaves it out):"`
	Keys    string `help:"Directory of the deployment's keys, by which NATS knows its services; not needed where NATS takes everybody." env:"COUNTERSIGN_KEYS" placeholder:"DIR" group:"Where to look (- leaves it out):"`
	Redis   string `help:"Redis." default:"127.0.0.1:6379" env:"COUNTERSIGN_REDIS" group:"Where to look (- leaves it out):"`
	SMTP    string `help:"Mail relay." default:"127.0.0.1:1025" env:"COUNTERSIGN_SMTP" name:"smtp" group:"Where to look (- leaves it out):"`
	SMTPTLS string `help:"How the relay is reached: starttls, implicit or none." default:"none" enum:"starttls,implicit,none" env:"COUNTERSIGN_SMTP_TLS" name:"smtp-tls" group:"Where to look (- leaves it out):"`
	HTTP    string `help:"Signers' pages." default:"127.0.0.1:8080" env:"COUNTERSIGN_HTTP" name:"http" group:"Where to look (- leaves it out):"`
	Metrics string `help:"Metrics and probes." default:"127.0.0.1:9464" env:"COUNTERSIGN_METRICS" group:"Where to look (- leaves it out):"`
}

// Help teaches by examples.
func (c *DoctorCmd) Help() string {
	return `Nothing is changed and nothing is sent. The exit status is 1 when anything fails; a warning is something to look at.

Examples:
  countersign doctor
  countersign doctor --nats nats://nats.internal:4222 --redis redis.internal:6379 --smtp relay.internal:587 --smtp-tls starttls
  countersign doctor --smtp - --json | jq 'select(.level!="ok")'`
}

// Run examines.
func (c *DoctorCmd) Run(ctx context.Context, io *IO) error {
	ring, err := ringIn(c.Keys)
	if err != nil {
		return err
	}
	patient := doctor.Patient{
		NATS: named(c.NATS), Keys: ring, Redis: named(c.Redis), SMTP: named(c.SMTP), SMTPTLS: c.SMTPTLS, HTTP: origin(c.HTTP), Metrics: origin(c.Metrics), Expected: io.Expected,
	}
	if c.Server != "-" {
		conn, done, err := c.dial()
		if err != nil {
			return err
		}
		defer done()
		patient.GRPC, patient.GRPCName = conn, c.Server
	}
	findings := doctor.Examine(ctx, patient)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	failed := 0
	var rows [][]string
	for _, f := range findings {
		if f.Level == doctor.Fail {
			failed++
		}
		if c.JSON {
			if err := io.object(f); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{string(f.Level), f.Check, f.Detail})
		if f.Next != "" {
			rows = append(rows, []string{"", "", "-> " + f.Next})
		}
	}
	io.table("", rows)
	if failed > 0 {
		return &problem{text: fmt.Sprintf("%s of %d not well", count(failed, "check", "checks"), len(findings)), exit: ExitRefused}
	}
	return nil
}

// ringIn opens the keys in a directory; nil where none is named.
func ringIn(dir string) (*keys.Ring, error) {
	if dir == "" {
		return nil, nil
	}
	ring, err := keys.Open(dir)
	if err != nil {
		return nil, usage("name the folder `keys` of --data", "cannot read the keys: %v", err)
	}
	return ring, nil
}

// named is an address, unless it is to be left out.
func named(address string) string {
	if address == "-" {
		return ""
	}
	return address
}

// origin makes an address to listen on, or a URL of a page there, the origin to ask.
func origin(address string) string {
	if named(address) == "" {
		return ""
	}
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	return strings.TrimSuffix(strings.TrimSuffix(address, "/metrics"), "/")
}
