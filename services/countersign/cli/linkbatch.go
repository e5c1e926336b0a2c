package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	stdio "io"
	"maps"
	"net/url"
	"os"
	"slices"
	"sync"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/rpc"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

const (
	// unansweredMost is how many lines are kept to be sent again, should the connection be lost.
	unansweredMost = 256
	// longestLine is how long a line may be, in bytes.
	longestLine = 64 << 10
)

// batch is a file on its way.
type batch struct {
	c    *IssueCmd
	io   *IO
	base *url.URL

	input   chan *line // closed at the end of the file
	readErr error      // why the file ended; set before input is closed
	room    chan struct{}

	mu              sync.Mutex
	unanswered      map[uint64]*line // by their number in the stream that is open
	sent            bool             // whether the file is at its end
	issued, refused int
	shown           *progress // nil where the links themselves show how far it is
}

// line is one line of the file.
type line struct {
	place   uint64 // in the file; 1 is the first
	request *signingv1.IssueLinkRequest
	problem error // why it cannot be sent
}

// batch issues a link for each line of the file.
func (c *IssueCmd) batch(ctx context.Context, io *IO, base *url.URL) error {
	in, expects, err := c.open(io)
	if err != nil {
		return err
	}
	defer in.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b := &batch{c: c, io: io, base: base, input: make(chan *line), room: make(chan struct{}, unansweredMost), unanswered: map[uint64]*line{}}
	if !terminal(io.Out) {
		b.shown = newProgress(io.Err, "lines")
		b.shown.Begin("issue", expects)
		defer b.shown.end()
	}
	go b.read(ctx, in)
	err = c.withLinks(ctx, b.carry)
	if b.shown != nil {
		b.shown.end()
	}
	io.note("%s links issued, %s lines refused.\n", number(int64(b.issued)), number(int64(b.refused)))
	switch {
	case err != nil:
		return err
	case b.readErr != nil:
		return &problem{text: fmt.Sprintf("cannot read %s to its end: %v", c.File, b.readErr), next: "a line has at most 64 KiB", exit: ExitRefused}
	case b.refused > 0:
		return &problem{
			text: fmt.Sprintf("%d of %d lines were refused", b.refused, b.issued+b.refused), exit: ExitRefused,
			next: "mend them and send the same file again: what was done gets the same links",
		}
	}
	return nil
}

// open opens the file, and says how many lines it has; 0 is not known.
func (c *IssueCmd) open(io *IO) (stdio.ReadCloser, uint64, error) {
	if c.File == "-" {
		return stdio.NopCloser(io.In), 0, nil
	}
	f, err := os.Open(c.File)
	if err != nil {
		return nil, 0, usage("name a file with a line of JSON for each link", "cannot read the lines: %v", err)
	}
	lines := uint64(0)
	counting := bufio.NewScanner(f)
	counting.Buffer(nil, longestLine)
	for counting.Scan() {
		lines++
	}
	if _, err := f.Seek(0, stdio.SeekStart); err != nil {
		lines = 0 // a pipe
	}
	return f, lines, nil
}

// read gives out the lines of the file. An empty line is none.
func (b *batch) read(ctx context.Context, in stdio.Reader) {
	defer close(b.input)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, longestLine)
	for place := uint64(1); lines.Scan(); place++ {
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		l := &line{place: place, request: &signingv1.IssueLinkRequest{}}
		l.problem = rpc.DecodeJSON(text, l.request)
		select {
		case b.input <- l:
		case <-ctx.Done():
			return
		}
	}
	b.readErr = lines.Err()
}

// carry sends all lines, over as many connections as it takes.
func (b *batch) carry(ctx context.Context, client signingv1.LinkServiceClient) error {
	done := 0
	return b.c.persist(ctx, b.io, func() (progress bool, err error) {
		err = b.stream(ctx, client)
		answered := b.issued + b.refused
		progress, done = answered > done, answered
		return progress, err
	})
}

