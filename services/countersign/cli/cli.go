// Package cli is the command line of platforms: it asks a running Countersign over gRPC and tells people, or programs with --json,
// what it answered. No command ever prompts, so that each does the same in a script as at a desk.
package cli

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/hotstate"
)

// Commands are what a platform can say. Embed them in the struct that kong parses, and bind a context and an *IO.
type Commands struct {
	Send     SendCmd     `cmd:"" help:"Ask people to sign a document."`
	List     ListCmd     `cmd:"" help:"List the newest requests."`
	Show     ShowCmd     `cmd:"" help:"Show a request, its signers and all that happened to it."`
	Watch    WatchCmd    `cmd:"" help:"Follow a request, live, until it is closed."`
	Amend    AmendCmd    `cmd:"" help:"Change a request while its links are out: addresses, order, deadline, metadata."`
	Cancel   CancelCmd   `cmd:"" help:"End a request; its links stop working at once."`
	Erase    EraseCmd    `cmd:"" help:"Destroy what is personal about a request that has ended, for good."`
	Links    LinksCmd    `cmd:"" help:"Show, follow, issue, reissue and revoke signers' links."`
	Profiles ProfilesCmd `cmd:"" help:"Show and change expiration profiles, and which one a request gets."`
	Why      WhyCmd      `cmd:"" help:"Explain who is waited for, why, and what happens next."`
	State    StateCmd    `cmd:"" help:"Fill Redis again from the record, or prove that it is what the record says."`
	Doctor   DoctorCmd   `cmd:"" help:"Check all that a running Countersign stands on; say what to do about what is not well."`
}

// IO is what a command reads and writes, and what it knows of its surroundings.
type IO struct {
	In       io.Reader
	Out, Err io.Writer
	Now      func() time.Time  // what "2 h ago" counts from
	HotState []hotstate.Part   // what `state` fills and compares
	Expected eventlog.Topology // what `doctor` looks for on the server beside what it finds there; may be empty
}

// System returns the input and output of this process.
func System() *IO {
	return &IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Now: func() time.Time { return clock.System().Now("") }}
}

// Exit statuses.
const (
	ExitDone        = 0
	ExitRefused     = 1 // the answer was no, or something is not well
	ExitUsage       = 2 // the command line is wrong; nothing was asked
	ExitUnreachable = 3 // nobody answered
)

// ExitCode is the exit status that err asks for; errors of kong's parser are wrong usage.
func ExitCode(err error) int {
	var p *problem
	var parse *kong.ParseError
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &p):
		return p.exit
	case errors.As(err, &parse):
		return ExitUsage
	default:
		return ExitRefused
	}
}
