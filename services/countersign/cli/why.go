package cli

import (
	"context"
	"fmt"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
	"countersign.dev/services/countersign/cli/trail"
)

// WhyCmd explains.
type WhyCmd struct {
	Client `embed:""`

	ID string `arg:"" help:"The request, req_..." name:"id"`
}

// Help teaches by examples.
func (c *WhyCmd) Help() string {
	return `The answer is read from the audit trail: the last message to each signer and its fate, reminders, escalations with what began them,
the policy and its steps, and what happens next by itself.

Examples:
  countersign why req_Zb3...
  countersign why req_Zb3... --json | jq '.signers[] | select(.waited_for) | .reason'`
}

// Run explains.
func (c *WhyCmd) Run(ctx context.Context, io *IO) error {
	return c.with(ctx, func(ctx context.Context, client signingv1.SigningRequestServiceClient) error {
		got, err := client.Get(ctx, &signingv1.GetRequest{Id: c.ID})
		if err != nil {
			return err
		}
		events, err := client.ListEvents(ctx, &signingv1.ListEventsRequest{Id: c.ID})
		if err != nil {
			return err
		}
		reasons := trail.Explain(got.GetRequest(), trail.Read(events.GetEvents()))
		if c.JSON {
			return io.object(reasons)
		}
		tellReasons(io, got.GetRequest(), reasons)
		return nil
	})
}

func tellReasons(io *IO, r *signingv1.RequestView, reasons trail.Reasons) {
	waited, signed := 0, 0
	for _, s := range reasons.Signers {
		if s.WaitedFor {
			waited++
		}
		if s.Status == "signed" {
			signed++
		}
	}
	io.print("%s: %s, %d of %d signed", clean(titleOf(r)), requestStatus(r.GetStatus()), signed, len(reasons.Signers))
	if waited > 0 {
		io.print(", waiting for %d", waited)
	}
	io.print("\n")
	for i, s := range reasons.Signers {
		who := orErased(fmt.Sprintf("%s <%s>", s.Name, s.Email), r.GetSigners()[i].GetErasedAt())
		io.print("\n%d  %s: %s\n", s.Position, clean(who), clean(s.Reason))
		io.table("   ", whyRows(io, s))
	}
}

// whyRows is what the reason stands on. Of somebody who is not waited for it is left out.
func whyRows(io *IO, s trail.Signer) [][]string {
	if !s.WaitedFor {
		return nil
	}
	var rows [][]string
	row := func(name, text string) { rows = append(rows, []string{name, text}) }
	if m := s.Message; m != nil {
		row("last message", fmt.Sprintf("%s %s", m.Words, io.moment(m.At)))
	}
	if p := s.Reminders; p != nil {
		text := fmt.Sprintf("%s of %s sent, %s", p.Sent, p.Of, p.State)
		if p.Reason != "" {
			text += " (" + p.Reason + ")"
		}
		row("reminders", text)
	}
	if x := s.Escalation; x != nil {
		row("escalation", fmt.Sprintf("%s, policy %s, since %s: %s", x.State, x.Policy, io.moment(x.BegunAt), trail.Trigger(x.Trigger)))
		for _, step := range x.Taken {
			row("", fmt.Sprintf("%s %s", step.Words, io.moment(step.At)))
		}
	}
	for i, n := range s.Next {
		name := "next"
		if i > 0 {
			name = "then"
		}
		text := fmt.Sprintf("%s: %s", io.moment(n.At), n.What)
		if n.At.Before(io.Now()) {
			text += ", overdue: countersign doctor says whether something is not well"
		}
		row(name, text)
	}
	return rows
}
