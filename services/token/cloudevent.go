package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/rpc"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// cloudEvent is what is taken of one.
type cloudEvent struct {
	kind, id, contentType string
	data                  []byte
}

// longestID is how many bytes the id of a CloudEvent may have, as an idempotency key elsewhere.
const longestID = 128

// read reads what a platform published: a message of the one kind that its type names. What cannot be read is refused with the place,
// and nothing of it is returned.
func read(m eventlog.Message) (cloudEvent, proto.Message, error) {
	in, err := unwrap(m)
	if err != nil {
		return cloudEvent{}, nil, err
	}
	var asked proto.Message
	switch in.kind {
	case "", "countersign.signing.v1.SigningRequest":
		asked = &signingv1.SigningRequest{}
	case "countersign.signing.v1.CancelRequest":
		asked = &signingv1.CancelRequest{}
	case "countersign.signing.v1.AmendRequest":
		asked = &signingv1.AmendRequest{}
	default:
		return cloudEvent{}, nil, unreadable("ce-type", "is not taken in here; known are countersign.signing.v1.SigningRequest (or none), "+
			"countersign.signing.v1.AmendRequest and countersign.signing.v1.CancelRequest")
	}
	if err := decode(in, asked); err != nil {
		return cloudEvent{}, nil, err
	}
	return in, asked, nil
}

func unreadable(path, problem string) error {
	return failure.RequestUnreadable.WithFields(failure.Field{Path: path, Problem: problem})
}

// unwrap takes a CloudEvent apart: binary mode in headers, structured mode in JSON, or none at all (decisions 22).
func unwrap(m eventlog.Message) (in cloudEvent, err error) {
	for name, to := range map[string]*string{"ce-type": &in.kind, "ce-id": &in.id} {
		if *to, err = only(m.Header, name); err != nil {
			return in, err
		}
	}
	in.contentType, in.data = mediaType(m.Header.Get("content-type"), m.Header.Get("Content-Type")), m.Data
	if in.contentType == "application/cloudevents+json" {
		if in, err = structured(m.Data); err != nil {
			return in, err
		}
	}
	if len(in.id) > longestID {
		return in, unreadable("ce-id", fmt.Sprintf("is longer than %d bytes", longestID))
	}
	return in, nil
}

// key returns the idempotency key of a call that may carry one in its message too: they are one thing, and two that differ are a mistake.
func (e cloudEvent) key(own string) (string, error) {
	switch {
	case own == "" || own == e.id:
		return e.id, nil
	case e.id == "":
		return own, nil
	default:
		return "", failure.RequestInvalid.WithFields(failure.Field{Path: "idempotency_key", Problem: "is another one than the event's id"})
	}
}

// only returns a header that may be given once.
func only(h nats.Header, name string) (string, error) {
	if len(h.Values(name)) > 1 {
		return "", unreadable(name, "is given more than once")
	}
	return h.Get(name), nil
}

// mediaType is the first of some content types that is given, without its parameters.
func mediaType(given ...string) string {
	for _, t := range given {
		if t != "" {
			t, _, _ = strings.Cut(t, ";")
			return strings.ToLower(strings.TrimSpace(t))
		}
	}
	return ""
}

// structured reads an event in JSON. What is given twice, or in another case, could be read otherwise elsewhere: the one is refused, and
// the other is no attribute of an event (CloudEvents 1.0 3.1).
func structured(body []byte) (cloudEvent, error) {
	attributes, err := members(body)
	if err != nil {
		return cloudEvent{}, err
	}
	var in cloudEvent
	for name, to := range map[string]any{"type": &in.kind, "id": &in.id, "datacontenttype": &in.contentType} {
		if value, given := attributes[name]; given && json.Unmarshal(value, to) != nil {
			return cloudEvent{}, unreadable(name, "is no text")
		}
	}
	in.contentType, in.data = mediaType(in.contentType), attributes["data"]
	if value, given := attributes["data_base64"]; given {
		if _, both := attributes["data"]; both {
			return cloudEvent{}, unreadable("data", "is given as data and as data_base64")
		}
		if json.Unmarshal(value, &in.data) != nil {
			return cloudEvent{}, unreadable("data_base64", "is no base64")
		}
	}
	return in, nil
}

// members returns the members of a JSON object, each of which must be there once.
func members(body []byte) (map[string]json.RawMessage, error) {
	unread := unreadable("$", "is no CloudEvent in JSON")
	d := json.NewDecoder(bytes.NewReader(body))
	if begin, err := d.Token(); err != nil || begin != json.Delim('{') {
		return nil, unread
	}
	all := map[string]json.RawMessage{}
	for d.More() {
		token, err := d.Token()
		name, is := token.(string)
		var value json.RawMessage
		if err != nil || !is || d.Decode(&value) != nil {
			return nil, unread
		}
		if _, twice := all[name]; twice {
			return nil, unreadable("$", "gives an attribute of the event more than once")
		}
		all[name] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, unread
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, unread
	}
	return all, nil
}

// decode reads protobuf where the content type says so, and JSON else.
func decode(in cloudEvent, into proto.Message) error {
	if in.contentType == "application/protobuf" || in.contentType == "application/x-protobuf" {
		if err := proto.Unmarshal(in.data, into); err != nil {
			return unreadable("$", "is no protobuf message of this kind")
		}
		return nil
	}
	return rpc.DecodeJSON(in.data, into)
}
