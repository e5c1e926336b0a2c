package message_test

import (
	"fmt"
	"strings"
	"time"

	"countersign.dev/services/delivery/message"
)

func ExampleRender() {
	r, err := message.Render(message.Link, "en", message.Data{
		Brand:    message.Brand{Name: "Acme", Support: "help@acme.test"},
		Reader:   "Jane Roe",
		Sender:   "Alex Moreau",
		Document: "Offer letter",
		Link:     "https://sign.acme.test/s/cs1_4f7Qw2ZkT9v",
		Expires:  time.Date(2026, 3, 3, 11, 0, 0, 0, time.UTC),
		Zone:     "Europe/Berlin",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Subject)
	fmt.Println()
	text, _, _ := strings.Cut(r.Text, "\n-- \n") // the signature: how to reach support, and who sent this
	fmt.Println(text)
	// Output:
	// Please sign: Offer letter
	//
	// Your signature is needed
	// ========================
	//
	// Hello Jane Roe,
	//
	// Alex Moreau asks you to sign the document below. You can read it first
	// and sign on a phone or a computer; it takes a few minutes.
	//
	// Document:     Offer letter
	// From:         Alex Moreau
	// Valid until:  Tuesday, 3 March 2026, 12:00 CET
	//
	// Review and sign:
	// https://sign.acme.test/s/cs1_4f7Qw2ZkT9v
	//
	// Should you be too late, the same page gives you a new link.
	//
	// The link is meant for you alone. Please do not forward this email.
}
