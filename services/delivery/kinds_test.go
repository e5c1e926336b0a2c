package delivery_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/failure"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/delivery"
	"countersign.dev/services/mailbox"
)

// TestEveryFactHasItsMail: who is written to, with what in it, for every fact that delivery hears.
func TestEveryFactHasItsMail(t *testing.T) {
	w := start(t)
	ada := w.peers.link(linkID, func(l *tokenv1.Link) { l.Generation = 2 })
	w.peers.link("lnk_seat2", func(l *tokenv1.Link) { l.HolderId = "per_grace" })
	w.peers.link("lnk_seat3", func(l *tokenv1.Link) { l.HolderId = "" }) // its turn never came
	ended := &tokenv1.Request{Id: request, Tenant: tenant, Documents: []*tokenv1.RequestDocument{{Id: "doc_1"}}, Seats: []*tokenv1.Seat{
		{LinkId: linkID, Status: tokenv1.SeatStatus_SEAT_STATUS_SIGNED},
		{LinkId: "lnk_seat2", Status: tokenv1.SeatStatus_SEAT_STATUS_OPEN},
		{LinkId: "lnk_seat3", Status: tokenv1.SeatStatus_SEAT_STATUS_WAITING},
	}}
	link := site + "/s/"
	for _, tt := range []struct {
		service, id string
		fact, state proto.Message
		kind        deliveryv1.Kind
		to          map[string][]string // address: what stands in the mail
	}{
		{"token", linkID, &tokenv1.LinkReissued{FromGeneration: 1, Generation: 2}, ada, deliveryv1.Kind_KIND_REISSUED, map[string][]string{adaMail: {link, title}}},
		{
			"token", linkID, &tokenv1.LinkRerouted{Generation: 2, HolderId: "per_grace", FormerHolderId: "per_ada"}, ada, deliveryv1.Kind_KIND_ALTERNATE,
			map[string][]string{graceMail: {link, adaName, "Die Unterschrift kam nicht rechtzeitig."}},
		},
		{
			"token", linkID, &tokenv1.LinkReissued{
				FromGeneration: 1, Generation: 2, Reason: tokenv1.ReissueReason_REISSUE_REASON_ADDRESS_CHANGED, HolderId: "per_grace", FormerHolderId: "per_ada",
			}, ada, deliveryv1.Kind_KIND_ADDRESS_CHANGED,
			map[string][]string{graceMail: {link, title}, adaMail: {title, "go to another address. Links that were sent to this one no longer work."}},
		},
		{
			"identity", "vrf_1", &identityv1.ChallengeStarted{LinkId: linkID, Challenge: &identityv1.Challenge{Id: "chl_1", PersonId: "per_ada"}},
			&identityv1.Verification{}, deliveryv1.Kind_KIND_CODE,
			map[string][]string{adaMail: {code}},
		},
		{"reminder", "rem_1", &reminderv1.ReminderDue{LinkId: linkID, Generation: 2, HolderId: "per_ada", Ordinal: 1}, &reminderv1.Plan{}, deliveryv1.Kind_KIND_REMINDER, map[string][]string{adaMail: {link}}},
		{
			"reminder", "rem_1", &reminderv1.ReminderDue{LinkId: linkID, Generation: 2, HolderId: "per_ada", Ordinal: 2, Partial: true},
			&reminderv1.Plan{}, deliveryv1.Kind_KIND_PARTIAL,
			map[string][]string{adaMail: {link}},
		},
		// The new link's own mail reminds.
		{"reminder", "rem_1", &reminderv1.ReminderDue{LinkId: linkID, Generation: 2, HolderId: "per_ada", Ordinal: 3, Rotate: true}, &reminderv1.Plan{}, 0, nil},
		{
			"escalation", "esc_1", &escalationv1.ManagerNotified{LinkId: linkID, Generation: 2, ManagerId: "per_boss", HolderId: "per_ada"},
			&escalationv1.Escalation{}, deliveryv1.Kind_KIND_MANAGER,
			map[string][]string{bossMail: {adaName, title}},
		},
		{"token", request, &tokenv1.RequestDeclined{LinkId: linkID}, ended, deliveryv1.Kind_KIND_DECLINED, map[string][]string{graceMail: {adaName}}},
		{"token", request, &tokenv1.RequestCancelled{ReasonId: "not_1"}, ended, deliveryv1.Kind_KIND_CANCELLED, map[string][]string{adaMail: {reason}, graceMail: {reason}}},
		{"token", request, &tokenv1.RequestCompleted{LinkId: linkID}, ended, deliveryv1.Kind_KIND_COMPLETED, map[string][]string{adaMail: {title}, graceMail: {title}}},
	} {
		name := tt.kind.String() + " of " + string(tt.fact.ProtoReflect().Descriptor().Name())
		mails, accepted := len(w.mails()), count(w.facts(), "AttemptAccepted")
		w.says(tt.service, tt.id, tt.fact, tt.state)
		facts := w.until("AttemptAccepted", accepted+len(tt.to))
		w.Settled(delivery.Topology())
		for _, m := range w.mails()[mails:] {
			w.wantMail(name, m, tt.kind, tt.to[m.To[0].Address])
		}
		if got := len(w.mails()) - mails; got != len(tt.to) {
			t.Errorf("%s: %d mails, want %d", name, got, len(tt.to))
		}
		for _, f := range facts {
			if a, ok := f.Fact.(*deliveryv1.AttemptAccepted); ok && stateOf(t, f.Record.GetState()).GetKind() != a.GetKind() {
				t.Errorf("%s: accepted as %s", name, a.GetKind())
			}
		}
	}
	before := len(w.facts())
	w.again()
	if got := len(w.facts()); got != before {
		t.Errorf("heard again, %d facts became %d", before, got)
	}
	w.done()
}

