package delivery_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/delivery"
)

// TestALinkIsMailedOnce: one fact is one delivery and one mail, however often it is heard.
func TestALinkIsMailedOnce(t *testing.T) {
	w := start(t)
	w.issued(linkID)
	facts := w.until("AttemptAccepted", 1)
	w.Settled(delivery.Topology())
	w.wantFacts("DeliveryPlanned", "AttemptAccepted")
	id := idOf(t, facts[0])
	m := w.wantMails(1, id)[0]
	if m.To[0].Address != adaMail || m.To[0].Name != adaName || m.From.Address != "sign@acme.test" || !strings.Contains(m.Subject, title) {
		t.Errorf("from %v to %v: %s", m.From, m.To, m.Subject)
	}
	token := w.peers.tokens()[0]
	if url := site + "/s/" + token; !strings.Contains(m.Text, url) || !strings.Contains(m.HTML, url) {
		t.Errorf("no %s in\n%s", url, m.Text)
	}
	planned := facts[0].Fact.(*deliveryv1.DeliveryPlanned).GetDelivery()
	if planned.GetKind() != deliveryv1.Kind_KIND_LINK || planned.GetRecipientId() != "per_ada" || planned.GetLinkId() != linkID || planned.GetGeneration() != 1 {
		t.Errorf("planned %v", planned)
	}
	accepted := facts[1].Fact.(*deliveryv1.AttemptAccepted)
	if accepted.GetAttempt() != 1 || accepted.GetProvider() != "primary" || accepted.GetKind() != deliveryv1.Kind_KIND_LINK || accepted.GetGeneration() != 1 {
		t.Errorf("accepted %v", accepted)
	}
	for _, f := range facts {
		if f.Record.GetRequestId() != request {
			t.Errorf("%s is recorded for %s", f.Name(), f.Record.GetRequestId())
		}
	}
	w.again()
	w.wantFacts("DeliveryPlanned", "AttemptAccepted")
	w.wantMails(1, id)
	w.done()
}

// TestOutOfOrder: the reissue is heard before the issue; the old link is not sent after the new one.
func TestOutOfOrder(t *testing.T) {
	w := start(t)
	l := w.peers.link(linkID, func(l *tokenv1.Link) { l.Generation = 2 })
	w.says("token", linkID, &tokenv1.LinkReissued{FromGeneration: 1, Generation: 2}, l)
	w.until("AttemptAccepted", 1)
	w.says("token", linkID, &tokenv1.LinkIssued{LinkId: linkID, HolderId: "per_ada"}, l)
	facts := w.until("DeliverySkipped", 1)
	if got := facts[3].Fact.(*deliveryv1.DeliverySkipped).GetCode(); got != failure.LinkSuperseded.Code {
		t.Errorf("skipped for %s", got)
	}
	w.Settled(delivery.Topology())
	w.again()
	w.wantFacts("DeliveryPlanned", "AttemptAccepted", "DeliveryPlanned", "DeliverySkipped")
	w.wantMails(1, idOf(t, facts[0]))
	w.done()
}

// TestRefusedForNow: what the server does not take now is tried again under the same Message-ID (spec 4.3, 4.8).
func TestRefusedForNow(t *testing.T) {
	w := start(t)
	w.refuse(451)
	w.issued(linkID)
	facts := w.until("AttemptDeferred", 2)
	first := facts[1].Fact.(*deliveryv1.AttemptDeferred)
	if first.GetAttempt() != 1 || first.GetCode() != 451 || first.GetEnhancedCode() == "" || first.GetNextAttemptAt() == nil {
		t.Errorf("deferred %v", first)
	}
	if n := len(w.mails()); n != 0 {
		t.Errorf("%d mails came", n)
	}
	w.refuse(0)
	facts = w.until("AttemptAccepted", 1)
	w.Settled(delivery.Topology())
	if got := facts[len(facts)-1].Fact.(*deliveryv1.AttemptAccepted).GetAttempt(); int(got) != count(facts, "AttemptDeferred")+1 {
		t.Errorf("accepted at attempt %d of %d", got, len(facts)-1)
	}
	w.wantMails(1, idOf(t, facts[0]))
	w.done()
}

