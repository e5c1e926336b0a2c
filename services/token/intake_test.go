package token_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	"countersign.dev/services/token"
)

func asJSON(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func asProto(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestIntake is spec 1.2: whatever way it comes, it is the same operation.
func TestIntake(t *testing.T) {
	w := start(t)
	ways := map[string]func(r *signingv1.SigningRequest){
		"JSON": func(r *signingv1.SigningRequest) { w.publish(asJSON(t, r)) },
		"protobuf": func(r *signingv1.SigningRequest) {
			w.publish(asProto(t, r), "content-type", "application/protobuf", "ce-type", "countersign.signing.v1.SigningRequest")
		},
		"protobuf by another name of its type": func(r *signingv1.SigningRequest) {
			w.publish(asProto(t, r), "Content-Type", "application/X-Protobuf; charset=binary")
		},
		"a structured event": func(r *signingv1.SigningRequest) {
			body, _ := json.Marshal(map[string]any{
				"specversion": "1.0", "id": "json-" + r.GetReference(), "source": "/hr", "type": "countersign.signing.v1.SigningRequest",
				"datacontenttype": "application/json", "data": json.RawMessage(asJSON(t, r)),
			})
			w.publish(body, "content-type", "application/cloudevents+json; charset=utf-8")
		},
		"a structured event with bytes in it": func(r *signingv1.SigningRequest) {
			body, _ := json.Marshal(map[string]any{
				"specversion": "1.0", "id": "bytes-" + r.GetReference(), "source": "/hr", "type": "countersign.signing.v1.SigningRequest",
				"datacontenttype": "application/protobuf", "data_base64": base64.StdEncoding.EncodeToString(asProto(t, r)),
			})
			w.publish(body, "content-type", "application/cloudevents+json")
		},
		"gRPC": func(r *signingv1.SigningRequest) { w.create(r) },
	}
	for name, ask := range ways {
		t.Run(name, func(t *testing.T) {
			ref := reference + name
			ask(lease(ref))
			// The same again, as JSON and by gRPC, is the same request, and is told once.
			w.settled()
			w.publish(asJSON(t, lease(ref)))
			answer, err := w.signing.Create(as(t, tenant), &signingv1.CreateRequest{Request: lease(ref)})
			if err != nil || answer.GetCreated() {
				t.Fatalf("created again: %t, %v", answer.GetCreated(), err)
			}
			view := answer.GetRequest()
			if view.GetReference() != ref || view.GetTitle() != title || view.GetSigners()[0].GetEmail() != adaMail || view.GetDocuments()[0].GetName() != "mill.pdf" {
				t.Errorf("taken in as %v", view)
			}
			w.issued(view.GetSigners()[0].GetId())
			w.settled()
			if events := w.told(view.GetId(), 1); strings.Join(events, " ") != "accepted" {
				t.Errorf("told %v", events)
			}
			if n := w.stated(view.GetId(), "RequestAccepted"); n != 1 {
				t.Errorf("accepted %d times", n)
			}
		})
	}
	if w.peers.inspected != len(ways) {
		t.Errorf("%d documents were looked at, want %d: a repeat needs no look", w.peers.inspected, len(ways))
	}
	w.private()
}

// TestIntakeIsAnswered: who gives a subject to answer on gets there what gRPC would say.
func TestIntakeIsAnswered(t *testing.T) {
	w := start(t)
	answers, err := w.NATS.Connect().SubscribeSync("reply.acme.answers")
	if err != nil {
		t.Fatal(err)
	}
	if err := answers.SetPendingLimits(-1, -1); err != nil {
		t.Fatal(err)
	}
	w.publish(asJSON(t, lease(reference)), "countersign-reply", answers.Subject)
	m, err := answers.NextMsgWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	view := &signingv1.RequestView{}
	if err := protojson.Unmarshal(m.Data, view); err != nil || view.GetReference() != reference {
		t.Errorf("answered %s, %v", m.Data, err)
	}
	w.publish([]byte("{"), "countersign-reply", answers.Subject)
	if m, err = answers.NextMsgWithContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	refusal := &signingv1.Outcome{}
	if err := protojson.Unmarshal(m.Data, refusal); err != nil || refusal.GetCode() != failure.RequestUnreadable.Code {
		t.Errorf("answered %s, %v", m.Data, err)
	}
}

// TestAnswersGoNowhereElse: we may publish anywhere, so whoever asks for an answer may have it where its tenant's answers belong, and
// nowhere in the record or at another tenant's.
func TestAnswersGoNowhereElse(t *testing.T) {
	w := start(t)
	ear, err := w.NATS.Connect().SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	wrong := []string{
		"intake.globex", "intake.acme", "outcome.globex.req_1", "fact.token.acme.req_1", "reply.globex.1", "reply.acme.", "reply.acme", "_INBOX.", "_INBOX.*", "_INBOX_x.1",
		"$JS.API.STREAM.PURGE.INTAKE", "timer.token.acme.x", "reply.acme.>",
	}
	for i, subject := range wrong {
		w.publish(asJSON(t, lease(fmt.Sprint("ref", i))), "countersign-reply", subject)
	}
	var told []*signingv1.Outcome
	eventlogtest.Eventually(t, "all are refused", func() bool { told = w.outcomes("*"); return len(told) == len(wrong) })
	for _, o := range told {
		if o.GetEvent() != "rejected" || o.GetCode() != failure.RequestUnreadable.Code || paths(o.GetFields()) != "countersign-reply" {
			t.Errorf("told %v", o)
		}
	}
	if err := ear.SetPendingLimits(-1, -1); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := ear.NextMsg(50 * time.Millisecond)
		if err != nil {
			break
		}
		if slices.Contains(wrong, m.Subject) && m.Subject != "intake.acme" {
			t.Errorf("something was published on %s: %s", m.Subject, m.Data)
		}
	}
}

// TestIntakeRefused is spec 1.5: what is refused changes nothing, and the answer names every wrong field and repeats no value.
func TestIntakeRefused(t *testing.T) {
	w := start(t)
	const secret = "Babbage"
	with := func(change func(*signingv1.SigningRequest)) []byte {
		r := lease(reference)
		change(r)
		return asJSON(t, r)
	}
	for name, tt := range map[string]struct {
		body    []byte
		headers []string
		code    *failure.Error
		fields  string
	}{
		"nothing":                  {nil, nil, failure.RequestUnreadable, "$"},
		"no JSON":                  {[]byte("Dear " + secret), nil, failure.RequestUnreadable, "$"},
		"cut off":                  {asJSON(t, lease(secret))[:50], nil, failure.RequestUnreadable, "$"},
		"a list":                   {[]byte(`["` + secret + `"]`), nil, failure.RequestUnreadable, "$"},
		"another type":             {[]byte(`{"reference":{"` + secret + `":1}}`), nil, failure.RequestUnreadable, "reference"},
		"an unknown field":         {[]byte(`{"reference":"` + secret + `","colour":"` + secret + `"}`), nil, failure.RequestUnreadable, "colour"},
		"a document not in base64": {[]byte(`{"documents":[{"content":"` + secret + `!"}]}`), nil, failure.RequestUnreadable, "content"},
		"no protobuf":              {[]byte(secret), []string{"content-type", "application/protobuf"}, failure.RequestUnreadable, "$"},
		"no event":                 {[]byte(secret), []string{"content-type", "application/cloudevents+json"}, failure.RequestUnreadable, "$"},
		"an event of nothing":      {[]byte(`{"type":"","id":"` + secret + `"}`), []string{"content-type", "application/cloudevents+json"}, failure.RequestUnreadable, "$"},
		"an event of another kind": {asJSON(t, lease(secret)), []string{"ce-type", "com.example." + secret}, failure.RequestUnreadable, "ce-type"},
		"empty":                    {[]byte(`{}`), nil, failure.RequestInvalid, "documents reference signers title"},
		"wrong in many ways": {with(func(r *signingv1.SigningRequest) {
			r.Title, r.Profile = secret+"\r\nBcc: all", secret
			r.Documents[0].Name = "\u202e" + secret
			r.Signers[0].Email, r.Signers[0].TimeZone, r.Signers[0].Locale = secret, "Mars/"+secret, secret+"_!"
			r.Signers[0].Alternates[0].Email = secret
			r.Signers[0].Manager = &signingv1.Person{Name: secret}
			r.Metadata = map[string]string{"note": secret + "\x00"}
		}), nil, failure.RequestInvalid, `documents[0].name metadata["note"] profile signers[0].alternates[0].email signers[0].email signers[0].locale signers[0].manager.email signers[0].time_zone title`},
		"a document that is none": {with(func(r *signingv1.SigningRequest) {
			r.Documents[0].Content = []byte(secret)
			r.Signers[0].Email = secret
		}), nil, failure.RequestInvalid, "documents[0].content signers[0].email"},
		"a document that ceremony refuses": {with(func(r *signingv1.SigningRequest) {
			r.Documents[0].Content = []byte("%PDF-1.7 /Encrypt " + secret)
		}), nil, failure.DocumentRefused, "documents[0].content"},
		"a cancellation of nothing":           {[]byte(`{"id":"` + secret + `"}`), []string{"ce-type", "countersign.signing.v1.CancelRequest"}, failure.RequestInvalid, "id"},
		"a cancellation of what is not there": {[]byte(`{"id":"req_` + secret + `","reason":"` + secret + ` left"}`), []string{"ce-type", "countersign.signing.v1.CancelRequest"}, failure.RequestUnknown, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(w.outcomes("*"))
			w.publish(tt.body, tt.headers...)
			w.told("*", before+1)
			all := w.outcomes("*")
			got := all[len(all)-1]
			if len(all) != before+1 || got.GetEvent() != "rejected" || got.GetCode() != tt.code.Code || got.GetMessage() == "" || got.GetAt() == nil {
				t.Errorf("told %d, last %v", len(all)-before, got)
			}
			if p := paths(got.GetFields()); p != tt.fields {
				t.Errorf("names\n%s, want\n%s", p, tt.fields)
			}
			raw := w.messages(token.OutcomesStream, token.OutcomeSubject(tenant, got.GetRequestId()))
			if body := raw[len(raw)-1].Data; bytes.Contains(bytes.ReplaceAll(body, []byte("req_"+secret), nil), []byte(secret)) {
				t.Errorf("repeats a value: %s", body)
			}
		})
	}
	w.settled()
	if facts := w.Facts(token.Name, "fact.token.>"); len(facts) != 1 || facts[0].Name() != "ProfilesPublished" {
		t.Errorf("%d facts of what was refused", len(facts))
	}
	if left := w.messages(token.IntakeStream, ">"); len(left) != 0 {
		t.Errorf("%d messages are left in the intake", len(left))
	}
	if dead := w.messages("DEAD", ">"); len(dead) != 0 {
		t.Errorf("%d dead letters", len(dead))
	}
	if strings.Contains(w.Logs.String(), secret) {
		t.Error("the log repeats a value")
	}
}

