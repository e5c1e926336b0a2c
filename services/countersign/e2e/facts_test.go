package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/failure/words"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	"countersign.dev/services/countersign/signer"
)

// calmSettings are links that outlive every test, and nobody who reminds.
const calmSettings = `
-- profiles.yaml --
profiles:
  calm:
    lifetime: 1h
    grace: 1h
    session: 1h
    idle: 1h
    reissue_limit: 20
    reissue_window: 1h
    assurance: 1
    reminders: calm
-- reminders.yaml --
plans:
  calm:
    offsets: []
    partial_offsets: []
    exhausted_after: 1h
    rotate_within: 1s
`

// quickFlags let a person ask for codes as often as they like, and mail be tried again within seconds.
var quickFlags = []string{
	"--identity-cooldown", "0s", "--identity-short-sends", "60", "--identity-long-sends", "60", "--retry-base", "1s", "--retry-cap", "2s",
}

// fact is one fact of a request as the record has it.
type fact struct {
	name    string
	at      time.Time
	message proto.Message
}

// facts returns what a service stated about a request, in order.
func (o *oracle) facts(ctx context.Context, service, id string) []fact {
	o.t.Helper()
	var out []fact
	for _, m := range o.all(ctx, eventlog.FactsStream(service), "fact."+service+".>") {
		record := &recordv1.Record{}
		if err := proto.Unmarshal(m.Data, record); err != nil {
			o.t.Fatal(err)
		}
		if record.GetRequestId() != id {
			continue
		}
		message, err := record.GetFact().UnmarshalNew()
		if err != nil {
			o.t.Fatal(err)
		}
		out = append(out, fact{string(record.GetFact().MessageName().Name()), record.GetAt().AsTime(), message})
	}
	return out
}

// stated returns how often a service stated each kind of fact about a request.
func (o *oracle) stated(ctx context.Context, service, id string) map[string]int {
	o.t.Helper()
	count := map[string]int{}
	for _, f := range o.facts(ctx, service, id) {
		count[f.name]++
	}
	return count
}

// trail returns the types of a request's events, as its platform reads them.
func (in *instance) trail(ctx context.Context, t *testing.T, id string) []string {
	t.Helper()
	var answer struct {
		Events []struct{ Type string }
	}
	if _, err := call(ctx, http.MethodGet, in.Addresses.HTTP+"/v1/requests/"+id+"/events", nil, &answer); err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, e := range answer.Events {
		types = append(types, e.Type)
	}
	return types
}

// inOrder checks that some things are among others in this order.
func inOrder(t *testing.T, got []string, want ...string) {
	t.Helper()
	rest := got
	for _, w := range want {
		i := slices.Index(rest, w)
		if i < 0 {
			t.Errorf("%s is missing, or too early, in %v", w, got)
			return
		}
		rest = rest[i+1:]
	}
}

// await waits for a mail to this person that accept takes.
func await(ctx context.Context, t *testing.T, s *signer.Signer, accept func(signer.Mail) bool) signer.Mail {
	t.Helper()
	mail, err := s.Await(ctx, accept, map[string]bool{})
	if err != nil {
		t.Fatal(err)
	}
	return mail
}

func withLink(m signer.Mail) bool { return m.Link() != "" }

// eventually waits until something holds.
func eventually(ctx context.Context, t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, ctx.Err())
		case <-tick.C:
		}
	}
}

// withPeople is request with more said about its signers, one map a signer.
func withPeople(t *testing.T, body []byte, signers ...map[string]any) []byte {
	t.Helper()
	var r map[string]any
	if err := json.Unmarshal(body, &r); err != nil {
		t.Fatal(err)
	}
	all, _ := r["signers"].([]any)
	for i, more := range signers {
		one, _ := all[i].(map[string]any)
		for k, v := range more {
			one[k] = v
		}
	}
	body, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// get opens a page and wants an answer.
func get(ctx context.Context, t *testing.T, s *signer.Signer, address string) *signer.Page {
	t.Helper()
	p, err := s.Open(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// press submits the page's form that has the fields, filled in.
func press(ctx context.Context, t *testing.T, s *signer.Signer, p *signer.Page, fill map[string]string) *signer.Page {
	t.Helper()
	var fields []string
	for name := range fill {
		fields = append(fields, name)
	}
	form, err := p.Form(fields...)
	if err != nil {
		t.Fatal(err)
	}
	next, err := s.Submit(ctx, form, fill)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// describe is a page in a line.
func describe(p *signer.Page) string {
	return fmt.Sprintf("%d %s: %.200s", p.Status, p.URL.Path, p.Text)
}

// says tells whether a page is the one of a failure, in English.
func says(p *signer.Page, f *failure.Error) bool {
	return p.Status == f.HTTP && strings.Contains(p.Text, words.For(f.Code, "en").Title)
}
