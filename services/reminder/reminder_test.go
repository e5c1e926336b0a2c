package reminder_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/reminder"
)

const (
	tenant  = "acme"
	request = "req_lease"
	linkID  = "lnk_seat1"
)

// plan is a life in seconds.
const plan = `plans:
  standard:
    offsets: [1s, 2s]
    partial_offsets: [1s]
    exhausted_after: 1s
    rotate_within: 1h
    max_per_day: 100
    quiet_hours: {from: "00:00", to: "00:00"}
`

// token is the peer that knows links and people.
type token struct {
	tokenv1.UnimplementedLinkServiceServer
	tokenv1.UnimplementedDirectoryServiceServer
	mu    sync.Mutex
	links map[string]*tokenv1.Link
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
	link, ok := k.links[req.GetLinkId()]
	if !ok {
		return nil, failure.LinkUnknown
	}
	return &tokenv1.GetLinkResponse{Link: proto.CloneOf(link)}, nil
}

func (k *token) GetPerson(_ context.Context, req *tokenv1.GetPersonRequest) (*tokenv1.GetPersonResponse, error) {
	if req.GetLinkId() != linkID {
		return nil, failure.SignerUnknown
	}
	return &tokenv1.GetPersonResponse{Person: &signingv1.Person{Name: "Ada Lovelace", Email: "ada@acme.test", TimeZone: "Asia/Kathmandu"}}, nil
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
	for _, name := range []string{"token", "delivery", "ceremony"} {
		neighbours.Streams = append(neighbours.Streams, eventlog.FactsConfig(name))
	}
	w := &world{t: t, token: &token{links: map[string]*tokenv1.Link{}}}
	w.World = hosttest.New(t, clock.System(), neighbours, reminder.Topology())
	w.Serve("token", func(r grpc.ServiceRegistrar) {
		tokenv1.RegisterLinkServiceServer(r, w.token)
		tokenv1.RegisterDirectoryServiceServer(r, w.token)
	})
	w.change(func(l *tokenv1.Link) {
		proto.Merge(l, &tokenv1.Link{
			Id: linkID, Tenant: tenant, RequestId: request, Position: 1, Generation: 1, HolderId: "per_ada", Status: tokenv1.LinkStatus_LINK_STATUS_OPEN,
			Profile: &tokenv1.Profile{Name: "standard"}, ExpiresAt: timestamppb.New(w.Clock.Now(tenant).Add(7 * 24 * time.Hour)),
		})
	})
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	s, err := reminder.New(w.t.Context(), w.Host(reminder.Name), settings(w.t))
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
	if err := os.WriteFile(filepath.Join(dir, "defaults", "reminders.yaml"), []byte(plan), 0o600); err != nil {
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
	link := &tokenv1.Link{}
	if old := w.token.links[linkID]; old != nil {
		link = proto.CloneOf(old)
	}
	f(link)
	w.token.links[linkID] = link
	return link
}

// says has token change the link and state why.
func (w *world) says(fact proto.Message, f func(*tokenv1.Link)) {
	w.t.Helper()
	w.Publish("token", eventlog.Key{Tenant: tenant, ID: linkID}, request, fact, w.change(f))
}

func (w *world) accepted(kind deliveryv1.Kind, generation uint32) {
	w.t.Helper()
	w.Publish("delivery", eventlog.Key{Tenant: tenant, ID: fmt.Sprintf("dlv_%d", generation)}, request,
		&deliveryv1.AttemptAccepted{Attempt: 1, Kind: kind, LinkId: linkID, Generation: generation}, &deliveryv1.Delivery{})
}

// plans returns what was stated, plan after plan, without what was repeated.
func (w *world) facts() []hosttest.Fact { return w.Facts(reminder.Name, "fact.reminder.>") }

func (w *world) until(last string) []hosttest.Fact {
	w.t.Helper()
	eventlogtest.Eventually(w.t, "a fact "+last, func() bool {
		return slices.Contains(hosttest.Names(w.facts()), last)
	})
	return w.facts()
}

func wantNames(t *testing.T, got []hosttest.Fact, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, hosttest.Names(got)); diff != "" {
		t.Errorf("facts (-want +got)\n%s", diff)
	}
}

