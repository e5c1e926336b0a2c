package cli

import (
	"context"
	"fmt"
	"strings"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// fullPage is as many requests as the server gives at once.
const fullPage = 200

// ListCmd lists requests.
type ListCmd struct {
	Client `embed:""`

	Status string `help:"Only requests of this status: in-progress, completed, declined, cancelled or expired." enum:",in-progress,completed,declined,cancelled,expired" default:"" placeholder:"STATUS"`
	All    bool   `help:"All of them, not the newest 50."`
}

// Help teaches by examples.
func (c *ListCmd) Help() string {
	return `Examples:
  countersign list
  countersign list --status in-progress --all
  countersign list --all --json | jq -r 'select(.status=="REQUEST_STATUS_DECLINED").id'`
}

// Run lists, newest first.
func (c *ListCmd) Run(ctx context.Context, io *IO) error {
	return c.with(ctx, func(ctx context.Context, client signingv1.SigningRequestServiceClient) error {
		req := &signingv1.ListRequest{}
		if c.Status != "" {
			req.Status = signingv1.RequestStatus(signingv1.RequestStatus_value["REQUEST_STATUS_"+strings.ToUpper(strings.ReplaceAll(c.Status, "-", "_"))])
		}
		if c.All {
			req.PageSize = fullPage
		}
		var found []*signingv1.RequestView
		for {
			page, err := client.List(ctx, req)
			if err != nil {
				return err
			}
			for _, r := range page.GetRequests() {
				if !c.JSON {
					found = append(found, r)
				} else if err := io.line(r); err != nil {
					return err
				}
			}
			if req.PageToken = page.GetNextPageToken(); !c.All || req.GetPageToken() == "" {
				break
			}
		}
		if !c.JSON {
			c.tell(io, found)
		}
		if req.GetPageToken() != "" {
			io.note("There are more: countersign list --all\n")
		}
		return nil
	})
}

func (c *ListCmd) tell(io *IO, found []*signingv1.RequestView) {
	if len(found) == 0 {
		io.note("No requests. Make one with: countersign send --document offer.pdf --signer 'Ada Lovelace <ada@example.com>'\n")
		return
	}
	rows := [][]string{{"ID", "STATUS", "SIGNED", "ACCEPTED", "TITLE", "REFERENCE"}}
	for _, r := range found {
		signed := 0
		for _, s := range r.GetSigners() {
			if s.GetStatus() == signingv1.SignerStatus_SIGNER_STATUS_SIGNED {
				signed++
			}
		}
		rows = append(rows, []string{
			r.GetId(), requestStatus(r.GetStatus()), fmt.Sprintf("%d/%d", signed, len(r.GetSigners())),
			relative(r.GetAcceptedAt().AsTime().Sub(io.Now())), titleOf(r), r.GetReference(),
		})
	}
	io.table("", rows)
}
