package escalation_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/config"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/host/hosttest"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/escalation"
)

const (
	tenant  = "acme"
	request = "req_lease"
	linkID  = "lnk_seat1"
)

// policy is a life in seconds.
const policy = `policies:
  standard:
    - on: reminders-exhausted
      steps:
        - {action: notify-manager}
        - {wait: 1s, action: tell-platform}
        - {wait: 1s, action: route-to-alternate}
        - {wait: 1s, action: cancel}
    - on: delivery-failed
      steps:
        - {wait: 1h, action: tell-platform}
    - on: link-lapsed
      steps:
        - {wait: 1h, action: cancel}
`

// token is the peer that knows links and requests.
type token struct {
	tokenv1.UnimplementedLinkServiceServer
	tokenv1.UnimplementedDirectoryServiceServer
	mu    sync.Mutex
	link  *tokenv1.Link
	down  atomic.Bool
	asked atomic.Int64
}

func (k *token) GetLink(_ context.Context, req *tokenv1.GetLinkRequest) (*tokenv1.GetLinkResponse, error) {
	k.asked.Add(1)
	if k.down.Load() {
		return nil, failure.Unavailable
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if req.GetLinkId() != linkID {
		return nil, failure.LinkUnknown
	}
	return &tokenv1.GetLinkResponse{Link: proto.CloneOf(k.link)}, nil
}

func (k *token) GetRequest(context.Context, *tokenv1.GetRequestRequest) (*tokenv1.GetRequestResponse, error) {
	return &tokenv1.GetRequestResponse{
		Request: &tokenv1.Request{Id: request, Seats: []*tokenv1.Seat{
			{LinkId: "lnk_other", ManagerId: "per_nobody"},
			{LinkId: linkID, PersonId: "per_ada", ManagerId: "per_max", AlternateIds: []string{"per_bob"}},
		}},
		Words: &tokenv1.RequestWords{Title: "Lease of Ada Lovelace"},
	}, nil
}

// world is the service, its neighbours' streams, and one open link.
type world struct {
	*hosttest.World
	t     *testing.T
	token *token
	stop  func()
}

func start(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	neighbours := eventlog.Topology{}
	for _, name := range []string{"token", "delivery", "reminder"} {
		neighbours.Streams = append(neighbours.Streams, eventlog.FactsConfig(name))
	}
	w := &world{t: t, token: &token{}}
	w.World = hosttest.New(t, clock.System(), neighbours, escalation.Topology())
	w.token.link = &tokenv1.Link{
		Id: linkID, Tenant: tenant, RequestId: request, Position: 1, Generation: 1, HolderId: "per_ada", Status: tokenv1.LinkStatus_LINK_STATUS_OPEN,
		Profile: &tokenv1.Profile{Name: "standard"}, ExpiresAt: timestamppb.New(w.Clock.Now(tenant).Add(24 * time.Hour)),
	}
	w.Serve("token", func(r grpc.ServiceRegistrar) {
		tokenv1.RegisterLinkServiceServer(r, w.token)
		tokenv1.RegisterDirectoryServiceServer(r, w.token)
	})
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	s, err := escalation.New(w.t.Context(), w.Host(escalation.Name), settings(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	w.stop = w.Run(s)
}

func settings(t *testing.T) *config.Config {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "defaults"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "defaults", "escalations.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// change makes the link another, as token has it from now on.
func (w *world) change(f func(*tokenv1.Link)) *tokenv1.Link {
	w.token.mu.Lock()
	defer w.token.mu.Unlock()
	link := proto.CloneOf(w.token.link)
	f(link)
	w.token.link = link
	return link
}

// says has token change the link and state why.
func (w *world) says(fact proto.Message, f func(*tokenv1.Link)) {
	w.t.Helper()
	w.Publish("token", eventlog.Key{Tenant: tenant, ID: linkID}, request, fact, w.change(f))
}

func (w *world) exhausted(generation uint32) {
	w.t.Helper()
	w.Publish("reminder", eventlog.Key{Tenant: tenant, ID: "rem_1"}, request,
		&reminderv1.RemindersExhausted{LinkId: linkID, Generation: generation, Sent: 3}, &reminderv1.Plan{})
}

func (w *world) failed(kind deliveryv1.Kind) {
	w.t.Helper()
	w.Publish("delivery", eventlog.Key{Tenant: tenant, ID: "dlv_1"}, request,
		&deliveryv1.DeliveryFailed{Attempts: 8, Kind: kind, LinkId: linkID, Generation: 1}, &deliveryv1.Delivery{})
}

func (w *world) facts() []hosttest.Fact { return w.Facts(escalation.Name, "fact.escalation.>") }

func (w *world) until(last string) []hosttest.Fact {
	w.t.Helper()
	eventlogtest.Eventually(w.t, "a fact "+last, func() bool { return slices.Contains(hosttest.Names(w.facts()), last) })
	return w.facts()
}

func wantNames(t *testing.T, got []hosttest.Fact, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, hosttest.Names(got)); diff != "" {
		t.Errorf("facts (-want +got)\n%s", diff)
	}
}

func TestEveryStepIsTakenInItsTime(t *testing.T) {
	w := start(t)
	w.exhausted(1)
	w.until("EscalationTriggered")
	w.exhausted(1)
	w.failed(deliveryv1.Kind_KIND_LINK) // the first trigger wins
	facts := w.until("EscalationFinished")
	wantNames(t, facts, "EscalationTriggered", "ManagerNotified", "PlatformTold", "AlternateRouted", "RequestStuck", "EscalationFinished")
	e := facts[0].Fact.(*escalationv1.EscalationTriggered).GetEscalation()
	if e.GetTrigger() != escalationv1.Trigger_TRIGGER_REMINDERS_EXHAUSTED || e.GetPolicy() != "standard" || len(e.GetPolicySha256()) != 32 || e.GetManagerId() != "per_max" {
		t.Errorf("escalation %v", e)
	}
	if f := facts[3].Fact.(*escalationv1.AlternateRouted); f.GetAlternateId() != "per_bob" || f.GetFormerHolderId() != "per_ada" || f.GetGeneration() != 1 {
		t.Errorf("routed %v", f)
	}
	for i := 1; i < 4; i++ {
		if d := facts[i+1].Record.GetAt().AsTime().Sub(facts[i].Record.GetAt().AsTime()); d < time.Second {
			t.Errorf("%s came %s after %s", facts[i+1].Name(), d, facts[i].Name())
		}
	}
	for _, f := range facts {
		if f.Record.GetRequestId() != request || bytes.Contains(f.Bytes, []byte("Lovelace")) {
			t.Errorf("%s: %v", f.Name(), f.Record)
		}
	}
}

func TestASignatureResolvesIt(t *testing.T) {
	w := start(t)
	w.exhausted(1)
	w.until("ManagerNotified")
	w.says(&tokenv1.LinkSigned{Generation: 1}, func(l *tokenv1.Link) { l.Status = tokenv1.LinkStatus_LINK_STATUS_SIGNED })
	facts := w.until("EscalationResolved")
	wantNames(t, facts, "EscalationTriggered", "ManagerNotified", "EscalationResolved")
	if r := facts[2].Fact.(*escalationv1.EscalationResolved).GetReason(); r != "LinkSigned" {
		t.Errorf("resolved for %s", r)
	}
}

// Token's word at the moment of a step decides, whatever was heard.
func TestNoStepAfterASignatureNobodyHeardOf(t *testing.T) {
	w := start(t)
	w.exhausted(1)
	w.until("ManagerNotified")
	w.change(func(l *tokenv1.Link) { l.Status = tokenv1.LinkStatus_LINK_STATUS_SIGNED })
	wantNames(t, w.until("EscalationResolved"), "EscalationTriggered", "ManagerNotified", "EscalationResolved")
	before := w.token.asked.Load()
	w.exhausted(1)
	w.exhausted(2) // of a generation that never was
	w.says(&tokenv1.LinkLapsed{Generation: 1}, func(*tokenv1.Link) {})
	eventlogtest.Eventually(t, "all of them were looked into", func() bool { return w.token.asked.Load() >= before+3 })
	wantNames(t, w.facts(), "EscalationTriggered", "ManagerNotified", "EscalationResolved")
}

func TestTriggers(t *testing.T) {
	w := start(t)
	w.failed(deliveryv1.Kind_KIND_REMINDER) // the signer has the link all the same
	bounce := func(kind deliveryv1.Kind, generation uint32) {
		w.Publish("delivery", eventlog.Key{Tenant: tenant, ID: fmt.Sprint("dlv_", generation)}, request,
			&deliveryv1.AttemptBounced{Attempt: 1, Kind: kind, LinkId: linkID, Generation: generation}, &deliveryv1.Delivery{})
	}
	bounce(deliveryv1.Kind_KIND_COMPLETED, 1)
	w.says(&tokenv1.LinkLapsed{Generation: 1}, func(l *tokenv1.Link) { l.Lapsed = true })
	first := w.until("EscalationTriggered")[0].Fact.(*escalationv1.EscalationTriggered).GetEscalation()
	if first.GetTrigger() != escalationv1.Trigger_TRIGGER_LINK_LAPSED || first.GetSteps()[0].GetAction() != escalationv1.Action_ACTION_CANCEL {
		t.Errorf("escalation %v", first)
	}
	w.says(&tokenv1.LinkReissued{FromGeneration: 1, Generation: 2}, func(l *tokenv1.Link) { l.Generation, l.Lapsed = 2, false })
	w.until("EscalationResolved")
	bounce(deliveryv1.Kind_KIND_REISSUED, 2)
	eventlogtest.Eventually(t, "the second generation's escalation", func() bool { return len(w.facts()) == 3 })
	second := w.facts()[2].Fact.(*escalationv1.EscalationTriggered).GetEscalation()
	if second.GetTrigger() != escalationv1.Trigger_TRIGGER_DELIVERY_FAILED || second.GetGeneration() != 2 || second.GetId() == first.GetId() {
		t.Errorf("escalation %v", second)
	}
	// The message came through after all; then nothing came of it.
	session := &tokenv1.Session{Id: "ses_1", EndsAt: timestamppb.New(w.Clock.Now(tenant).Add(-time.Second))}
	w.says(&tokenv1.LinkRedeemed{Generation: 2, Session: session}, func(l *tokenv1.Link) {
		l.Status, l.Session = tokenv1.LinkStatus_LINK_STATUS_REDEEMED, session
	})
	eventlogtest.Eventually(t, "the alarm taken back", func() bool { return len(w.facts()) == 4 })
	w.exhausted(2)
	facts := w.until("ManagerNotified")
	wantNames(t, facts, "EscalationTriggered", "EscalationResolved", "EscalationTriggered", "EscalationResolved", "EscalationTriggered", "ManagerNotified")
}

func TestWhoSignsIsNotThrownOut(t *testing.T) {
	w := start(t)
	ends := w.Clock.Now(tenant).Add(4 * time.Second)
	w.change(func(l *tokenv1.Link) {
		l.Status, l.Session = tokenv1.LinkStatus_LINK_STATUS_REDEEMED, &tokenv1.Session{Id: "ses_1", EndsAt: timestamppb.New(ends)}
	})
	w.exhausted(1)
	facts := w.until("AlternateRouted")
	if at := facts[len(facts)-1].Record.GetAt().AsTime(); at.Before(ends) {
		t.Errorf("routed %s before the session's end", ends.Sub(at))
	}
}

// The service, its server and its peer go down and come back: every step is taken once.
func TestOutages(t *testing.T) {
	w := start(t)
	w.exhausted(1)
	w.until("ManagerNotified")
	w.stop()
	w.NATS.Restart()
	w.token.down.Store(true)
	w.start()
	before := w.token.asked.Load()
	eventlogtest.Eventually(t, "it was asked in vain", func() bool { return w.token.asked.Load() > before+2 })
	wantNames(t, w.facts(), "EscalationTriggered", "ManagerNotified")
	w.token.down.Store(false)
	wantNames(t, w.until("EscalationFinished"), "EscalationTriggered", "ManagerNotified", "PlatformTold", "AlternateRouted", "RequestStuck", "EscalationFinished")
}
