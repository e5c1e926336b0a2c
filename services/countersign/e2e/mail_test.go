package e2e

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	"countersign.dev/services/mailbox"
)

// TestMailServerOnABadDay sends the first mail of a request through a relay that drops connections, answers 4xx, takes a mail without
// saying so, and then works: the mail arrives, as one mail, after attempts that back off.
func TestMailServerOnABadDay(t *testing.T) {
	t.Parallel() // it mostly waits
	relay := newRelay(t)
	relay.set(dropsAtOnce)
	const base, most = time.Second, 4 * time.Second
	in := newInstance(t, calmSettings, append(quickFlags, "--smtp", relay.address, "--attempts", "60", "--retry-base", base.String(), "--retry-cap", most.String())...)
	in.start("")
	in.Addresses.Mailbox = relay.page
	ctx := within(t, 2*time.Minute)
	const email = "patience@example.com"
	v, err := in.create(ctx, request("bad-day", "calm", email))
	if err != nil {
		t.Fatal(err)
	}
	o := in.oracle(t)
	deferred := func(code uint32) func() bool {
		return func() bool {
			n := 0
			for _, f := range o.facts(ctx, "delivery", v.ID) {
				if d, ok := f.message.(*deliveryv1.AttemptDeferred); ok && d.GetCode() == code {
					n++
				}
			}
			return n >= 2
		}
	}
	eventually(ctx, t, "dropped connections are told", deferred(0))
	chaos(ctx, t, relay.page, `{"Sender":{"ErrorCode":451,"Probability":100}}`)
	relay.set(works)
	eventually(ctx, t, "4xx to MAIL is told", deferred(451))
	chaos(ctx, t, relay.page, `{}`)
	relay.set(refusesByName)
	eventually(ctx, t, "4xx to RCPT is told", deferred(450))
	if n := len(relay.Messages()); n != 0 {
		t.Fatalf("everything was refused and the mailbox has %d mails", n)
	}
	relay.set(dropsAfterData)
	eventually(ctx, t, "it is delivered in the end", func() bool { return o.stated(ctx, "delivery", v.ID)["AttemptAccepted"] > 0 })

	backsOff(t, o.facts(ctx, "delivery", v.ID), base, most)
	mails := relay.Messages()
	if len(mails) != 2 || mails[0].MessageID == "" || mails[0].MessageID != mails[1].MessageID {
		t.Errorf("the mail that was taken silently and the one after should be one to the reader: %v", ids(mails))
	}
	p := in.person(email)
	both, err := p.Mails(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range both {
		if page := get(ctx, t, p.OtherBrowser(), m.Link()); page.Status != http.StatusOK {
			t.Errorf("a link of one of the two shows %s", describe(page))
		}
	}
	if err := p.signs(ctx, v.ID, 1); err != nil {
		t.Fatal(err)
	}
	in.completed(t, ctx, v.ID)
	o.quiet(ctx)
	o.nothingDead(ctx)
	o.completedOnce(ctx, v.ID, email, 1)
	in.stop()
}

// backsOff checks the attempts of the first delivery: counted one by one, each after the moment set for it, each wait within its bound,
// which doubles until it is at its most.
func backsOff(t *testing.T, facts []fact, base, most time.Duration) {
	t.Helper()
	var attempts uint32
	var next time.Time
	for _, f := range facts {
		switch m := f.message.(type) {
		case *deliveryv1.AttemptDeferred:
			attempts++
			bound := min(base<<(attempts-1), most)
			if d := m.GetDiagnostic(); strings.Contains(d, "patience") || strings.Contains(d, "Testperson") {
				t.Errorf("attempt %d keeps who it was for: %s", attempts, d)
			}
			if m.GetAttempt() != attempts || f.at.Before(next) || m.GetNextAttemptAt().AsTime().Sub(f.at) > bound {
				t.Errorf("attempt %d is told at %v, due at %v, as %v; the wait has at most %v", attempts, f.at, next, m, bound)
			}
			next = m.GetNextAttemptAt().AsTime()
		case *deliveryv1.AttemptAccepted:
			if m.GetAttempt() != attempts+1 || f.at.Before(next) {
				t.Errorf("accepted at %v, due at %v, as %v after %d attempts", f.at, next, m, attempts)
			}
			return
		}
	}
	t.Error("no attempt was accepted")
}

// chaos has a mailbox fail as Mailpit's API says.
func chaos(ctx context.Context, t *testing.T, page, triggers string) {
	t.Helper()
	if status, err := call(ctx, http.MethodPut, page+"/api/v1/chaos", []byte(triggers), nil); err != nil || status != http.StatusOK {
		t.Fatalf("chaos was answered %d, %v", status, err)
	}
}

func ids(mails []mailbox.Summary) []string {
	var out []string
	for _, m := range mails {
		out = append(out, m.MessageID)
	}
	return out
}
