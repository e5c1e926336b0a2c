package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"countersign.dev/pkg/failure"
	"countersign.dev/services/countersign/signer"
)

// TestTwoHundredRedeemsAtOnce has 200 browsers press the button of one link at the same moment: one gets the session, the others
// read that the link is open in another browser.
func TestTwoHundredRedeemsAtOnce(t *testing.T) {
	const browsers = 200
	in := newInstance(t, calmSettings, quickFlags...)
	in.start("")
	ctx := within(t, 3*time.Minute)
	const email = "raced@example.com"
	v, err := in.create(ctx, request("raced", "calm", email))
	if err != nil {
		t.Fatal(err)
	}
	link := await(ctx, t, signer.New(email, in.Addresses.Mailbox), withLink).Link()

	all := make([]*signer.Signer, browsers)
	forms := make([]signer.Form, browsers)
	answers := make([]*signer.Page, browsers)
	errs := make([]error, browsers)
	for i := range all {
		all[i] = signer.New(email, in.Addresses.Mailbox)
		if forms[i], err = get(ctx, t, all[i], link).Form(); err != nil {
			t.Fatal(err)
		}
	}
	start := make(chan struct{})
	var race sync.WaitGroup
	for i := range all {
		race.Go(func() {
			<-start
			answers[i], errs[i] = all[i].Submit(ctx, forms[i], nil)
		})
	}
	close(start)
	race.Wait()

	var winners []int
	refused := map[string]int{}
	for i, page := range answers {
		switch {
		case errs[i] != nil:
			refused[errs[i].Error()]++
		case page.Status == http.StatusOK && strings.HasPrefix(page.URL.Path, "/sign/"):
			winners = append(winners, i)
		case says(page, failure.LinkUsed):
			refused["used"]++
		default:
			refused[fmt.Sprintf("%d %.80s", page.Status, page.Text)]++
		}
	}
	if len(winners) != 1 || refused["used"] != browsers-1 {
		t.Fatalf("%d of %d browsers have the session; the others: %v", len(winners), browsers, refused)
	}
	winner := in.person(email)
	winner.Signer, winner.page = all[winners[0]], answers[winners[0]]
	if err := winner.signs(ctx, v.ID, 1); err != nil {
		t.Fatal(err)
	}
	in.completed(t, ctx, v.ID)
	o := in.oracle(t)
	o.quiet(ctx)
	o.nothingDead(ctx)
	o.completedOnce(ctx, v.ID, email, 1)
	if facts := o.stated(ctx, "token", v.ID); facts["LinkRedeemed"] != 1 || facts["LinkResumed"] != 0 || facts["LinkReissued"] != 0 {
		t.Errorf("one session from beginning to end was wanted; token stated %v", facts)
	}
	in.stop()
}
