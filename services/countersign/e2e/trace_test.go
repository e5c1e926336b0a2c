package e2e

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"countersign.dev/pkg/telemetry/telemetrytest"
)

// publish publishes to the intake of the tenant demo as a platform does, and returns the id of the request that was accepted.
func publish(ctx context.Context, t *testing.T, address string, header nats.Header, body []byte) string {
	t.Helper()
	nc, err := nats.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	told, err := nc.SubscribeSync("outcome.demo.*")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishMsg(&nats.Msg{Subject: "intake.demo", Header: header, Data: body}); err != nil {
		t.Fatal(err)
	}
	m, err := told.NextMsgWithContext(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var outcome struct {
		Event string
		ID    string `json:"request_id"`
	}
	if err := json.Unmarshal(m.Data, &outcome); err != nil || outcome.Event != "accepted" {
		t.Fatalf("the platform was told %s, %v", m.Data, err)
	}
	return outcome.ID
}

// TestOneStory signs what a platform published under a trace of its own: all that happens is one story with that trace, across
// services, streams, gRPC and Redis, up to the signed document.
func TestOneStory(t *testing.T) {
	sink := telemetrytest.NewSink(t)
	in := newInstance(t, calmSettings, append(quickFlags, "--otlp", sink.Endpoint())...)
	in.start("")
	ctx := within(t, 2*time.Minute)
	const email = "traced@example.com"
	publisher, span := traceID(16), traceID(8)
	id := publish(ctx, t, in.Addresses.NATS, nats.Header{"traceparent": {"00-" + publisher + "-" + span + "-01"}}, request("traced", "calm", email))
	o, p := in.oracle(t), in.person(email)
	// Nobody asks how the request is doing: that would be a story of its own.
	if err := persist(ctx, in, func() error {
		if slices.Contains(o.outcomes(ctx, id), "completed") {
			return nil
		}
		return errors.Join(errors.New("not completed"), p.step(ctx))
	}); err != nil {
		t.Fatal(err)
	}
	o.quiet(ctx)
	o.completedOnce(ctx, id, email, 1)
	in.stop() // sends the last spans

	sink.AssertOneStory(t, id, "countersign")
	story := storyOf(sink.Spans(), publisher)
	if !slices.ContainsFunc(story, func(s telemetrytest.Span) bool { return s.TraceID == publisher && s.ParentID == span }) {
		t.Error("nothing is a child of the publisher's span")
	}
	for what, is := range map[string]func(telemetrytest.Span) bool{
		"Redis": func(s telemetrytest.Span) bool { return s.Attr("db.system") == "redis" },
		"gRPC": func(s telemetrytest.Span) bool {
			return s.Attr("rpc.system") == "grpc" || s.Attr("rpc.system.name") == "grpc"
		},
		"a signature":       func(s telemetrytest.Span) bool { return strings.HasSuffix(s.Name, "CeremonySigned") },
		"the completion":    func(s telemetrytest.Span) bool { return strings.HasSuffix(s.Name, "RequestCompleted") },
		"what is told":      func(s telemetrytest.Span) bool { return s.Name == "publish OUTCOMES" },
		"the intake":        func(s telemetrytest.Span) bool { return s.Name == "consume INTAKE" },
		"token":             ofService("token"),
		"delivery":          ofService("delivery"),
		"identity":          ofService("identity"),
		"ceremony":          ofService("ceremony"),
		"reminder":          ofService("reminder"),
		"audit":             ofService("audit"),
		"the signer's HTTP": func(s telemetrytest.Span) bool { return strings.HasPrefix(s.Name, "POST ") },
	} {
		if !slices.ContainsFunc(story, is) {
			t.Errorf("%s is not in the story", what)
		}
	}
	if t.Failed() {
		names := map[string]int{}
		for _, s := range story {
			names[s.Scope+" "+s.Name]++
		}
		t.Logf("the story is %v", names)
	}
}

func ofService(name string) func(telemetrytest.Span) bool {
	return func(s telemetrytest.Span) bool { return s.Scope == "countersign.dev/services/"+name }
}

func traceID(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// storyOf returns the spans of all traces that are linked to one, by any number of links, whichever way they point.
func storyOf(spans []telemetrytest.Span, trace string) []telemetrytest.Span {
	in := map[string]bool{trace: true}
	for grew := true; grew; {
		grew = false
		for _, s := range spans {
			for _, to := range s.LinksTo {
				if in[s.TraceID] != in[to] {
					in[s.TraceID], in[to], grew = true, true, true
				}
			}
		}
	}
	return slices.DeleteFunc(spans, func(s telemetrytest.Span) bool { return !in[s.TraceID] })
}
