// Command countersign is all of Countersign in one process, and its command line.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/alecthomas/kong"

	"countersign.dev/pkg/server"
	"countersign.dev/services/ceremony/pdf"
	"countersign.dev/services/countersign/cli"
	"countersign.dev/services/countersign/stack"
)

const about = `Countersign keeps a signature from being the last bottleneck: links that expire politely, messages that are tried again,
signers verified step by step, reminders, escalations, and an audit trail that proves every step.

Start with:

  countersign up                                     everything in one process, on embedded servers
  countersign send --document offer.pdf --signer 'Ada Lovelace <ada@example.com>'
  countersign show ID                                what became of it`

// commands are everything that can be said.
type commands struct {
	Up   upCommand   `cmd:"" help:"Run everything in one process until SIGTERM."`
	Demo demoCommand `cmd:"" help:"Run everything and send a real request to a mailbox on this machine."`
	Init initCommand `cmd:"" help:"Make keys, streams and consumers, once, on a server of one's own."`
	Keys keysCommand `cmd:"" help:"Make the secrets of a deployment: its keys, and platforms' API keys."`

	cli.Commands
}

func main() {
	pdf.RunHelperIfAsked()
	var c commands
	parser := kong.Must(&c, kong.Name("countersign"), kong.Description(about))
	parsed, err := parser.Parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "countersign: %v\nSee `countersign --help`, or --help after a command.\n", err)
		os.Exit(cli.ExitCode(err))
	}
	system := cli.System()
	system.Expected, system.HotState = stack.Topology(), stack.HotState()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	server.Memory(log)
	ctx, stop := server.Signals(context.Background(), log, os.Exit)
	defer stop()
	parsed.BindTo(ctx, (*context.Context)(nil))
	if err := parsed.Run(system); err != nil {
		fmt.Fprintf(os.Stderr, "countersign: %v\n", err)
		stop()
		os.Exit(cli.ExitCode(err)) //nolint:gocritic // stop was called
	}
}
