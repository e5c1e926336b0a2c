package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"countersign.dev/pkg/clock"
	"countersign.dev/services/countersign/demo"
	"countersign.dev/services/countersign/stack"
)

// demoCommand shows Countersign at work.
type demoCommand struct {
	stack.Config `embed:""`
	Auto         bool   `help:"Have a simulated signer go the whole way, then end."`
	Out          string `help:"Where --auto leaves signed.pdf, certificate.pdf and events.jsonl." default:"out" type:"path"`
}

// Run starts everything, sends a request, and follows it.
func (c *demoCommand) Run(ctx context.Context) error {
	if c.Auto {
		// Nobody types an address: whatever else runs on this machine is not in the way.
		for _, address := range []*string{&c.Gateway.HTTP, &c.Metrics, &c.Mailbox, &c.MailboxSMTP, &c.NATSListen, &c.RedisListen, &c.GRPC} {
			*address = "127.0.0.1:0"
		}
		temporary, err := os.MkdirTemp("", "countersign-demo-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temporary) //nolint:errcheck // a demonstration's leavings
		c.Data = filepath.Join(temporary, "data")
		c.LogLevel = max(c.LogLevel, 4)
	}
	settings, err := os.MkdirTemp("", "countersign-demo-config-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(settings) //nolint:errcheck // a demonstration's leavings
	if c.ConfigDir == "" {
		if err := demo.WriteConfig(settings); err != nil {
			return err
		}
		c.ConfigDir = settings
	}
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	finished := errors.New("finished")
	shown := make(chan error, 1)
	err = stack.Run(running, c.Config, os.Stderr, func(r stack.Running) {
		fmt.Print(r.Describe())
		d := &demo.Demo{Addresses: r.Addresses, Out: os.Stdout, Now: func() time.Time { return clock.System().Now("") }}
		go func() {
			if c.Auto {
				shown <- d.Auto(running, c.Out)
			} else {
				shown <- d.Show(running)
			}
			stop(finished)
		}()
	})
	if err != nil {
		return err
	}
	select {
	case err := <-shown:
		if err == nil && c.Auto {
			fmt.Printf("\nLook at %s/signed.pdf, %s/certificate.pdf and %s/events.jsonl.\n", c.Out, c.Out, c.Out)
		}
		return err
	default:
		return context.Cause(ctx)
	}
}
