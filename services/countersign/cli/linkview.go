package cli

import (
	"context"
	"fmt"
	"strings"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// fullLinkPage is as many links as the server gives at once.
const fullLinkPage = 500

// LinkFilter says which links are meant.
type LinkFilter struct {
	Request string `help:"Only links of this request, req_..." placeholder:"ID"`
	State   string `help:"Only links in this state: open, used, expired, revoked, signed, declined or closed." enum:",open,used,expired,revoked,signed,declined,closed" default:"" placeholder:"STATE"`
	Profile string `help:"Only links issued by this expiration profile." placeholder:"NAME"`
	Holder  string `help:"Only links that this person holds, per_..." placeholder:"ID"`
}

// state is the state as the contract has it.
func (f LinkFilter) state() signingv1.LinkState {
	if f.State == "" {
		return signingv1.LinkState_LINK_STATE_UNSPECIFIED
	}
	return signingv1.LinkState(signingv1.LinkState_value["LINK_STATE_"+strings.ToUpper(f.State)])
}

func linkState(l *signingv1.Link) string { return words(l.GetState().String(), "LINK_STATE_") }

// LinkListCmd lists links.
type LinkListCmd struct {
	Client     `embed:""`
	LinkFilter `embed:""`

	Reference string `help:"Only links of the request with this reference of yours." placeholder:"TEXT"`
	All       bool   `help:"All of them, not the first 100."`
}

// Help teaches by examples.
func (c *LinkListCmd) Help() string {
	return `Those of the newest requests come first. A link is there from the moment its signer's turn comes. No token and no name is shown: to have a
link to hand over, issue one; who signs is in the request.

Examples:
  countersign links list --state expired
  countersign links list --reference offer-2026-117
  countersign links list --all --json | jq -r 'select(.attention).id'`
}

// Run lists.
func (c *LinkListCmd) Run(ctx context.Context, io *IO) error {
	return c.withLinks(ctx, func(ctx context.Context, client signingv1.LinkServiceClient) error {
		req := &signingv1.ListLinksRequest{RequestId: c.Request, Reference: c.Reference, State: c.state(), Profile: c.Profile, Holder: c.Holder}
		if c.All {
			req.PageSize = fullLinkPage
		}
		var found []*signingv1.Link
		listed := 0
		for {
			page, err := client.ListLinks(ctx, req)
			if err != nil {
				return err
			}
			listed += len(page.GetLinks())
			for _, l := range page.GetLinks() {
				if !c.JSON {
					found = append(found, l)
				} else if err := io.line(l); err != nil {
					return err
				}
			}
			// A page that a filter left empty says nothing: what is looked for may be behind it.
			if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" || !c.All && listed > 0 {
				break
			}
		}
		if !c.JSON {
			c.tell(io, found)
		}
		if req.GetPageToken() != "" {
			io.note("There are more: countersign links list --all\n")
		}
		return nil
	})
}

func (c *LinkListCmd) tell(io *IO, found []*signingv1.Link) {
	if len(found) == 0 {
		io.note("No such links. `countersign list` shows the requests.\n")
		return
	}
	rows := [][]string{{"ID", "STATE", "GEN", "EXPIRES", "PROFILE", "POS", "REQUEST"}}
	for _, l := range found {
		rows = append(rows, []string{
			l.GetId(), linkState(l), fmt.Sprint(l.GetGeneration()), relative(l.GetExpiresAt().AsTime().Sub(io.Now())), l.GetProfile(),
			fmt.Sprint(l.GetPosition()), l.GetRequestId(),
		})
	}
	io.table("", rows)
}

// LinkGetCmd shows a link.
type LinkGetCmd struct {
	Client `embed:""`

	Link string `arg:"" help:"The link, lnk_..., which is the signer's id in the request." name:"link"`
}

// Help teaches by examples.
func (c *LinkGetCmd) Help() string {
	return `Examples:
  countersign links get lnk_9fK...
  countersign links get lnk_9fK... --json | jq .state`
}

// Run shows.
func (c *LinkGetCmd) Run(ctx context.Context, io *IO) error {
	return c.withLinks(ctx, func(ctx context.Context, client signingv1.LinkServiceClient) error {
		answer, err := client.GetLink(ctx, &signingv1.GetLinkRequest{Id: c.Link})
		if err != nil {
			return err
		}
		l := answer.GetLink()
		if c.JSON {
			return io.line(l)
		}
		io.print("%s  %s\n", l.GetId(), linkState(l))
		rows := [][]string{
			{"request", fmt.Sprintf("%s, signer %d", l.GetRequestId(), l.GetPosition())},
			{"holder", l.GetHolder()},
			{"profile", fmt.Sprintf("%s, version %d", l.GetProfile(), l.GetProfileVersion())},
			{"issued", io.instant(l.GetIssuedAt())},
			{"opens until", io.instant(l.GetExpiresAt())},
		}
		if l.GetSessionEndsAt() != nil {
			rows = append(rows, []string{"session until", io.instant(l.GetSessionEndsAt())})
		}
		io.table("  ", rows)
		if l.GetAttention() {
			io.print("\nIts signer may have no more links for now: countersign links reissue %s %d\n", l.GetRequestId(), l.GetPosition())
		}
		if len(l.GetGenerations()) > 0 {
			io.print("\n")
			alone := &signingv1.SignerView{Position: l.GetPosition(), Generations: l.GetGenerations()}
			io.table("  ", lineageTable(io, &signingv1.RequestView{Signers: []*signingv1.SignerView{alone}}))
		}
		return nil
	})
}
