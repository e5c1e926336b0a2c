package token

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

const (
	// linesAtOnce is how many lines of one stream are in hand at most, and linesOfAll of all streams of a process: a batch is to
	// leave room for whoever signs.
	linesAtOnce = 32
	linesOfAll  = 64
	// lineLimit is how long one line may take.
	lineLimit = 30 * time.Second
)

// IssueLinks carries out IssueLink for each line and answers it. It reads a line when there is a hand free for it, and a hand is free
// when its answer has gone out: whoever does not read the answers is read no more lines from.
func (p platformLinkServer) IssueLinks(stream grpc.BidiStreamingServer[signingv1.IssueLinksRequest, signingv1.IssueLinksResponse]) error {
	if _, _, err := caller(stream.Context(), auth.LinksReissue); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(stream.Context())
	g.SetLimit(linesAtOnce)
	var sending sync.Mutex
	lines := linesOf(ctx, stream)
	for number := uint64(1); ; number++ {
		var l received
		select {
		case l = <-lines:
		case <-ctx.Done():
			// A line could not be answered, or the stream is cut: what is in hand ends first.
			if err := g.Wait(); err != nil {
				return err
			}
			return ctx.Err()
		}
		if errors.Is(l.err, io.EOF) {
			return g.Wait()
		}
		if l.err != nil {
			_ = g.Wait() // the stream has ended, and said why
			return l.err
		}
		g.Go(func() error {
			answer, err := p.line(ctx, l.line)
			if err != nil {
				return err
			}
			answer.Number = number
			sending.Lock()
			defer sending.Unlock()
			return stream.Send(answer)
		})
	}
}

// received is a line, or why there is none.
type received struct {
	line *signingv1.IssueLinkRequest
	err  error
}

// linesOf reads a stream one line ahead, so that whoever waits for a line also hears that the stream is cut.
func linesOf(ctx context.Context, stream grpc.BidiStreamingServer[signingv1.IssueLinksRequest, signingv1.IssueLinksResponse]) <-chan received {
	lines := make(chan received)
	go func() {
		for {
			req, err := stream.Recv() // ends with the stream at the latest
			select {
			case lines <- received{req.GetLine(), err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return lines
}

// line answers one line. The error is the stream's: it has ended.
func (p platformLinkServer) line(ctx context.Context, line *signingv1.IssueLinkRequest) (*signingv1.IssueLinksResponse, error) {
	select {
	case p.s.lines <- struct{}{}:
		defer func() { <-p.s.lines }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	answer := &signingv1.IssueLinksResponse{}
	if len(line.GetIdempotencyKey()) <= longestID {
		answer.IdempotencyKey = line.GetIdempotencyKey()
	}
	limited, cancel := context.WithTimeout(ctx, lineLimit)
	defer cancel()
	issued, err := p.issue(limited, line)
	switch {
	case err == nil:
		answer.Answer = &signingv1.IssueLinksResponse_Link{Link: issued}
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		answer.Answer = &signingv1.IssueLinksResponse_Refusal{Refusal: refusalOf(p.accident(limited, err))}
	}
	return answer, nil
}

// issue is the call that a line stands for, validated as the call itself is.
func (p platformLinkServer) issue(ctx context.Context, line *signingv1.IssueLinkRequest) (*signingv1.IssueLinkResponse, error) {
	v := &problems{}
	if line.GetIdempotencyKey() == "" {
		v.add("idempotency_key", "is missing: each line of a batch needs one of its own")
	}
	if line == nil {
		line = &signingv1.IssueLinkRequest{}
	}
	if err := v.contract(p.s.contract, line); err != nil {
		return nil, err
	}
	if err := v.refusal(); err != nil {
		return nil, err
	}
	return signingServer{s: p.s}.IssueLink(ctx, line)
}

// accident returns the refusal that an error is; what is none of ours is logged here, and told without its text.
func (p platformLinkServer) accident(ctx context.Context, err error) *failure.Error {
	if refusal := failure.From(err); refusal != nil {
		return refusal
	}
	code := status.Code(err)
	if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil || code == codes.Unavailable || code == codes.DeadlineExceeded {
		p.s.h.Logger.WarnContext(ctx, "a line of a batch could not reach what it needs", "error", err)
		return failure.Unavailable
	}
	p.s.h.Logger.ErrorContext(ctx, "a line of a batch failed", "error", err)
	return failure.Internal
}

// refusalOf is a refusal as a stream says it.
func refusalOf(f *failure.Error) *signingv1.Refusal {
	r := &signingv1.Refusal{Code: f.Code, Message: f.Text, Next: f.Next, Retryable: f.Retryable, Fields: problemsOf(f)}
	if f.RetryAfter > 0 {
		r.RetryAfter = durationpb.New(f.RetryAfter)
	}
	return r
}
