package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	"countersign.dev/services/countersign/cli"
)

// way is one way for a request to come in; it returns how it was refused. carries tells whether it can carry a body at all.
type way struct {
	ask     func(ctx context.Context, body string) (refusal, error)
	carries func(body string) bool
}

func anything(string) bool { return true }

// message tells whether a body is a message of the contract: only then is there something to put on a wire that is no text.
func message(body string) bool {
	return protojson.Unmarshal([]byte(body), &signingv1.SigningRequest{}) == nil
}

// errTaken means that a bad request was taken.
var errTaken = errors.New("it was not refused")

// ways are all of them, into one instance.
func ways(t *testing.T, in *instance) map[string]way {
	t.Helper()
	nc, err := nats.Connect(in.Addresses.NATS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	conn, err := grpc.NewClient(in.Addresses.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(8<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	signing := signingv1.NewSigningRequestServiceClient(conn)
	return map[string]way{
		"NATS, JSON": {func(ctx context.Context, body string) (refusal, error) {
			return published(ctx, nc, []byte(body), "application/json")
		}, anything},
		"NATS, protobuf": {func(ctx context.Context, body string) (refusal, error) {
			encoded, err := proto.Marshal(parsed(t, body))
			if err != nil {
				return refusal{}, err
			}
			return published(ctx, nc, encoded, "application/protobuf")
		}, message},
		"gRPC": {func(ctx context.Context, body string) (refusal, error) {
			_, err := signing.Create(ctx, &signingv1.CreateRequest{Request: parsed(t, body)})
			return called(err)
		}, message},
		"REST": {func(ctx context.Context, body string) (refusal, error) { return posted(ctx, in.Addresses.HTTP, body) }, anything},
		"the command line": {func(ctx context.Context, body string) (refusal, error) {
			return typed(ctx, in.Addresses.GRPC, body)
		}, anything},
	}
}

func parsed(t *testing.T, body string) *signingv1.SigningRequest {
	t.Helper()
	r := &signingv1.SigningRequest{}
	if err := protojson.Unmarshal([]byte(body), r); err != nil {
		t.Fatal(err)
	}
	return r
}

// published asks on the intake subject, with a subject to answer on.
func published(ctx context.Context, nc *nats.Conn, body []byte, kind string) (refusal, error) {
	return asked(ctx, nc, body, kind, "")
}

// asked publishes something on the intake subject; event is the CloudEvent's type.
func asked(ctx context.Context, nc *nats.Conn, body []byte, kind, event string) (refusal, error) {
	answers, err := nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		return refusal{}, err
	}
	defer func() { _ = answers.Unsubscribe() }()
	m := nats.NewMsg("intake.demo")
	m.Data = body
	m.Header.Set("content-type", kind)
	if event != "" {
		m.Header.Set("ce-type", event)
	}
	m.Header.Set("countersign-reply", answers.Subject)
	if err := nc.PublishMsg(m); err != nil {
		return refusal{}, err
	}
	answer, err := answers.NextMsgWithContext(ctx)
	if err != nil {
		return refusal{}, err
	}
	told := &signingv1.Outcome{}
	if err := protojson.Unmarshal(answer.Data, told); err != nil || told.GetEvent() != "rejected" {
		return refusal{}, fmt.Errorf("%w: %s", errTaken, answer.Data)
	}
	r := refusal{told.GetCode(), map[string]string{}}
	for _, f := range told.GetFields() {
		r.fields[f.GetPath()] = f.GetProblem()
	}
	return r, nil
}

// called takes a gRPC error apart.
func called(err error) (refusal, error) {
	f := failure.From(err)
	switch {
	case err == nil:
		return refusal{}, errTaken
	case f == nil:
		return refusal{}, err
	}
	r := refusal{f.Code, map[string]string{}}
	for _, field := range f.Fields {
		r.fields[field.Path] = field.Problem
	}
	return r, nil
}

func posted(ctx context.Context, address, body string) (refusal, error) {
	return over(ctx, http.MethodPost, address+"/v1/requests", body)
}

// over makes a call of REST and takes its problem apart.
func over(ctx context.Context, method, address, body string) (refusal, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return refusal{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return refusal{}, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return refusal{}, err
	}
	var problem struct {
		Code   string
		Fields []struct{ Path, Problem string }
	}
	if err := json.Unmarshal(answer, &problem); err != nil || res.StatusCode < 400 {
		return refusal{}, fmt.Errorf("%w: %d %s", errTaken, res.StatusCode, answer)
	}
	r := refusal{problem.Code, map[string]string{}}
	for _, f := range problem.Fields {
		r.fields[f.Path] = f.Problem
	}
	return r, nil
}

// fieldLine is a wrong field as the command line shows it.
var fieldLine = regexp.MustCompile(`^  (\S+): (.+)$`)

// typed runs the command that a person would.
func typed(ctx context.Context, server, body string) (refusal, error) {
	return said(ctx, body, "send", "--file", "-", "--server", server)
}

// said runs a command of platforms and takes apart what it says.
func said(ctx context.Context, input string, args ...string) (refusal, error) {
	var commands cli.Commands
	parser, err := kong.New(&commands, kong.Name("countersign"))
	if err != nil {
		return refusal{}, err
	}
	command, err := parser.Parse(args)
	if err != nil {
		return refusal{}, err
	}
	command.BindTo(ctx, (*context.Context)(nil))
	var out bytes.Buffer
	err = command.Run(&cli.IO{In: strings.NewReader(input), Out: &out, Err: &out, Now: time.Now})
	if err == nil {
		return refusal{}, errTaken
	}
	lines := strings.Split(err.Error(), "\n")
	code, _, _ := strings.Cut(lines[0], ":")
	r := refusal{code, map[string]string{}}
	for _, line := range lines[1:] {
		if m := fieldLine.FindStringSubmatch(line); m != nil {
			r.fields[m[1]] = m[2]
		}
	}
	return r, nil
}

// TestRefusals asks with every bad request of the corpus in every way that can carry it: the same code, the same fields and the same
// words everywhere, and nothing is changed.
func TestRefusals(t *testing.T) {
	t.Parallel()
	corpus := refusals(t)
	if len(corpus) < 150 {
		t.Fatalf("the corpus has %d requests", len(corpus))
	}
	in := newInstance(t, "")
	in.start("")
	all := ways(t, in)
	ctx := within(t, 4*time.Minute)
	asked := 0
	for _, b := range corpus {
		words := map[string]string{}
		for name, w := range all {
			if !w.carries(b.body) {
				continue
			}
			asked++
			got, err := w.ask(ctx, b.body)
			for ; err == nil && got.code == failure.RateLimited.Code; got, err = w.ask(ctx, b.body) {
				pause(ctx, 300*time.Millisecond)
			}
			if err != nil {
				t.Errorf("%s, by %s: %v", b.name, name, err)
				continue
			}
			if got.code != b.code || !slices.Equal(got.paths(), b.fields) {
				t.Errorf("%s, by %s: %s %q, want %s %q", b.name, name, got.code, got.paths(), b.code, b.fields)
			}
			for path, problem := range got.fields {
				if known, ok := words[path]; ok && known != problem {
					t.Errorf("%s: %s is told as %q and as %q", b.name, path, known, problem)
				}
				words[path] = problem
			}
		}
	}
	t.Logf("%d requests, %d refusals", len(corpus), asked)
	if _, err := posted(ctx, in.Addresses.HTTP, text(t, good(t))); !errors.Is(err, errTaken) {
		t.Errorf("the good request is refused: %v", err)
	}
	list := struct{ Requests []json.RawMessage }{}
	readJSON(ctx, t, in.Addresses.HTTP+"/v1/requests", &list)
	if len(list.Requests) != 1 {
		t.Errorf("%d requests are there", len(list.Requests))
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// readJSON reads what an address has.
func readJSON(ctx context.Context, t *testing.T, url string, into any) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
}
