// Package cli is the command line of platforms: it asks a running Countersign over gRPC and tells people, or programs with --json,
// what it answered.
package cli

import (
	"context"
	"io"
	"os"
)

// Commands are what a platform can say. Embed them in the struct that kong parses.
type Commands struct {
	Send   SendCmd   `cmd:"" help:"Ask people to sign a document."`
	List   ListCmd   `cmd:"" help:"List the newest requests."`
	Show   ShowCmd   `cmd:"" help:"Show a request, its signers and what happened to it."`
	Watch  WatchCmd  `cmd:"" help:"Follow a request until it is closed."`
	Links  LinksCmd  `cmd:"" help:"Issue, reissue and revoke signers' links."`
	Why    WhyCmd    `cmd:"" help:"Explain who is waited for, and why."`
	Doctor DoctorCmd `cmd:"" help:"Check that everything a running Countersign needs is well."`
}

// IO is what a command reads and writes.
type IO struct {
	In       io.Reader
	Out, Err io.Writer
}

// System returns the input and output of this process.
func System() *IO { return &IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr} }

// ExitCode is the exit status that err asks for: 0 done, 1 refused or failed, 2 wrong usage, 3 nobody could be reached.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	return 1
}

// SendCmd makes a request.
type SendCmd struct{}

// Run sends it.
func (c *SendCmd) Run(_ context.Context, _ *IO) error { return nil }

// ListCmd lists requests.
type ListCmd struct{}

// Run lists.
func (c *ListCmd) Run(_ context.Context, _ *IO) error { return nil }

// ShowCmd shows a request.
type ShowCmd struct{}

// Run shows.
func (c *ShowCmd) Run(_ context.Context, _ *IO) error { return nil }

// WatchCmd follows a request.
type WatchCmd struct{}

// Run follows.
func (c *WatchCmd) Run(_ context.Context, _ *IO) error { return nil }

// LinksCmd acts on links.
type LinksCmd struct {
	Issue IssueCmd `cmd:"" help:"Print a fresh link of a signer."`
}

// IssueCmd prints a fresh link.
type IssueCmd struct{}

// Run issues.
func (c *IssueCmd) Run(_ context.Context, _ *IO) error { return nil }

// WhyCmd explains.
type WhyCmd struct{}

// Run explains.
func (c *WhyCmd) Run(_ context.Context, _ *IO) error { return nil }

// DoctorCmd checks.
type DoctorCmd struct{}

// Run checks.
func (c *DoctorCmd) Run(_ context.Context, _ *IO) error { return nil }