// stream sends lines and takes answers over one connection: first those again that were not answered. It returns nil when every line
// of the file is answered.
func (b *batch) stream(ctx context.Context, client signingv1.LinkServiceClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.IssueLinks(ctx)
	if err != nil {
		return err
	}
	var sender sync.WaitGroup
	defer sender.Wait()
	defer cancel()
	sender.Go(func() { b.send(ctx, stream) })
	for {
		answer, err := stream.Recv()
		if errors.Is(err, stdio.EOF) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if len(b.unanswered) > 0 || !b.sent {
				return errUnfinished
			}
			return nil
		}
		if err != nil {
			return err
		}
		b.mu.Lock()
		l := b.unanswered[answer.GetNumber()]
		delete(b.unanswered, answer.GetNumber())
		if l != nil {
			<-b.room
			err = b.tell(l, answer)
		}
		b.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// send sends until the file or the stream ends. What fails shows where answers are read.
func (b *batch) send(ctx context.Context, stream signingv1.LinkService_IssueLinksClient) {
	b.mu.Lock()
	again := make([]*line, 0, len(b.unanswered))
	for _, number := range slices.Sorted(maps.Keys(b.unanswered)) {
		again = append(again, b.unanswered[number])
	}
	clear(b.unanswered)
	for i, l := range again {
		b.unanswered[uint64(i)+1] = l // their room is theirs already
	}
	b.mu.Unlock()
	number := uint64(0)
	for _, l := range again {
		number++
		if stream.Send(&signingv1.IssueLinksRequest{Line: l.request}) != nil {
			return
		}
	}
	for {
		select {
		case b.room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		l, more := b.next(ctx)
		if l == nil {
			<-b.room
			if !more {
				b.mu.Lock()
				b.sent = true
				b.mu.Unlock()
				_ = stream.CloseSend() // what fails shows where answers are read
			}
			return
		}
		number++
		b.mu.Lock()
		b.unanswered[number] = l
		b.mu.Unlock()
		if stream.Send(&signingv1.IssueLinksRequest{Line: l.request}) != nil {
			return
		}
	}
}

// next returns the next line that can be sent; nil and false at the end of the file, nil and true when ctx has ended.
func (b *batch) next(ctx context.Context) (l *line, more bool) {
	for {
		select {
		case l, more = <-b.input:
			if !more {
				return nil, false
			}
		case <-ctx.Done():
			return nil, true
		}
		if l.problem == nil {
			return l, true
		}
		refused := &signingv1.Refusal{Code: failure.RequestUnreadable.Code, Message: failure.RequestUnreadable.Text, Next: failure.RequestUnreadable.Next}
		if f := failure.From(l.problem); f != nil {
			for _, field := range f.Fields {
				refused.Fields = append(refused.Fields, &signingv1.FieldProblem{Path: field.Path, Problem: field.Problem})
			}
		}
		b.mu.Lock()
		_ = b.tell(l, &signingv1.IssueLinksResponse{Answer: &signingv1.IssueLinksResponse_Refusal{Refusal: refused}})
		b.mu.Unlock()
	}
}

// tell prints an answer, with the number of the line in the file.
func (b *batch) tell(l *line, answer *signingv1.IssueLinksResponse) error {
	io := b.io
	answer.Number = l.place
	refusal := answer.GetRefusal()
	if refusal == nil {
		b.issued++
	} else {
		b.refused++
	}
	if b.shown != nil {
		b.shown.Read(1)
	}
	switch {
	case b.c.JSON:
		return io.line(answer)
	case refusal == nil:
		io.print("%s\t%s\n", clean(answer.GetIdempotencyKey()), b.base.JoinPath(answer.GetLink().GetPath()))
	default:
		io.note("line %d: %s: %s\n", l.place, refusal.GetCode(), clean(refusal.GetMessage()))
		for _, f := range refusal.GetFields() {
			io.note("  %s: %s\n", clean(f.GetPath()), clean(f.GetProblem()))
		}
	}
	return nil
}
