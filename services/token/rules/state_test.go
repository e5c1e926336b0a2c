package rules_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

func TestStateAt(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	link := func(status tokenv1.LinkStatus, more ...func(*tokenv1.Link)) *tokenv1.Link {
		l := &tokenv1.Link{Generation: 1, Status: status, ExpiresAt: timestamppb.New(noon), Profile: &tokenv1.Profile{Grace: durationpb.New(time.Hour)}}
		for _, f := range more {
			f(l)
		}
		return l
	}
	begun := func(l *tokenv1.Link) {
		l.Session = &tokenv1.Session{EndsAt: timestamppb.New(noon.Add(30 * time.Minute))}
	}
	open, used := tokenv1.LinkStatus_LINK_STATUS_OPEN, tokenv1.LinkStatus_LINK_STATUS_REDEEMED
	for name, tt := range map[string]struct {
		link *tokenv1.Link
		at   time.Time
		want signingv1.LinkState
	}{
		"never issued":             {&tokenv1.Link{Status: tokenv1.LinkStatus_LINK_STATUS_CLOSED}, noon, signingv1.LinkState_LINK_STATE_UNSPECIFIED},
		"the last instant":         {link(open), noon.Add(-1), signingv1.LinkState_LINK_STATE_OPEN},
		"at its expiry":            {link(open), noon, signingv1.LinkState_LINK_STATE_EXPIRED},
		"at the deadline":          {link(open, func(l *tokenv1.Link) { l.Deadline = timestamppb.New(noon.Add(-time.Hour)) }), noon.Add(-time.Hour), signingv1.LinkState_LINK_STATE_EXPIRED},
		"opened":                   {link(used, begun), noon.Add(-time.Hour), signingv1.LinkState_LINK_STATE_USED},
		"in grace":                 {link(used, begun), noon.Add(30*time.Minute - 1), signingv1.LinkState_LINK_STATE_USED},
		"its session over as well": {link(used, begun), noon.Add(30 * time.Minute), signingv1.LinkState_LINK_STATE_EXPIRED},
		"while it is signed": {
			link(used, begun, func(l *tokenv1.Link) {
				l.Admission = &tokenv1.Admission{Until: timestamppb.New(noon.Add(31 * time.Minute))}
			}),
			noon.Add(30 * time.Minute), signingv1.LinkState_LINK_STATE_USED,
		},
		"revoked":  {link(tokenv1.LinkStatus_LINK_STATUS_REVOKED), noon.Add(time.Hour), signingv1.LinkState_LINK_STATE_REVOKED},
		"signed":   {link(tokenv1.LinkStatus_LINK_STATUS_SIGNED), noon.Add(time.Hour), signingv1.LinkState_LINK_STATE_SIGNED},
		"declined": {link(tokenv1.LinkStatus_LINK_STATUS_DECLINED), noon.Add(time.Hour), signingv1.LinkState_LINK_STATE_DECLINED},
		"closed":   {link(tokenv1.LinkStatus_LINK_STATUS_CLOSED), noon.Add(time.Hour), signingv1.LinkState_LINK_STATE_CLOSED},
	} {
		if got := rules.StateAt(tt.link, tt.at); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

// TestEveryFactOfALinkIsTold holds the names of events to the facts that there are.
func TestEveryFactOfALinkIsTold(t *testing.T) {
	t.Parallel()
	told := map[signingv1.LinkEventType]bool{}
	messages := tokenv1.File_countersign_token_v1_facts_proto.Messages()
	for i := range messages.Len() {
		if kind := rules.EventType(string(messages.Get(i).Name())); kind != signingv1.LinkEventType_LINK_EVENT_TYPE_UNSPECIFIED {
			told[kind] = true
		}
	}
	if all := len(signingv1.LinkEventType_name) - 1; len(told) != all {
		t.Errorf("%d of %d events have a fact", len(told), all)
	}
}