func (w *world) wantMail(name string, m mailbox.Message, kind deliveryv1.Kind, want []string) {
	w.t.Helper()
	if want == nil {
		w.t.Errorf("%s: a mail to %s: %s", name, m.To[0].Address, m.Subject)
	}
	flat := strings.Join(strings.Fields(m.Subject+" "+m.Text), " ") // lines of the text end where they are full
	for _, s := range want {
		if !strings.Contains(flat, s) {
			w.t.Errorf("%s: the mail to %s lacks %q:\n%s", name, m.To[0].Address, s, m.Text)
		}
	}
	if kind == deliveryv1.Kind_KIND_ADDRESS_CHANGED && m.To[0].Address == adaMail && (strings.Contains(flat, site+"/s/") || strings.Contains(flat, graceMail)) {
		w.t.Errorf("%s: the old address reads of the new link or address:\n%s", name, m.Text)
	}
	files := map[string]int{}
	for _, a := range m.Attachments {
		files[a.FileName] = a.Size
	}
	if kind != deliveryv1.Kind_KIND_COMPLETED {
		if len(files) > 0 {
			w.t.Errorf("%s: files %v", name, files)
		}
		return
	}
	if len(files) != 2 || files["mill-signed.pdf"] != len("%PDF-1.7 signed") || files["certificate.pdf"] != len("%PDF-1.7 certificate") {
		w.t.Errorf("%s: files %v", name, files)
	}
}

// TestAnErasedDecliner: the others hear that the request ended, though not by whom.
func TestAnErasedDecliner(t *testing.T) {
	w := start(t, func(w *world) { w.peers.people["per_ada"] = nil })
	w.peers.link(linkID, func(*tokenv1.Link) {})
	w.peers.link("lnk_seat2", func(l *tokenv1.Link) { l.HolderId = "per_grace" })
	w.says("token", request, &tokenv1.RequestDeclined{LinkId: linkID}, &tokenv1.Request{Id: request, Tenant: tenant, Seats: []*tokenv1.Seat{
		{LinkId: linkID, Status: tokenv1.SeatStatus_SEAT_STATUS_DECLINED}, {LinkId: "lnk_seat2", Status: tokenv1.SeatStatus_SEAT_STATUS_OPEN},
	}})
	w.until("AttemptAccepted", 1)
	if m := w.mails(); len(m) != 1 || m[0].To[0].Address != graceMail || !strings.Contains(m[0].Text, "Eine andere Person") || strings.Contains(m[0].Text, adaName) {
		t.Errorf("mails: %v", m)
	}
	w.done()
}

// TestCopiesWaitForTheCertificate: the log is a moment behind; the copy waits for it instead of going out without.
func TestCopiesWaitForTheCertificate(t *testing.T) {
	w := start(t, func(w *world) { w.peers.reports = failure.CertificateNotYet })
	w.peers.link(linkID, func(*tokenv1.Link) {})
	w.says("token", request, &tokenv1.RequestCompleted{LinkId: linkID}, &tokenv1.Request{Id: request, Tenant: tenant, Seats: []*tokenv1.Seat{{LinkId: linkID}}})
	w.until("DeliveryPlanned", 1)
	w.wantFacts("DeliveryPlanned")
	w.peers.set(func() { w.peers.reports = nil })
	w.until("AttemptAccepted", 1)
	if m := w.mails(); len(m) != 1 || len(m[0].Attachments) != 2 {
		t.Errorf("%d mails", len(m))
	}
	w.done()
}

// TestNothingAboutWhoHasActed: a manager hears nothing of somebody who signed, declined or was let off meanwhile.
func TestNothingAboutWhoHasActed(t *testing.T) {
	w := start(t)
	for id, status := range map[string]tokenv1.LinkStatus{
		"lnk_signed": tokenv1.LinkStatus_LINK_STATUS_SIGNED, "lnk_declined": tokenv1.LinkStatus_LINK_STATUS_DECLINED, "lnk_closed": tokenv1.LinkStatus_LINK_STATUS_CLOSED,
	} {
		w.peers.link(id, func(l *tokenv1.Link) { l.Status = status })
		w.says("escalation", "esc_"+id, &escalationv1.ManagerNotified{LinkId: id, Generation: 1, ManagerId: "per_boss", HolderId: "per_ada"}, &escalationv1.Escalation{})
	}
	w.until("DeliverySkipped", 3)
	if n := len(w.mails()); n != 0 {
		t.Errorf("%d mails came", n)
	}
	w.done()
}
