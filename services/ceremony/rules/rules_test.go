package rules_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	"countersign.dev/services/ceremony/rules"
)

var (
	noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	text = make([]byte, 32)
)

type command interface {
	Decide(c *ceremonyv1.Ceremony, now time.Time) (proto.Message, error)
}

func prepare() rules.Prepare {
	return rules.Prepare{Ceremony: &ceremonyv1.Ceremony{
		Id: "cer_1", Documents: []*ceremonyv1.Document{{Id: "doc_1", PresentedSha256: []byte("r0"), CurrentSha256: []byte("r0")}},
	}}
}

func show(link, session string) rules.Show {
	return rules.Show{LinkID: link, Position: 1, SessionID: session}
}

func agree(link, session string) rules.Consent {
	return rules.Consent{LinkID: link, Position: 1, SessionID: session, Consent: &ceremonyv1.Consent{DisclosureId: "d", TextSha256: text}}
}

func sign(link, session, before, after string) rules.Sign {
	return rules.Sign{Signed: &ceremonyv1.CeremonySigned{
		LinkId: link, Position: 1, SessionId: session, DocumentId: "doc_1", BeforeSha256: []byte(before), AfterSha256: []byte(after),
	}}
}

func decline(link string) rules.Decline {
	return rules.Decline{LinkID: link, Position: 1, SessionID: "s1"}
}

// after returns the ceremony that commands lead to; each must be taken.
func after(t *testing.T, commands ...command) *ceremonyv1.Ceremony {
	t.Helper()
	c := &ceremonyv1.Ceremony{}
	for _, do := range commands {
		fact, err := do.Decide(c, noon)
		if err != nil || fact == nil {
			t.Fatalf("%T: %v, %v", do, fact, err)
		}
		c = rules.Evolve(proto.CloneOf(c), fact)
	}
	return c
}

func TestDecide(t *testing.T) {
	agreed := []command{prepare(), show("a", "s1"), agree("a", "s1")}
	signed := append(agreed[:3:3], sign("a", "s1", "r0", "r1"))
	for name, tt := range map[string]struct {
		given   []command
		when    command
		then    proto.Message
		refused error
	}{
		"prepared once":               {[]command{prepare()}, prepare(), nil, nil},
		"nothing before the document": {nil, show("a", "s1"), nil, failure.DocumentNotReady},
		"no signature before it":      {nil, sign("a", "s1", "r0", "r1"), nil, failure.DocumentNotReady},
		"shown once a session":        {[]command{prepare(), show("a", "s1")}, show("a", "s1"), nil, nil},
		"shown again in another session": {
			[]command{prepare(), show("a", "s1")},
			show("a", "s2"),
			&ceremonyv1.DocumentShown{LinkId: "a", Position: 1, SessionId: "s2", DocumentSha256: []byte("r0")}, nil,
		},
		"no consent unseen":                {[]command{prepare()}, agree("a", "s1"), nil, failure.ConsentRequired},
		"no consent from another session":  {[]command{prepare(), show("a", "s1")}, agree("a", "s2"), nil, failure.ConsentRequired},
		"consent once":                     {agreed, agree("a", "s1"), nil, nil},
		"no signature without consent":     {[]command{prepare(), show("a", "s1")}, sign("a", "s1", "r0", "r1"), nil, failure.ConsentRequired},
		"nor with another session's":       {agreed, sign("a", "s2", "r0", "r1"), nil, failure.ConsentRequired},
		"a new session agrees anew":        {append(agreed[:3:3], show("a", "s2")), sign("a", "s2", "r0", "r1"), nil, failure.ConsentRequired},
		"a signature names both revisions": {agreed, sign("a", "s1", "r0", "r1"), &ceremonyv1.CeremonySigned{LinkId: "a", Position: 1, SessionId: "s1", DocumentId: "doc_1", PresentedSha256: []byte("r0"), BeforeSha256: []byte("r0"), AfterSha256: []byte("r1"), At: timestamppb.New(noon)}, nil},
		"on an older revision it is made again": {
			append(signed[:4:4], show("b", "s9"), agree("b", "s9")), sign("b", "s9", "r0", "r2"), nil, rules.ErrMoved,
		},
		"of a document that is not there":   {agreed, rules.Sign{Signed: &ceremonyv1.CeremonySigned{LinkId: "a", SessionId: "s1", DocumentId: "doc_2"}}, nil, failure.DocumentNotReady},
		"signed once":                       {signed, sign("a", "s1", "r1", "r2"), nil, nil},
		"who signed does not agree again":   {signed, agree("a", "s1"), nil, failure.LinkSigned},
		"nor decline":                       {signed, decline("a"), nil, failure.LinkSigned},
		"who signed is shown nothing new":   {signed, show("a", "s7"), nil, nil},
		"declined unseen":                   {[]command{prepare()}, decline("a"), &ceremonyv1.CeremonyDeclined{LinkId: "a", Position: 1, SessionId: "s1", At: timestamppb.New(noon)}, nil},
		"declined once":                     {[]command{prepare(), decline("a")}, decline("a"), nil, nil},
		"who declined does not sign":        {append(agreed[:3:3], decline("a")), sign("a", "s1", "r0", "r1"), nil, failure.LinkDeclined},
		"consent without a text is none":    {[]command{prepare(), show("a", "s1")}, rules.Consent{LinkID: "a", SessionID: "s1", Consent: &ceremonyv1.Consent{}}, nil, failure.ConsentRequired},
		"declining before there is a paper": {nil, decline("a"), nil, failure.DocumentNotReady},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tt.when.Decide(after(t, tt.given...), noon)
			if diff := cmp.Diff(tt.then, got, protocmp.Transform()); diff != "" || !errors.Is(err, tt.refused) {
				t.Errorf("Decide: error %v, want %v; fact (-want +got)\n%s", err, tt.refused, diff)
			}
		})
	}
}