func TestASignerIsRemindedUntilEscalation(t *testing.T) {
	w := start(t)
	w.accepted(deliveryv1.Kind_KIND_CODE, 1) // no plan begins with a code
	w.accepted(deliveryv1.Kind_KIND_LINK, 1)
	w.accepted(deliveryv1.Kind_KIND_LINK, 1)
	facts := w.until("RemindersExhausted")
	wantNames(t, facts, "ReminderPlanned", "ReminderDue", "ReminderDue", "RemindersExhausted")
	p := facts[0].Fact.(*reminderv1.ReminderPlanned).GetPlan()
	if p.GetTimeZone() != "Asia/Kathmandu" || p.GetRequestId() != request || p.GetHolderId() != "per_ada" {
		t.Errorf("plan %v", p)
	}
	for i, f := range facts[1:] {
		late := f.Record.GetAt().AsTime().Sub(facts[0].Fact.(*reminderv1.ReminderPlanned).GetPlan().GetBaseAt().AsTime()) - time.Duration(i+1)*time.Second
		if late < 0 || late > 2*time.Second {
			t.Errorf("%s came %s late", f.Name(), late)
		}
		if f.Record.GetRequestId() != request || strings.Contains(string(f.Bytes), "ada@") {
			t.Errorf("%s: %v", f.Name(), f.Record)
		}
	}
	if strings.Contains(w.Logs.String(), "ada@acme.test") {
		t.Error("a log line holds an address")
	}
}

// Token's word at the moment of sending decides, whatever was heard (spec 6.2).
func TestNoReminderAfterASignatureNobodyHeardOf(t *testing.T) {
	w := start(t)
	w.accepted(deliveryv1.Kind_KIND_LINK, 1)
	w.until("ReminderPlanned")
	w.change(func(l *tokenv1.Link) { l.Status = tokenv1.LinkStatus_LINK_STATUS_SIGNED })
	facts := w.until("RemindersStopped")
	wantNames(t, facts, "ReminderPlanned", "RemindersStopped")
	if got := facts[1].Fact.(*reminderv1.RemindersStopped).GetReason(); got != failure.LinkSigned.Code {
		t.Errorf("stopped for %s", got)
	}
}

func TestFactsThatEndAPlan(t *testing.T) {
	w := start(t)
	stopped := func() (reasons []string) {
		for _, f := range w.facts() {
			if s, ok := f.Fact.(*reminderv1.RemindersStopped); ok {
				reasons = append(reasons, s.GetReason())
			}
		}
		return reasons
	}
	// One generation after the other; two for what begins the next by itself.
	var want []string
	for generation, fact := range map[uint32]proto.Message{
		10: &tokenv1.LinkSigned{Generation: 10}, 20: &tokenv1.LinkDeclined{Generation: 20}, 30: &tokenv1.LinkClosed{},
		40: &tokenv1.LinkRevoked{}, 50: &tokenv1.LinkLapsed{Generation: 50},
		60: &tokenv1.LinkReissued{FromGeneration: 60, Generation: 61}, 70: &tokenv1.LinkRerouted{Generation: 71},
	} {
		name := string(fact.ProtoReflect().Descriptor().Name())
		planned := len(w.facts())
		w.change(func(l *tokenv1.Link) { l.Generation = generation })
		w.accepted(deliveryv1.Kind_KIND_LINK, generation)
		eventlogtest.Eventually(t, "a plan", func() bool { return len(w.facts()) > planned })
		w.says(fact, func(l *tokenv1.Link) {
			if name == "LinkReissued" || name == "LinkRerouted" {
				l.Generation++
			}
		})
		want = append(want, name)
		eventlogtest.Eventually(t, "an end of it", func() bool { return len(stopped()) == len(want) })
	}
	if diff := cmp.Diff(want, stopped()); diff != "" {
		t.Errorf("reasons (-want +got)\n%s", diff)
	}
}

