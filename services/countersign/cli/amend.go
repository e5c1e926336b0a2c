package cli

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// AmendCmd changes a request that goes on.
type AmendCmd struct {
	Client `embed:""`

	ID       string            `arg:"" help:"The request, req_..." name:"id"`
	Signer   string            `help:"The signer to change: position (1 is the first), id (lnk_...) or address." placeholder:"SIGNER"`
	Name     *string           `help:"The signer's name from now on." placeholder:"TEXT"`
	Email    *string           `help:"The signer's address from now on. They get a new link there, the old one is dead, and the old address is told." placeholder:"ADDRESS"`
	Locale   *string           `help:"The signer's language (BCP 47)." placeholder:"TAG"`
	TimeZone *string           `help:"The signer's time zone (IANA)." name:"time-zone" placeholder:"ZONE"`
	Group    *uint32           `help:"The signer's place in the order, while their turn has not come." placeholder:"N"`
	Deadline string            `help:"When an unfinished request expires: a time (RFC 3339), or a span from now such as 72h." placeholder:"TIME"`
	Metadata map[string]string `help:"Metadata to set; an empty value removes it." placeholder:"KEY=VALUE"`
	Reason   string            `help:"Why." placeholder:"TEXT"`
}

// Help teaches by examples.
func (c *AmendCmd) Help() string {
	return `What is not named stays as it is. The same amendment again changes nothing. Who has signed cannot be changed; while a signature is
being made it is refused, and says when to try again.

Examples:
  countersign amend req_Zb3... --signer 1 --email ada@example.com --reason 'she moved'
  countersign amend req_Zb3... --signer bob@example.com --group 3
  countersign amend req_Zb3... --deadline 2026-12-24T18:00:00+01:00
  countersign amend req_Zb3... --metadata stage=review`
}

// Run amends.
func (c *AmendCmd) Run(ctx context.Context, io *IO) error {
	req := &signingv1.AmendRequest{Id: c.ID, Metadata: c.Metadata, Reason: c.Reason}
	if c.Deadline != "" {
		at, err := moment(c.Deadline, io.Now())
		if err != nil {
			return err
		}
		req.Deadline = timestamppb.New(at)
	}
	change := &signingv1.SignerAmendment{Name: c.Name, Email: c.Email, Locale: c.Locale, TimeZone: c.TimeZone, Group: c.Group}
	named := c.Name != nil || c.Email != nil || c.Locale != nil || c.TimeZone != nil || c.Group != nil
	switch {
	case named && c.Signer == "":
		return usage("say whom it is about, for example --signer 1", "--name, --email, --locale, --time-zone and --group need --signer")
	case !named && c.Signer != "":
		return usage("for example --email ADDRESS", "--signer says whom to change, and nothing says what")
	case !named && c.Deadline == "" && len(c.Metadata) == 0:
		return usage("for example: countersign amend req_Zb3... --deadline 72h", "there is nothing to change")
	}
	return c.with(ctx, func(ctx context.Context, client signingv1.SigningRequestServiceClient) error {
		if named {
			var err error
			if change.Signer, err = (Seat{ID: c.ID, Signer: c.Signer}).find(ctx, client); err != nil {
				return err
			}
			req.Signers = []*signingv1.SignerAmendment{change}
		}
		answer, err := client.Amend(ctx, req)
		if err != nil {
			return err
		}
		if c.JSON {
			return io.line(answer.GetRequest())
		}
		r := answer.GetRequest()
		io.print("%s is amended.\n\n", clean(r.GetTitle()))
		if r.GetDeadline() != nil {
			io.table("  ", [][]string{{"deadline", io.instant(r.GetDeadline())}})
		}
		io.table("  ", signerTable(io, r))
		return nil
	})
}

// moment reads a time, or a span from now in hours, minutes and seconds or in days.
func moment(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := time.ParseDuration(days + "h"); err == nil {
			return now.Add(24 * n), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(d), nil
	}
	return time.Time{}, usage("give for example --deadline 2026-12-24T18:00:00Z, or --deadline 72h", "--deadline %q is no time", text)
}
