package rules_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/reminder/rules"
)

// monday is nine in the morning in Berlin.
var monday = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

var ada = rules.Subject{
	PlanID: "rem_1", Tenant: "acme", RequestID: "req_1", LinkID: "lnk_1", HolderID: "per_ada", Generation: 1, Position: 1, TimeZone: "Europe/Berlin",
}

func openLink() *tokenv1.Link {
	return &tokenv1.Link{
		Id: "lnk_1", Generation: 1, HolderId: "per_ada", Status: tokenv1.LinkStatus_LINK_STATUS_OPEN,
		ExpiresAt: timestamppb.New(monday.Add(30 * 24 * time.Hour)),
	}
}

type command interface {
	Decide(*reminderv1.Plan, time.Time) (proto.Message, error)
}

func apply(p *reminderv1.Plan, c command, at time.Time) (*reminderv1.Plan, proto.Message) {
	fact, err := c.Decide(p, at)
	if err != nil || fact == nil {
		return p, nil
	}
	return rules.Evolve(proto.CloneOf(p), fact), fact
}

// life runs a plan from moment to moment at which something is due, and writes down what was stated and when.
func life(t *testing.T, p *reminderv1.Plan, link *tokenv1.Link) []string {
	t.Helper()
	var told []string
	z := zone(t, "Europe/Berlin")
	for range 100 {
		at := rules.Deadline(p)
		if at.IsZero() {
			return told
		}
		var fact proto.Message
		if p, fact = apply(p, rules.Tick{Link: link, Zone: z}, at); fact == nil {
			t.Fatalf("nothing was stated at the deadline %s", at)
		}
		told = append(told, at.In(z).Format("Mon 15:04 ")+string(fact.ProtoReflect().Descriptor().Name()))
	}
	t.Fatal("the plan never ends")
	return nil
}

