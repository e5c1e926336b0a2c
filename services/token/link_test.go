package token_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token"
	"countersign.dev/services/token/rules"
)

// TestRedeemAtOnce: of 64 browsers that press the button at once, with several tokens of one link, one has the session.
func TestRedeemAtOnce(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	link := view.GetSigners()[0].GetId()
	tokens := []string{w.mint(link, 1), w.mint(link, 1), w.mint(link, 1)}
	var mu sync.Mutex
	var won []string
	used := 0
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			browser := fmt.Sprint("number ", i)
			_, err := w.redeem(tokens[i%len(tokens)], browser)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won = append(won, browser)
			case errors.Is(failure.From(err), failure.LinkUsed):
				used++
			default:
				t.Errorf("error %v", err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 || used != 63 || w.stated(link, "LinkRedeemed") != 1 {
		t.Fatalf("%d sessions, %d refused, %d stated", len(won), used, w.stated(link, "LinkRedeemed"))
	}
	if n := w.stated(link, "LinkDenied"); n != 1 {
		t.Errorf("63 refusals within a minute were stated %d times", n)
	}
	for _, decisive := range []bool{true, false} {
		if code := w.session(link, won[0], decisive); code != "" {
			t.Errorf("the winner's session: %s", code)
		}
		if code := w.session(link, "of nobody", decisive); code != failure.LinkUsed.Code {
			t.Errorf("another browser's session: %q", code)
		}
	}
	w.private(tokens...)
}

// TestPagesChangeNothing is spec 2.2: opening a link's page any number of times states nothing.
func TestPagesChangeNothing(t *testing.T) {
	w := start(t)
	link := w.create(lease(reference)).GetSigners()[0].GetId()
	secret := w.mint(link, 1)
	before := len(w.Facts(token.Name, "fact.token.>"))
	for range 20 {
		if code := w.resolve(secret, ""); code != "" {
			t.Fatal(code)
		}
	}
	if n := len(w.Facts(token.Name, "fact.token.>")); n != before {
		t.Errorf("%d facts", n-before)
	}
	if _, err := w.redeem(secret, "a"); err != nil {
		t.Error(err)
	}
	parsed, err := rules.ParseToken(secret)
	if err != nil {
		t.Fatal(err)
	}
	parsed.Tenant = "rival"
	foreign, err := rules.FormatToken(parsed)
	if err != nil {
		t.Fatal(err)
	}
	parsed.Tenant, parsed.Secret = tenant, make([]byte, rules.SecretSize)
	guess, err := rules.FormatToken(parsed)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]string{"of another tenant": foreign, "guessed": guess, "mistyped": secret[:len(secret)-1], "nonsense": "x"} {
		if code := w.resolve(s, "a"); code != failure.LinkUnknown.Code {
			t.Errorf("%s resolves to %q", name, code)
		}
		_, err := w.redeem(s, "a")
		refused(t, err, failure.LinkUnknown)
	}
}

