// Command mailbox runs the mailbox of development and demos as a process of its own.
package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/server"
	"countersign.dev/services/mailbox"
)

func main() {
	var flags mailbox.Flags
	parsed := kong.Parse(&flags, kong.Name("mailbox"), kong.Description("Takes any mail, delivers none, shows what came."))
	logger := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	ctx, stop := server.Signals(context.Background(), logger, os.Exit)
	parsed.FatalIfErrorf(run(ctx, flags, logger))
	stop()
}

func run(ctx context.Context, flags mailbox.Flags, logger *slog.Logger) error {
	if flags.Probe {
		return server.Probe(ctx, flags.HTTP)
	}
	config, err := flags.Config(logger, func() time.Time { return clock.System().Now("") })
	if err != nil {
		return err
	}
	box, err := mailbox.New(config)
	if err != nil {
		return err
	}
	return box.Run(ctx)
}
