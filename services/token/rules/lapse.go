package rules

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// Lapse states the end of a generation's lifetime, or replaces the generation where the profile says so (spec 2.5).
type Lapse struct{}

// Decide states it once, when it is due.
func (Lapse) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	due := Deadline(l)
	if due.IsZero() || now.Before(due) {
		return nil, nil
	}
	if renews(l, now) {
		return &tokenv1.LinkReissued{
			FromGeneration: l.GetGeneration(), Generation: l.GetGeneration() + 1, Reason: tokenv1.ReissueReason_REISSUE_REASON_AUTOMATIC,
			At: timestamppb.New(now), ExpiresAt: lifetime(l, now),
		}, nil
	}
	return &tokenv1.LinkLapsed{
		Generation: l.GetGeneration(), At: timestamppb.New(now), Exhausted: l.GetProfile().GetAutomaticReissue() && !overdue(l, now),
	}, nil
}

// renews tells whether a link that lapses at now is replaced without being asked for: at most as often as a signer may ask within
// the window, and as often in a row while nobody opens it, so that a link nobody looks at does not renew for ever.
func renews(l *tokenv1.Link, now time.Time) bool {
	limit := l.GetProfile().GetReissueLimit()
	return l.GetProfile().GetAutomaticReissue() && !overdue(l, now) && l.GetUnattended() < limit &&
		uint32(len(recent(l, l.GetAutomaticReissues(), now))) < limit
}

// Attend has the sender told that a signer was refused a new link because the limit is reached.
type Attend struct{}

// Decide states it once a generation, and only while the limit holds.
func (Attend) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	limit := l.GetProfile().GetReissueLimit()
	if ended(l) != nil || l.GetAttentionGeneration() == l.GetGeneration() || uint32(len(recent(l, l.GetSignerReissues(), now))) < limit {
		return nil, nil
	}
	return &tokenv1.LinkAttention{Generation: l.GetGeneration(), At: timestamppb.New(now)}, nil
}