// TestALineThatBreaks: before the mail is over, nothing came; after, it is not known what the server did, and a second copy has the
// same Message-ID.
func TestALineThatBreaks(t *testing.T) {
	for name, tt := range map[string]struct {
		at    string
		mails int
	}{
		"at the greeting":   {"220 ", 1},
		"before the answer": {"queued as", 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t)
			w.line.cutAt.Store(&tt.at)
			w.issued(linkID)
			facts := w.until("AttemptDeferred", 1)
			w.line.cutAt.Store(nil)
			if f := facts[1].Fact.(*deliveryv1.AttemptDeferred); f.GetEnhancedCode() != "4.4.2" || f.GetCode() != 0 {
				t.Errorf("deferred %v", f)
			}
			facts = w.until("AttemptAccepted", 1)
			w.Settled(delivery.Topology())
			// Each cut after the mail was over leaves a copy; at the greeting none.
			mails := tt.mails
			if mails > 1 {
				mails = int(w.line.cuts.Load()) + 1
			}
			w.wantMails(mails, idOf(t, facts[0]))
			w.done()
		})
	}
}

// TestRefusedForGood: an address that does not exist is not tried again, by anything.
func TestRefusedForGood(t *testing.T) {
	w := start(t)
	w.refuse(550)
	w.issued(linkID)
	facts := w.until("AttemptBounced", 1)
	if f := facts[1].Fact.(*deliveryv1.AttemptBounced); f.GetAttempt() != 1 || f.GetCode() != 550 || f.GetLinkId() != linkID || f.GetKind() != deliveryv1.Kind_KIND_LINK {
		t.Errorf("bounced %v", f)
	}
	w.refuse(0)
	w.Settled(delivery.Topology())
	w.again()
	w.wantFacts("DeliveryPlanned", "AttemptBounced")
	if armed := w.Messages("TIMERS_DELIVERY", ">"); len(armed) != 0 || len(w.mails()) != 0 {
		t.Errorf("%d timers, %d mails", len(armed), len(w.mails()))
	}
	w.done()
}

func TestTriesAreUsedUp(t *testing.T) {
	w := start(t, func(w *world) { w.config.Attempts = 2 })
	w.refuse(451)
	w.issued(linkID)
	facts := w.until("DeliveryFailed", 1)
	w.Settled(delivery.Topology())
	w.wantFacts("DeliveryPlanned", "AttemptDeferred", "DeliveryFailed")
	if f := facts[2].Fact.(*deliveryv1.DeliveryFailed); f.GetAttempts() != 2 || f.GetLinkId() != linkID {
		t.Errorf("failed %v", f)
	}
	w.done()
}

// TestNoLongerSent: what token says at the moment of sending decides, at the first attempt and at every later one.
func TestNoLongerSent(t *testing.T) {
	w := start(t)
	for id, change := range map[string]func(*tokenv1.Link){
		"lnk_signed":     func(l *tokenv1.Link) { l.Status = tokenv1.LinkStatus_LINK_STATUS_SIGNED },
		"lnk_revoked":    func(l *tokenv1.Link) { l.Status = tokenv1.LinkStatus_LINK_STATUS_REVOKED },
		"lnk_superseded": func(l *tokenv1.Link) { l.Generation = 2 },
		"lnk_erased":     func(l *tokenv1.Link) { l.HolderId = "per_nobody" },
	} {
		w.peers.link(id, change)
		w.issued(id)
	}
	want := map[string]bool{failure.LinkSigned.Code: true, failure.LinkRevoked.Code: true, failure.LinkSuperseded.Code: true, failure.PersonErased.Code: true}
	for _, f := range w.until("DeliverySkipped", len(want)) {
		if s, ok := f.Fact.(*deliveryv1.DeliverySkipped); ok {
			delete(want, s.GetCode())
		}
	}
	if len(want) > 0 {
		t.Errorf("nothing was skipped for %v", want)
	}
	w.refuse(451)
	w.issued(linkID)
	w.until("AttemptDeferred", 1)
	w.peers.link(linkID, func(l *tokenv1.Link) { l.Status = tokenv1.LinkStatus_LINK_STATUS_SIGNED })
	w.refuse(0)
	w.until("DeliverySkipped", 5)
	w.Settled(delivery.Topology())
	if n := len(w.mails()); n != 0 {
		t.Errorf("%d mails came", n)
	}
	w.done()
}

