package cli

import (
	"context"
	"errors"
	stdio "io"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// LinkWatchCmd follows links.
type LinkWatchCmd struct {
	Client     `embed:""`
	LinkFilter `embed:""`

	After     string `help:"Go on behind this cursor, which --json prints with each line." placeholder:"CURSOR"`
	FromStart bool   `help:"Begin with the first thing on record." name:"from-start"`
	Patience  `embed:""`
}

// Help teaches by examples.
func (c *LinkWatchCmd) Help() string {
	return `It begins with what happens from now on, and goes on until it is interrupted. A lost connection is taken up where it broke off.
With --json every line has a cursor, and a line with nothing else comes now and then: keep the last one and give it to --after, and nothing
is missed meanwhile.

Examples:
  countersign links watch
  countersign links watch --state expired --json | jq -r 'select(.event).event.link.id'
  countersign links watch --json --after "$(cat cursor)"`
}

// Run follows.
func (c *LinkWatchCmd) Run(ctx context.Context, io *IO) error {
	return c.withLinks(ctx, func(ctx context.Context, client signingv1.LinkServiceClient) error {
		req := &signingv1.WatchLinksRequest{
			After: c.After, FromStart: c.FromStart, RequestId: c.Request, State: c.state(), Profile: c.Profile, Holder: c.Holder,
		}
		err := c.persist(ctx, io, func() (progress bool, err error) {
			cursor, err := c.receive(ctx, io, client, req)
			if cursor != "" {
				req.After, req.FromStart = cursor, false
			}
			return cursor != "", err
		})
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
}

// receive prints events until the stream ends, and returns the last cursor.
func (c *LinkWatchCmd) receive(ctx context.Context, io *IO, client signingv1.LinkServiceClient, req *signingv1.WatchLinksRequest) (cursor string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.WatchLinks(ctx, req)
	if err != nil {
		return "", err
	}
	for {
		got, err := stream.Recv()
		if errors.Is(err, stdio.EOF) {
			return cursor, errUnfinished
		}
		if err != nil {
			return cursor, err
		}
		if c.JSON {
			err = io.line(got)
		} else if e := got.GetEvent(); e != nil {
			l := e.GetLink()
			io.print("%s  %-15s %s  %s, generation %d, %s signer %d\n", absolute(e.GetAt().AsTime()), words(e.GetType().String(), "LINK_EVENT_TYPE_"),
				l.GetId(), linkState(l), l.GetGeneration(), l.GetRequestId(), l.GetPosition())
		}
		if err != nil {
			return cursor, err
		}
		cursor = got.GetCursor()
	}
}
