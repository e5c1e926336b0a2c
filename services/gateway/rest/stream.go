package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/clock"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

const (
	// watchPath is the one call that goes on: it answers with a line of JSON for each message.
	watchPath = "/v1/links:watch"
	// streamLimit is how long it goes on at most.
	streamLimit = time.Hour
)

// unhurried moves the limits of the server on reading a request and writing its answer behind the end of a stream.
func unhurried(w http.ResponseWriter) error {
	c := http.NewResponseController(w)
	end := clock.System().Now("").Add(streamLimit + callLimit)
	if err := errors.Join(c.SetReadDeadline(end), c.SetWriteDeadline(end)); err != nil {
		return fmt.Errorf("rest: a connection that cannot be held open: %w", err)
	}
	return nil
}

// refusable passes calls on, and has a stream that is refused fail before it begins: then its caller gets a problem, as of any call.
type refusable struct{ grpc.ClientConnInterface }

func (c refusable) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := c.ClientConnInterface.NewStream(ctx, desc, method, opts...)
	if err != nil || desc.ClientStreams {
		return s, err
	}
	return &begun{ClientStream: s, first: &signingv1.WatchLinksResponse{}}, nil
}

// begun is a stream whose first message is there once its header is.
type begun struct {
	grpc.ClientStream
	first proto.Message // nil once it was given away
}

// Header waits for the first message, and returns the refusal that came in its place.
func (b *begun) Header() (metadata.MD, error) {
	if err := b.ClientStream.RecvMsg(b.first); err != nil {
		return nil, err
	}
	return b.ClientStream.Header()
}

// RecvMsg returns the next message.
func (b *begun) RecvMsg(m any) error {
	into, ok := m.(proto.Message)
	if b.first == nil || !ok {
		return b.ClientStream.RecvMsg(m)
	}
	proto.Merge(into, b.first)
	b.first = nil
	return nil
}
