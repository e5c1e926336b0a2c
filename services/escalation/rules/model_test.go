package rules_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/escalation/rules"
)

// TestEscalationModel has random policies, sessions, endings and timers, and checks each fact against the spec's words.
func TestEscalationModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := rules.Policy{Name: "drawn"}
		for range rapid.IntRange(1, 5).Draw(t, "steps") {
			policy.Steps = append(policy.Steps, rules.Step{
				Wait:   time.Duration(rapid.Int64Range(0, int64(3*day)).Draw(t, "wait")),
				Action: rapid.SampledFrom([]escalationv1.Action{notify, route, tell, cancel}).Draw(t, "action"),
			})
		}
		e, l, s, now := &escalationv1.Escalation{}, link(), seat(), noon
		trigger := rapid.SampledFrom([]escalationv1.Trigger{exhausted, lapsed, failed})
		taken, last := 0, now
		var routed []string
		over := func() bool { return l.GetStatus() > tokenv1.LinkStatus_LINK_STATUS_REDEEMED }
		t.Repeat(map[string]func(*rapid.T){
			"time passes": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.Int64Range(1, int64(2*day)).Draw(t, "for")))
			},
			"begin": func(t *rapid.T) {
				next, fact := apply(e, begin(trigger.Draw(t, "trigger"), policy, l, s), now)
				if fact != nil {
					if over() || e.GetStatus() == escalationv1.Status_STATUS_RUNNING || e.GetStatus() == escalationv1.Status_STATUS_FINISHED {
						t.Fatalf("began on %v", e)
					}
					taken, last, routed = 0, now, nil
				}
				e = next
			},
			"a session": func(t *rapid.T) {
				if !over() {
					l.Status = tokenv1.LinkStatus_LINK_STATUS_REDEEMED
					l.Session = &tokenv1.Session{Id: "s", EndsAt: timestamppb.New(now.Add(time.Hour))}
				}
			},
			"the link ends": func(t *rapid.T) {
				if rapid.IntRange(0, 15).Draw(t, "rarely") == 0 {
					l.Status = tokenv1.LinkStatus(rapid.Int32Range(3, 6).Draw(t, "status"))
				}
			},
			"timer": func(t *rapid.T) {
				before := e
				next, fact := apply(e, rules.Tick{Link: l}, now)
				e = next
				if fact == nil {
					if due := rules.DueAt(before, l); !due.IsZero() && !now.Before(due) {
						t.Fatal("nothing was stated when it was due")
					}
					return
				}
				switch f := fact.(type) {
				case *escalationv1.EscalationFinished:
					if taken != len(policy.Steps) {
						t.Fatalf("finished after %d of %d", taken, len(policy.Steps))
					}
					return
				case *escalationv1.EscalationResolved:
					return
				case *escalationv1.AlternateRouted:
					if slices.Contains(routed, f.GetAlternateId()) || live(l, now) {
						t.Fatalf("routed to %s after %v, session live: %t", f.GetAlternateId(), routed, live(l, now))
					}
					routed = append(routed, f.GetAlternateId())
				case *escalationv1.RequestStuck:
					if live(l, now) {
						t.Fatal("cancelled while somebody signs")
					}
				}
				if over() || now.Sub(last) < policy.Steps[taken].Wait || action(fact) != policy.Steps[taken].Action {
					t.Fatalf("step %d: %T after %s, link %s", taken, fact, now.Sub(last), l.GetStatus())
				}
				taken, last = taken+1, now
			},
		})
	})
}

func live(l *tokenv1.Link, now time.Time) bool {
	return l.GetSession() != nil && now.Before(l.GetSession().GetEndsAt().AsTime()) && now.Before(l.GetExpiresAt().AsTime().Add(time.Hour))
}

func action(fact proto.Message) escalationv1.Action {
	switch f := fact.(type) {
	case *escalationv1.ManagerNotified:
		return notify
	case *escalationv1.AlternateRouted:
		return route
	case *escalationv1.PlatformTold:
		return tell
	case *escalationv1.RequestStuck:
		return cancel
	case *escalationv1.StepSkipped:
		return f.GetAction()
	}
	return 0
}
