package token_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// TestCallRepeated: whatever happened since, a repeated call is answered as it was at first, and changes nothing more.
func TestCallRepeated(t *testing.T) {
	w := start(t)
	create := &signingv1.CreateRequest{Request: lease(reference), IdempotencyKey: "one"}
	created, err := w.signing.Create(as(t, tenant), create)
	if err != nil {
		t.Fatal(err)
	}
	id, link := created.GetRequest().GetId(), created.GetRequest().GetSigners()[0].GetId()
	w.issued(link)
	issue := &signingv1.IssueLinkRequest{Id: id, Signer: "1", IdempotencyKey: "one"}
	issued, err := w.signing.IssueLink(as(t, tenant), issue)
	if err != nil {
		t.Fatal(err)
	}
	reissue := &signingv1.ReissueLinkRequest{Id: id, Signer: "1", IdempotencyKey: "one"}
	reissued, err := w.signing.ReissueLink(as(t, tenant), reissue)
	if err != nil {
		t.Fatal(err)
	}
	revoke := &signingv1.RevokeLinkRequest{Id: id, Signer: "1", IdempotencyKey: "one"}
	revoked, err := w.signing.RevokeLink(as(t, tenant), revoke)
	if err != nil {
		t.Fatal(err)
	}
	for range 40 { // more than an aggregate remembers
		w.reissue(id)
	}
	cancel := &signingv1.CancelRequest{Id: id, Reason: "sold", IdempotencyKey: "one"}
	cancelled, err := w.signing.Cancel(as(t, tenant), cancel)
	if err != nil {
		t.Fatal(err)
	}
	w.settled()
	w.clock.Advance(tenant, 400*24*time.Hour)
	w.flush()
	before := len(w.Facts("token", "fact.token.>"))
	for what, again := range map[string]func() (any, any, error){
		"Create":    func() (any, any, error) { a, err := w.signing.Create(as(t, tenant), create); return created, a, err },
		"IssueLink": func() (any, any, error) { a, err := w.signing.IssueLink(as(t, tenant), issue); return issued, a, err },
		"ReissueLink": func() (any, any, error) {
			a, err := w.signing.ReissueLink(as(t, tenant), reissue)
			return reissued, a, err
		},
		"RevokeLink": func() (any, any, error) {
			a, err := w.signing.RevokeLink(as(t, tenant), revoke)
			return revoked, a, err
		},
		"Cancel": func() (any, any, error) { a, err := w.signing.Cancel(as(t, tenant), cancel); return cancelled, a, err },
	} {
		first, answer, err := again()
		if diff := cmp.Diff(first, answer, protocmp.Transform()); err != nil || diff != "" {
			t.Errorf("%s again: %v (-first +again)\n%s", what, err, diff)
		}
	}
	if n := len(w.Facts("token", "fact.token.>")); n != before {
		t.Errorf("%d facts more", n-before)
	}
	if code := w.resolve(strings.TrimPrefix(issued.GetPath(), "/s/"), ""); code != failure.LinkCancelled.Code {
		t.Errorf("the link that was issued shows %q", code)
	}
	w.private(strings.TrimPrefix(issued.GetPath(), "/s/"))
}

// TestCallConflict: a key stands for one content; what differs is named, and nothing happens. A refused call gives its key back.
func TestCallConflict(t *testing.T) {
	w := start(t)
	create := func(key string, change func(*signingv1.SigningRequest)) error {
		r := lease(reference)
		change(r)
		_, err := w.signing.Create(as(t, tenant), &signingv1.CreateRequest{Request: r, IdempotencyKey: key})
		return err
	}
	refused(t, create("one", func(r *signingv1.SigningRequest) { r.Profile = "none such" }), failure.RequestInvalid)
	if err := create("one", func(*signingv1.SigningRequest) {}); err != nil {
		t.Fatalf("the corrected call: %v", err)
	}
	f := refused(t, create("one", func(r *signingv1.SigningRequest) { r.Reference, r.Title = "another", "Another" }), failure.IdempotencyConflict)
	if named(f) != "reference title" {
		t.Errorf("names %v", f.Fields)
	}
	id := w.create(lease(reference)).GetId()
	// Another tenant's keys are its own.
	_, err := w.signing.Cancel(as(t, "other"), &signingv1.CancelRequest{Id: id, IdempotencyKey: "c"})
	refused(t, err, failure.RequestUnknown)
	if _, err := w.signing.Cancel(as(t, tenant), &signingv1.CancelRequest{Id: id, Reason: "sold", IdempotencyKey: "c"}); err != nil {
		t.Fatal(err)
	}
	_, err = w.signing.Cancel(as(t, tenant), &signingv1.CancelRequest{Id: id, Reason: "burnt", IdempotencyKey: "c"})
	if f := refused(t, err, failure.IdempotencyConflict); named(f) != "reason" {
		t.Errorf("names %v", f.Fields)
	}
}

// TestCallFromEverywhere: the id of a CloudEvent, the header and the field are one thing (the header is the gateway's to pass on).
func TestCallFromEverywhere(t *testing.T) {
	w := start(t)
	w.publish(asJSON(t, lease(reference)), "ce-id", "one", "ce-type", "countersign.signing.v1.SigningRequest")
	w.settled()
	other := lease("another")
	_, err := w.signing.Create(as(t, tenant), &signingv1.CreateRequest{Request: other, IdempotencyKey: "one"})
	if f := refused(t, err, failure.IdempotencyConflict); named(f) != "reference" {
		t.Errorf("names %v", f.Fields)
	}
	answer, err := w.signing.Create(as(t, tenant), &signingv1.CreateRequest{Request: lease(reference), IdempotencyKey: "one"})
	if err != nil || !answer.GetCreated() {
		t.Errorf("the first answer again: %v, %v", answer, err)
	}
	w.publish(asJSON(t, other), "ce-id", "one")
	w.settled()
	var rejected []*signingv1.Outcome
	for _, o := range w.outcomes("*") {
		if o.GetEvent() == "rejected" {
			rejected = append(rejected, o)
		}
	}
	if len(rejected) != 1 || rejected[0].GetCode() != failure.IdempotencyConflict.Code || paths(rejected[0].GetFields()) != "reference" {
		t.Errorf("told %v", rejected)
	}
}

// TestCallAtOnce: of many tries of one call at once, one acts, and all get its answer.
func TestCallAtOnce(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	w.issued(view.GetSigners()[0].GetId())
	var mu sync.Mutex
	answers := map[string]int{}
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			answer, err := w.signing.IssueLink(as(t, tenant), &signingv1.IssueLinkRequest{Id: view.GetId(), Signer: "1", IdempotencyKey: "k"})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[answer.GetPath()+answer.GetExpiresAt().String()]++
		})
	}
	wg.Wait()
	if len(answers) != 1 || w.stated(view.GetSigners()[0].GetId(), "LinkMinted") != 1 {
		t.Errorf("%d answers, minted %d times", len(answers), w.stated(view.GetSigners()[0].GetId(), "LinkMinted"))
	}
}

// named returns the paths of the fields that a refusal names.
func named(f *failure.Error) string {
	var all []string
	for _, field := range f.Fields {
		all = append(all, field.Path)
	}
	return strings.Join(all, " ")
}