// TestRedisIsNeverTrusted is spec 2.10: emptied, or set back to any former state, it revives nothing, and refuses nothing that holds.
func TestRedisIsNeverTrusted(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	link := view.GetSigners()[0].GetId()
	first := w.mint(link, 1)
	w.settled()
	unused := w.dump()
	if len(unused) == 0 {
		t.Fatal("Redis holds nothing: there is nothing to fall back to")
	}
	w.mustRedeem(first, "ada's")
	for name, happens := range map[string]func(){"emptied": w.flush, "set back": func() { w.failOver(unused) }} {
		happens()
		_, err := w.redeem(first, "eve's")
		refused(t, err, failure.LinkUsed)
		happens()
		if back := w.mustRedeem(first, "ada's"); back.GetSessionId() == "" {
			t.Errorf("%s: the session is gone", name)
		}
		happens()
		if code := w.session(link, "ada's", true); code != "" {
			t.Errorf("%s: the session does not go on: %s", name, code)
		}
		happens()
		if _, err := w.links.AdmitSigning(t.Context(), admission(link, "eve's")); !errors.Is(failure.From(err), failure.LinkUsed) {
			t.Errorf("%s: eve signs: %v", name, err)
		}
	}
	if w.stated(link, "LinkRedeemed") != 1 {
		t.Fatal("a used token was used again")
	}
	w.settled()
	redeemed := w.dump()
	w.reissue(view.GetId())
	second := w.mint(link, 2)
	// What Redis remembers would refuse the new token and let the old one in.
	w.failOver(redeemed)
	if got := w.mustRedeem(second, "ada's new one"); got.GetGeneration() != 2 {
		t.Errorf("redeemed generation %d", got.GetGeneration())
	}
	w.failOver(redeemed)
	_, err := w.redeem(first, "ada's")
	refused(t, err, failure.LinkSuperseded)
	w.failOver(redeemed)
	if _, err := w.links.AdmitSigning(t.Context(), admission(link, "ada's")); !errors.Is(failure.From(err), failure.LinkUsed) {
		t.Errorf("the former session signs: %v", err)
	}
	if _, err := w.signing.RevokeLink(as(t, tenant), &signingv1.RevokeLinkRequest{Id: view.GetId(), Signer: link}); err != nil {
		t.Fatal(err)
	}
	w.failOver(unused)
	_, err = w.redeem(second, "ada's new one")
	refused(t, err, failure.LinkRevoked)
}

func admission(link, browser string) *tokenv1.AdmitSigningRequest {
	return &tokenv1.AdmitSigningRequest{Tenant: tenant, LinkId: link, Browser: browserOf(browser), AdmissionId: "adm_" + browser[:3]}
}

func (w *world) reissue(request string) {
	w.t.Helper()
	if _, err := w.signing.ReissueLink(as(w.t, tenant), &signingv1.ReissueLinkRequest{Id: request, Signer: "1"}); err != nil {
		w.t.Fatal(err)
	}
}

// TestReissue is spec 2.5: the link before never works again, and the new one has its own life.
func TestReissue(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	link := view.GetSigners()[0].GetId()
	first := w.mint(link, 1)
	w.mustRedeem(first, "ada's")
	again := &signingv1.ReissueLinkRequest{Id: view.GetId(), Signer: link, IdempotencyKey: "once"}
	for range 3 {
		answer, err := w.signing.ReissueLink(as(t, tenant), again)
		if err != nil || answer.GetSigner().GetGeneration() != 2 {
			t.Fatalf("reissued as %v, %v", answer.GetSigner(), err)
		}
	}
	if code := w.resolve(first, "ada's"); code != failure.LinkSuperseded.Code {
		t.Errorf("the former link shows %q", code)
	}
	if code := w.session(link, "ada's", true); code != failure.SessionUnknown.Code {
		t.Errorf("the former session is %q", code)
	}
	_, err := w.links.Mint(t.Context(), &tokenv1.MintRequest{Tenant: tenant, LinkId: link, Generation: 1, DeliveryId: "dlv_1"})
	refused(t, err, failure.LinkSuperseded)
	// A message of the generation before, heard late, does not start the new one's clock.
	w.sent(link, view.GetId(), 1)
	w.settled()
	if w.link(link).GetClockStarted() {
		t.Error("the clock of generation 2 runs")
	}
	second := w.mint(link, 2)
	w.sent(link, view.GetId(), 2)
	w.sent(link, view.GetId(), 2)
	w.settled()
	if n := w.stated(link, "LinkClockStarted"); n != 1 || !w.link(link).GetClockStarted() {
		t.Errorf("the clock was started %d times", n)
	}
	w.mustRedeem(second, "ada's")
	w.private(first, second)
}

