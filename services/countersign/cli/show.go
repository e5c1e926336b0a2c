package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
	"countersign.dev/services/countersign/cli/trail"
)

// ShowCmd shows a request.
type ShowCmd struct {
	Client `embed:""`

	ID string `arg:"" help:"The request, req_..." name:"id"`
}

// Help teaches by examples.
func (c *ShowCmd) Help() string {
	return `With --json the request is the first line, and each event of its audit trail a line after it.

Examples:
  countersign show req_Zb3...
  countersign show req_Zb3... --json | head -1 | jq .signers`
}

// Run shows.
func (c *ShowCmd) Run(ctx context.Context, io *IO) error {
	return c.with(ctx, func(ctx context.Context, client signingv1.SigningRequestServiceClient) error {
		got, err := client.Get(ctx, &signingv1.GetRequest{Id: c.ID})
		if err != nil {
			return err
		}
		events, err := client.ListEvents(ctx, &signingv1.ListEventsRequest{Id: c.ID})
		if err != nil {
			return err
		}
		if !c.JSON {
			c.tell(io, got.GetRequest(), events.GetEvents())
			return nil
		}
		if err := io.line(got.GetRequest()); err != nil {
			return err
		}
		for _, e := range events.GetEvents() {
			if err := io.line(e); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *ShowCmd) tell(io *IO, r *signingv1.RequestView, events []*signingv1.Event) {
	io.print("%s\n\n", clean(titleOf(r)))
	rows := [][]string{
		{"request", r.GetId()},
		{"reference", orErased(r.GetReference(), r.GetErasedAt())},
		{"status", requestStatus(r.GetStatus())},
		{"profile", r.GetProfile()},
		{"accepted", io.instant(r.GetAcceptedAt())},
	}
	if r.GetDeadline() != nil {
		rows = append(rows, []string{"deadline", io.instant(r.GetDeadline())})
	}
	if r.GetClosedAt() != nil {
		rows = append(rows, []string{"closed", io.instant(r.GetClosedAt())})
	}
	if r.GetErasedAt() != nil {
		rows = append(rows, []string{"erased", io.instant(r.GetErasedAt())})
	}
	for _, more := range [][]string{{"integration", r.GetIntegration()}, {"template", r.GetTemplate()}} {
		if more[1] != "" {
			rows = append(rows, more)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r.GetMetadata())) {
		rows = append(rows, []string{key, r.GetMetadata()[key]})
	}
	io.table("  ", rows)
	io.print("\nDocuments\n")
	for _, d := range r.GetDocuments() {
		io.print("  %s, %s\n", clean(orErased(d.GetName(), r.GetErasedAt())), count(int(d.GetPages()), "page", "pages"))
		rows := [][]string{{"as shown", "sha256 " + d.GetPresentedSha256()}}
		if d.GetSignedSha256() != "" {
			rows = append(rows, []string{"as signed", "sha256 " + d.GetSignedSha256()})
		}
		io.table("    ", rows)
	}
	io.print("\nSigners\n")
	io.table("  ", signerTable(io, r))
	if rows := lineageTable(io, r); len(rows) > 1 {
		io.print("\nLinks\n")
		io.table("  ", rows)
	}
	io.print("\nWhat happened\n")
	io.table("  ", timeline(io, r, events))
}

func signerTable(io *IO, r *signingv1.RequestView) [][]string {
	rows := [][]string{{"#", "GROUP", "NAME", "ADDRESS", "STATE", "LINK", "GENERATION", "EXPIRES"}}
	for _, s := range r.GetSigners() {
		state := signerStatus(s.GetStatus())
		if s.GetAlternate() {
			state += ", alternate"
		}
		generation, expires := "-", "-"
		if s.GetGeneration() > 0 {
			generation, expires = fmt.Sprint(s.GetGeneration()), io.instant(s.GetExpiresAt())
		}
		name := orErased(s.GetName(), s.GetErasedAt())
		rows = append(rows, []string{fmt.Sprint(s.GetPosition()), fmt.Sprint(s.GetGroup()), name, s.GetEmail(), state, s.GetId(), generation, expires})
	}
	return rows
}

// lineageTable lists the generations of the links that were replaced or ended: why each was made, and how it ended.
func lineageTable(io *IO, r *signingv1.RequestView) [][]string {
	rows := [][]string{{"#", "GENERATION", "MADE", "WHY", "OPENED", "EXPIRES", "ENDED"}}
	for _, s := range r.GetSigners() {
		for _, g := range s.GetGenerations() {
			opened, ended := "-", "-"
			if g.GetOpenedAt() != nil {
				opened = io.instant(g.GetOpenedAt())
			}
			if g.GetEnd() != signingv1.LinkEnd_LINK_END_UNSPECIFIED {
				ended = enumWords(g.GetEnd().String(), "LINK_END_")
				if g.GetEndedAt() != nil {
					ended += " " + io.instant(g.GetEndedAt())
				}
				ended += said(g.GetEndReason())
			}
			rows = append(rows, []string{
				fmt.Sprint(s.GetPosition()), fmt.Sprint(g.GetNumber()), io.instant(g.GetMadeAt()),
				enumWords(g.GetOrigin().String(), "LINK_ORIGIN_") + said(g.GetReason()), opened, io.instant(g.GetExpiresAt()), ended,
			})
		}
	}
	return rows
}

func enumWords(name, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, prefix)), "_", " ")
}

func said(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// timeline is the audit trail in words, with the position of the signer it is about.
func timeline(io *IO, r *signingv1.RequestView, events []*signingv1.Event) [][]string {
	positions := map[string]string{}
	for _, s := range r.GetSigners() {
		positions[s.GetId()] = fmt.Sprintf("signer %d", s.GetPosition())
	}
	var rows [][]string
	for _, e := range trail.Read(events) {
		rows = append(rows, []string{absolute(e.At), relative(e.At.Sub(io.Now())), positions[e.LinkID], e.Words()})
	}
	return rows
}
