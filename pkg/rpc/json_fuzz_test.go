package rpc_test

import (
	"errors"
	"regexp"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/rpc"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// told is all that is ever said of what cannot be read: names of fields and places, never what stood there.
var (
	toldPath    = regexp.MustCompile(`^(\$|[A-Za-z0-9_.]{1,64})$`)
	toldProblem = regexp.MustCompile(`^(is no field of this call|is given more than once|has a value of another kind|is no JSON of this kind)( \(line \d+:\d+\))?$`)
)

// FuzzDecodeJSON: what is read can be written and is the same when it is read again; what is not leaves the message empty, and says
// where it stumbled and nothing of what stood there.
func FuzzDecodeJSON(f *testing.F) {
	for _, s := range []string{
		"", "{}", "null", "[]", `{"reference":"case-1"}`, `{"reference":"a","reference":"b"}`, `{"reference":1}`, `{"unknown":{}}`, `{} {}`, "{}\n",
		`{"value":{"currency_code":"EUR","currencyCode":"USD"}}`, `{"documents":[{"content":"JVBERi0="},{"content":"%"}]}`, `{"deadline":"2026-11-24T00:00:00.5Z"}`,
		`{"deadline":"0000-00-00T00:00:00Z"}`, `{"signers":[{"group":-1}]}`, `{"signers":[{"group":"1"}]}`, `{"signers":[{"group":1e9}]}`, `{"metadata":{"":""}}`,
		`{"metadata":{"a":"1","a":"2"}}`, `{"reference":"\ud800"}`, "{\"reference\":\"\xff\"}", `{"signers":[null]}`, `{"signers":null}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		m := &signingv1.SigningRequest{Title: "what was there before"}
		if err := rpc.DecodeJSON(body, m); err != nil {
			refusal := failure.From(err)
			if !errors.Is(refusal, failure.RequestUnreadable) || len(refusal.Fields) != 1 || !toldPath.MatchString(refusal.Fields[0].Path) ||
				!toldProblem.MatchString(refusal.Fields[0].Problem) {
				t.Fatalf("%q: %v", body, err)
			}
			if !proto.Equal(m, &signingv1.SigningRequest{}) {
				t.Fatalf("%q was refused and left %v", body, m)
			}
			return
		}
		for _, o := range []protojson.MarshalOptions{{}, {UseProtoNames: true}, {EmitUnpopulated: true}, {Multiline: true, UseEnumNumbers: true}} {
			again, err := o.Marshal(m)
			if err != nil {
				t.Fatalf("%q was read and cannot be written: %v", body, err)
			}
			back := &signingv1.SigningRequest{}
			if err := rpc.DecodeJSON(again, back); err != nil || !proto.Equal(m, back) {
				t.Fatalf("%q became %s, and that %v, %v", body, again, back, err)
			}
		}
		wire, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if back := new(signingv1.SigningRequest); proto.Unmarshal(wire, back) != nil || !proto.Equal(m, back) {
			t.Fatalf("%q is not the same in protobuf", body)
		}
	})
}