// TestContinue is spec 2.4 and 2.5: only who was verified goes on, here.
func TestContinue(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	link := view.GetSigners()[0].GetId()
	holder := w.link(link).GetHolderId()
	first := w.mint(link, 1)
	w.sent(link, view.GetId(), 1)
	w.settled()
	w.mustRedeem(first, "phone")
	goOn := func(browser string) (*tokenv1.ContinueResponse, error) {
		return w.links.Continue(t.Context(), &tokenv1.ContinueRequest{Tenant: tenant, LinkId: link, Browser: browserOf(browser)})
	}
	_, err := goOn("laptop")
	refused(t, err, failure.ReissueUnproved)
	w.peers.prove(browserOf("laptop"), "per_somebody_else")
	_, err = goOn("laptop")
	refused(t, err, failure.ReissueUnproved)
	w.peers.prove(browserOf("laptop"), holder)
	if answer, err := goOn("laptop"); err != nil || answer.GetReissued() {
		t.Fatalf("reissued %t, %v", answer.GetReissued(), err)
	}
	if phone, laptop := w.session(link, "phone", true), w.session(link, "laptop", true); phone != failure.LinkUsed.Code || laptop != "" {
		t.Errorf("the phone has %q, the laptop %q", phone, laptop)
	}
	w.clock.Advance(tenant, 8*24*time.Hour)
	if code := w.resolve(first, "laptop"); code != failure.LinkExpired.Code {
		t.Errorf("after its life the link shows %q", code)
	}
	for generation := uint32(2); generation <= 4; generation++ {
		answer, err := goOn("laptop")
		if err != nil || !answer.GetReissued() || answer.GetLink().GetGeneration() != generation {
			t.Fatalf("generation %d: %v, %v", generation, answer, err)
		}
		w.clock.Advance(tenant, 7*24*time.Hour+time.Hour)
	}
	if n := w.stated(link, "LinkReissued"); n != 3 {
		t.Errorf("%d new links", n)
	}
}

// TestNATSRestart: without the record nothing is redeemed and nothing is half done; after it everything goes on (spec 2.10).
func TestNATSRestart(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	link := view.GetSigners()[0].GetId()
	secret := w.mint(link, 1)
	w.settled()
	w.NATS.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	_, err := w.links.Redeem(ctx, &tokenv1.RedeemRequest{Token: secret, Browser: browserOf("ada's")})
	cancel()
	if err == nil || failure.From(err) != nil && !failure.From(err).Retryable {
		t.Errorf("without the record: %v", err)
	}
	// Redis may miss its time on a busy machine; then only the record could answer, so the page is asked for again.
	eventlogtest.Eventually(t, "the page is there without the record", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		answer, err := w.links.Resolve(ctx, &tokenv1.ResolveRequest{Token: secret, Browser: browserOf("ada's")})
		return err == nil && answer.GetFailureCode() == ""
	})
	w.NATS.Restart()
	eventlogtest.Eventually(t, "the record is back", func() bool {
		_, err := w.redeem(secret, "ada's")
		return err == nil
	})
	_, err = w.redeem(secret, "eve's")
	refused(t, err, failure.LinkUsed)
	if n := w.stated(link, "LinkRedeemed"); n != 1 {
		t.Errorf("redeemed %d times", n)
	}
	// What was published before and after is heard.
	w.signed(link, view.GetId())
	if events := w.told(view.GetId(), 2); strings.Join(events, " ") != "accepted completed" {
		t.Errorf("told %v", events)
	}
}

