package cli

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// CancelCmd ends a request.
type CancelCmd struct {
	Client `embed:""`

	ID     string `arg:"" help:"The request, req_..." name:"id"`
	Reason string `help:"Why; those who were asked to sign are told." placeholder:"TEXT"`
	Key    string `help:"Repeating the call with the same key changes nothing more." name:"idempotency-key" placeholder:"TEXT"`
}

// Help teaches by examples.
func (c *CancelCmd) Help() string {
	return `Its links stop working at once, and those who were asked to sign are told. While a signature is being made it is refused, and says when
to try again. What was signed before stays signed.

Examples:
  countersign cancel req_Zb3... --reason 'the offer was withdrawn'`
}

// Run cancels.
func (c *CancelCmd) Run(ctx context.Context, io *IO) error {
	return c.with(ctx, func(ctx context.Context, client signingv1.SigningRequestServiceClient) error {
		answer, err := client.Cancel(ctx, &signingv1.CancelRequest{Id: c.ID, Reason: c.Reason, IdempotencyKey: c.Key})
		if err != nil {
			return err
		}
		if c.JSON {
			return io.line(answer.GetRequest())
		}
		io.print("%s is cancelled; its links no longer work.\n", clean(titleOf(answer.GetRequest())))
		return nil
	})
}

// EraseCmd destroys what is personal about a request that has ended.
type EraseCmd struct {
	Client `embed:""`

	ID     string `arg:"" help:"The request, req_..." name:"id"`
	Signer string `help:"Erase one signer alone: position (1 is the first), id (lnk_...) or address." placeholder:"SIGNER"`
	Basis  string `help:"What it is done for, such as the number of a case. It stays in the audit trail, so it may name nobody." placeholder:"LABEL"`
	Yes    bool   `help:"Erase. Without it nothing is changed, and it is shown what would be erased."`
	Key    string `help:"Repeating the call with the same key changes nothing more." name:"idempotency-key" placeholder:"TEXT"`
}

// Help teaches by examples.
func (c *EraseCmd) Help() string {
	return `It is for good: names, addresses, the documents, what the request is called, its metadata, and all reasons and words. What happened stays
in the audit trail, without names, and every proof still verifies. Mails and copies that were sent are in other hands and stay there;
copies still to be sent are not sent any more.

With --signer it is one signer, with those who held the position before, their alternates and manager. What is everybody's stays then: the
title, the metadata, and the documents, which show the signer's name.

A request that still goes on is refused: cancel it first. It takes the scope requests:erase.

Examples:
  countersign erase req_Zb3...
  countersign erase req_Zb3... --basis DSR-2026/17 --yes
  countersign erase req_Zb3... --signer ada@example.com --yes`
}

// Run erases, or shows what would be.
func (c *EraseCmd) Run(ctx context.Context, io *IO) error {
	return c.with(ctx, func(ctx context.Context, client signingv1.SigningRequestServiceClient) error {
		signer := ""
		if c.Signer != "" {
			var err error
			if signer, err = (Seat{ID: c.ID, Signer: c.Signer}).find(ctx, client); err != nil {
				return err
			}
		}
		if !c.Yes {
			return c.preview(ctx, io, client, signer)
		}
		answer, err := client.Erase(ctx, &signingv1.EraseRequest{Id: c.ID, Signer: signer, Basis: c.Basis, IdempotencyKey: c.Key})
		if err != nil {
			return err
		}
		r := answer.GetRequest()
		if c.JSON {
			return io.line(r)
		}
		what, at := "Request "+r.GetId(), r.GetErasedAt()
		for _, s := range r.GetSigners() {
			if is(s, signer) {
				what, at = fmt.Sprintf("Signer %d of request %s", s.GetPosition(), r.GetId()), s.GetErasedAt()
			}
		}
		io.print("%s is erased since %s.\n", what, io.instant(at))
		return nil
	})
}

// preview shows what would be erased. It exits as a command line that lacks something: a script that forgot --yes has erased nothing.
func (c *EraseCmd) preview(ctx context.Context, io *IO, client signingv1.SigningRequestServiceClient, signer string) error {
	got, err := client.Get(ctx, &signingv1.GetRequest{Id: c.ID})
	if err != nil {
		return err
	}
	r := got.GetRequest()
	if r.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS {
		return failure.RequestOpen
	}
	io.print("To erase, for good:\n\n")
	var rows [][]string
	row := func(what, which string, at *timestamppb.Timestamp) {
		if at != nil {
			which = "erased since " + io.instant(at)
		}
		rows = append(rows, []string{what, which})
	}
	if signer == "" {
		row("title", r.GetTitle(), r.GetErasedAt())
		for _, d := range r.GetDocuments() {
			row("document", d.GetName()+", "+count(int(d.GetPages()), "page", "pages"), r.GetErasedAt())
		}
		if n := len(r.GetMetadata()); n > 0 {
			row("metadata", count(n, "pair", "pairs"), nil)
		}
	}
	for _, s := range r.GetSigners() {
		if signer == "" || is(s, signer) {
			row(fmt.Sprintf("signer %d", s.GetPosition()), fmt.Sprintf("%s <%s>", s.GetName(), s.GetEmail()), s.GetErasedAt())
		}
	}
	io.table("  ", rows)
	return usage("add --yes to erase it", "nothing is erased yet")
}

// is tells whether a signer is the one that an id or a position names.
func is(s *signingv1.SignerView, signer string) bool {
	return s.GetId() == signer || fmt.Sprint(s.GetPosition()) == signer
}

// orErased is a name or other words; what stands in their place once they were erased.
func orErased(words string, at *timestamppb.Timestamp) string {
	if at != nil {
		return "(erased)"
	}
	return words
}

// titleOf is what a request is called.
func titleOf(r *signingv1.RequestView) string { return orErased(r.GetTitle(), r.GetErasedAt()) }
