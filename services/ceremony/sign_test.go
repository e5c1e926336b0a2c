package ceremony_test

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"time"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/host/hosttest"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	recordv1 "countersign.dev/proto/countersign/record/v1"
)

// TestSigned is the whole way of one signer, and what a repeated command finds.
func TestSigned(t *testing.T) {
	w := start(t)
	d := w.accepted("req_1")
	w.mustShow("req_1", 1)
	w.mustShow("req_1", 1)
	act := w.act("req_1", 1, d)
	answer, err := w.client.Sign(t.Context(), act)
	if err != nil {
		t.Fatal(err)
	}
	found := w.signatures("req_1")
	if len(found) != 1 || found[0].Field != "Signer1" || found[0].Name != adaName || !found[0].CoversWholeFile {
		t.Fatalf("signatures %v", found)
	}
	stood := answer.GetCeremony().GetSeats()[0]
	if stood.GetStatus() != ceremonyv1.SeatStatus_SEAT_STATUS_SIGNED || w.peers.note(stood.GetNameId()) != adaName {
		t.Errorf("seat %v", stood)
	}
	f := fact[*ceremonyv1.CeremonySigned](w, "req_1")
	if !bytes.Equal(f.GetPresentedSha256(), d.GetPresentedSha256()) || !bytes.Equal(f.GetBeforeSha256(), d.GetPresentedSha256()) ||
		f.GetVerificationId() != "evd_1" || f.GetAchievedLevel() != 1 || f.GetGrace() || f.GetHolderId() != "per_1_1" {
		t.Errorf("stated %v", f)
	}
	for field, want := range map[string]string{"sign.name": adaName, "net.ip": address, "net.ua": agent} {
		if got := w.peers.note(f.GetNoteIds()[field]); got != want || len(f.GetCommitments()[field]) != 32 {
			t.Errorf("%s is %q in the vault", field, got)
		}
	}
	by := w.stated("req_1")[3].Record.GetActor()
	if by.GetKind() != recordv1.ActorKind_ACTOR_KIND_SIGNER || by.GetRef() != "per_1_1" {
		t.Errorf("stated by %v", by)
	}

	// The answer was lost and the signer presses again: before token has heard of it, and after; on a new process as well.
	repeat := func() {
		t.Helper()
		again, err := w.client.Sign(t.Context(), act)
		if err != nil || again.GetCeremony().GetSeats()[0].GetStatus() != ceremonyv1.SeatStatus_SEAT_STATUS_SIGNED {
			t.Errorf("again: %v, %v", again, err)
		}
	}
	repeat()
	w.peers.set(func() { w.peers.ended[linkOf("req_1", 1)] = failure.LinkSigned.Code })
	repeat()
	w.NATS.Restart()
	repeat()
	w.wantFacts("req_1", "CeremonyPrepared", "DocumentShown", "ConsentGiven", "CeremonySigned")
	if n := len(w.signatures("req_1")); n != 1 {
		t.Errorf("%d signatures", n)
	}
	w.done()
}

