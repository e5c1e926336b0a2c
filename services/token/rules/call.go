package rules

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// EvolveCall returns the call after fact; it may change c. A fact of a newer release is passed over.
func EvolveCall(c *tokenv1.Call, fact proto.Message) *tokenv1.Call {
	switch f := fact.(type) {
	case *tokenv1.CallTaken:
		c.Status, c.Method, c.FieldDigests, c.TakenAt = tokenv1.CallStatus_CALL_STATUS_TAKEN, f.GetMethod(), f.GetFieldDigests(), f.GetAt()
	case *tokenv1.CallReleased:
		c.Status, c.FieldDigests = tokenv1.CallStatus_CALL_STATUS_RELEASED, nil
	case *tokenv1.CallAnswered:
		c.Status, c.Answer = tokenv1.CallStatus_CALL_STATUS_ANSWERED, f.GetAnswer()
	}
	return c
}

// TakeCall has the key of a call for its content.
type TakeCall struct {
	Method  string
	Digests map[string][]byte
}

// Decide refuses other content than the key stands for, and names the fields that differ. The same content again is the same call.
func (c TakeCall) Decide(call *tokenv1.Call, now time.Time) (proto.Message, error) {
	switch call.GetStatus() {
	case tokenv1.CallStatus_CALL_STATUS_TAKEN, tokenv1.CallStatus_CALL_STATUS_ANSWERED:
		differing := Differences(call.GetFieldDigests(), c.Digests)
		if len(differing) == 0 {
			return nil, nil
		}
		for i := range differing {
			differing[i].Problem = "differs from the call that this idempotency key stands for"
		}
		return nil, failure.IdempotencyConflict.WithFields(differing...)
	default:
		return &tokenv1.CallTaken{Method: c.Method, FieldDigests: c.Digests, At: timestamppb.New(now)}, nil
	}
}

// ReleaseCall gives the key of a refused call back.
type ReleaseCall struct{}

// Decide leaves an answer that stands.
func (ReleaseCall) Decide(call *tokenv1.Call, _ time.Time) (proto.Message, error) {
	if call.GetStatus() != tokenv1.CallStatus_CALL_STATUS_TAKEN {
		return nil, nil
	}
	return &tokenv1.CallReleased{}, nil
}

// AnswerCall keeps the first answer.
type AnswerCall struct {
	Digests map[string][]byte
	Answer  *anypb.Any
}

// Decide keeps one answer, of the content that has the key.
func (c AnswerCall) Decide(call *tokenv1.Call, _ time.Time) (proto.Message, error) {
	if call.GetStatus() != tokenv1.CallStatus_CALL_STATUS_TAKEN || len(Differences(call.GetFieldDigests(), c.Digests)) > 0 {
		return nil, nil
	}
	return &tokenv1.CallAnswered{Answer: c.Answer}, nil
}
