package token

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/rpc"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

const (
	asCreate = "countersign.signing.v1.SigningRequest"
	asAmend  = "countersign.signing.v1.AmendRequest"
	asCancel = "countersign.signing.v1.CancelRequest"
)

// kinds is the one message that a type stands for.
var kinds = map[string]proto.Message{
	"": &signingv1.SigningRequest{}, asCreate: &signingv1.SigningRequest{}, asAmend: &signingv1.AmendRequest{}, asCancel: &signingv1.CancelRequest{},
}

func intake(kind, id, contentType string, body []byte) eventlog.Message {
	h := nats.Header{}
	for name, value := range map[string]string{"ce-type": kind, "ce-id": id, "content-type": contentType} {
		if value != "" {
			h.Set(name, value)
		}
	}
	return eventlog.Message{Subject: "intake.acme", Header: h, Data: body}
}

// same reads a message that must say the same as one that was read before.
func same(t *testing.T, m eventlog.Message, id string, want proto.Message) {
	t.Helper()
	in, got, err := read(m)
	if err != nil || in.id != id || !proto.Equal(got, want) {
		t.Fatalf("with %v and %q: %v as %q, %v; want %v as %q", m.Header, m.Data, got, in.id, err, want, id)
	}
}

// FuzzIntake: whatever a platform publishes is one message of the one kind that its type names, whichever way it is written, or is
// refused with the place where it cannot be read, and then nothing of it is left. What passes validation can be told again.
func FuzzIntake(f *testing.F) {
	request := &signingv1.SigningRequest{
		Reference: "case-1", Title: "Lease", Profile: "standard", Metadata: map[string]string{"a": "b"},
		Documents: []*signingv1.Document{{Name: "a.pdf", Content: []byte("%PDF-1.7")}},
		Signers:   []*signingv1.Signer{{Name: "Ada", Email: "ada@example.com", Group: 1}},
	}
	text, err := protojson.Marshal(request)
	if err != nil {
		f.Fatal(err)
	}
	binary, err := proto.Marshal(request)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("", "", "", text)
	f.Add(asCreate, "evt-1", "application/protobuf", binary)
	f.Add(asCreate, "evt-1", "Application/X-Protobuf; charset=binary", binary)
	f.Add("", "", "application/protobuf", []byte("R\x0c\b\x80\x80\x80\x80\x10\x10\xff\xff\xff\xff\x07")) // a deadline of more nanoseconds than there are
	f.Add(asCancel, strings.Repeat("x", 129), "application/json", []byte(`{"id":"req_1"}`))
	f.Add(asAmend, "evt-2", "application/json", []byte(`{"id":"req_1","deadline":"2026-12-24T00:00:00Z","signers":[{"signer":"1","email":"a@b.example"}]}`))
	f.Add(asAmend, "", "", []byte(`{"id":"req_1","id":"req_2"}`))
	f.Add("another.kind", "evt-3", "application/json", []byte(`{}`))
	f.Add("", "", "application/cloudevents+json", []byte(`{"specversion":"1.0","type":"`+asCancel+`","id":"e","data":{"id":"req_1"}}`))
	f.Add("", "", "application/cloudevents+json", []byte(`{"type":"`+asCancel+`","TYPE":"`+asCreate+`","data":{"id":"req_1"}}`))
	f.Add("", "", "application/cloudevents+json", []byte(`{"type":"`+asCancel+`","type":"`+asCreate+`","data":{"id":"req_1"}}`))
	f.Add("", "", "application/cloudevents+json", []byte(`{"datacontenttype":"application/protobuf; v=1","data_base64":"CgZjYXNlLTE=","data":{}}`))
	contract, err := rpc.NewValidator()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, kind, id, contentType string, body []byte) {
		m := intake(kind, id, contentType, body)
		in, asked, err := read(m)
		if err != nil {
			refused(t, err)
			if asked != nil || in.id != "" || in.kind != "" || in.data != nil {
				t.Fatalf("of what was refused %v and %v are left", in, asked)
			}
			return
		}
		if want := kinds[in.kind]; want == nil || want.ProtoReflect().Descriptor() != asked.ProtoReflect().Descriptor() {
			t.Fatalf("%q is read as %T", in.kind, asked)
		}
		again, err := proto.Marshal(asked)
		if err != nil {
			t.Fatal(err)
		}
		same(t, intake(in.kind, in.id, "application/protobuf", again), in.id, asked)
		everyWay(t, in, asked)
		if r, is := asked.(*signingv1.SigningRequest); is && validate(r, contract, "", "") == nil {
			if _, err := protojson.Marshal(r); err != nil {
				t.Fatalf("it is valid and cannot be told: %v", err)
			}
		}
	})
}