// TestCeremonyModel has three signers act at random: the document never forks, nobody signs twice or after declining, and every
// signature stands on consent of its own session.
func TestCeremonyModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := begun(prepare())
		head, revisions := "r0", 0
		done, agreedIn := map[string]bool{}, map[string]string{}
		link := rapid.SampledFrom([]string{"a", "b", "c"})
		session := rapid.SampledFrom([]string{"s1", "s2"})
		do := func(what command) (proto.Message, error) {
			fact, err := what.Decide(c, noon)
			if fact != nil {
				c = rules.Evolve(proto.CloneOf(c), fact)
			}
			return fact, err
		}
		t.Repeat(map[string]func(*rapid.T){
			"show": func(t *rapid.T) {
				l, s := link.Draw(t, "link"), session.Draw(t, "session")
				if fact, _ := do(show(l, s)); fact != nil {
					delete(agreedIn, l)
				}
			},
			"agree": func(t *rapid.T) {
				l, s := link.Draw(t, "link"), session.Draw(t, "session")
				if fact, _ := do(agree(l, s)); fact != nil {
					agreedIn[l] = s
				}
			},
			"sign": func(t *rapid.T) {
				l, s := link.Draw(t, "link"), session.Draw(t, "session")
				before := head
				if rapid.Bool().Draw(t, "late") && revisions > 0 {
					before = "r0"
				}
				next := fmt.Sprintf("r%d", revisions+1)
				fact, _ := do(sign(l, s, before, next))
				if fact == nil {
					return
				}
				if before != head || done[l] || agreedIn[l] != s {
					t.Fatalf("%s signed %s on %s, head is %s, done %v, agreed in %q", l, next, before, head, done[l], agreedIn[l])
				}
				head, done[l] = next, true
				revisions++
			},
			"decline": func(t *rapid.T) {
				l := link.Draw(t, "link")
				if fact, _ := do(decline(l)); fact != nil {
					if done[l] {
						t.Fatalf("%s declined after the end", l)
					}
					done[l] = true
				}
			},
			"": func(t *rapid.T) {
				d := c.GetDocuments()[0]
				if string(d.GetCurrentSha256()) != head || int(d.GetSignatures()) != revisions {
					t.Fatalf("the document is at %s with %d signatures, want %s with %d", d.GetCurrentSha256(), d.GetSignatures(), head, revisions)
				}
			},
		})
	})
}

func begun(what command) *ceremonyv1.Ceremony {
	fact, _ := what.Decide(&ceremonyv1.Ceremony{}, noon)
	return rules.Evolve(&ceremonyv1.Ceremony{}, fact)
}
