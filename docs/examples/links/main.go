// Command links shows how a platform works with its signers' links over gRPC. It needs the contract's module alone.
//
// It lists the links that are open, has one more issued of each in one stream, to be handed over in a letter, and then follows what
// happens to them. Run again it issues the same links: each line's key is made of what it is for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

func main() {
	server := flag.String("server", "127.0.0.1:9090", "Countersign's gRPC; use TLS beyond this machine")
	events := flag.Int("events", 0, "end after so many events; 0 is never")
	flag.Parse()
	if err := run(*server, *events, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(server string, events int, out io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if key := os.Getenv("COUNTERSIGN_API_KEY"); key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
	}
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := signingv1.NewLinkServiceClient(conn)
	open, cursor, err := list(ctx, client)
	if err != nil {
		return err
	}
	if err := issue(ctx, client, open, out); err != nil {
		return err
	}
	return follow(ctx, client, cursor, events, out)
}

// list reads all pages. The cursor of the first one is where to watch from: nothing that happens meanwhile is missed.
func list(ctx context.Context, client signingv1.LinkServiceClient) (links []*signingv1.Link, cursor string, err error) {
	req := &signingv1.ListLinksRequest{State: signingv1.LinkState_LINK_STATE_OPEN, PageSize: 500}
	for {
		page, err := client.ListLinks(ctx, req)
		if err != nil {
			return nil, "", err
		}
		links = append(links, page.GetLinks()...)
		if cursor == "" {
			cursor = page.GetWatchCursor()
		}
		if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
			return links, cursor, nil
		}
	}
}

// issue sends a line for each link and reads the answers while it sends: whoever reads none is read no more lines from.
func issue(ctx context.Context, client signingv1.LinkServiceClient, links []*signingv1.Link, out io.Writer) error {
	stream, err := client.IssueLinks(ctx)
	if err != nil {
		return err
	}
	go func() {
		for _, l := range links {
			// The key makes the line repeatable: the same one always gives the same link.
			key := fmt.Sprintf("letter/%s/%d", l.GetId(), l.GetGeneration())
			line := &signingv1.IssueLinkRequest{Id: l.GetRequestId(), Signer: l.GetId(), IdempotencyKey: key}
			if stream.Send(&signingv1.IssueLinksRequest{Line: line}) != nil {
				return // Recv says why
			}
		}
		_ = stream.CloseSend()
	}()
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err // send all lines again: those that were done get their first answers
		}
		if refusal := answer.GetRefusal(); refusal != nil {
			fmt.Fprintf(out, "%s: %s %s\n", answer.GetIdempotencyKey(), refusal.GetCode(), refusal.GetMessage())
			continue
		}
		// Whoever has the path can open the link: print it into the letter, and into nothing else.
		fmt.Fprintf(out, "%s: %s\n", answer.GetIdempotencyKey(), answer.GetLink().GetPath())
	}
}

// follow tells what happens behind a cursor, over as many connections as it takes.
func follow(ctx context.Context, client signingv1.LinkServiceClient, cursor string, events int, out io.Writer) error {
	for told := 0; ; {
		stream, err := client.WatchLinks(ctx, &signingv1.WatchLinksRequest{After: cursor})
		for err == nil {
			var m *signingv1.WatchLinksResponse
			if m, err = stream.Recv(); err != nil {
				break
			}
			if e := m.GetEvent(); e != nil {
				kind := strings.ToLower(strings.TrimPrefix(e.GetType().String(), "LINK_EVENT_TYPE_"))
				fmt.Fprintf(out, "%s %s generation %d\n", kind, e.GetLink().GetId(), e.GetLink().GetGeneration())
				told++
			}
			cursor = m.GetCursor() // keep it where the work it stands for is kept
			if events > 0 && told >= events {
				return nil
			}
		}
		switch code := status.Code(err); {
		case ctx.Err() != nil:
			return nil
		case code != codes.Unavailable && code != codes.DeadlineExceeded && !errors.Is(err, io.EOF):
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
	}
}
