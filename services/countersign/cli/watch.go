package cli

import (
	"context"
	"errors"
	"fmt"
	stdio "io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"countersign.dev/pkg/clock"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// Waits between tries to come back after a connection was lost.
const (
	firstPause = 200 * time.Millisecond
	lastPause  = 3 * time.Second
)

// Patience says how long a lost connection is tried again.
type Patience struct {
	RetryFor time.Duration `help:"How long to try to come back when the connection is lost while watching." default:"2m" name:"retry-for"`
}

// persist makes attempts until one ends well, or fails in a way that does not pass, or none got anywhere for as long as RetryFor.
// The end of ctx is returned as its error.
func (p Patience) persist(ctx context.Context, io *IO, attempt func() (progress bool, err error)) error {
	pause, lost := firstPause, clock.Stopwatch()
	for {
		progress, err := attempt()
		if progress {
			pause, lost = firstPause, clock.Stopwatch()
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !passing(err) || lost() > p.RetryFor:
			return err
		}
		if pause == firstPause {
			io.note("The connection is lost; trying to come back...\n")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// WatchCmd follows a request.
type WatchCmd struct {
	Client `embed:""`

	ID       string `arg:"" help:"The request, req_..." name:"id"`
	After    string `help:"Leave out what came up to this cursor, which --json prints." placeholder:"CURSOR"`
	Patience `embed:""`
}

// Help teaches by examples.
func (c *WatchCmd) Help() string {
	return `What was told already comes first. A lost connection is taken up where it broke off, with nothing left out or told twice.
The exit status is 0 when everybody has signed, and 1 when the request was declined or cancelled.

Examples:
  countersign watch req_Zb3...
  countersign watch req_Zb3... --json | jq -r '.outcome.event'
  countersign watch req_Zb3... --json --after 5kGk...`
}

// Run follows.
func (c *WatchCmd) Run(ctx context.Context, io *IO) error {
	return c.with(ctx, func(ctx context.Context, client signingv1.SigningRequestServiceClient) error {
		got, err := client.Get(ctx, &signingv1.GetRequest{Id: c.ID})
		if err != nil {
			return err
		}
		return c.follow(ctx, io, client, got.GetRequest(), c.After, c.Patience)
	})
}

// follow prints a request's outcomes after a cursor until it is closed, or until ctx ends, which is no error.
func (c Client) follow(ctx context.Context, io *IO, client signingv1.SigningRequestServiceClient, r *signingv1.RequestView, after string, p Patience) error {
	var last *signingv1.WatchResponse
	err := p.persist(ctx, io, func() (progress bool, err error) {
		last, err = c.receive(ctx, io, client, r, after)
		if last != nil {
			after, progress = last.GetCursor(), true
		}
		if closed(last.GetOutcome().GetStatus()) {
			err = nil
		}
		return progress, err
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	return c.ended(r.GetId(), last.GetOutcome().GetStatus(), r.GetStatus())
}

// errUnfinished means that a stream ended before what was asked for.
var errUnfinished = errors.New("the server ended the stream too early")

// receive prints outcomes until the stream ends, and returns the last one. It returns nil when the request is closed.
func (c Client) receive(ctx context.Context, io *IO, client signingv1.SigningRequestServiceClient, r *signingv1.RequestView, after string) (*signingv1.WatchResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &signingv1.WatchRequest{Id: r.GetId(), After: after})
	if err != nil {
		return nil, err
	}
	var last *signingv1.WatchResponse
	for {
		got, err := stream.Recv()
		if errors.Is(err, stdio.EOF) {
			if closed(last.GetOutcome().GetStatus()) || closed(r.GetStatus()) {
				return last, nil
			}
			return last, errUnfinished
		}
		if err != nil {
			return last, err
		}
		last = got
		if c.JSON {
			err = io.line(got)
		} else {
			tellOutcome(io, got.GetOutcome())
		}
		if err != nil {
			return last, err
		}
	}
}

// passing tells a lost connection from an answer.
func passing(err error) bool {
	code := status.Code(err)
	return errors.Is(err, errUnfinished) || code == codes.Unavailable || code == codes.DeadlineExceeded
}

func closed(s signingv1.RequestStatus) bool {
	switch s {
	case signingv1.RequestStatus_REQUEST_STATUS_COMPLETED, signingv1.RequestStatus_REQUEST_STATUS_DECLINED, signingv1.RequestStatus_REQUEST_STATUS_CANCELLED,
		signingv1.RequestStatus_REQUEST_STATUS_EXPIRED:
		return true
	default:
		return false
	}
}

// ended makes an end without all signatures an exit status of its own; told is what the stream said, was what it was before.
func (c Client) ended(id string, told, was signingv1.RequestStatus) error {
	if !closed(told) {
		told = was
	}
	if told == signingv1.RequestStatus_REQUEST_STATUS_COMPLETED {
		return nil
	}
	return &problem{text: fmt.Sprintf("the request was %s", requestStatus(told)), next: "see what happened: countersign show " + id, exit: ExitRefused}
}

// tellOutcome prints what a platform is told, in a line; a rejection with every field. A signer is named by position: who held it
// then may not be who holds it now.
func tellOutcome(io *IO, o *signingv1.Outcome) {
	io.print("%s  %-10s %s\n", absolute(o.GetAt().AsTime()), clean(o.GetEvent()), outcomeWords(o))
	for _, f := range o.GetFields() {
		io.print("%26s%s: %s\n", "", clean(f.GetPath()), clean(f.GetProblem()))
	}
}

func outcomeWords(o *signingv1.Outcome) string {
	who := "a signer"
	if o.GetPosition() > 0 {
		who = fmt.Sprintf("signer %d", o.GetPosition())
	}
	switch o.GetEvent() {
	case "accepted":
		return "The request was taken in; signers are written to."
	case "progress":
		return fmt.Sprintf("Signed by %s. Others are still to sign.", who)
	case "completed":
		return fmt.Sprintf("Signed by %s. Everybody has signed.", who)
	case "declined":
		return fmt.Sprintf("Declined by %s.", who)
	case "cancelled":
		return "The request was cancelled."
	case "escalated":
		return fmt.Sprintf("It takes too long: %s is waited for. See: countersign why %s", who, clean(o.GetRequestId()))
	case "rejected":
		return fmt.Sprintf("Something sent under this reference was refused: %s: %s", clean(o.GetCode()), clean(o.GetMessage()))
	default:
		return ""
	}
}
