package rules_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/escalation/rules"
)

const (
	exhausted = escalationv1.Trigger_TRIGGER_REMINDERS_EXHAUSTED
	lapsed    = escalationv1.Trigger_TRIGGER_LINK_LAPSED
	failed    = escalationv1.Trigger_TRIGGER_DELIVERY_FAILED

	notify = escalationv1.Action_ACTION_NOTIFY_MANAGER
	route  = escalationv1.Action_ACTION_ROUTE_ALTERNATE
	tell   = escalationv1.Action_ACTION_TELL_PLATFORM
	cancel = escalationv1.Action_ACTION_CANCEL

	day = 24 * time.Hour
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// all is a policy with every action.
var all = rules.Policy{Name: "standard", SHA256: []byte("digest"), Steps: []rules.Step{{0, notify}, {day, tell}, {day, route}, {2 * day, cancel}}}

func link() *tokenv1.Link {
	return &tokenv1.Link{
		Id: "lnk_1", Tenant: "acme", RequestId: "req_1", Position: 2, Generation: 1, HolderId: "per_ada", Status: tokenv1.LinkStatus_LINK_STATUS_OPEN,
		Profile: &tokenv1.Profile{Grace: durationpb.New(time.Hour)}, ExpiresAt: timestamppb.New(noon.Add(7 * day)),
	}
}

func seat() *tokenv1.Seat {
	return &tokenv1.Seat{LinkId: "lnk_1", Position: 2, PersonId: "per_ada", ManagerId: "per_max", AlternateIds: []string{"per_bob", "per_cy"}}
}

func begin(trigger escalationv1.Trigger, p rules.Policy, l *tokenv1.Link, s *tokenv1.Seat) rules.Begin {
	return rules.Begin{ID: "esc_1", Trigger: trigger, Generation: 1, Policy: p, Link: l, Seat: s}
}

type command interface {
	Decide(*escalationv1.Escalation, time.Time) (proto.Message, error)
}

func apply(e *escalationv1.Escalation, c command, at time.Time) (*escalationv1.Escalation, proto.Message) {
	fact, err := c.Decide(e, at)
	if err != nil || fact == nil {
		return e, nil
	}
	return rules.Evolve(proto.CloneOf(e), fact), fact
}

func name(fact proto.Message) string { return string(fact.ProtoReflect().Descriptor().Name()) }

// life runs an escalation from deadline to deadline and writes down what was stated and when.
func life(t *testing.T, e *escalationv1.Escalation, l *tokenv1.Link) []string {
	t.Helper()
	var told []string
	for range 20 {
		at := rules.DueAt(e, l)
		if at.IsZero() {
			return told
		}
		var fact proto.Message
		if e, fact = apply(e, rules.Tick{Link: l}, at); fact == nil {
			t.Fatalf("nothing was stated at the deadline %s", at)
		}
		line := fmt.Sprintf("%s %s", at.Sub(noon), name(fact))
		switch f := fact.(type) {
		case *escalationv1.StepSkipped:
			line += ": " + f.GetReason()
		case *escalationv1.AlternateRouted:
			line += " " + f.GetAlternateId()
		case *escalationv1.EscalationResolved:
			line += " " + f.GetReason()
		}
		told = append(told, line)
	}
	t.Fatal("the escalation never ends")
	return nil
}

func TestLifeOfAnEscalation(t *testing.T) {
	for test, tt := range map[string]struct {
		trigger escalationv1.Trigger
		policy  rules.Policy
		link    func(*tokenv1.Link)
		seat    func(*tokenv1.Seat)
		later   func(*tokenv1.Link)
		want    []string
	}{
		"every step": {exhausted, all, nil, nil, nil, []string{
			"0s ManagerNotified", "24h0m0s PlatformTold", "48h0m0s AlternateRouted per_bob", "96h0m0s RequestStuck", "96h0m0s EscalationFinished",
		}},
		"nobody to turn to": {exhausted, all, nil, func(s *tokenv1.Seat) { s.ManagerId, s.AlternateIds = "", nil }, nil, []string{
			"0s StepSkipped: no manager is named", "24h0m0s PlatformTold", "48h0m0s StepSkipped: no alternate is left", "96h0m0s RequestStuck", "96h0m0s EscalationFinished",
		}},
		"alternates who were asked are left out": {
			exhausted,
			rules.Policy{Steps: []rules.Step{{time.Hour, route}}},
			func(l *tokenv1.Link) { l.HolderId, l.FormerHolderIds = "per_cy", []string{"per_ada", "per_bob"} },
			func(s *tokenv1.Seat) { s.AlternateIds = []string{"per_bob", "per_cy", "per_dan"} }, nil,
			[]string{"1h0m0s AlternateRouted per_dan", "1h0m0s EscalationFinished"},
		},
		"an alternate named twice, or who holds it, is asked once": {
			exhausted,
			rules.Policy{Steps: []rules.Step{{0, route}, {0, route}}},
			nil,
			func(s *tokenv1.Seat) { s.AlternateIds = []string{"per_ada", "per_bob", "per_bob"} }, nil,
			[]string{"0s AlternateRouted per_bob", "0s StepSkipped: no alternate is left", "0s EscalationFinished"},
		},
		"a lapsed link is still escalated": {
			lapsed,
			rules.Policy{Steps: []rules.Step{{day, tell}}},
			func(l *tokenv1.Link) { l.ExpiresAt, l.Lapsed = timestamppb.New(noon), true }, nil, nil,
			[]string{"24h0m0s PlatformTold", "24h0m0s EscalationFinished"},
		},
		"who signs meanwhile is not thrown out": {
			exhausted,
			rules.Policy{Steps: []rules.Step{{time.Hour, tell}, {time.Hour, route}, {0, cancel}}},
			nil, nil,
			func(l *tokenv1.Link) {
				l.Status, l.Session = tokenv1.LinkStatus_LINK_STATUS_REDEEMED, &tokenv1.Session{Id: "s", EndsAt: timestamppb.New(noon.Add(3 * time.Hour))}
			},
			[]string{"1h0m0s PlatformTold", "3h0m0s AlternateRouted per_bob", "3h0m0s RequestStuck", "3h0m0s EscalationFinished"},
		},
		"nor within grace": {
			exhausted,
			rules.Policy{Steps: []rules.Step{{0, cancel}}},
			nil, nil,
			func(l *tokenv1.Link) {
				l.ExpiresAt = timestamppb.New(noon.Add(-30 * time.Minute))
				l.Status, l.Session = tokenv1.LinkStatus_LINK_STATUS_REDEEMED, &tokenv1.Session{Id: "s", EndsAt: timestamppb.New(noon.Add(3 * time.Hour))}
			},
			[]string{"30m0s RequestStuck", "30m0s EscalationFinished"},
		},
		"signed unheard":   {exhausted, all, nil, nil, func(l *tokenv1.Link) { l.Status = tokenv1.LinkStatus_LINK_STATUS_SIGNED }, []string{"0s EscalationResolved LinkSigned"}},
		"declined unheard": {exhausted, all, nil, nil, func(l *tokenv1.Link) { l.Status = tokenv1.LinkStatus_LINK_STATUS_DECLINED }, []string{"0s EscalationResolved LinkDeclined"}},
		"closed unheard":   {exhausted, all, nil, nil, func(l *tokenv1.Link) { l.Status = tokenv1.LinkStatus_LINK_STATUS_CLOSED }, []string{"0s EscalationResolved LinkClosed"}},
		"revoked unheard":  {exhausted, all, nil, nil, func(l *tokenv1.Link) { l.Status = tokenv1.LinkStatus_LINK_STATUS_REVOKED }, []string{"0s EscalationResolved LinkRevoked"}},
		"reissued unheard": {exhausted, all, nil, nil, func(l *tokenv1.Link) { l.Generation = 2 }, []string{"0s EscalationResolved LinkReissued"}},
		"rerouted unheard": {exhausted, all, nil, nil, func(l *tokenv1.Link) { l.Generation, l.HolderId = 2, "per_bob" }, []string{"0s EscalationResolved LinkRerouted"}},
		"no such link":     {exhausted, all, nil, nil, gone, []string{"0s EscalationResolved LinkClosed"}},
		"the mail came after all": {failed, all, nil, nil, func(l *tokenv1.Link) {
			l.Status, l.Session = tokenv1.LinkStatus_LINK_STATUS_REDEEMED, &tokenv1.Session{Id: "s"}
		}, []string{"0s EscalationResolved LinkRedeemed"}},
		"a step of a newer release": {
			exhausted,
			rules.Policy{Steps: []rules.Step{{0, escalationv1.Action(99)}}},
			nil, nil, nil,
			[]string{"0s StepSkipped: this release does not know the step", "0s EscalationFinished"},
		},
	} {
		t.Run(test, func(t *testing.T) {
			l, s := link(), seat()
			if tt.link != nil {
				tt.link(l)
			}
			if tt.seat != nil {
				tt.seat(s)
			}
			e, _ := apply(&escalationv1.Escalation{}, begin(tt.trigger, tt.policy, l, s), noon)
			if tt.later != nil {
				tt.later(l)
			}
			if diff := cmp.Diff(tt.want, life(t, e, l)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func gone(l *tokenv1.Link) { proto.Reset(l) }

func TestBegin(t *testing.T) {
	running, _ := apply(&escalationv1.Escalation{}, begin(failed, all, link(), seat()), noon)
	resolved, _ := apply(running, rules.Resolve{Reason: "LinkRedeemed"}, noon)
	opened := link()
	opened.Status, opened.Session = tokenv1.LinkStatus_LINK_STATUS_REDEEMED, &tokenv1.Session{Id: "s"}
	signed := link()
	signed.Status = tokenv1.LinkStatus_LINK_STATUS_SIGNED
	second := link()
	second.Generation = 2
	for test, tt := range map[string]struct {
		state *escalationv1.Escalation
		begin rules.Begin
		want  bool
	}{
		"first":                                 {&escalationv1.Escalation{}, begin(lapsed, all, link(), seat()), true},
		"told twice":                            {running, begin(failed, all, link(), seat()), false},
		"the first trigger wins":                {running, begin(lapsed, all, link(), seat()), false},
		"a policy without steps":                {&escalationv1.Escalation{}, begin(lapsed, rules.Policy{Name: "none"}, link(), seat()), false},
		"signed already":                        {&escalationv1.Escalation{}, begin(lapsed, all, signed, seat()), false},
		"about a generation that is over":       {&escalationv1.Escalation{}, begin(lapsed, all, second, seat()), false},
		"the delivery that failed was opened":   {&escalationv1.Escalation{}, begin(failed, all, opened, seat()), false},
		"resolved, and told of it again":        {resolved, begin(failed, all, opened, seat()), false},
		"resolved, and then nothing came of it": {resolved, begin(exhausted, all, opened, seat()), true},
		"resolved, and signed":                  {resolved, begin(exhausted, all, signed, seat()), false},
	} {
		t.Run(test, func(t *testing.T) {
			if _, fact := apply(tt.state, tt.begin, noon); (fact != nil) != tt.want {
				t.Errorf("stated %v, want a trigger: %t", fact, tt.want)
			}
		})
	}
	want := &escalationv1.Escalation{
		Id: "esc_1", Tenant: "acme", RequestId: "req_1", LinkId: "lnk_1", Generation: 1, Position: 2, Status: escalationv1.Status_STATUS_RUNNING, Trigger: failed,
		Policy: "standard", PolicySha256: []byte("digest"), NextAt: timestamppb.New(noon), HolderId: "per_ada", ManagerId: "per_max", AlternateIds: []string{"per_bob", "per_cy"},
		Steps: []*escalationv1.Step{
			{Wait: durationpb.New(0), Action: notify}, {Wait: durationpb.New(day), Action: tell}, {Wait: durationpb.New(day), Action: route}, {Wait: durationpb.New(2 * day), Action: cancel},
		},
	}
	if diff := cmp.Diff(want, running, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestResolve(t *testing.T) {
	e, _ := apply(&escalationv1.Escalation{}, begin(exhausted, rules.Policy{Steps: []rules.Step{{0, route}}}, link(), seat()), noon)
	if _, fact := apply(&escalationv1.Escalation{}, rules.Resolve{Reason: "LinkSigned"}, noon); fact != nil {
		t.Errorf("resolving nothing states %v", fact)
	}
	resolved, fact := apply(e, rules.Resolve{Reason: "LinkSigned"}, noon)
	if f, ok := fact.(*escalationv1.EscalationResolved); !ok || f.GetReason() != "LinkSigned" || !rules.Deadline(resolved).IsZero() {
		t.Errorf("stated %v, then waits for %s", fact, rules.Deadline(resolved))
	}
	if _, fact := apply(e, rules.Resolve{Reason: "LinkRedeemed", Only: failed}, noon); fact != nil {
		t.Errorf("opening the link resolves what no failed delivery began: %v", fact)
	}
	// What its own last step led to does not undo that it ran to the end.
	routed, _ := apply(e, rules.Tick{Link: link()}, noon)
	if _, fact = apply(routed, rules.Resolve{Reason: "LinkRerouted"}, noon); name(fact) != "EscalationFinished" {
		t.Errorf("after the last step: %v", fact)
	}
	for test, c := range map[string]command{"resolve": rules.Resolve{Reason: "LinkClosed"}, "tick": rules.Tick{Link: link()}} {
		if _, fact := apply(resolved, c, noon.Add(100*day)); fact != nil {
			t.Errorf("%s after the end states %v", test, fact)
		}
	}
}
