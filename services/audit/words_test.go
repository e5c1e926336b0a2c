package audit

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "countersign.dev/proto/countersign/identity/v1"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	"countersign.dev/services/audit/rules"
)

// TestEveryMethodHasWords goes from the fact through the leaf to the certificate: a method that identity gains fails here until it
// has its words.
func TestEveryMethodHasWords(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	for number, name := range identityv1.Method_name {
		if number == int32(identityv1.Method_METHOD_UNSPECIFIED) {
			continue
		}
		raw, err := rules.Next(rules.Source{
			Service: "identity", Tenant: "demo", ID: "vrf_1", Record: &recordv1.Record{RequestId: "req_1", At: timestamppb.New(noon)},
			Fact: &identityv1.VerificationPassed{LinkId: "lnk_1", Evidence: &identityv1.Evidence{Method: identityv1.Method(number), Level: 1}},
		}, rules.Tail{}, noon)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := rules.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		english, german := methodWords(leaf.Auth.Methods, "en-GB"), methodWords(leaf.Auth.Methods, "de-AT")
		if english == "" || german == "" || english == german {
			t.Errorf("%s (%v in the log) is %q in English and %q in German", name, leaf.Auth.Methods, english, german)
		}
	}
	if got := methodWords([]string{"email:code", "palm:reading"}, "fr"); got != "code by email to the signer's mailbox" {
		t.Errorf("methods, one of them without words: %q", got)
	}
}

func TestEveryPhraseHasBothLanguages(t *testing.T) {
	t.Parallel()
	for kind, phrase := range phrases {
		if phrase[0] == "" || phrase[1] == "" || phrase[0] == phrase[1] {
			t.Errorf("%s: %q", kind, phrase)
		}
	}
}
