package rules

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// Subject says whose plan it is.
type Subject struct {
	PlanID, Tenant, RequestID, LinkID, HolderID string
	Generation, Position                        uint32
	TimeZone                                    string // IANA name
	Traceparent                                 string // of what began it
}

// Begin makes the plan of a link whose message was accepted at At. It changes nothing where there is a plan already.
type Begin struct {
	Of     Subject
	Policy Policy
	At     time.Time
}

// Decide states ReminderPlanned.
func (c Begin) Decide(p *reminderv1.Plan, _ time.Time) (proto.Message, error) {
	if p.GetStatus() != reminderv1.PlanStatus_PLAN_STATUS_UNSPECIFIED {
		return nil, nil
	}
	return &reminderv1.ReminderPlanned{Plan: newPlan(c.Of, c.Policy, c.At, false)}, nil
}

// Act says that the signer did something at At without having signed: the partial plan runs from then on. An act that was
// heard late, and everything after the plan's end, changes nothing.
type Act struct {
	Of     Subject
	Policy Policy
	At     time.Time
}

// Decide states RemindersRestarted.
func (c Act) Decide(p *reminderv1.Plan, _ time.Time) (proto.Message, error) {
	if ended(p) || p.GetPartial() && !c.At.After(p.GetBaseAt().AsTime()) {
		return nil, nil
	}
	next := newPlan(c.Of, c.Policy, c.At, true)
	next.Sent, next.SentAt = p.GetSent(), p.GetSentAt()
	return &reminderv1.RemindersRestarted{Plan: next}, nil
}

func newPlan(of Subject, policy Policy, base time.Time, partial bool) *reminderv1.Plan {
	offsets := policy.Offsets
	if partial {
		offsets = policy.PartialOffsets
	}
	p := &reminderv1.Plan{
		Id: of.PlanID, Tenant: of.Tenant, RequestId: of.RequestID, LinkId: of.LinkID, Generation: of.Generation, Position: of.Position,
		HolderId: of.HolderID, TimeZone: of.TimeZone, Traceparent: of.Traceparent,
		Status: reminderv1.PlanStatus_PLAN_STATUS_RUNNING, BaseAt: timestamppb.New(base), Partial: partial,
		FinalWait: durationpb.New(policy.FinalWait), RotateWithin: durationpb.New(policy.RotateWithin),
		MaxPerDay: uint32(policy.MaxPerDay),
		Quiet: &reminderv1.Quiet{
			From: durationpb.New(policy.Quiet.From), Until: durationpb.New(policy.Quiet.Until), Weekends: policy.Quiet.Weekends,
		},
	}
	for _, o := range offsets {
		p.Offsets = append(p.Offsets, durationpb.New(o))
	}
	p.NextAt = timestamppb.New(nextAfter(p, 0, base))
	return p
}

// nextAfter returns when something is due after so many slots are used, the last of them at a given time.
func nextAfter(p *reminderv1.Plan, used int, at time.Time) time.Time {
	if used < len(p.GetOffsets()) {
		return p.GetBaseAt().AsTime().Add(p.GetOffsets()[used].AsDuration())
	}
	return at.Add(p.GetFinalWait().AsDuration())
}

func ended(p *reminderv1.Plan) bool {
	return p.GetStatus() == reminderv1.PlanStatus_PLAN_STATUS_STOPPED || p.GetStatus() == reminderv1.PlanStatus_PLAN_STATUS_EXHAUSTED
}

// Deadline returns when something is due; the zero time when nothing is.
func Deadline(p *reminderv1.Plan) time.Time {
	if p.GetStatus() != reminderv1.PlanStatus_PLAN_STATUS_RUNNING {
		return time.Time{}
	}
	return p.GetNextAt().AsTime()
}

// Stop ends a plan that is pointless. It changes nothing where none runs.
type Stop struct {
	Reason string // the failure's code or the fact's name that says why
}

// Decide states RemindersStopped.
func (c Stop) Decide(p *reminderv1.Plan, _ time.Time) (proto.Message, error) {
	if p.GetStatus() != reminderv1.PlanStatus_PLAN_STATUS_RUNNING {
		return nil, nil
	}
	return &reminderv1.RemindersStopped{Reason: c.Reason}, nil
}

// Tick does what is due, given the link as the record has it now. Nothing is due before the deadline.
type Tick struct {
	Link *tokenv1.Link
	Zone *time.Location // the signer's
}

