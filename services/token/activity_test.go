package token_test

import (
	"testing"
	"time"

	"countersign.dev/pkg/failure"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// TestIdleSession: a session in which nothing happened for as long as the profile allows is over, for whatever would change
// something too, and its signer goes on after verification. Looking at a page is activity; somebody else's look is none.
func TestIdleSession(t *testing.T) {
	const idle = 15 * time.Minute // of the standard profile
	w := start(t)
	view := w.create(lease(reference))
	link := view.GetSigners()[0].GetId()
	secret := w.mint(link, 1)
	w.mustRedeem(secret, "ada's")
	for range 3 { // an hour's session, never idle
		w.clock.Advance(tenant, idle-time.Second)
		if code := w.session(link, "ada's", true); code != "" {
			t.Fatalf("a session that is used: %s", code)
		}
	}
	w.clock.Advance(tenant, idle-time.Second)
	if code := w.session(link, "bob's", true); code != failure.LinkUsed.Code {
		t.Fatalf("another browser: %s", code)
	}
	w.clock.Advance(tenant, time.Second)
	for what, code := range map[string]string{
		"its pages": w.session(link, "ada's", false), "the record": w.session(link, "ada's", true), "the link": w.resolve(secret, "ada's"),
	} {
		if code != failure.SessionExpired.Code {
			t.Errorf("%s: %q", what, code)
		}
	}
	_, err := w.redeem(secret, "ada's")
	refused(t, err, failure.SessionExpired)
	_, err = w.links.AdmitSigning(t.Context(), admission(link, "ada's"))
	refused(t, err, failure.SessionExpired)
	w.peers.prove(browserOf("ada's"), w.link(link).GetHolderId())
	if _, err := w.links.Continue(t.Context(), &tokenv1.ContinueRequest{Tenant: tenant, LinkId: link, Browser: browserOf("ada's")}); err != nil {
		t.Fatal(err)
	}
	if code := w.session(link, "ada's", true); code != "" || w.stated(link, "LinkResumed") != 1 {
		t.Errorf("after verification: %q, resumed %d times", code, w.stated(link, "LinkResumed"))
	}
}

// TestIdleIsForgotten: a Redis that was emptied ends nobody's session (spec 2.10).
func TestIdleIsForgotten(t *testing.T) {
	w := start(t)
	link := w.create(lease(reference)).GetSigners()[0].GetId()
	w.mustRedeem(w.mint(link, 1), "ada's")
	if code := w.session(link, "ada's", true); code != "" {
		t.Fatal(code)
	}
	w.clock.Advance(tenant, 16*time.Minute)
	w.flush()
	if code := w.session(link, "ada's", true); code != "" {
		t.Errorf("the session is %s", code)
	}
}
