package rules

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// Begin starts the escalation of a generation of a link. It does nothing where one runs or ran, where the policy has no
// step for the trigger, and where the link is settled.
type Begin struct {
	ID          string
	Trigger     escalationv1.Trigger
	Generation  uint32 // that the trigger is about
	Policy      Policy
	Link        *tokenv1.Link // as the record has it
	Seat        *tokenv1.Seat // of the link, with manager and alternates
	Traceparent string        // of what triggered it
}

// Decide states EscalationTriggered.
func (c Begin) Decide(e *escalationv1.Escalation, now time.Time) (proto.Message, error) {
	reopened := e.GetStatus() == escalationv1.Status_STATUS_RESOLVED && e.GetTrigger() != c.Trigger
	if e.GetStatus() != escalationv1.Status_STATUS_UNSPECIFIED && !reopened || len(c.Policy.Steps) == 0 {
		return nil, nil
	}
	next := &escalationv1.Escalation{
		Id: c.ID, Tenant: c.Link.GetTenant(), RequestId: c.Link.GetRequestId(), LinkId: c.Link.GetId(), Generation: c.Generation,
		Position: c.Link.GetPosition(), Status: escalationv1.Status_STATUS_RUNNING, Trigger: c.Trigger,
		Policy: c.Policy.Name, PolicySha256: c.Policy.SHA256, NextAt: timestamppb.New(now.Add(c.Policy.Steps[0].Wait)),
		HolderId: c.Link.GetHolderId(), ManagerId: c.Seat.GetManagerId(), AlternateIds: untried(c.Seat, c.Link), Traceparent: c.Traceparent,
	}
	if settled(next, c.Link) != "" {
		return nil, nil
	}
	for _, s := range c.Policy.Steps {
		next.Steps = append(next.Steps, &escalationv1.Step{Wait: durationpb.New(s.Wait), Action: s.Action})
	}
	return &escalationv1.EscalationTriggered{Escalation: next}, nil
}

// untried returns the alternates who do not hold the link and never did, in the order in which they were named.
func untried(seat *tokenv1.Seat, l *tokenv1.Link) []string {
	var left []string
	for _, id := range seat.GetAlternateIds() {
		if id != l.GetHolderId() && !slices.Contains(l.GetFormerHolderIds(), id) && !slices.Contains(left, id) {
			left = append(left, id)
		}
	}
	return left
}

// settled returns the name of the fact by which there is nothing to escalate any more; empty while there is.
func settled(e *escalationv1.Escalation, l *tokenv1.Link) string {
	switch l.GetStatus() {
	case tokenv1.LinkStatus_LINK_STATUS_SIGNED:
		return "LinkSigned"
	case tokenv1.LinkStatus_LINK_STATUS_DECLINED:
		return "LinkDeclined"
	case tokenv1.LinkStatus_LINK_STATUS_CLOSED, tokenv1.LinkStatus_LINK_STATUS_UNSPECIFIED:
		return "LinkClosed"
	case tokenv1.LinkStatus_LINK_STATUS_REVOKED:
		return "LinkRevoked"
	case tokenv1.LinkStatus_LINK_STATUS_OPEN, tokenv1.LinkStatus_LINK_STATUS_REDEEMED:
	}
	switch {
	case l.GetHolderId() != e.GetHolderId():
		return "LinkRerouted"
	case l.GetGeneration() != e.GetGeneration():
		return "LinkReissued"
	case e.GetTrigger() == escalationv1.Trigger_TRIGGER_DELIVERY_FAILED && l.GetSession() != nil:
		return "LinkRedeemed" // the message came through after all
	}
	return ""
}

// Resolve ends an escalation because of what happened to its link. Where every step was taken it is finished instead.
type Resolve struct {
	Reason string               // the fact's name
	Only   escalationv1.Trigger // resolves an escalation of this trigger alone; unspecified resolves any
}

// Decide states EscalationResolved or EscalationFinished, and nothing where none runs.
func (c Resolve) Decide(e *escalationv1.Escalation, _ time.Time) (proto.Message, error) {
	switch {
	case e.GetStatus() != escalationv1.Status_STATUS_RUNNING, c.Only != 0 && c.Only != e.GetTrigger():
		return nil, nil
	case done(e):
		return &escalationv1.EscalationFinished{}, nil
	default:
		return &escalationv1.EscalationResolved{Reason: c.Reason}, nil
	}
}

func done(e *escalationv1.Escalation) bool { return int(e.GetNextStep()) >= len(e.GetSteps()) }

// Deadline returns when something is due; the zero time when nothing is.
func Deadline(e *escalationv1.Escalation) time.Time {
	if e.GetStatus() != escalationv1.Status_STATUS_RUNNING {
		return time.Time{}
	}
	return e.GetNextAt().AsTime()
}

