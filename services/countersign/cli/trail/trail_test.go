package trail_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
	"countersign.dev/services/countersign/cli/trail"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// events makes a trail of one link: each line is a type, and what the leaf says beside.
func events(lines ...string) []*signingv1.Event {
	var out []*signingv1.Event
	for i, line := range lines {
		kind, rest, _ := strings.Cut(line, " ")
		leaf := `{"link":{"id":"lnk_1","gen":1}`
		if rest != "" {
			leaf += "," + rest
		}
		out = append(out, &signingv1.Event{Type: kind, At: timestamppb.New(noon.Add(time.Duration(i) * time.Minute)), Leaf: leaf + "}"})
	}
	return out
}

func request(s signingv1.SignerStatus, generation uint32) *signingv1.RequestView {
	return &signingv1.RequestView{
		Id: "req_1", Status: signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS,
		Signers: []*signingv1.SignerView{
			{Id: "lnk_1", Position: 1, Group: 1, Name: "Ada", Status: s, Generation: generation, ExpiresAt: timestamppb.New(noon.Add(time.Hour))},
			{Id: "lnk_2", Position: 2, Group: 2, Name: "Grace", Status: signingv1.SignerStatus_SIGNER_STATUS_WAITING},
		},
	}
}

func TestWhoIsWaitedFor(t *testing.T) {
	t.Parallel()
	const (
		issued   = "cs.link.issued"
		planned  = `cs.delivery.planned "info":{"kind":"link"}`
		accepted = `cs.delivery.accepted "info":{"kind":"link"}`
		redeemed = "cs.link.redeemed"
	)
	for name, tt := range map[string]struct {
		status signingv1.SignerStatus
		given  []string
		want   string
	}{
		"no message yet":        {signingv1.SignerStatus_SIGNER_STATUS_WAITING, []string{issued}, "their turn has come; the message is about to be sent"},
		"planned":               {signingv1.SignerStatus_SIGNER_STATUS_WAITING, []string{issued, planned}, "the message is about to be sent"},
		"put off":               {signingv1.SignerStatus_SIGNER_STATUS_WAITING, []string{issued, planned, `cs.delivery.deferred "info":{"kind":"link"},"out":{"code":"4.3.0"}`}, "the mail server did not take the message yet (4.3.0); it is tried again"},
		"refused":               {signingv1.SignerStatus_SIGNER_STATUS_WAITING, []string{issued, planned, `cs.delivery.bounced "info":{"kind":"link"},"out":{"code":"5.1.1"}`}, "the message was refused (5.1.1): is the address right?"},
		"out":                   {signingv1.SignerStatus_SIGNER_STATUS_NOTIFIED, []string{issued, accepted}, "the message is out, and the link has not been opened yet"},
		"expired unopened":      {signingv1.SignerStatus_SIGNER_STATUS_NOTIFIED, []string{issued, accepted, "cs.link.soft_expired"}, "the link expired before it was opened; they can ask for a new one on its page"},
		"expired, a new one":    {signingv1.SignerStatus_SIGNER_STATUS_NOTIFIED, []string{issued, accepted, "cs.link.soft_expired", "cs.link.reissued"}, "the message is out, and the link has not been opened yet"},
		"refused at the link":   {signingv1.SignerStatus_SIGNER_STATUS_NOTIFIED, []string{issued, accepted, `cs.link.denied "out":{"code":"LINK_EXPIRED"}`}, "the message is out, but who tried the link was refused (LINK_EXPIRED)"},
		"opened":                {signingv1.SignerStatus_SIGNER_STATUS_OPENED, []string{issued, accepted, redeemed}, "has opened the link, and has not been verified yet"},
		"has no code":           {signingv1.SignerStatus_SIGNER_STATUS_OPENED, []string{issued, redeemed, "cs.identity.challenged"}, "asked for a one-time code, and has not entered it yet"},
		"wrong code":            {signingv1.SignerStatus_SIGNER_STATUS_OPENED, []string{issued, redeemed, "cs.identity.challenged", "cs.identity.failed"}, "entered a wrong code"},
		"verified":              {signingv1.SignerStatus_SIGNER_STATUS_OPENED, []string{issued, redeemed, "cs.identity.verified"}, "was verified, and has not signed yet"},
		"agreed":                {signingv1.SignerStatus_SIGNER_STATUS_OPENED, []string{issued, redeemed, "cs.identity.verified", "cs.document.rendered", "cs.consent.given"}, "has agreed to sign electronically, and has not signed yet"},
		"session over":          {signingv1.SignerStatus_SIGNER_STATUS_OPENED, []string{issued, redeemed, "cs.consent.given", "cs.link.soft_expired"}, "opened the link, and the session ended before they signed; they can ask for a new link on its page"},
		"session over, resumed": {signingv1.SignerStatus_SIGNER_STATUS_OPENED, []string{issued, redeemed, "cs.link.soft_expired", "cs.link.reissued"}, "has opened the link, and has not been verified yet"},
		"withdrawn":             {signingv1.SignerStatus_SIGNER_STATUS_WITHDRAWN, []string{issued, "cs.link.revoked"}, "the link was withdrawn, so nobody can sign here until a new one is made: countersign links reissue req_1 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := trail.Explain(request(tt.status, 1), trail.Read(events(tt.given...))).Signers
			if !got[0].WaitedFor || got[0].Reason != tt.want {
				t.Errorf("waited for %v: %q, want %q", got[0].WaitedFor, got[0].Reason, tt.want)
			}
			if got[1].WaitedFor || got[1].Reason != "not their turn yet: first Ada (signer 1)" {
				t.Errorf("the second: %v, %q", got[1].WaitedFor, got[1].Reason)
			}
		})
	}
}

