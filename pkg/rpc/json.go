package rpc

import (
	"regexp"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/failure"
)

// DecodeJSON reads the contract's JSON into m, and nothing else: an unknown field, a field given twice and anything after the message
// are failure.RequestUnreadable, and m is empty then. It is the one reader of what platforms write, whatever way it comes.
func DecodeJSON(body []byte, m proto.Message) error {
	if err := protojson.Unmarshal(body, m); err != nil {
		proto.Reset(m)
		return Unreadable(err.Error())
	}
	return nil
}

var (
	position     = regexp.MustCompile(`\(line \d+:\d+\)`)
	unknownField = regexp.MustCompile(`unknown field "([A-Za-z0-9_.]{1,64})"`)
	doubleField  = regexp.MustCompile(`duplicate field "([A-Za-z0-9_.]{1,64})"`)
	wrongKind    = regexp.MustCompile(`invalid value for \w+ (?:type|field) ([A-Za-z0-9_.]{1,64}):`)
)

// Unreadable says where a reader of JSON stumbled, by protojson's words, and over which field, but never over what value: that may
// be somebody's name.
func Unreadable(text string) *failure.Error {
	where := ""
	if at := position.FindString(text); at != "" {
		where = " " + at
	}
	for _, known := range []struct {
		pattern *regexp.Regexp
		problem string
	}{
		{unknownField, "is no field of this call"},
		{doubleField, "is given more than once"},
		{wrongKind, "has a value of another kind"},
	} {
		if m := known.pattern.FindStringSubmatch(text); m != nil {
			return failure.RequestUnreadable.WithFields(failure.Field{Path: m[1], Problem: known.problem + where})
		}
	}
	return failure.RequestUnreadable.WithFields(failure.Field{Path: "$", Problem: "is no JSON of this kind" + where})
}