// DueAt returns when the next step may be taken, given the link as the record has it now: at the deadline, or when the
// session of somebody who would be thrown out is over. The zero time when nothing is due.
func DueAt(e *escalationv1.Escalation, l *tokenv1.Link) time.Time {
	due := Deadline(e)
	if due.IsZero() || done(e) || settled(e, l) != "" || l.GetSession() == nil {
		return due
	}
	switch e.GetSteps()[e.GetNextStep()].GetAction() {
	case escalationv1.Action_ACTION_ROUTE_ALTERNATE, escalationv1.Action_ACTION_CANCEL:
		return latest(due, sessionEnd(l))
	default:
		return due
	}
}

// sessionEnd is when a session is over: at its own end, or when grace ends, whichever comes first (spec 2.4).
func sessionEnd(l *tokenv1.Link) time.Time {
	end, grace := l.GetSession().GetEndsAt().AsTime(), l.GetExpiresAt().AsTime().Add(l.GetProfile().GetGrace().AsDuration())
	if grace.Before(end) {
		return grace
	}
	return end
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Tick takes the step that is due, given the link as the record has it now; one at a time.
type Tick struct {
	Link *tokenv1.Link
}

// Decide states what the step says, or StepSkipped, EscalationFinished or EscalationResolved; nothing before it is due.
func (c Tick) Decide(e *escalationv1.Escalation, now time.Time) (proto.Message, error) {
	if due := DueAt(e, c.Link); due.IsZero() || now.Before(due) {
		return nil, nil
	}
	if done(e) {
		return &escalationv1.EscalationFinished{}, nil
	}
	if reason := settled(e, c.Link); reason != "" {
		return &escalationv1.EscalationResolved{Reason: reason}, nil
	}
	return step(e, now), nil
}

// step takes the next step of an escalation.
func step(e *escalationv1.Escalation, now time.Time) proto.Message {
	action, number := e.GetSteps()[e.GetNextStep()].GetAction(), e.GetNextStep()+1
	next := timestamppb.New(now) // after the last step: to be finished at once
	if int(number) < len(e.GetSteps()) {
		next = timestamppb.New(now.Add(e.GetSteps()[number].GetWait().AsDuration()))
	}
	skipped := func(reason string) proto.Message {
		return &escalationv1.StepSkipped{Step: number, Action: action, Reason: reason, NextAt: next}
	}
	switch action {
	case escalationv1.Action_ACTION_NOTIFY_MANAGER:
		if e.GetManagerId() == "" {
			return skipped(NoManager)
		}
		return &escalationv1.ManagerNotified{
			Step: number, LinkId: e.GetLinkId(), Generation: e.GetGeneration(), ManagerId: e.GetManagerId(), HolderId: e.GetHolderId(), NextAt: next,
		}
	case escalationv1.Action_ACTION_ROUTE_ALTERNATE:
		if len(e.GetAlternateIds()) == 0 {
			return skipped(NoAlternate)
		}
		return &escalationv1.AlternateRouted{
			Step: number, LinkId: e.GetLinkId(), Generation: e.GetGeneration(), AlternateId: e.GetAlternateIds()[0], FormerHolderId: e.GetHolderId(), NextAt: next,
		}
	case escalationv1.Action_ACTION_CANCEL:
		return &escalationv1.RequestStuck{Step: number, NextAt: next}
	case escalationv1.Action_ACTION_TELL_PLATFORM:
		return &escalationv1.PlatformTold{Step: number, Position: e.GetPosition(), NextAt: next}
	case escalationv1.Action_ACTION_UNSPECIFIED:
	}
	return skipped(NotKnown)
}

// Evolve returns the escalation after a fact; an unknown one changes nothing. It may change e.
func Evolve(e *escalationv1.Escalation, fact proto.Message) *escalationv1.Escalation {
	switch f := fact.(type) {
	case *escalationv1.EscalationTriggered:
		return proto.CloneOf(f.GetEscalation())
	case *escalationv1.ManagerNotified:
		e.NextStep, e.NextAt = f.GetStep(), f.GetNextAt()
	case *escalationv1.AlternateRouted:
		e.NextStep, e.NextAt = f.GetStep(), f.GetNextAt()
		e.AlternateIds = slices.DeleteFunc(e.GetAlternateIds(), func(id string) bool { return id == f.GetAlternateId() })
	case *escalationv1.RequestStuck:
		e.NextStep, e.NextAt = f.GetStep(), f.GetNextAt()
	case *escalationv1.PlatformTold:
		e.NextStep, e.NextAt = f.GetStep(), f.GetNextAt()
	case *escalationv1.StepSkipped:
		e.NextStep, e.NextAt = f.GetStep(), f.GetNextAt()
	case *escalationv1.EscalationFinished:
		e.Status, e.NextAt = escalationv1.Status_STATUS_FINISHED, nil
	case *escalationv1.EscalationResolved:
		e.Status, e.NextAt = escalationv1.Status_STATUS_RESOLVED, nil
	}
	return e
}
