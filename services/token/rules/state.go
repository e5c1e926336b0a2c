package rules

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// StateAt says what a link is good for at now, as platforms are shown it; unspecified where it was never issued. An expired link may
// still be used by who began in time (spec 2.4): it is used until nobody can be at work on it.
func StateAt(l *tokenv1.Link, now time.Time) signingv1.LinkState {
	if l.GetGeneration() == 0 {
		return signingv1.LinkState_LINK_STATE_UNSPECIFIED
	}
	switch l.GetStatus() {
	case tokenv1.LinkStatus_LINK_STATUS_OPEN:
		if expired(l, now) {
			return signingv1.LinkState_LINK_STATE_EXPIRED
		}
		return signingv1.LinkState_LINK_STATE_OPEN
	case tokenv1.LinkStatus_LINK_STATUS_REDEEMED:
		if expired(l, now) && !now.Before(BusyUntil(l)) {
			return signingv1.LinkState_LINK_STATE_EXPIRED
		}
		return signingv1.LinkState_LINK_STATE_USED
	case tokenv1.LinkStatus_LINK_STATUS_REVOKED:
		return signingv1.LinkState_LINK_STATE_REVOKED
	case tokenv1.LinkStatus_LINK_STATUS_SIGNED:
		return signingv1.LinkState_LINK_STATE_SIGNED
	case tokenv1.LinkStatus_LINK_STATUS_DECLINED:
		return signingv1.LinkState_LINK_STATE_DECLINED
	case tokenv1.LinkStatus_LINK_STATUS_CLOSED:
		return signingv1.LinkState_LINK_STATE_CLOSED
	default:
		return signingv1.LinkState_LINK_STATE_UNSPECIFIED
	}
}

// eventTypes are what platforms are told of the facts of a link, by the short name of the fact.
var eventTypes = map[string]signingv1.LinkEventType{
	"LinkIssued":        signingv1.LinkEventType_LINK_EVENT_TYPE_ISSUED,
	"LinkMinted":        signingv1.LinkEventType_LINK_EVENT_TYPE_MINTED,
	"LinkClockStarted":  signingv1.LinkEventType_LINK_EVENT_TYPE_SENT,
	"LinkRedeemed":      signingv1.LinkEventType_LINK_EVENT_TYPE_OPENED,
	"LinkResumed":       signingv1.LinkEventType_LINK_EVENT_TYPE_MOVED,
	"LinkReissued":      signingv1.LinkEventType_LINK_EVENT_TYPE_REISSUED,
	"LinkRerouted":      signingv1.LinkEventType_LINK_EVENT_TYPE_REROUTED,
	"LinkDeadlineMoved": signingv1.LinkEventType_LINK_EVENT_TYPE_DEADLINE_MOVED,
	"LinkReprofiled":    signingv1.LinkEventType_LINK_EVENT_TYPE_PROFILE_CHANGED,
	"LinkAdmitted":      signingv1.LinkEventType_LINK_EVENT_TYPE_SIGNING,
	"LinkSigned":        signingv1.LinkEventType_LINK_EVENT_TYPE_SIGNED,
	"LinkDeclined":      signingv1.LinkEventType_LINK_EVENT_TYPE_DECLINED,
	"LinkRevoked":       signingv1.LinkEventType_LINK_EVENT_TYPE_REVOKED,
	"LinkClosed":        signingv1.LinkEventType_LINK_EVENT_TYPE_CLOSED,
	"LinkLapsed":        signingv1.LinkEventType_LINK_EVENT_TYPE_EXPIRED,
	"LinkDenied":        signingv1.LinkEventType_LINK_EVENT_TYPE_DENIED,
	"LinkAttention":     signingv1.LinkEventType_LINK_EVENT_TYPE_ATTENTION,
}

// EventType is what platforms are told of a fact of a link, by the fact's short name; unspecified for one of a newer release.
func EventType(fact string) signingv1.LinkEventType { return eventTypes[fact] }

// OpenedAt is when somebody opened the newest generation of a link; nil where nobody has.
func OpenedAt(l *tokenv1.Link) *timestamppb.Timestamp { return newest(l).GetOpenedAt() }

// NeedsAttention tells whether the sender was asked to look after the newest generation, and nobody has since.
func NeedsAttention(l *tokenv1.Link) bool {
	return l.GetGeneration() > 0 && l.GetAttentionGeneration() == l.GetGeneration() && ended(l) == nil
}
