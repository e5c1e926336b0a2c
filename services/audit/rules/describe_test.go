package rules_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/audit/rules"
)

// TestWhatWasItAbout says which leaf answers which question of "why": each names the link, and what comes next.
func TestWhatWasItAbout(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	soon := timestamppb.New(noon.Add(time.Hour))
	delivery := &deliveryv1.Delivery{Kind: deliveryv1.Kind_KIND_LINK, Channel: deliveryv1.Channel_CHANNEL_EMAIL, LinkId: "lnk_1", Generation: 2, Attempts: 1}
	plan := &reminderv1.Plan{
		LinkId: "lnk_1", Generation: 2, Status: reminderv1.PlanStatus_PLAN_STATUS_RUNNING, Sent: 1, Used: 2, NextAt: soon,
		Offsets: []*durationpb.Duration{durationpb.New(1), durationpb.New(2), durationpb.New(3)},
	}
	escalation := &escalationv1.Escalation{
		LinkId: "lnk_1", Generation: 2, Status: escalationv1.Status_STATUS_RUNNING, Trigger: escalationv1.Trigger_TRIGGER_LINK_LAPSED,
		Policy: "standard", PolicySha256: []byte{1, 2}, NextStep: 1, NextAt: soon,
		Steps: []*escalationv1.Step{{Action: escalationv1.Action_ACTION_NOTIFY_MANAGER}, {Action: escalationv1.Action_ACTION_ROUTE_ALTERNATE}},
	}
	const at = "2026-03-02T13:00:00.000Z"
	for name, tt := range map[string]struct {
		fact, state proto.Message
		kind, code  string
		info        map[string]string
	}{
		"a message was put off": {
			&deliveryv1.AttemptDeferred{Attempt: 1, EnhancedCode: "4.3.0", NextAttemptAt: soon}, delivery, "cs.delivery.deferred", "4.3.0",
			map[string]string{"kind": "link", "channel": "email", "delivery": "x1", "attempt": "1", "next_at": at},
		},
		"a message was never answered for": {
			&deliveryv1.DeliveryFailed{}, delivery, "cs.delivery.failed", "FAILED",
			map[string]string{"kind": "link", "channel": "email", "delivery": "x1", "attempt": "1"},
		},
		"a reminder was sent": {
			&reminderv1.ReminderDue{Ordinal: 1, Generation: 2}, plan, "cs.reminder.due", "ok",
			map[string]string{"sent": "1", "used": "2", "of": "3", "next_at": at, "ordinal": "1"},
		},
		"a manager was told": {
			&escalationv1.ManagerNotified{Step: 1}, escalation, "cs.escalation.manager_notified", "ok",
			map[string]string{"trigger": "link_lapsed", "policy": "standard", "policy_digest": "sha256:0102", "steps": "2", "step": "1", "next_action": "route_alternate", "next_at": at},
		},
		"a step had nobody to act on": {
			&escalationv1.StepSkipped{Step: 1, Action: escalationv1.Action_ACTION_NOTIFY_MANAGER, Reason: "no manager is named"}, escalation, "cs.escalation.step_skipped", "ok",
			map[string]string{
				"trigger": "link_lapsed", "policy": "standard", "policy_digest": "sha256:0102", "steps": "2", "step": "1",
				"action": "notify_manager", "reason": "no manager is named", "next_action": "route_alternate", "next_at": at,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state, err := anypb.New(tt.state)
			if err != nil {
				t.Fatal(err)
			}
			l, raw := leafOf(t, rules.Source{
				ID: "x1", Tenant: "demo", Service: "escalation", Fact: tt.fact,
				Record: &recordv1.Record{RequestId: "req_1", State: state, At: timestamppb.New(noon)},
			}, noon)
			if l.Type != tt.kind || l.Out.Code != tt.code || l.Link == nil || l.Link.ID != "lnk_1" || l.Link.Gen != 2 {
				t.Errorf("leaf %s", raw)
			}
			if diff := cmp.Diff(tt.info, l.Info); diff != "" {
				t.Errorf("info (-want +got)\n%s", diff)
			}
		})
	}
}

// leafOf returns the first leaf of a request, read and as it is stored.
func leafOf(t *testing.T, source rules.Source, at time.Time) (rules.Leaf, []byte) {
	t.Helper()
	raw, err := rules.Next(source, rules.Tail{}, at)
	if err != nil {
		t.Fatal(err)
	}
	l, err := rules.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return l, raw
}

// TestWhoWasErased: the leaf of an erasure says whose data it was and what for, and nothing else.
func TestWhoWasErased(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	for link, want := range map[string]map[string]string{
		"": {"what": "request", "basis": "DSR-7"}, "lnk_1": {"what": "signer", "basis": "DSR-7"},
	} {
		l, raw := leafOf(t, rules.Source{
			ID: "x1", Tenant: "demo", Service: "token", Fact: &tokenv1.RequestErased{LinkId: link, Basis: "DSR-7"},
			Record: &recordv1.Record{RequestId: "req_1", At: timestamppb.New(noon)},
		}, noon)
		if l.Type != "cs.pii.erased" || (l.Link != nil) != (link != "") || l.Link != nil && l.Link.ID != link || cmp.Diff(want, l.Info) != "" {
			t.Errorf("erased %q: leaf %s", link, raw)
		}
	}
}