func TestLifeOfAPlan(t *testing.T) {
	begin := func(at time.Time) *reminderv1.Plan {
		p, _ := apply(&reminderv1.Plan{}, rules.Begin{Of: ada, Policy: rules.Defaults(), At: at}, at)
		return p
	}
	for name, tt := range map[string]struct {
		plan *reminderv1.Plan
		link func(*tokenv1.Link)
		want []string
	}{
		"by day": {plan: begin(monday), want: []string{"Tue 09:00 ReminderDue", "Thu 09:00 ReminderDue", "Mon 09:00 ReminderDue", "Tue 09:00 RemindersExhausted"}},
		"sent at night": {plan: begin(monday.Add(14 * time.Hour)), want: []string{
			"Tue 23:00 RemindersPostponed", "Wed 08:00 ReminderDue", "Thu 23:00 RemindersPostponed", "Fri 08:00 ReminderDue",
			"Mon 23:00 RemindersPostponed", "Tue 08:00 ReminderDue", "Wed 08:00 RemindersExhausted",
		}},
		"opened and left": {plan: func() *reminderv1.Plan {
			p, _ := apply(begin(monday), rules.Act{Of: ada, Policy: rules.Defaults(), At: monday.Add(4 * time.Hour)}, monday.Add(4*time.Hour))
			return p
		}(), want: []string{"Mon 14:00 ReminderDue", "Tue 13:00 ReminderDue", "Wed 13:00 RemindersExhausted"}},
		"opened before the relay's answer was heard": {plan: func() *reminderv1.Plan {
			p, _ := apply(&reminderv1.Plan{}, rules.Act{Of: ada, Policy: rules.Defaults(), At: monday}, monday)
			p, _ = apply(p, rules.Begin{Of: ada, Policy: rules.Defaults(), At: monday.Add(-time.Second)}, monday)
			return p
		}(), want: []string{"Mon 10:00 ReminderDue", "Tue 09:00 ReminderDue", "Wed 09:00 RemindersExhausted"}},
		"signed":             {begin(monday), func(l *tokenv1.Link) { l.Status = tokenv1.LinkStatus_LINK_STATUS_SIGNED }, []string{"Tue 09:00 RemindersStopped"}},
		"expires in between": {begin(monday), func(l *tokenv1.Link) { l.ExpiresAt = timestamppb.New(monday.Add(48 * time.Hour)) }, []string{"Tue 09:00 ReminderDue", "Thu 09:00 RemindersStopped"}},
		"two slots on one day": {plan: func() *reminderv1.Plan {
			policy := rules.Defaults()
			policy.Offsets = []time.Duration{time.Hour, 2 * time.Hour}
			p, _ := apply(&reminderv1.Plan{}, rules.Begin{Of: ada, Policy: policy, At: monday}, monday)
			return p
		}(), want: []string{"Mon 10:00 ReminderDue", "Mon 11:00 RemindersPostponed", "Tue 08:00 ReminderDue", "Wed 08:00 RemindersExhausted"}},
	} {
		t.Run(name, func(t *testing.T) {
			link := openLink()
			if tt.link != nil {
				tt.link(link)
			}
			if diff := cmp.Diff(tt.want, life(t, tt.plan, link)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestSlotsMissedInAnOutageCollapse(t *testing.T) {
	p, _ := apply(&reminderv1.Plan{}, rules.Begin{Of: ada, Policy: rules.Defaults(), At: monday}, monday)
	tick := rules.Tick{Link: openLink(), Zone: time.UTC}
	up := monday.Add(75 * time.Hour) // two slots passed
	p, fact := apply(p, tick, up)
	want := &reminderv1.ReminderDue{
		Ordinal: 1, LinkId: "lnk_1", Generation: 1, HolderId: "per_ada", Used: 2,
		NextAt: timestamppb.New(monday.Add(7 * 24 * time.Hour)), At: timestamppb.New(up),
	}
	if diff := cmp.Diff(want, fact, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if _, again := apply(p, tick, up); again != nil {
		t.Errorf("a second firing states %v", again)
	}
	// All of them missed, and the end as well: one reminder still, and the whole final wait after it.
	late := monday.Add(20 * 24 * time.Hour)
	p, _ = apply(&reminderv1.Plan{}, rules.Begin{Of: ada, Policy: rules.Defaults(), At: monday}, monday)
	p, fact = apply(p, tick, late)
	if due, ok := fact.(*reminderv1.ReminderDue); !ok || due.GetUsed() != 3 || !due.GetNextAt().AsTime().Equal(late.Add(24*time.Hour)) {
		t.Errorf("after twenty days: %v", fact)
	}
	if _, fact = apply(p, tick, late.Add(24*time.Hour-1)); fact != nil {
		t.Errorf("before the final wait is over: %v", fact)
	}
	if _, fact = apply(p, tick, late.Add(24*time.Hour)); fact == nil {
		t.Error("not exhausted after the final wait")
	}
}

func TestPointless(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*tokenv1.Link)
		want   *failure.Error
	}{
		"signed":        {func(l *tokenv1.Link) { l.Status = tokenv1.LinkStatus_LINK_STATUS_SIGNED }, failure.LinkSigned},
		"declined":      {func(l *tokenv1.Link) { l.Status = tokenv1.LinkStatus_LINK_STATUS_DECLINED }, failure.LinkDeclined},
		"closed":        {func(l *tokenv1.Link) { l.Status = tokenv1.LinkStatus_LINK_STATUS_CLOSED }, failure.LinkCancelled},
		"revoked":       {func(l *tokenv1.Link) { l.Status = tokenv1.LinkStatus_LINK_STATUS_REVOKED }, failure.LinkRevoked},
		"reissued":      {func(l *tokenv1.Link) { l.Generation = 2 }, failure.LinkSuperseded},
		"rerouted":      {func(l *tokenv1.Link) { l.Generation, l.HolderId = 2, "per_bob" }, failure.LinkDelegated},
		"expired":       {func(l *tokenv1.Link) { l.ExpiresAt = timestamppb.New(monday.Add(24 * time.Hour)) }, failure.LinkExpired},
		"not to be had": {func(l *tokenv1.Link) { proto.Reset(l) }, failure.LinkUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := apply(&reminderv1.Plan{}, rules.Begin{Of: ada, Policy: rules.Defaults(), At: monday}, monday)
			link := openLink()
			tt.change(link)
			p, fact := apply(p, rules.Tick{Link: link, Zone: time.UTC}, monday.Add(24*time.Hour))
			if got, ok := fact.(*reminderv1.RemindersStopped); !ok || got.GetReason() != tt.want.Code {
				t.Errorf("stated %v, want stopped for %s", fact, tt.want.Code)
			}
			if !rules.Deadline(p).IsZero() {
				t.Error("a stopped plan waits for something")
			}
		})
	}
}

// A link that a reminder would find about to expire is replaced by it, and the plan goes on where it was.
func TestRotationCarriesThePlanOn(t *testing.T) {
	p, _ := apply(&reminderv1.Plan{}, rules.Begin{Of: ada, Policy: rules.Defaults(), At: monday}, monday)
	link := openLink()
	link.ExpiresAt = timestamppb.New(monday.Add(7*24*time.Hour + time.Hour))
	for i, want := range []bool{false, false, true} {
		var fact proto.Message
		p, fact = apply(p, rules.Tick{Link: link, Zone: time.UTC}, rules.Deadline(p))
		if due, ok := fact.(*reminderv1.ReminderDue); !ok || due.GetRotate() != want {
			t.Fatalf("reminder %d: %v, want rotation %t", i+1, fact, want)
		}
	}
	second := ada
	second.PlanID, second.Generation = "rem_2", 2
	next, fact := apply(&reminderv1.Plan{}, rules.Carry{Of: second, From: p}, monday)
	if fact == nil || next.GetGeneration() != 2 || next.GetUsed() != 3 || !rules.Deadline(next).Equal(rules.Deadline(p)) {
		t.Errorf("the plan goes on as %v", next)
	}
	if _, again := apply(next, rules.Begin{Of: second, Policy: rules.Defaults(), At: monday}, monday); again != nil {
		t.Error("the message of the new generation begins the plan anew")
	}
	p, _ = apply(p, rules.Stop{Reason: "LinkSigned"}, monday)
	if _, fact := apply(&reminderv1.Plan{}, rules.Carry{Of: second, From: p}, monday); fact != nil {
		t.Error("a plan that had ended goes on")
	}
}

// Final is final, and what never began is not ended.
func TestEndsAndRepeats(t *testing.T) {
	if _, fact := apply(&reminderv1.Plan{}, rules.Stop{Reason: "LinkSigned"}, monday); fact != nil {
		t.Errorf("stopping nothing states %v", fact)
	}
	p, _ := apply(&reminderv1.Plan{}, rules.Begin{Of: ada, Policy: rules.Defaults(), At: monday}, monday)
	if _, fact := apply(p, rules.Begin{Of: ada, Policy: rules.Defaults(), At: monday.Add(time.Hour)}, monday.Add(time.Hour)); fact != nil {
		t.Errorf("a second message begins %v", fact)
	}
	p, _ = apply(p, rules.Stop{Reason: "LinkSigned"}, monday)
	for name, c := range map[string]command{
		"stop": rules.Stop{Reason: "LinkClosed"}, "act": rules.Act{Of: ada, Policy: rules.Defaults(), At: monday.Add(time.Hour)},
		"begin": rules.Begin{Of: ada, Policy: rules.Defaults(), At: monday}, "tick": rules.Tick{Link: openLink(), Zone: time.UTC},
	} {
		if _, fact := apply(p, c, monday.Add(1000*time.Hour)); fact != nil {
			t.Errorf("%s after the end states %v", name, fact)
		}
	}
}

func TestPolicyNamesWhatIsWrong(t *testing.T) {
	if err := rules.Defaults().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for name, change := range map[string]func(*rules.Policy){
		"falling offsets":   func(p *rules.Policy) { p.Offsets = []time.Duration{2, 1} },
		"an offset of 0":    func(p *rules.Policy) { p.PartialOffsets = []time.Duration{0} },
		"no final wait":     func(p *rules.Policy) { p.FinalWait = 0 },
		"too many a day":    func(p *rules.Policy) { p.MaxPerDay = 101 },
		"rotate backwards":  func(p *rules.Policy) { p.RotateWithin = -1 },
		"a day of 25 hours": func(p *rules.Policy) { p.Quiet.Until = 25 * time.Hour },
		"always quiet":      func(p *rules.Policy) { p.Quiet = rules.Quiet{From: 0, Until: 24 * time.Hour} },
		"nearly always":     func(p *rules.Policy) { p.Quiet = rules.Quiet{From: 8*time.Hour + 30*time.Minute, Until: 8 * time.Hour} },
	} {
		p := rules.Defaults()
		change(&p)
		if p.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
