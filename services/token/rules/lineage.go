package rules

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

const (
	// keptGenerations is how many generations a link tells about; the audit trail has all.
	keptGenerations = 20
	// keptHolders is how many of those who held a link before it remembers.
	keptHolders = 20
)

// origins says why a reissued generation was made.
var origins = map[tokenv1.ReissueReason]tokenv1.Origin{
	tokenv1.ReissueReason_REISSUE_REASON_SIGNER:          tokenv1.Origin_ORIGIN_SIGNER,
	tokenv1.ReissueReason_REISSUE_REASON_PLATFORM:        tokenv1.Origin_ORIGIN_PLATFORM,
	tokenv1.ReissueReason_REISSUE_REASON_REMINDER:        tokenv1.Origin_ORIGIN_REMINDER,
	tokenv1.ReissueReason_REISSUE_REASON_POLICY:          tokenv1.Origin_ORIGIN_POLICY,
	tokenv1.ReissueReason_REISSUE_REASON_AUTOMATIC:       tokenv1.Origin_ORIGIN_AUTOMATIC,
	tokenv1.ReissueReason_REISSUE_REASON_ADDRESS_CHANGED: tokenv1.Origin_ORIGIN_ADDRESS_CHANGED,
}

// reissued takes a new generation for the one before.
func reissued(l *tokenv1.Link, f *tokenv1.LinkReissued) {
	nextGeneration(l, f.GetGeneration(), f.GetExpiresAt(), &tokenv1.Generation{
		Origin: origins[f.GetReason()], At: f.GetAt(), ReasonId: f.GetReasonId(),
	})
	switch f.GetReason() {
	case tokenv1.ReissueReason_REISSUE_REASON_SIGNER:
		l.SignerReissues = append(recent(l, l.GetSignerReissues(), f.GetAt().AsTime()), f.GetAt())
	case tokenv1.ReissueReason_REISSUE_REASON_AUTOMATIC:
		l.AutomaticReissues = append(recent(l, l.GetAutomaticReissues(), f.GetAt().AsTime()), f.GetAt())
		l.Unattended++
	case tokenv1.ReissueReason_REISSUE_REASON_PLATFORM:
		l.Unattended = 0 // the sender looks after it
	case tokenv1.ReissueReason_REISSUE_REASON_ADDRESS_CHANGED:
		changeHolder(l, f.GetHolderId(), f.GetFormerHolderId())
		l.ReaddressedGeneration = f.GetGeneration()
	default:
	}
	if f.GetSession() != nil {
		begun(l, f.GetSession())
		l.ClockStarted = true
	}
}

// nextGeneration rotates a link: what worked before never does again.
func nextGeneration(l *tokenv1.Link, generation uint32, expires *timestamppb.Timestamp, made *tokenv1.Generation) {
	endGeneration(l, tokenv1.GenerationEnd_GENERATION_END_SUPERSEDED, made.GetAt(), "")
	l.Generation, l.ExpiresAt, l.Status = generation, expires, tokenv1.LinkStatus_LINK_STATUS_OPEN
	l.Session, l.Admission, l.ClockStarted, l.Lapsed, l.EndReason = nil, nil, false, false, tokenv1.EndReason_END_REASON_UNSPECIFIED
	beginGeneration(l, made)
}

// changeHolder gives a link to somebody for whom nothing counts of what was before.
func changeHolder(l *tokenv1.Link, holder, former string) {
	l.FormerHolderIds, l.HolderId = append(l.GetFormerHolderIds(), former), holder
	l.FormerHolderIds = l.GetFormerHolderIds()[max(0, len(l.GetFormerHolderIds())-keptHolders):]
	l.SignerReissues, l.AutomaticReissues, l.Unattended = nil, nil, 0
}

func beginGeneration(l *tokenv1.Link, made *tokenv1.Generation) {
	made.Number = l.GetGeneration()
	l.Lineage = append(l.GetLineage(), made)
	l.Lineage = l.GetLineage()[max(0, len(l.GetLineage())-keptGenerations):]
}

// newest returns what is remembered of the present generation; nil of a link that an older release issued.
func newest(l *tokenv1.Link) *tokenv1.Generation {
	if n := len(l.GetLineage()); n > 0 && l.GetLineage()[n-1].GetNumber() == l.GetGeneration() {
		return l.GetLineage()[n-1]
	}
	return nil
}

// endGeneration remembers how the present generation ended. The first end stands: what lapsed is not superseded afterwards.
func endGeneration(l *tokenv1.Link, how tokenv1.GenerationEnd, at *timestamppb.Timestamp, reasonID string) {
	g := newest(l)
	if g == nil || g.GetEnd() != tokenv1.GenerationEnd_GENERATION_END_UNSPECIFIED {
		return
	}
	g.End, g.EndedAt, g.ExpiresAt, g.EndReasonId = how, at, l.GetExpiresAt(), reasonID
}