// TestUnknownFieldIsNamed: a typing error in a field's name is told by name and place.
func TestUnknownFieldIsNamed(t *testing.T) {
	w := start(t)
	w.publish([]byte("{\n  \"titel\": \"x\"}"))
	w.told("*", 1)
	if got := w.outcomes("*")[0].GetFields()[0]; got.GetPath() != "titel" || !strings.Contains(got.GetProblem(), "line 2") {
		t.Errorf("told %v", got)
	}
}

// TestIntakeOfNobody: on a subject that names no tenant nobody could read an answer; what came is kept, sealed.
func TestIntakeOfNobody(t *testing.T) {
	w := start(t)
	m := nats.NewMsg("intake.ACME")
	m.Data = asJSON(t, lease(reference))
	if _, err := w.JS.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	eventlogtest.Eventually(t, "a dead letter in its place", func() bool {
		return len(w.messages("DEAD", ">")) == 1 && len(w.messages(token.IntakeStream, ">")) == 0
	})
	w.private()
}

// TestConflict: the same reference with other content is refused by name, everywhere, and changes nothing (spec 1.2).
func TestConflict(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	other := lease(reference)
	other.Title, other.Signers[0].Email, other.Integration = "Lease of the tower", "eve@example.com", ""
	_, err := w.signing.Create(as(t, tenant), &signingv1.CreateRequest{Request: other})
	var named []string
	for _, f := range refused(t, err, failure.RequestConflict).Fields {
		named = append(named, f.Path)
	}
	if strings.Join(named, " ") != "integration signers title" {
		t.Errorf("names %v", named)
	}
	w.publish(asJSON(t, other))
	if events := w.told(view.GetId(), 2); strings.Join(events, " ") != "accepted rejected" {
		t.Errorf("told %v", events)
	}
	if got := w.outcomes(view.GetId())[1]; got.GetCode() != failure.RequestConflict.Code || paths(got.GetFields()) != "integration signers title" {
		t.Errorf("told %v", got)
	}
	got, err := w.signing.Get(as(t, tenant), &signingv1.GetRequest{Id: view.GetId()})
	if err != nil || got.GetRequest().GetTitle() != title || got.GetRequest().GetSigners()[0].GetEmail() != adaMail {
		t.Errorf("changed to %v, %v", got, err)
	}
	w.private("eve@example.com", "Lease of the tower")
}

// TestCreateAtOnce: of any number of calls with one reference one content wins, and everybody is told which.
func TestCreateAtOnce(t *testing.T) {
	w := start(t)
	var mu sync.Mutex
	created, same, conflicts := 0, 0, 0
	winner := ""
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			r := lease(reference)
			r.Title = fmt.Sprint(title, i%2)
			answer, err := w.signing.Create(as(t, tenant), &signingv1.CreateRequest{Request: r})
			mu.Lock()
			defer mu.Unlock()
			switch f := failure.From(err); {
			case err == nil && answer.GetCreated():
				created++
				winner = r.GetTitle()
			case err == nil:
				same++
			case errors.Is(f, failure.RequestConflict):
				conflicts++
			default:
				t.Errorf("error %v", err)
			}
		})
	}
	wg.Wait()
	if created != 1 || same != 7 || conflicts != 8 {
		t.Errorf("%d created, %d the same, %d conflicts", created, same, conflicts)
	}
	list, err := w.signing.List(as(t, tenant), &signingv1.ListRequest{})
	if err != nil || len(list.GetRequests()) != 1 || list.GetRequests()[0].GetTitle() != winner {
		t.Errorf("listed %v, %v; want the one called %s", list.GetRequests(), err, winner)
	}
}
