package rules

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
)

// What a message, a reminder or an escalation was about is taken from the state beside the fact: every leaf of one then names its
// link, so that the log alone answers who is waited for, and why.

// describeDelivery adds which message it was, whose link it carried, and how an attempt went.
func describeDelivery(l *Leaf, src Source) {
	d := &deliveryv1.Delivery{}
	if src.Record.GetState().UnmarshalTo(d) != nil {
		return
	}
	if d.GetLinkId() != "" {
		l.Link = &Link{ID: d.GetLinkId(), Gen: d.GetGeneration()}
	}
	l.Info = map[string]string{"kind": kindName(d.GetKind()), "channel": channelName(d.GetChannel()), "delivery": src.ID}
	if d.GetAttempts() > 0 {
		l.Info["attempt"] = fmt.Sprint(d.GetAttempts())
	}
	switch f := src.Fact.(type) {
	case *deliveryv1.AttemptAccepted:
		l.Info["provider"] = f.GetProvider()
	case *deliveryv1.AttemptDeferred:
		l.Out.Code = replyCode(f.GetEnhancedCode(), "DEFERRED")
		when(l, "next_at", f.GetNextAttemptAt())
	case *deliveryv1.AttemptBounced:
		l.Out.Code = replyCode(f.GetEnhancedCode(), "BOUNCED")
	case *deliveryv1.DeliveryFailed:
		l.Out.Code = replyCode(f.GetEnhancedCode(), "FAILED")
	case *deliveryv1.DeliverySkipped:
		l.Out.Code = replyCode(f.GetCode(), "SKIPPED")
	}
}

// describeReminder adds how far a plan has come.
func describeReminder(l *Leaf, src Source) {
	p := &reminderv1.Plan{}
	if src.Record.GetState().UnmarshalTo(p) != nil {
		return
	}
	l.Link = &Link{ID: p.GetLinkId(), Gen: p.GetGeneration()}
	l.Info = map[string]string{"sent": fmt.Sprint(p.GetSent()), "used": fmt.Sprint(p.GetUsed()), "of": fmt.Sprint(len(p.GetOffsets()))}
	if p.GetPartial() {
		l.Info["partial"] = "true"
	}
	if p.GetStatus() == reminderv1.PlanStatus_PLAN_STATUS_RUNNING {
		when(l, "next_at", p.GetNextAt())
	}
	switch f := src.Fact.(type) {
	case *reminderv1.ReminderDue:
		l.Link.Gen = f.GetGeneration()
		l.Info["ordinal"] = fmt.Sprint(f.GetOrdinal())
	case *reminderv1.RemindersStopped:
		l.Info["reason"] = f.GetReason()
	}
}

// describeEscalation adds what began an escalation, by which policy, and which step it took.
func describeEscalation(l *Leaf, src Source) {
	e := &escalationv1.Escalation{}
	if src.Record.GetState().UnmarshalTo(e) != nil {
		return
	}
	l.Link = &Link{ID: e.GetLinkId(), Gen: e.GetGeneration()}
	l.Info = map[string]string{
		"trigger": strings.ToLower(strings.TrimPrefix(e.GetTrigger().String(), "TRIGGER_")), "policy": e.GetPolicy(),
		"policy_digest": digest(e.GetPolicySha256()), "steps": fmt.Sprint(len(e.GetSteps())),
	}
	if f, ok := src.Fact.(interface{ GetStep() uint32 }); ok {
		l.Info["step"] = fmt.Sprint(f.GetStep())
	}
	switch f := src.Fact.(type) {
	case *escalationv1.StepSkipped:
		l.Info["action"], l.Info["reason"] = actionName(f.GetAction()), f.GetReason()
	case *escalationv1.EscalationResolved:
		l.Info["reason"] = f.GetReason()
	}
	if next := int(e.GetNextStep()); e.GetStatus() == escalationv1.Status_STATUS_RUNNING && next < len(e.GetSteps()) {
		l.Info["next_action"] = actionName(e.GetSteps()[next].GetAction())
		when(l, "next_at", e.GetNextAt())
	}
}

// when adds an instant, unless it is not known.
func when(l *Leaf, name string, at *timestamppb.Timestamp) {
	if at != nil {
		l.Info[name] = stamp(at.AsTime())
	}
}

// replyCode is how something went: what the other side said, or plainly that it did not go well.
func replyCode(code, otherwise string) string {
	if code == "" {
		return otherwise
	}
	return code
}

func actionName(a escalationv1.Action) string {
	return strings.ToLower(strings.TrimPrefix(a.String(), "ACTION_"))
}

func channelName(c deliveryv1.Channel) string {
	return strings.ToLower(strings.TrimPrefix(c.String(), "CHANNEL_"))
}
