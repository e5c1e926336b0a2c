package token_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	"countersign.dev/services/token"
)

// send sends lines and returns their answers by number, each of which must come once; it leaves after so many, 0 is never.
func (w *world) send(client signingv1.LinkServiceClient, lines []*signingv1.IssueLinkRequest, leaveAfter int) map[uint64]*signingv1.IssueLinksResponse {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Minute)
	defer cancel()
	stream, err := client.IssueLinks(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		for _, l := range lines {
			if err := stream.Send(&signingv1.IssueLinksRequest{Line: l}); err != nil {
				sent <- err
				return
			}
		}
		sent <- stream.CloseSend()
	}()
	answers := map[uint64]*signingv1.IssueLinksResponse{}
	for {
		a, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			w.t.Fatal(err)
		}
		n := a.GetNumber()
		if answers[n] != nil || n == 0 || n > uint64(len(lines)) {
			w.t.Fatalf("line %d is answered again, or was never sent", n)
		}
		if key := lines[n-1].GetIdempotencyKey(); a.GetIdempotencyKey() != key {
			w.t.Fatalf("line %d is answered as %q, its key is %q", n, a.GetIdempotencyKey(), key)
		}
		if answers[n] = a; len(answers) == leaveAfter {
			cancel()
			<-sent
			return answers
		}
	}
	if err := <-sent; err != nil {
		w.t.Fatal(err)
	}
	if len(answers) != len(lines) {
		w.t.Fatalf("%d of %d lines are answered", len(answers), len(lines))
	}
	return answers
}

// batchLines are so many lines for the signers of requests, no two that follow each other for the same link; and by number which of
// them are bad, and why.
func batchLines(n int, requests []*signingv1.RequestView) (lines []*signingv1.IssueLinkRequest, bad map[uint64]*failure.Error) {
	bad = map[uint64]*failure.Error{}
	for i := range n {
		r := requests[i%len(requests)]
		signer := r.GetSigners()[i/len(requests)%len(r.GetSigners())]
		lines = append(lines, &signingv1.IssueLinkRequest{Id: r.GetId(), Signer: signer.GetId(), IdempotencyKey: fmt.Sprintf("row-%d", i)})
	}
	for i, spoil := range []func(*signingv1.IssueLinkRequest) *failure.Error{
		func(l *signingv1.IssueLinkRequest) *failure.Error {
			l.Id = "req_unknown"
			return failure.RequestUnknown
		},
		func(l *signingv1.IssueLinkRequest) *failure.Error { l.Signer = "99"; return failure.SignerUnknown },
		func(l *signingv1.IssueLinkRequest) *failure.Error { l.Id = "4711"; return failure.RequestInvalid },
		func(l *signingv1.IssueLinkRequest) *failure.Error {
			l.IdempotencyKey = ""
			return failure.RequestInvalid
		},
		func(l *signingv1.IssueLinkRequest) *failure.Error { l.Signer = ""; return failure.RequestInvalid },
	} {
		place := n / 7 * (i + 1)
		bad[uint64(place)+1] = spoil(lines[place])
	}
	return lines, bad
}