func TestNobodyIsWaitedForAfterTheEnd(t *testing.T) {
	t.Parallel()
	r := request(signingv1.SignerStatus_SIGNER_STATUS_WITHDRAWN, 1)
	r.Status = signingv1.RequestStatus_REQUEST_STATUS_CANCELLED
	for _, s := range trail.Explain(r, nil).Signers {
		if s.WaitedFor || len(s.Next) > 0 {
			t.Errorf("signer %d is waited for: %q", s.Position, s.Reason)
		}
	}
}

func TestWhatHappensNext(t *testing.T) {
	t.Parallel()
	got := trail.Explain(request(signingv1.SignerStatus_SIGNER_STATUS_NOTIFIED, 1), trail.Read(events(
		"cs.link.issued",
		`cs.delivery.accepted "info":{"kind":"link"}`,
		`cs.reminder.scheduled "info":{"sent":"0","of":"2","next_at":"2026-11-24T12:30:00.000Z"}`,
		`cs.reminder.due "info":{"sent":"1","of":"2","ordinal":"1","next_at":"2026-11-24T14:00:00.000Z"}`,
		`cs.escalation.triggered "info":{"trigger":"delivery_failed","policy":"firm","policy_digest":"sha256:01","steps":"3","next_action":"notify_manager","next_at":"2026-11-24T12:10:00.000Z"}`,
		`cs.escalation.step_skipped "info":{"trigger":"delivery_failed","policy":"firm","steps":"3","step":"1","action":"notify_manager","reason":"no manager is named","next_action":"route_alternate","next_at":"2026-11-24T13:30:00.000Z"}`,
		`cs.delivery.accepted "info":{"kind":"manager"}`,
	))).Signers[0]
	want := []trail.Next{
		{At: noon.Add(time.Hour), What: "the link expires"},
		{At: noon.Add(90 * time.Minute), What: "escalation: an alternate is asked"},
		{At: noon.Add(2 * time.Hour), What: "a reminder is sent"},
	}
	if diff := cmp.Diff(want, got.Next); diff != "" {
		t.Errorf("next (-want +got)\n%s", diff)
	}
	if got.Message.Kind != "link" {
		t.Errorf("the last message is of kind %s: the one to the manager is not to the signer", got.Message.Kind)
	}
	x := &trail.Escalation{
		State: "running", Trigger: "delivery_failed", Policy: "firm", PolicyDigest: "sha256:01", BegunAt: noon.Add(4 * time.Minute), Steps: "3",
		Taken:      []trail.Step{{At: noon.Add(5 * time.Minute), Words: "Step 1 of 3: left out (the manager is told): no manager is named."}},
		NextAction: "route_alternate", NextAt: noon.Add(90 * time.Minute),
	}
	if diff := cmp.Diff(x, got.Escalation); diff != "" {
		t.Errorf("escalation (-want +got)\n%s", diff)
	}
}

// A link that was replaced takes its reminders with it.
func TestRemindersOfAFormerLink(t *testing.T) {
	t.Parallel()
	got := trail.Explain(request(signingv1.SignerStatus_SIGNER_STATUS_NOTIFIED, 2), trail.Read(events(
		`cs.reminder.scheduled "info":{"sent":"0","of":"2","next_at":"2026-11-24T12:30:00.000Z"}`,
		"cs.link.reissued",
	))).Signers[0]
	if got.Reminders != nil {
		t.Errorf("reminders of generation 1 are shown for generation 2: %+v", got.Reminders)
	}
}

// What is broken or of a newer release is passed over, in words and in reasons.
func FuzzRead(f *testing.F) {
	for _, e := range events("cs.link.issued", `cs.reminder.due "info":{"next_at":"x"}`, `cs.identity.verified "auth":{"methods":["a"]}`) {
		f.Add(e.GetType(), e.GetLeaf())
	}
	f.Add("cs.delivery.", "{")
	f.Add("", "null")
	f.Fuzz(func(t *testing.T, kind, leaf string) {
		entries := trail.Read([]*signingv1.Event{{Type: kind, Leaf: leaf}})
		if len(entries) != 1 || (kind != "" && entries[0].Words() == "") {
			t.Errorf("%q, %q: no words", kind, leaf)
		}
		trail.Explain(request(signingv1.SignerStatus_SIGNER_STATUS_NOTIFIED, 1), entries)
	})
}
