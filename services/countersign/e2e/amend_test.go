package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"countersign.dev/pkg/failure"
	"countersign.dev/services/countersign/signer"
)

// TestAddressChanged: the person at the new address gets a link and signs; the one at the old address is told, without a link, and
// what they have says so: the mail's link, the page they left open, and the code they had asked for.
func TestAddressChanged(t *testing.T) {
	t.Parallel() // it mostly waits
	in := newInstance(t, briskSettings, quickFlags...)
	in.start("")
	ctx := within(t, time.Minute)
	const old, moved = "ada@old.example.com", "ada@new.example.com"
	v, err := in.create(ctx, request("moved", "brisk", old))
	if err != nil {
		t.Fatal(err)
	}
	first := signer.New(old, in.Addresses.Mailbox)
	link := await(ctx, t, first, withLink)
	untouched := get(ctx, t, signer.New(old, in.Addresses.Mailbox), link.Link())
	inside := press(ctx, t, first, get(ctx, t, first, link.Link()), nil)

	body := fmt.Appendf(nil, `{"signers":[{"signer":"1","email":%q}],"reason":"she moved"}`, moved)
	for range 2 { // a platform that got no answer asks again
		if status, err := call(ctx, http.MethodPatch, in.Addresses.HTTP+"/v1/requests/"+v.ID, body, &v); err != nil || status != http.StatusOK {
			t.Fatalf("amend answered %d, %v", status, err)
		}
	}
	told := await(ctx, t, first, func(m signer.Mail) bool { return strings.Contains(m.Text, "another address") })
	if told.Link() != "" || strings.Contains(told.Text, moved) || strings.Contains(told.Text, "/s/") {
		t.Errorf("the old address should read neither a link nor the new address: %.400s", told.Text)
	}
	for what, p := range map[string]*signer.Page{
		"the old mail's link":              get(ctx, t, signer.New(old, in.Addresses.Mailbox), link.Link()),
		"the old mail's link, opened once": get(ctx, t, first, link.Link()),
		"the form that was left open":      press(ctx, t, signer.New(old, in.Addresses.Mailbox), untouched, nil),
	} {
		if !says(p, failure.LinkReaddressed) || strings.Contains(p.Text, "new.example.com") {
			t.Errorf("%s shows %s", what, describe(p))
		}
	}
	if p := get(ctx, t, first, inside.URL.String()); strings.Contains(p.Text, "vertrag.pdf") || p.Status < 400 {
		t.Errorf("the session of the old address still shows %s", describe(p))
	}
	if err := in.person(moved).signs(ctx, v.ID, 1); err != nil {
		t.Fatal(err)
	}
	in.completed(t, ctx, v.ID)
	o := in.oracle(t)
	o.nothingDead(ctx)
	if n := o.linkMails(ctx, moved); n != 1 {
		t.Errorf("%d mails with a link to the new address", n)
	}
	inOrder(t, o.outcomes(ctx, v.ID), "accepted", "amended", "completed")
	inOrder(t, in.trail(ctx, t, v.ID), "cs.link.issued", "cs.link.redeemed", "cs.link.reissued", "cs.request.amended", "cs.signature.applied")
	in.stop()
}
