package rules_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	recordv1 "countersign.dev/proto/countersign/record/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/audit/rules"
)

// trail writes the leaves of a short request.
func trail(t *testing.T) [][]byte {
	t.Helper()
	at := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	var leaves [][]byte
	tail := rules.Tail{}
	for i := range uint64(4) {
		fact := &tokenv1.LinkLapsed{Generation: uint32(i + 1)}
		state, err := anypb.New(&tokenv1.Link{Generation: uint32(i + 1)})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := rules.Next(rules.Source{
			EventID: strings.Repeat("e", int(i)+1), Stream: "FACTS_TOKEN", Sequence: i + 1, Service: "token", Tenant: "acme", ID: "lnk_1", Fact: fact,
			Record: &recordv1.Record{RequestId: "req_1", At: timestamppb.New(at), State: state},
		}, tail, at)
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, raw)
		tail = rules.Tail{Seq: i + 1, Raw: raw}
	}
	return leaves
}

// TestCheckChain: each change that somebody could make to a stored trail is seen, but for a cut tail, which the leaf that says fin is for.
func TestCheckChain(t *testing.T) {
	if err := rules.CheckChain(trail(t)); err != nil {
		t.Fatalf("an honest trail is refused: %v", err)
	}
	for name, change := range map[string]func([][]byte) [][]byte{
		"a time edited in the middle": func(l [][]byte) [][]byte {
			l[1] = bytes.Replace(l[1], []byte("12:00:00"), []byte("13:00:00"), 1)
			return l
		},
		"the newest but one edited": func(l [][]byte) [][]byte {
			l[2] = bytes.Replace(l[2], []byte(`"ok"`), []byte(`"no"`), 1)
			return l
		},
		"one dropped from the middle": func(l [][]byte) [][]byte { return append(l[:1], l[2:]...) },
		"the first dropped":           func(l [][]byte) [][]byte { return l[1:] },
		"two changed places":          func(l [][]byte) [][]byte { l[1], l[2] = l[2], l[1]; return l },
		"one twice":                   func(l [][]byte) [][]byte { return append(l[:2], l[1:]...) },
		"an unknown field": func(l [][]byte) [][]byte {
			l[3] = bytes.Replace(l[3], []byte(`{"v"`), []byte(`{"x":1,"v"`), 1)
			return l
		},
		"another version of the format": func(l [][]byte) [][]byte {
			l[3] = bytes.Replace(l[3], []byte(rules.Version), []byte("cs.leaf.v9"), 1)
			return l
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := rules.CheckChain(change(trail(t))); err == nil {
				t.Error("it is not seen")
			}
		})
	}
}

// TestLeavesAreMadeAgain: the same fact behind the same tail gives the same bytes, so that anybody can make the log again and compare.
func TestLeavesAreMadeAgain(t *testing.T) {
	first, second := trail(t), trail(t)
	for i := range first {
		if !bytes.Equal(first[i], second[i]) {
			t.Errorf("leaf %d differs:\n%s\n%s", i+1, first[i], second[i])
		}
	}
}