// TestSignedAtOnce: one signer's command many times over and another signer's at the same moment make two signatures, one on the other.
func TestSignedAtOnce(t *testing.T) {
	w := start(t)
	d := w.accepted("req_1")
	w.mustShow("req_1", 1)
	w.mustShow("req_1", 2)
	// Everybody stands at the gate before anybody goes through.
	var gate sync.WaitGroup
	gate.Add(6)
	w.peers.set(func() { w.peers.beforeAdmission = func() { gate.Done(); gate.Wait() } })
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			if _, err := w.client.Sign(t.Context(), w.act("req_1", 1+i%2, d)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	found := w.signatures("req_1")
	var fields []string
	for _, s := range found {
		fields = append(fields, s.Field+" "+s.Name)
	}
	slices.Sort(fields)
	if !slices.Equal(fields, []string{"Signer1 " + adaName, "Signer2 " + graceName}) {
		t.Errorf("signatures %v", fields)
	}
	signed := 0
	for _, f := range w.stated("req_1") {
		if f.Name() == "CeremonySigned" {
			signed++
		}
	}
	if signed != 2 {
		t.Errorf("stated %v", hosttest.Names(w.stated("req_1")))
	}
	if n := w.peers.admitted(); n != 2 {
		t.Errorf("%d admissions for two sessions: a repeated command must come with the same id", n)
	}
	w.done()
}

// TestNotSigned: whatever is missing, nothing is signed, and nothing is stated that was not so; what is right afterwards is taken.
func TestNotSigned(t *testing.T) {
	w := start(t)
	d := w.accepted("req_1")
	w.peers.opened("req_else", "lnk_else_1", 1)
	w.mustShow("req_1", 1)
	begun := []string{"CeremonyPrepared", "DocumentShown"}
	agreed := append(slices.Clone(begun), "ConsentGiven")
	for _, tt := range []struct {
		name  string
		spoil func(*ceremonyv1.SignRequest)
		world func()
		want  *failure.Error
		facts []string
	}{
		{name: "another browser", spoil: func(r *ceremonyv1.SignRequest) { r.Browser = "a browser that found the page" }, want: failure.LinkUsed, facts: begun},
		{name: "another request's link", spoil: func(r *ceremonyv1.SignRequest) { r.LinkId, r.Browser = "lnk_else_1", browserOf("lnk_else_1") }, want: failure.SessionUnknown, facts: begun},
		{name: "no letters", spoil: func(r *ceremonyv1.SignRequest) { r.Name = "x 1" }, want: failure.SignatureInvalid, facts: begun},
		{name: "hidden characters", spoil: func(r *ceremonyv1.SignRequest) { r.Name = "Ada\u202eecalevoL" }, want: failure.SignatureInvalid, facts: begun},
		{name: "no consent", spoil: func(r *ceremonyv1.SignRequest) { r.Consent = nil }, want: failure.ConsentRequired, facts: begun},
		{name: "no intent", spoil: func(r *ceremonyv1.SignRequest) { r.IntentSha256 = nil }, want: failure.ConsentRequired, facts: begun},
		{name: "another document", spoil: func(r *ceremonyv1.SignRequest) { r.PresentedSha256 = make([]byte, 32) }, want: failure.RequestInvalid, facts: begun},
		{name: "not verified", world: func() { w.peers.unproved = true }, want: failure.IdentityRequired, facts: begun},
		{name: "a session that ended", world: func() { w.peers.ended[linkOf("req_1", 1)] = failure.SessionExpired.Code }, want: failure.SessionExpired, facts: begun},
		{name: "refused by token", world: func() { w.peers.refusal = failure.LinkSuperseded }, want: failure.LinkSuperseded, facts: agreed},
		{name: "token away", world: func() { w.peers.refusal = failure.Unavailable }, want: failure.Unavailable, facts: agreed},
		{name: "held too shortly", world: func() { w.peers.held = 5 * time.Second }, want: failure.LinkBusy, facts: agreed},
	} {
		if tt.world != nil {
			w.peers.set(tt.world)
		}
		act := w.act("req_1", 1, d)
		if tt.spoil != nil {
			tt.spoil(act)
		}
		_, err := w.client.Sign(t.Context(), act)
		if got := failure.From(err); got == nil || got.Code != tt.want.Code {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want.Code)
		}
		if got := hosttest.Names(w.stated("req_1")); !slices.Equal(got, tt.facts) || len(w.signatures("req_1")) != 0 {
			t.Fatalf("%s: stated %v", tt.name, got)
		}
		w.peers.set(func() {
			w.peers.unproved, w.peers.refusal, w.peers.held = false, nil, 2*time.Minute
			clear(w.peers.ended)
		})
	}
	if _, err := w.client.Sign(t.Context(), w.act("req_1", 1, d)); err != nil || len(w.signatures("req_1")) != 1 {
		t.Errorf("afterwards %v", err)
	}
	// The document was not shown to this session: nobody agrees to what they did not see.
	d = w.accepted("req_unseen")
	_, err := w.client.Sign(t.Context(), w.act("req_unseen", 1, d))
	refused(t, err, failure.ConsentRequired)
	w.wantFacts("req_unseen", "CeremonyPrepared")
	w.done()
}

// TestDeclined: the words go to the vault, and neither act follows the other.
func TestDeclined(t *testing.T) {
	w := start(t)
	d := w.accepted("req_1")
	w.mustShow("req_1", 1)
	for range 2 {
		if err := w.decline("req_1", 1); err != nil {
			t.Fatal(err)
		}
	}
	if f := fact[*ceremonyv1.CeremonyDeclined](w, "req_1"); w.peers.note(f.GetReasonId()) != reason || f.GetLinkId() != linkOf("req_1", 1) {
		t.Errorf("stated %v", f)
	}
	_, err := w.client.Sign(t.Context(), w.act("req_1", 1, d))
	refused(t, err, failure.LinkDeclined)
	w.peers.set(func() { w.peers.ended[linkOf("req_1", 1)] = failure.LinkDeclined.Code })
	if err := w.decline("req_1", 1); err != nil {
		t.Errorf("declined again, after token heard of it: %v", err)
	}
	w.wantFacts("req_1", "CeremonyPrepared", "DocumentShown", "CeremonyDeclined")
	if n := len(w.signatures("req_1")); n != 0 {
		t.Errorf("%d signatures", n)
	}

	// The other one signed, and token has not heard of it yet.
	w.mustShow("req_1", 2)
	if _, err := w.client.Sign(t.Context(), w.act("req_1", 2, d)); err != nil {
		t.Fatal(err)
	}
	refused(t, w.decline("req_1", 2), failure.LinkSigned)
	w.done()
}
