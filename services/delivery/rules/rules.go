// Package rules is what may happen to a message on its way to a person. It is pure.
//
// The life of a delivery (spec 4.2):
//
//	-Plan-> queued -Accept-> accepted
//	        queued, deferred -Fail-> deferred (tried again later) | bounced (refused for good) | failed (tries used up)
//	        queued, deferred -Skip-> skipped (it no longer made sense when it was time)
//
// Accepted means that the next server took the message over, not that it arrived (spec 4.4).
package rules

import (
	"math"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
)

// Retry says how often and for how long a message is tried (spec 4.3).
type Retry struct {
	Base     time.Duration // first wait at most
	Cap      time.Duration // longest wait
	Attempts uint32        // at most this many attempts
	GiveUp   time.Duration // no attempt begins later than this after the message was planned
}

// Wait returns how long to wait after an attempt failed: exponential with full jitter, which keeps many senders that failed together
// from coming back together. jitter is in [0,1); asked is what the provider wants, and is honoured.
func (r Retry) Wait(attempt uint32, jitter float64, asked time.Duration) time.Duration {
	most := float64(r.Base) * math.Pow(2, float64(attempt-1))
	most = min(most, float64(r.Cap))
	return max(time.Duration(most*jitter), asked)
}

// waiting tells whether a delivery still has something to try.
func waiting(d *deliveryv1.Delivery) bool {
	return d.GetStatus() == deliveryv1.Status_STATUS_QUEUED || d.GetStatus() == deliveryv1.Status_STATUS_DEFERRED
}

// Due says whether an attempt may begin at now, and when else; the zero time when nothing is to be tried any more.
func Due(d *deliveryv1.Delivery, now time.Time) (due bool, next time.Time) {
	switch {
	case !waiting(d):
		return false, time.Time{}
	case d.GetStatus() == deliveryv1.Status_STATUS_DEFERRED && now.Before(d.GetNextAttemptAt().AsTime()):
		return false, d.GetNextAttemptAt().AsTime()
	}
	return true, time.Time{}
}

// Deadline is when the delivery's timer falls due; the zero time when it has none.
func Deadline(d *deliveryv1.Delivery) time.Time {
	if d.GetStatus() == deliveryv1.Status_STATUS_DEFERRED {
		return d.GetNextAttemptAt().AsTime()
	}
	return time.Time{}
}

// Evolve returns the delivery after fact; it may change d. A fact of a newer release is passed over.
func Evolve(d *deliveryv1.Delivery, fact proto.Message) *deliveryv1.Delivery {
	switch f := fact.(type) {
	case *deliveryv1.DeliveryPlanned:
		return proto.CloneOf(f.GetDelivery())
	case *deliveryv1.AttemptAccepted:
		d.Status, d.Attempts, d.Provider, d.EnhancedCode, d.Diagnostic = deliveryv1.Status_STATUS_ACCEPTED, f.GetAttempt(), f.GetProvider(), "", ""
	case *deliveryv1.AttemptDeferred:
		d.Status, d.Attempts, d.NextAttemptAt = deliveryv1.Status_STATUS_DEFERRED, f.GetAttempt(), f.GetNextAttemptAt()
		d.EnhancedCode, d.Diagnostic = f.GetEnhancedCode(), f.GetDiagnostic()
	case *deliveryv1.AttemptBounced:
		d.Status, d.Attempts = deliveryv1.Status_STATUS_BOUNCED, f.GetAttempt()
		d.EnhancedCode, d.Diagnostic = f.GetEnhancedCode(), f.GetDiagnostic()
	case *deliveryv1.DeliveryFailed:
		d.Status, d.Attempts = deliveryv1.Status_STATUS_FAILED, f.GetAttempts()
		d.EnhancedCode, d.Diagnostic = f.GetEnhancedCode(), f.GetDiagnostic()
	case *deliveryv1.DeliverySkipped:
		d.Status = deliveryv1.Status_STATUS_SKIPPED
	}
	return d
}

// Plan begins a delivery. Status, times and counters are set here.
type Plan struct {
	Delivery *deliveryv1.Delivery
	Retry    Retry
}

// Decide plans once.
func (c Plan) Decide(d *deliveryv1.Delivery, now time.Time) (proto.Message, error) {
	if d.GetStatus() != deliveryv1.Status_STATUS_UNSPECIFIED {
		return nil, nil
	}
	planned := proto.CloneOf(c.Delivery)
	planned.Status, planned.Attempts = deliveryv1.Status_STATUS_QUEUED, 0
	planned.PlannedAt, planned.GiveUpAt = timestamppb.New(now), timestamppb.New(now.Add(c.Retry.GiveUp))
	return &deliveryv1.DeliveryPlanned{Delivery: planned}, nil
}

// Accept records that a server took the message over in the given attempt (1 is the first).
type Accept struct {
	Attempt  uint32
	Provider string
}

// Decide believes the first acceptance, even of an attempt that was thought lost.
func (c Accept) Decide(d *deliveryv1.Delivery, _ time.Time) (proto.Message, error) {
	if !waiting(d) {
		return nil, nil
	}
	return &deliveryv1.AttemptAccepted{
		Attempt: c.Attempt, Provider: c.Provider, Kind: d.GetKind(), LinkId: d.GetLinkId(), Generation: d.GetGeneration(),
	}, nil
}

// Fail records that an attempt was refused or did not get through.
type Fail struct {
	Attempt    uint32
	Code       uint32 // the server's reply; 0 where there was none
	Enhanced   string // RFC 3463
	Diagnostic string
	Permanent  bool
	RetryAfter time.Duration
	Jitter     float64 // in [0,1)
	Retry      Retry
}

// Decide never retries what is permanent, nor beyond the tries or the time there are. An attempt that was recorded already changes nothing.
func (c Fail) Decide(d *deliveryv1.Delivery, now time.Time) (proto.Message, error) {
	if !waiting(d) || c.Attempt <= d.GetAttempts() {
		return nil, nil
	}
	if c.Permanent {
		return &deliveryv1.AttemptBounced{
			Attempt: c.Attempt, Code: c.Code, EnhancedCode: c.Enhanced, Diagnostic: c.Diagnostic,
			Kind: d.GetKind(), LinkId: d.GetLinkId(), Generation: d.GetGeneration(),
		}, nil
	}
	next := now.Add(c.Retry.Wait(c.Attempt, c.Jitter, c.RetryAfter))
	if c.Attempt >= c.Retry.Attempts || next.After(d.GetGiveUpAt().AsTime()) {
		return &deliveryv1.DeliveryFailed{
			Attempts: c.Attempt, EnhancedCode: c.Enhanced, Diagnostic: c.Diagnostic,
			Kind: d.GetKind(), LinkId: d.GetLinkId(), Generation: d.GetGeneration(),
		}, nil
	}
	return &deliveryv1.AttemptDeferred{
		Attempt: c.Attempt, Code: c.Code, EnhancedCode: c.Enhanced, Diagnostic: c.Diagnostic,
		NextAttemptAt: timestamppb.New(next),
	}, nil
}

// Skip drops a message that no longer makes sense.
type Skip struct{ Code string }

// Decide drops what was not sent yet.
func (c Skip) Decide(d *deliveryv1.Delivery, _ time.Time) (proto.Message, error) {
	if !waiting(d) {
		return nil, nil
	}
	return &deliveryv1.DeliverySkipped{Code: c.Code}, nil
}