// TestCancelMeetsSignature is decisions 8: one of the two waits, and nothing is half done.
func TestCancelMeetsSignature(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	link := view.GetSigners()[0].GetId()
	w.mustRedeem(w.mint(link, 1), "ada's")
	admitted, err := w.links.AdmitSigning(t.Context(), admission(link, "ada's"))
	if err != nil {
		t.Fatal(err)
	}
	before := w.link(link)
	cancel := func() error {
		_, err := w.signing.Cancel(as(t, tenant), &signingv1.CancelRequest{Id: view.GetId(), Reason: "The mill burnt down"})
		return err
	}
	if busy := refused(t, cancel(), failure.LinkBusy); busy.RetryAfter <= time.Minute || busy.RetryAfter > 2*time.Minute {
		t.Errorf("says to wait %s", busy.RetryAfter)
	}
	_, err = w.signing.ReissueLink(as(t, tenant), &signingv1.ReissueLinkRequest{Id: view.GetId(), Signer: "1"})
	refused(t, err, failure.LinkBusy)
	_, err = w.signing.RevokeLink(as(t, tenant), &signingv1.RevokeLinkRequest{Id: view.GetId(), Signer: "1"})
	refused(t, err, failure.LinkBusy)
	after := w.link(link)
	if after.GetStatus() != before.GetStatus() || after.GetGeneration() != before.GetGeneration() || w.stated(view.GetId(), "RequestCancelled") != 0 {
		t.Errorf("changed to %v", after)
	}
	// While the cancellation is being decided nothing new is admitted; the same admission stands all the same.
	_, err = w.links.AdmitSigning(t.Context(), admission(link, "ada's"))
	refused(t, err, failure.LinkBusy)
	// The signature was not made: now the cancellation comes through, and everything of the link ends.
	w.clock.Advance(tenant, admitted.GetAdmission().GetUntil().AsTime().Sub(w.clock.Now(tenant)))
	if err := cancel(); err != nil {
		t.Fatal(err)
	}
	_, err = w.links.AdmitSigning(t.Context(), admission(link, "ada's"))
	if f := failure.From(err); !errors.Is(f, failure.LinkCancelled) {
		t.Errorf("after the cancellation: %v", err)
	}
	if err := cancel(); err != nil {
		t.Errorf("cancelled again: %v", err)
	}
	w.settled()
	if got := w.link(link).GetStatus(); got != tokenv1.LinkStatus_LINK_STATUS_CLOSED {
		t.Errorf("the link is %s", got)
	}
	if events := w.told(view.GetId(), 2); strings.Join(events, " ") != "accepted cancelled" {
		t.Errorf("told %v", events)
	}
	w.private("The mill burnt down")
}

// TestSignatureNotHeardOf: a signature that was made counts, also where this service hears of it long after its admission is over.
func TestSignatureNotHeardOf(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	link := view.GetSigners()[0].GetId()
	w.mustRedeem(w.mint(link, 1), "ada's")
	if _, err := w.links.AdmitSigning(t.Context(), admission(link, "ada's")); err != nil {
		t.Fatal(err)
	}
	w.peers.sign(link)
	w.peers.prove(browserOf("ada's other one"), w.link(link).GetHolderId())
	w.clock.Advance(tenant, 10*time.Minute)
	for name, turn := range map[string]func() error{
		"cancel": func() error {
			_, err := w.signing.Cancel(as(t, tenant), &signingv1.CancelRequest{Id: view.GetId()})
			return err
		},
		"reissue": func() error {
			_, err := w.signing.ReissueLink(as(t, tenant), &signingv1.ReissueLinkRequest{Id: view.GetId(), Signer: "1"})
			return err
		},
		"revoke": func() error {
			_, err := w.signing.RevokeLink(as(t, tenant), &signingv1.RevokeLinkRequest{Id: view.GetId(), Signer: "1"})
			return err
		},
		"continue elsewhere": func() error {
			_, err := w.links.Continue(t.Context(), &tokenv1.ContinueRequest{Tenant: tenant, LinkId: link, Browser: browserOf("ada's other one")})
			return err
		},
	} {
		if f := failure.From(turn()); !errors.Is(f, failure.LinkBusy) {
			t.Errorf("%s over a signature that was made: %v", name, f)
		}
	}
	w.signed(link, view.GetId())
	if events := w.told(view.GetId(), 2); strings.Join(events, " ") != "accepted completed" {
		t.Errorf("told %v", events)
	}
}

