package cli

import (
	"context"
	"net/url"
	"strings"

	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// LinksCmd shows links and acts on them.
type LinksCmd struct {
	Get     LinkGetCmd   `cmd:"" help:"Show a link and how its generations came and went."`
	List    LinkListCmd  `cmd:"" help:"List the signers' links."`
	Watch   LinkWatchCmd `cmd:"" help:"Follow what happens to links, live."`
	Issue   IssueCmd     `cmd:"" help:"Print one more link of a signer, or of each line of a file, to hand over yourself."`
	Reissue ReissueCmd   `cmd:"" help:"Send a signer a new link; the one before never works again."`
	Revoke  RevokeCmd    `cmd:"" help:"Withdraw a signer's link until it is reissued."`
}

// Seat names a signer of a request.
type Seat struct {
	ID     string `arg:"" help:"The request, req_..." name:"id"`
	Signer string `arg:"" help:"The signer: position (1 is the first), id (lnk_...) or address." name:"signer"`
}

// find returns the signer as the server takes it: it knows positions and ids, people know addresses.
func (s Seat) find(ctx context.Context, client signingv1.SigningRequestServiceClient) (string, error) {
	if !strings.Contains(s.Signer, "@") {
		return s.Signer, nil
	}
	got, err := client.Get(ctx, &signingv1.GetRequest{Id: s.ID})
	if err != nil {
		return "", err
	}
	for _, v := range got.GetRequest().GetSigners() {
		if strings.EqualFold(v.GetEmail(), s.Signer) {
			return v.GetId(), nil
		}
	}
	return "", failure.SignerUnknown
}

// IssueCmd prints a fresh link.
type IssueCmd struct {
	Client `embed:""`

	ID       string `arg:"" optional:"" help:"The request, req_..." name:"id"`
	Signer   string `arg:"" optional:"" help:"The signer: position (1 is the first), id (lnk_...) or address." name:"signer"`
	File     string `help:"Issue a link for each line of this file instead; - is standard input." placeholder:"FILE"`
	Key      string `help:"Repeating the call with the same key gives the same link again." name:"idempotency-key" placeholder:"TEXT"`
	Patience `embed:""`

	PublicURL string `help:"Where signers reach Countersign; the link begins with it." default:"http://127.0.0.1:8080" env:"COUNTERSIGN_PUBLIC_URL" name:"public-url"`
}

// Help teaches by examples.
func (c *IssueCmd) Help() string {
	return `Whoever has the link can open it, so give it to the signer and to nobody else. Links sent before go on working until one of them is
opened. --json prints its path alone, since the server does not know under which name signers reach it.

A line of --file is {"id": "req_...", "signer": "1", "idempotency_key": "row-17"}; tens of thousands may go in one file. Each is answered:
its key and its link on standard output, or on standard error why not, and the exit status is 1 where any was refused. The same file again
gives the same links.

Examples:
  countersign links issue req_Zb3... 1
  countersign links issue req_Zb3... ada@example.com --public-url https://sign.example.com
  countersign links issue --file lines.jsonl > links.tsv
  ... | countersign links issue --file - --json`
}

// Run issues.
func (c *IssueCmd) Run(ctx context.Context, io *IO) error {
	base, err := url.Parse(c.PublicURL)
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return usage("give for example --public-url https://sign.example.com", "--public-url %q is no web address", c.PublicURL)
	}
	switch {
	case c.File != "" && c.ID == "":
		return c.batch(ctx, io, base)
	case c.File != "" || c.Signer == "":
		return usage("name both, as in `countersign links issue req_... 1`; or give --file alone", "a link is issued for a request and a signer, or for each line of a file")
	}
	return c.with(ctx, func(ctx context.Context, client signingv1.SigningRequestServiceClient) error {
		signer, err := Seat{c.ID, c.Signer}.find(ctx, client)
		if err != nil {
			return err
		}
		answer, err := client.IssueLink(ctx, &signingv1.IssueLinkRequest{Id: c.ID, Signer: signer, IdempotencyKey: c.Key})
		if err != nil {
			return err
		}
		if c.JSON {
			return io.line(answer)
		}
		io.print("%s\n", base.JoinPath(answer.GetPath()))
		io.note("It opens until %s.\n", io.instant(answer.GetExpiresAt()))
		return nil
	})
}

// ReissueCmd gives a signer a new link.
type ReissueCmd struct {
	Client `embed:""`
	Seat   `embed:""`

	Reason   string            `help:"Why." placeholder:"TEXT"`
	Metadata map[string]string `help:"Metadata of the request to change with it; an empty value removes it." placeholder:"KEY=VALUE"`
	Key      string            `help:"Repeating the call with the same key changes nothing more." name:"idempotency-key" placeholder:"TEXT"`
}

// Help teaches by examples.
func (c *ReissueCmd) Help() string {
	return `The new link goes to the address on record, by mail.

Examples:
  countersign links reissue req_Zb3... 1 --reason 'the mail was lost'
  countersign links reissue req_Zb3... ada@example.com`
}

// Run reissues.
func (c *ReissueCmd) Run(ctx context.Context, io *IO) error {
	return c.with(ctx, func(ctx context.Context, client signingv1.SigningRequestServiceClient) error {
		signer, err := c.find(ctx, client)
		if err != nil {
			return err
		}
		answer, err := client.ReissueLink(ctx, &signingv1.ReissueLinkRequest{Id: c.ID, Signer: signer, Reason: c.Reason, IdempotencyKey: c.Key, Metadata: c.Metadata})
		if err != nil {
			return err
		}
		if c.JSON {
			return io.line(answer)
		}
		s := answer.GetSigner()
		io.print("A new link is on its way to %s <%s>: generation %d, opens until %s. Links sent before are dead.\n",
			clean(s.GetName()), clean(s.GetEmail()), s.GetGeneration(), io.instant(s.GetExpiresAt()))
		return nil
	})
}

// RevokeCmd withdraws a signer's link.
type RevokeCmd struct {
	Client `embed:""`
	Seat   `embed:""`

	Reason string `help:"Why." placeholder:"TEXT"`
}

// Help teaches by examples.
func (c *RevokeCmd) Help() string {
	return `It takes effect at once. The request stays open: a reissue lets the signer go on.

Examples:
  countersign links revoke req_Zb3... 1 --reason 'sent to the wrong person'`
}

// Run revokes.
func (c *RevokeCmd) Run(ctx context.Context, io *IO) error {
	return c.with(ctx, func(ctx context.Context, client signingv1.SigningRequestServiceClient) error {
		signer, err := c.find(ctx, client)
		if err != nil {
			return err
		}
		answer, err := client.RevokeLink(ctx, &signingv1.RevokeLinkRequest{Id: c.ID, Signer: signer, Reason: c.Reason})
		if err != nil {
			return err
		}
		if c.JSON {
			return io.line(answer)
		}
		s := answer.GetSigner()
		io.print("The link of %s <%s> is withdrawn. To let them sign after all: countersign links reissue %s %d\n",
			clean(s.GetName()), clean(s.GetEmail()), c.ID, s.GetPosition())
		return nil
	})
}