// TestBatch sends thousands of lines, loses the stream, and sends them again: each is answered once a stream, always alike, and carried
// out once, whatever the others are.
func TestBatch(t *testing.T) {
	w := start(t)
	n := 700
	if os.Getenv("COUNTERSIGN_SOAK") != "" {
		n = 10_000
	}
	var all []*signingv1.SigningRequest
	for i := range 1 + n/(50*30) {
		all = append(all, many(fmt.Sprint(i), 50))
	}
	lines, bad := batchLines(n, w.createAll(all...))
	client, _ := w.public(time.Second)
	some := w.send(client, lines, n/5)
	first := w.send(client, lines, 0)
	for number, a := range some {
		if diff := cmp.Diff(a, first[number], protocmp.Transform()); diff != "" {
			t.Errorf("line %d is answered otherwise (-first +again)\n%s", number, diff)
		}
	}
	paths := map[string]bool{}
	for number, a := range first {
		switch want := bad[number]; {
		case want == nil:
			if a.GetLink().GetPath() == "" || a.GetLink().GetExpiresAt() == nil {
				t.Errorf("line %d: %v", number, a)
			}
			paths[a.GetLink().GetPath()] = true
		case a.GetRefusal().GetCode() != want.Code || a.GetRefusal().GetNext() != want.Next:
			t.Errorf("line %d: %v, want %s", number, a, want.Code)
		}
	}
	if good := n - len(bad); len(paths) != good || w.minted() != good {
		t.Errorf("%d links and %d tokens were made of %d good lines", len(paths), w.minted(), good)
	}
	for number := range bad {
		line := lines[number-1]
		if line.GetIdempotencyKey() == "" {
			continue // a call alone needs none
		}
		_, err := w.signing.IssueLink(as(t, tenant), line)
		alone := failure.From(err)
		if alone == nil || alone.Code != first[number].GetRefusal().GetCode() || len(alone.Fields) != len(first[number].GetRefusal().GetFields()) {
			t.Fatalf("line %d alone: %v; in the batch %v", number, err, first[number])
		}
		for i, f := range alone.Fields {
			if b := first[number].GetRefusal().GetFields()[i]; b.GetPath() != f.Path || b.GetProblem() != f.Problem {
				t.Errorf("line %d alone: %v; in the batch %v", number, f, b)
			}
		}
	}
	alone, err := w.signing.IssueLink(as(t, tenant), lines[0])
	if diff := cmp.Diff(first[1].GetLink(), alone, protocmp.Transform()); diff != "" || err != nil {
		t.Errorf("the call alone gives another link: %v\n%s", err, diff)
	}
}

// minted counts the tokens that were made.
func (w *world) minted() (n int) {
	for _, f := range w.Facts(token.Name, "fact.token."+tenant+".*") {
		if f.Name() == "LinkMinted" {
			n++
		}
	}
	return n
}

// TestABatchGoesAsFastAsItsReader: lines whose answers nobody takes are not read.
func TestABatchGoesAsFastAsItsReader(t *testing.T) {
	w := start(t)
	lines, _ := batchLines(1200, w.createAll(many("a", 50)))
	for _, l := range lines {
		l.Signer = "99" // refused quickly
	}
	client, _ := w.public(time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := client.IssueLinks(ctx)
	if err != nil {
		t.Fatal(err)
	}
	long := make([]byte, 120)
	sent := make(chan int, 100_000)
	go func() {
		defer close(sent)
		for i := 0; ; i++ {
			l := lines[i%len(lines)]
			l.IdempotencyKey = fmt.Sprintf("%s%08d", fmt.Sprintf("%x", long)[:100], i)
			if stream.Send(&signingv1.IssueLinksRequest{Line: l}) != nil {
				return
			}
			sent <- i
		}
	}()
	last, same := 0, 0
	eventlogtest.Eventually(t, "nothing more is taken", func() bool {
		now := len(sent)
		if same++; now != last || now == 0 {
			last, same = now, 0
		}
		return same > 100
	})
	if last > 5000 {
		t.Errorf("%d lines were taken while nobody read an answer", last)
	}
	t.Logf("%d lines were taken", last)
	for number := range uint64(last) { // as many as it stood at come, and more lines are taken
		if _, err := stream.Recv(); err != nil {
			t.Fatalf("answer %d: %v", number, err)
		}
	}
	eventlogtest.Eventually(t, "more lines are taken", func() bool { return len(sent) > last })
}

func TestBatchRefused(t *testing.T) {
	w := start(t)
	stream, err := w.platform.IssueLinks(readerOf(t))
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	refused(t, err, failure.PermissionDenied)
	// A line without content is a line.
	client, _ := w.public(time.Second)
	answers := w.send(client, []*signingv1.IssueLinkRequest{nil, {}}, 0)
	for number, a := range answers {
		var paths []string
		for _, f := range a.GetRefusal().GetFields() {
			paths = append(paths, f.GetPath())
		}
		if diff := cmp.Diff([]string{"idempotency_key", "id", "signer"}, paths); diff != "" {
			t.Errorf("line %d: %v", number, a)
		}
	}
}