// TestCancelRacesSignature: whoever is first, never are both.
func TestCancelRacesSignature(t *testing.T) {
	w := start(t)
	for round := range 8 {
		view := w.create(lease(fmt.Sprint(reference, round)))
		link := view.GetSigners()[0].GetId()
		w.mustRedeem(w.mint(link, 1), "ada's")
		var admitted, cancelled error
		var wg sync.WaitGroup
		wg.Go(func() { _, admitted = w.links.AdmitSigning(t.Context(), admission(link, "ada's")) })
		wg.Go(func() {
			_, cancelled = w.signing.Cancel(as(t, tenant), &signingv1.CancelRequest{Id: view.GetId()})
		})
		wg.Wait()
		if admitted == nil && cancelled == nil {
			t.Fatal("a request was cancelled while its signature was admitted")
		}
		for _, err := range []error{admitted, cancelled} {
			if f := failure.From(err); err != nil && !errors.Is(f, failure.LinkBusy) && !errors.Is(f, failure.LinkCancelled) {
				t.Errorf("error %v", err)
			}
		}
	}
}

// TestLapse: a timer states the end of a link's life, once, decided from the record.
func TestLapse(t *testing.T) {
	w := start(t)
	r := lease(reference)
	r.Profile = "flash"
	view := w.create(r)
	link := view.GetSigners()[0].GetId()
	w.mint(link, 1)
	w.sent(link, view.GetId(), 1)
	eventlogtest.Eventually(t, "the link lapses", func() bool { return w.stated(link, "LinkLapsed") > 0 })
	w.sent(link, view.GetId(), 1)
	w.settled()
	if n := w.stated(link, "LinkLapsed"); n != 1 || !w.link(link).GetLapsed() {
		t.Errorf("lapsed %d times", n)
	}
	for _, f := range w.Facts(token.Name, "fact.token."+tenant+"."+link) {
		if f.Name() == "LinkLapsed" && f.Record.GetAt().AsTime().Before(w.link(link).GetExpiresAt().AsTime()) {
			t.Error("lapsed before its time")
		}
	}
}

// TestDirectory: words are kept once; nobody finds them under another tenant.
func TestDirectory(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	link := view.GetSigners()[0].GetId()
	holder := w.link(link).GetHolderId()
	p, err := w.directory.GetPerson(t.Context(), &tokenv1.GetPersonRequest{Tenant: tenant, LinkId: link, PersonId: holder})
	if err != nil || p.GetPerson().GetName() != adaName || p.GetPerson().GetEmail() != adaMail {
		t.Errorf("found %v, %v", p.GetPerson(), err)
	}
	_, err = w.directory.GetPerson(t.Context(), &tokenv1.GetPersonRequest{Tenant: "rival", LinkId: link, PersonId: holder})
	refused(t, err, failure.SignerUnknown)
	_, err = w.directory.GetRequest(t.Context(), &tokenv1.GetRequestRequest{Tenant: "rival", RequestId: view.GetId()})
	refused(t, err, failure.RequestUnknown)
	first, err := w.directory.PutNote(t.Context(), &tokenv1.PutNoteRequest{Tenant: tenant, OwnerId: link, NoteId: "not_1", Text: "as it was"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.directory.PutNote(t.Context(), &tokenv1.PutNoteRequest{Tenant: tenant, OwnerId: link, NoteId: "not_1", Text: "as it should have been"})
	if err != nil || string(again.GetCommitment()) != string(first.GetCommitment()) {
		t.Errorf("committed to other words, %v", err)
	}
	if n, err := w.directory.GetNote(t.Context(), &tokenv1.GetNoteRequest{Tenant: tenant, OwnerId: link, NoteId: "not_1"}); err != nil || n.GetText() != "as it was" {
		t.Errorf("kept %q, %v", n.GetText(), err)
	}
	w.private("as it was", "as it should have been")
}

// key is an aggregate of another service.
func key(id string) eventlog.Key { return eventlog.Key{Tenant: tenant, ID: id} }