func TestSlotsMissedWhileDownAreOneReminder(t *testing.T) {
	w := start(t)
	w.accepted(deliveryv1.Kind_KIND_LINK, 1)
	planned := w.until("ReminderPlanned")[0].Fact.(*reminderv1.ReminderPlanned).GetPlan()
	w.stop()
	second := planned.GetBaseAt().AsTime().Add(planned.GetOffsets()[1].AsDuration())
	eventlogtest.Eventually(t, "both slots passed", func() bool { return w.Clock.Now(tenant).After(second.Add(100 * time.Millisecond)) })
	w.NATS.Restart()
	w.start()
	facts := w.until("RemindersExhausted")
	wantNames(t, facts, "ReminderPlanned", "ReminderDue", "RemindersExhausted")
	if due := facts[1].Fact.(*reminderv1.ReminderDue); due.GetUsed() != 2 || due.GetOrdinal() != 1 {
		t.Errorf("the one reminder is %v", due)
	}
}

// A peer that is down delays; it neither drops a reminder nor doubles one.
func TestTokenDown(t *testing.T) {
	w := start(t)
	w.accepted(deliveryv1.Kind_KIND_LINK, 1)
	w.until("ReminderPlanned")
	w.token.down.Store(true)
	before := w.token.asked.Load()
	eventlogtest.Eventually(t, "it was asked in vain", func() bool { return w.token.asked.Load() > before+2 })
	wantNames(t, w.facts(), "ReminderPlanned")
	w.token.down.Store(false)
	facts := w.until("RemindersExhausted")
	if n := len(facts); n < 3 || n > 4 { // the outage may have swallowed the second slot
		t.Errorf("stated %v", hosttest.Names(facts))
	}
}

func TestAPartialSignerHasAPlanOfTheirOwn(t *testing.T) {
	w := start(t)
	w.accepted(deliveryv1.Kind_KIND_LINK, 1)
	w.until("ReminderPlanned")
	session := &tokenv1.Session{Id: "ses_1"}
	w.says(&tokenv1.LinkRedeemed{Generation: 1, Session: session}, func(l *tokenv1.Link) {
		l.Status, l.Session = tokenv1.LinkStatus_LINK_STATUS_REDEEMED, session
	})
	w.until("RemindersRestarted")
	seen := func(session string) {
		w.Publish("ceremony", eventlog.Key{Tenant: tenant, ID: "cer_1"}, request,
			&ceremonyv1.DocumentShown{LinkId: linkID, Position: 1, SessionId: session}, &ceremonyv1.Ceremony{})
	}
	seen("ses_0") // of a session that is over
	seen("ses_1")
	facts := w.until("RemindersExhausted")
	wantNames(t, facts, "ReminderPlanned", "RemindersRestarted", "RemindersRestarted", "ReminderDue", "RemindersExhausted")
	if due := facts[3].Fact.(*reminderv1.ReminderDue); !due.GetPartial() {
		t.Errorf("the reminder is %v", due)
	}
}

// A reminder that finds its link about to expire asks for a new one, and the plan goes on with it instead of anew.
func TestRotation(t *testing.T) {
	w := start(t)
	w.change(func(l *tokenv1.Link) { l.ExpiresAt = timestamppb.New(w.Clock.Now(tenant).Add(time.Minute)) })
	w.accepted(deliveryv1.Kind_KIND_LINK, 1)
	if due := w.until("ReminderDue")[1].Fact.(*reminderv1.ReminderDue); !due.GetRotate() {
		t.Errorf("the reminder is %v", due)
	}
	w.says(&tokenv1.LinkReissued{FromGeneration: 1, Generation: 2, Reason: tokenv1.ReissueReason_REISSUE_REASON_REMINDER}, func(l *tokenv1.Link) {
		l.Generation, l.ExpiresAt = 2, timestamppb.New(w.Clock.Now(tenant).Add(7*24*time.Hour))
	})
	w.until("RemindersStopped")
	w.accepted(deliveryv1.Kind_KIND_REISSUED, 2)
	facts := w.until("RemindersExhausted")
	wantNames(t, facts, "ReminderPlanned", "ReminderDue", "ReminderPlanned", "RemindersStopped", "ReminderDue", "RemindersExhausted")
	if due := facts[4].Fact.(*reminderv1.ReminderDue); due.GetGeneration() != 2 || due.GetOrdinal() != 2 || due.GetRotate() {
		t.Errorf("the second reminder is %v", due)
	}
}
