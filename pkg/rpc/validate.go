package rpc

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	// protovalidate reads the rules that stand beside the fields of our contract, so they are written once.
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"countersign.dev/pkg/failure"
)

// maxFields is how many wrong fields are named at most.
const maxFields = 100

// Validator checks messages against the buf.validate rules of their fields. It is safe for concurrent use. What comes in
// by gRPC is checked already; intake by other ways uses one of its own, so that all refuse alike.
type Validator struct{ rules protovalidate.Validator }

// NewValidator makes a validator. Rules are compiled when a message type is first seen.
func NewValidator() (*Validator, error) {
	rules, err := protovalidate.New()
	if err != nil {
		return nil, fmt.Errorf("rpc: make the validator: %w", err)
	}
	return &Validator{rules}, nil
}

// Validate returns nil, or failure.RequestInvalid with every wrong field by its path in the message's JSON, such as
// signers[0].email, and what is accepted; never the value. Any other error is a rule that cannot be evaluated.
func (v *Validator) Validate(m proto.Message) error {
	err := v.rules.Validate(m)
	if err == nil {
		return nil
	}
	var invalid *protovalidate.ValidationError
	if !errors.As(err, &invalid) {
		return fmt.Errorf("rpc: validate %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	var fields []failure.Field
	for _, violation := range invalid.Violations[:min(len(invalid.Violations), maxFields)] {
		fields = append(fields, failure.Field{
			Path:    jsonPath(m.ProtoReflect().Descriptor(), violation.Proto.GetField().GetElements()),
			Problem: problem(violation.Proto),
		})
	}
	return failure.RequestInvalid.WithFields(fields...)
}

func problem(v *validate.Violation) string {
	text := v.GetMessage()
	if text == "" {
		text = "is not valid (" + v.GetRuleId() + ")"
	}
	if v.GetForKey() {
		text = "key: " + text
	}
	return text
}

// jsonPath writes a field path with the names that the contract's JSON has for the fields: those of the .proto. The key of a map may be somebody's name:
// it is written as *.
func jsonPath(in protoreflect.MessageDescriptor, elements []*validate.FieldPathElement) string {
	var path strings.Builder
	for i, el := range elements {
		if i > 0 {
			path.WriteByte('.')
		}
		name := el.GetFieldName()
		if in != nil {
			field := in.Fields().ByNumber(protoreflect.FieldNumber(el.GetFieldNumber()))
			in = nil
			if field != nil {
				name, in = field.TextName(), field.Message()
				if field.IsMap() {
					in = field.MapValue().Message()
				}
			}
		}
		path.WriteString(name)
		switch el.WhichSubscript() {
		case validate.FieldPathElement_Subscript_not_set_case:
		case validate.FieldPathElement_Index_case:
			path.WriteString("[" + strconv.FormatUint(el.GetIndex(), 10) + "]")
		default:
			path.WriteString("[*]")
		}
	}
	return path.String()
}
