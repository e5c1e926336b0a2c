package rules_test

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"

	"countersign.dev/pkg/failure"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// TestCall is the life of a call that may be repeated: each step says what the next ones are answered.
func TestCall(t *testing.T) {
	one, two := map[string][]byte{"title": {1}, "reason": {9}}, map[string][]byte{"title": {2}, "reason": {9}}
	taken := &tokenv1.CallTaken{Method: "m", FieldDigests: one}
	answer := &anypb.Any{TypeUrl: "first"}
	answered := &tokenv1.CallAnswered{Answer: answer}
	for name, tt := range map[string]struct {
		given    facts
		conflict error // of other content
		retaken  bool  // the same content takes it anew
		answers  bool  // an answer to the first content is kept
	}{
		"never made":           {nil, nil, true, false},
		"being carried out":    {facts{taken}, failure.IdempotencyConflict, false, true},
		"refused":              {facts{taken, &tokenv1.CallReleased{}}, nil, true, false},
		"refused, taken again": {facts{taken, &tokenv1.CallReleased{}, taken}, failure.IdempotencyConflict, false, true},
		"answered":             {facts{taken, answered}, failure.IdempotencyConflict, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := &tokenv1.Call{}
			for _, f := range tt.given {
				c = rules.EvolveCall(c, f)
			}
			_, err := rules.TakeCall{Method: "m", Digests: two}.Decide(c, noon)
			if !errors.Is(err, tt.conflict) || err != nil && (len(failure.From(err).Fields) != 1 || failure.From(err).Fields[0].Path != "title") {
				t.Errorf("other content: %v", err)
			}
			if fact, err := (rules.TakeCall{Method: "m", Digests: one}).Decide(c, noon); err != nil || (fact != nil) != tt.retaken {
				t.Errorf("the same content: %v, %v", fact, err)
			}
			if fact, err := (rules.AnswerCall{Digests: one, Answer: &anypb.Any{TypeUrl: "second"}}).Decide(c, noon); err != nil || (fact != nil) != tt.answers {
				t.Errorf("an answer: %v, %v", fact, err)
			}
			if fact, err := (rules.AnswerCall{Digests: two, Answer: answer}).Decide(c, noon); fact != nil || err != nil {
				t.Errorf("an answer to other content: %v, %v", fact, err)
			}
			if fact, _ := (rules.ReleaseCall{}).Decide(c, noon); (fact != nil) != tt.answers {
				t.Errorf("given back: %v", fact)
			}
		})
	}
}
