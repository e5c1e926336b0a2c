package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"countersign.dev/pkg/failure"
	"countersign.dev/services/countersign/signer"
)

// briskSettings are a life in seconds: a reminder, no answer, the manager, the alternate.
const briskSettings = `
-- profiles.yaml --
profiles:
  brisk:
    lifetime: 5m
    grace: 10s
    session: 5m
    idle: 5m
    assurance: 1
    reminders: brisk
    escalation: brisk
-- reminders.yaml --
plans:
  brisk:
    offsets: [2s]
    partial_offsets: [5m]
    exhausted_after: 3s
    rotate_within: 1s
    quiet_hours: {from: "00:00", to: "00:00"}
    max_per_day: 100
-- escalations.yaml --
policies:
  brisk:
    - on: reminders-exhausted
      steps:
        - {action: notify-manager}
        - {wait: 1s, action: tell-platform}
        - {wait: 1s, action: route-to-alternate}
`

// TestWholeLife watches, within a minute, a request whose signer never answers: the link, the reminder, the manager who is told, the
// alternate who is asked and signs.
func TestWholeLife(t *testing.T) {
	t.Parallel() // it mostly waits
	in := newInstance(t, briskSettings, quickFlags...)
	in.start("")
	ctx := within(t, time.Minute)
	const ada, grace, manager = "ada@example.com", "grace@example.com", "cb@example.com"
	body := withPeople(t, request("life", "brisk", ada), map[string]any{
		"alternates": []any{map[string]any{"name": "Grace Hopper", "email": grace, "locale": "en", "time_zone": "UTC"}},
		"manager":    map[string]any{"name": "C. Babbage", "email": manager, "locale": "en", "time_zone": "UTC"},
	})
	v, err := in.create(ctx, body)
	if err != nil {
		t.Fatal(err)
	}
	first := signer.New(ada, in.Addresses.Mailbox)
	link := await(ctx, t, first, withLink)
	opened := get(ctx, t, first, link.Link())

	told := await(ctx, t, signer.New(manager, in.Addresses.Mailbox), func(signer.Mail) bool { return true })
	if told.Link() != "" || !strings.Contains(told.Text, "Testperson Nr1") {
		t.Errorf("the manager should read who is waited for, and no link: %.300s", told.Text)
	}
	await(ctx, t, signer.New(grace, in.Addresses.Mailbox), withLink)

	dead := get(ctx, t, first, link.Link())
	if !says(dead, failure.LinkDelegated) {
		t.Errorf("the link of who was replaced shows %s", describe(dead))
	}
	if pressed := press(ctx, t, first, opened, nil); !says(pressed, failure.LinkDelegated) {
		t.Errorf("the form of who was replaced leads to %s", describe(pressed))
	}
	if err := in.person(grace).signs(ctx, v.ID, 1); err != nil {
		t.Fatal(err)
	}
	in.completed(t, ctx, v.ID)
	await(ctx, t, signer.New(grace, in.Addresses.Mailbox), func(m signer.Mail) bool { return len(m.Attachments) == 2 })

	o := in.oracle(t)
	o.nothingDead(ctx)
	if n := o.linkMails(ctx, ada); n != 2 {
		t.Errorf("%d mails with a link to the first signer; want the invitation and one reminder", n)
	}
	outcomes := o.outcomes(ctx, v.ID)
	inOrder(t, outcomes, "accepted", "escalated", "completed")
	if n := len(slices.DeleteFunc(outcomes, func(e string) bool { return e == "escalated" })); n != 2 {
		t.Errorf("the platform was told %v", outcomes)
	}
	eventually(ctx, t, "the audit trail is complete", func() bool { return slices.Contains(in.trail(ctx, t, v.ID), "cs.request.completed") })
	inOrder(t, in.trail(ctx, t, v.ID), "cs.request.created", "cs.link.issued", "cs.delivery.accepted", "cs.reminder.scheduled", "cs.reminder.due",
		"cs.delivery.accepted", "cs.escalation.triggered", "cs.escalation.manager_notified", "cs.escalation.alternate_routed", "cs.link.rerouted",
		"cs.delivery.accepted", "cs.link.redeemed", "cs.identity.verified", "cs.consent.given", "cs.signature.applied", "cs.request.completed")
	in.stop()
}