// Decide states RemindersStopped, RemindersPostponed, ReminderDue or RemindersExhausted.
func (c Tick) Decide(p *reminderv1.Plan, now time.Time) (proto.Message, error) {
	if due := Deadline(p); due.IsZero() || now.Before(due) {
		return nil, nil
	}
	if reason := pointless(p, c.Link, now); reason != "" {
		return &reminderv1.RemindersStopped{Reason: reason}, nil
	}
	used := int(p.GetUsed())
	if used >= len(p.GetOffsets()) {
		return &reminderv1.RemindersExhausted{LinkId: p.GetLinkId(), Generation: p.GetGeneration(), Sent: p.GetSent()}, nil
	}
	if free := freeAt(p, now, c.Zone); free.After(now) {
		return &reminderv1.RemindersPostponed{NextAt: timestamppb.New(free)}, nil
	}
	for used < len(p.GetOffsets()) && !nextAfter(p, used, now).After(now) {
		used++
	}
	return &reminderv1.ReminderDue{
		Ordinal: p.GetSent() + 1, LinkId: p.GetLinkId(), Generation: p.GetGeneration(), HolderId: p.GetHolderId(), Partial: p.GetPartial(),
		Used: uint32(used), NextAt: timestamppb.New(nextAfter(p, used, now)),
		Rotate: c.Link.GetExpiresAt().AsTime().Sub(now) < p.GetRotateWithin().AsDuration(), At: timestamppb.New(now),
	}, nil
}

// freeAt returns the first instant from now on at which the signer may be reminded: outside quiet hours, and on a day that
// has not had its reminders yet (spec 6.3, 6.5).
func freeAt(p *reminderv1.Plan, now time.Time, zone *time.Location) time.Time {
	if most := p.GetMaxPerDay(); most > 0 {
		today := uint32(0)
		for _, at := range p.GetSentAt() {
			if sameDay(at.AsTime().In(zone), now.In(zone)) {
				today++
			}
		}
		if today >= most {
			y, m, d := now.In(zone).Date()
			now = time.Date(y, m, d+1, 0, 0, 0, 0, zone).UTC()
		}
	}
	return QuietEnd(p.GetQuiet(), now, zone)
}

func sameDay(a, b time.Time) bool { return a.Year() == b.Year() && a.YearDay() == b.YearDay() }

// Carry goes on with a plan for the generation that a reminder's new link began: nothing is counted anew.
type Carry struct {
	Of   Subject
	From *reminderv1.Plan // of the generation before
}

// Decide states ReminderPlanned, unless there is a plan already or none ran.
func (c Carry) Decide(p *reminderv1.Plan, _ time.Time) (proto.Message, error) {
	if p.GetStatus() != reminderv1.PlanStatus_PLAN_STATUS_UNSPECIFIED || c.From.GetStatus() != reminderv1.PlanStatus_PLAN_STATUS_RUNNING {
		return nil, nil
	}
	next := proto.CloneOf(c.From)
	next.Id, next.Generation, next.HolderId, next.Traceparent = c.Of.PlanID, c.Of.Generation, c.Of.HolderID, c.Of.Traceparent
	return &reminderv1.ReminderPlanned{Plan: next}, nil
}

// pointless returns the code that says why a reminder would make no sense; empty when it makes sense (spec 6.2).
func pointless(p *reminderv1.Plan, l *tokenv1.Link, now time.Time) string {
	switch {
	case l.GetGeneration() == 0:
		return failure.LinkUnknown.Code
	case l.GetHolderId() != p.GetHolderId():
		return failure.LinkDelegated.Code
	}
	switch l.GetStatus() {
	case tokenv1.LinkStatus_LINK_STATUS_SIGNED:
		return failure.LinkSigned.Code
	case tokenv1.LinkStatus_LINK_STATUS_DECLINED:
		return failure.LinkDeclined.Code
	case tokenv1.LinkStatus_LINK_STATUS_CLOSED:
		return failure.LinkCancelled.Code
	case tokenv1.LinkStatus_LINK_STATUS_REVOKED:
		return failure.LinkRevoked.Code
	case tokenv1.LinkStatus_LINK_STATUS_OPEN, tokenv1.LinkStatus_LINK_STATUS_REDEEMED, tokenv1.LinkStatus_LINK_STATUS_UNSPECIFIED:
	}
	switch {
	case l.GetGeneration() != p.GetGeneration():
		return failure.LinkSuperseded.Code
	case !now.Before(l.GetExpiresAt().AsTime()):
		return failure.LinkExpired.Code // a lapse is a trigger of escalation by itself
	}
	return ""
}

// Evolve returns the plan after a fact; an unknown one changes nothing. It may change p.
func Evolve(p *reminderv1.Plan, fact proto.Message) *reminderv1.Plan {
	switch f := fact.(type) {
	case *reminderv1.ReminderPlanned:
		return proto.CloneOf(f.GetPlan())
	case *reminderv1.RemindersRestarted:
		return proto.CloneOf(f.GetPlan())
	case *reminderv1.ReminderDue:
		p.Sent, p.Used, p.NextAt = f.GetOrdinal(), f.GetUsed(), f.GetNextAt()
		p.SentAt = append(p.SentAt, f.GetAt())
		p.SentAt = p.GetSentAt()[max(0, len(p.GetSentAt())-mostPerDay):]
	case *reminderv1.RemindersPostponed:
		p.NextAt = f.GetNextAt()
	case *reminderv1.RemindersExhausted:
		p.Status, p.NextAt = reminderv1.PlanStatus_PLAN_STATUS_EXHAUSTED, nil
	case *reminderv1.RemindersStopped:
		p.Status, p.NextAt = reminderv1.PlanStatus_PLAN_STATUS_STOPPED, nil
	}
	return p
}