// refused wants a refusal that names one place, in words of its own.
func refused(t *testing.T, err error) {
	t.Helper()
	refusal := failure.From(err)
	if !errors.Is(refusal, failure.RequestUnreadable) || len(refusal.Fields) != 1 || refusal.Fields[0].Path == "" || refusal.Fields[0].Problem == "" {
		t.Fatalf("refused with %v", err)
	}
}

// everyWay writes what was read as JSON and as structured events.
func everyWay(t *testing.T, in cloudEvent, asked proto.Message) {
	t.Helper()
	if !utf8.ValidString(in.kind) || !utf8.ValidString(in.id) || !utf8.ValidString(in.contentType) {
		return // JSON says only what is text
	}
	envelope := map[string]any{"specversion": "1.0", "type": in.kind, "id": in.id, "datacontenttype": in.contentType, "data_base64": in.data, "extension": 1}
	wrapped := func() eventlog.Message {
		body, err := json.Marshal(envelope)
		if err != nil {
			t.Fatal(err)
		}
		return intake("ignored", "ignored", "application/cloudevents+json; charset=utf-8", body)
	}
	same(t, wrapped(), in.id, asked)
	known := proto.Clone(asked)
	text, err := protojson.Marshal(known)
	if err != nil {
		return // a time or a duration that no calendar has
	}
	plain := known.ProtoReflect().New().Interface()
	if err := rpc.DecodeJSON(text, plain); err != nil {
		t.Fatalf("%s cannot be read again: %v", text, err)
	}
	same(t, intake(in.kind, in.id, "application/json", text), in.id, plain)
	delete(envelope, "data_base64")
	envelope["data"], envelope["datacontenttype"] = json.RawMessage(text), "application/json"
	same(t, wrapped(), in.id, plain)
	if back, err := proto.Marshal(plain); err == nil {
		same(t, intake(in.kind, in.id, "application/x-protobuf", back), in.id, plain)
	}
}

// FuzzCloudEventHeaders: each header is read once, whatever else there is; who gives a type or an id twice is refused.
func FuzzCloudEventHeaders(f *testing.F) {
	f.Add("ce-type", asCancel, "ce-type", asCreate, "content-type", "application/json")
	f.Add("ce-id", "1", "ce-id", "1", "Content-Type", "application/protobuf")
	f.Add("Ce-Type", asCancel, "CE-ID", "2", "content-type", " Application/JSON ;x")
	f.Add("ce-time", time.Time{}.String(), "", "", "traceparent", "00-")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2, k3, v3 string) {
		h := nats.Header{}
		for _, pair := range [][2]string{{k1, v1}, {k2, v2}, {k3, v3}} {
			h.Add(pair[0], pair[1])
		}
		m := eventlog.Message{Header: h, Data: []byte(`{}`)}
		in, asked, err := read(m)
		twice := len(h["ce-type"]) > 1 || len(h["ce-id"]) > 1
		if err != nil {
			refused(t, err)
			return
		}
		structured := mediaType(h.Get("content-type"), h.Get("Content-Type")) == "application/cloudevents+json"
		if twice || asked == nil || !structured && (in.kind != h.Get("ce-type") || in.id != h.Get("ce-id")) || len(in.id) > longestID {
			t.Fatalf("%v is read as %+v", h, in)
		}
		if in.contentType != strings.ToLower(strings.TrimSpace(in.contentType)) || strings.Contains(in.contentType, ";") {
			t.Fatalf("%v has the content type %q", h, in.contentType)
		}
	})
}