// TestTokenAway: without token nothing can be sent and nothing is lost, over a restart too; and a peer that does not take our
// credentials says nothing about the message.
func TestTokenAway(t *testing.T) {
	w := start(t, func(w *world) { w.peers.away = failure.Unavailable })
	w.issued(linkID)
	waitAsked := func(n int) {
		t.Helper()
		before := w.peers.calls()
		eventlogtest.Eventually(t, "token is asked in vain", func() bool { return w.peers.calls() >= before+n })
	}
	waitAsked(2)
	w.stop()
	w.start()
	waitAsked(1)
	w.peers.set(func() { w.peers.away = failure.Unauthenticated })
	waitAsked(2)
	w.wantFacts("DeliveryPlanned")
	w.peers.set(func() { w.peers.away = nil })
	facts := w.until("AttemptAccepted", 1)
	w.Settled(delivery.Topology())
	w.wantFacts("DeliveryPlanned", "AttemptAccepted")
	if got := facts[1].Fact.(*deliveryv1.AttemptAccepted).GetAttempt(); got != 1 {
		t.Errorf("accepted at attempt %d: waiting for token is no attempt", got)
	}
	w.wantMails(1, idOf(t, facts[0]))
	w.done()
}

// TestCrashAfterHandOver: a process that dies between hand-over and record costs one copy, under the same Message-ID (spec 4.8).
func TestCrashAfterHandOver(t *testing.T) {
	died, dead := make(chan struct{}), make(chan struct{})
	var w *world
	var crash sync.Once
	w = start(t, func(w *world) {
		genuine := w.mail
		w.mail = &hook{genuine, func() error {
			died <- struct{}{}
			<-dead // and never comes back to say what it did
			return errors.New("dead")
		}}
	})
	t.Cleanup(func() { crash.Do(func() { close(dead) }) })
	first := w.stop
	w.issued(linkID)
	<-died
	w.connections.Close()
	w.mail = w.mail.(*hook).Sender
	w.start()
	facts := w.until("AttemptAccepted", 1)
	w.Settled(delivery.Topology())
	w.wantFacts("DeliveryPlanned", "AttemptAccepted")
	if got := facts[1].Fact.(*deliveryv1.AttemptAccepted).GetAttempt(); got != 1 {
		t.Errorf("accepted at attempt %d", got)
	}
	w.wantMails(2, idOf(t, facts[0]))
	crash.Do(func() { close(dead) })
	first()
	w.wantFacts("DeliveryPlanned", "AttemptAccepted")
	w.done()
}

// TestALostTimer: the record knows when the next attempt is due; a process that starts finds it there.
func TestALostTimer(t *testing.T) {
	w := start(t, func(w *world) { w.config.RetryBase, w.config.RetryCap = 2*time.Second, 2*time.Second })
	w.refuse(451)
	w.issued(linkID)
	w.until("AttemptDeferred", 1)
	w.stop()
	timers, err := w.JS.Stream(t.Context(), "TIMERS_DELIVERY")
	if err != nil {
		t.Fatal(err)
	}
	if err := timers.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.refuse(0)
	w.start()
	facts := w.until("AttemptAccepted", 1)
	w.wantMails(1, idOf(t, facts[0]))
	w.done()
}

func TestSettingsThatCannotWork(t *testing.T) {
	good := delivery.Config{RetryBase: time.Second, RetryCap: time.Minute, Attempts: 8, GiveUp: time.Hour}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for field, spoil := range map[string]func(*delivery.Config){
		"retry-base": func(c *delivery.Config) { c.RetryBase = 0 },
		"retry-cap":  func(c *delivery.Config) { c.RetryCap = time.Millisecond },
		"attempts":   func(c *delivery.Config) { c.Attempts = 0 },
		"give-up":    func(c *delivery.Config) { c.GiveUp = -1 },
	} {
		c := good
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// stateOf returns what a fact led to.
func stateOf(t *testing.T, state interface{ UnmarshalTo(proto.Message) error }) *deliveryv1.Delivery {
	t.Helper()
	d := &deliveryv1.Delivery{}
	if err := state.UnmarshalTo(d); err != nil {
		t.Fatal(err)
	}
	return d
}
