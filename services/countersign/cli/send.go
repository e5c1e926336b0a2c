package cli

import (
	"context"
	"fmt"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// SendCmd makes a request.
type SendCmd struct {
	Client `embed:""`

	Document   string   `help:"The PDF to sign, at most 5 MiB." placeholder:"FILE"`
	Signer     []string `help:"Who signs; once for each." placeholder:"'NAME <ADDRESS>'" sep:"none"`
	Sequential bool     `help:"Each signer's turn comes when the one before has signed; else all at once."`
	Alternate  []string `help:"Who may sign instead of a signer, by position; several are asked in order." placeholder:"'1=NAME <ADDRESS>'" sep:"none"`
	Manager    []string `help:"Who is told when a signer takes too long, by position." placeholder:"'1=NAME <ADDRESS>'" sep:"none"`

	Title     string `help:"What signers see as the name of the document; default is the file's name." placeholder:"TEXT"`
	Reference string `help:"Your own name for the request: the same one is the same request. Default is made of the document and the signers." placeholder:"TEXT"`
	Profile   string `help:"Expiration profile; default is standard." placeholder:"NAME"`
	Locale    string `help:"Language of the signers, such as en or de." placeholder:"TAG"`
	TimeZone  string `help:"Time zone of the signers, such as Europe/Berlin." name:"time-zone" placeholder:"ZONE"`

	File     string `help:"Take the request from this file of JSON instead; - is standard input." placeholder:"FILE"`
	Watch    bool   `help:"Then follow the request until it is closed."`
	Patience `embed:""`
}

// Help teaches by examples.
func (c *SendCmd) Help() string {
	return `Sending the same again is harmless: it answers with the request that is there.

Examples:
  countersign send --document offer.pdf --signer 'Ada Lovelace <ada@example.com>'

  Two signers, one after the other; the first has an alternate and a manager:
  countersign send --document offer.pdf --title 'Offer letter' --sequential \
    --signer 'Ada Lovelace <ada@example.com>' --signer 'Charles Babbage <charles@example.com>' \
    --alternate '1=Grace Hopper <grace@example.com>' --manager '1=Mary Somerville <mary@example.com>'

  All that can be said, as JSON (the same as on NATS and REST):
  countersign send --file - --watch <<'END'
  {"reference":"offer-2026-117","title":"Offer letter","profile":"standard","integration":"hr","template":"offer",
   "value":{"currency_code":"EUR","units":"52000"},
   "documents":[{"name":"offer.pdf","content":"<base64 PDF>"}],
   "signers":[{"name":"Ada Lovelace","email":"ada@example.com","locale":"en","time_zone":"Europe/Berlin","group":1,
     "alternates":[{"name":"Grace Hopper","email":"grace@example.com"}],
     "manager":{"name":"C. Babbage","email":"cb@example.com"}}]}
  END
  --document beside --file gives the document of a request that has none.`
}

// Run sends it.
func (c *SendCmd) Run(ctx context.Context, io *IO) error {
	req, err := c.request(io)
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, client signingv1.SigningRequestServiceClient) error {
		answer, err := client.Create(ctx, &signingv1.CreateRequest{Request: req})
		if err != nil {
			return err
		}
		if c.JSON {
			if err := io.line(answer); err != nil {
				return err
			}
		} else {
			c.tell(io, answer)
		}
		if !c.Watch {
			return nil
		}
		return c.follow(ctx, io, client, answer.GetRequest(), "", c.Patience)
	})
}

func (c *SendCmd) tell(io *IO, answer *signingv1.CreateResponse) {
	r := answer.GetRequest()
	if answer.GetCreated() {
		io.print("Sent: %s\n\n", r.GetId())
	} else {
		io.print("Nothing new was sent: %s is there already under this reference. For another one give --reference.\n\n", r.GetId())
	}
	rows := [][]string{{"title", r.GetTitle()}, {"reference", r.GetReference()}, {"status", requestStatus(r.GetStatus())}}
	for _, d := range r.GetDocuments() {
		rows = append(rows, []string{"document", fmt.Sprintf("%s, %s", d.GetName(), count(int(d.GetPages()), "page", "pages"))})
	}
	for _, s := range r.GetSigners() {
		rows = append(rows, []string{fmt.Sprintf("signer %d", s.GetPosition()), fmt.Sprintf("%s <%s>, %s", s.GetName(), s.GetEmail(), signerStatus(s.GetStatus()))})
	}
	io.table("  ", rows)
	if !c.Watch {
		io.print("\nFollow it with: countersign watch %s\n", r.GetId())
	}
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func requestStatus(s signingv1.RequestStatus) string { return words(s.String(), "REQUEST_STATUS_") }

func signerStatus(s signingv1.SignerStatus) string { return words(s.String(), "SIGNER_STATUS_") }
