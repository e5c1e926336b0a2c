package rules_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"countersign.dev/pkg/failure"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

func moved(number uint32, deadline, expires time.Time) proto.Message {
	return &tokenv1.LinkDeadlineMoved{Number: number, Deadline: at(deadline), ExpiresAt: at(expires)}
}

// TestMoveDeadline: no generation outlives the deadline; one that was cut short goes on with it; what expired stays expired; and an
// older amendment never undoes a newer one.
func TestMoveDeadline(t *testing.T) {
	soon, late := noon.Add(10*time.Minute), noon.Add(2*lifetime)
	move := func(number uint32, to time.Time) rules.MoveDeadline {
		return rules.MoveDeadline{Number: number, Deadline: at(to)}
	}
	decide(t, map[string]decision{
		"cuts a link short":             {given: out(), when: move(1, soon), at: noon, then: moved(1, soon, soon)},
		"beyond its end":                {given: out(), when: move(1, late), at: noon, then: moved(1, late, expiry)},
		"later again, a lifetime on":    {given: out(moved(1, soon, soon)), when: move(2, late), at: noon.Add(time.Minute), then: moved(2, late, noon.Add(time.Minute+lifetime))},
		"later again, within it":        {given: out(moved(1, soon, soon)), when: move(2, expiry), at: noon.Add(time.Minute), then: moved(2, expiry, expiry)},
		"what expired stays so":         {given: out(moved(1, soon, soon)), when: move(2, late), at: soon, then: moved(2, late, soon)},
		"a moment before it":            {given: out(moved(1, soon, soon)), when: move(2, late), at: soon.Add(-1), then: moved(2, late, soon.Add(-1+lifetime))},
		"an older one, heard late":      {given: out(moved(2, soon, soon)), when: move(1, late), at: noon},
		"the same again":                {given: out(moved(1, soon, soon)), when: move(1, soon), at: noon},
		"made with the first one":       {given: out(), when: move(0, soon), at: noon, then: moved(0, soon, soon)},
		"of a link that was not issued": {given: nil, when: move(1, soon), at: noon},
		"of one that is done":           {given: out(&tokenv1.LinkSigned{}), when: move(1, soon), at: noon},
		"while a signature is made":     {given: out(redeemed(ada, noon), admitted(noon)), when: move(1, soon), at: noon, then: moved(1, soon, soon)},
	})
}

// TestReaddress is security.md 3.5: one step, whatever the link's state, but not over a signature.
func TestReaddress(t *testing.T) {
	to := rules.Readdress{HolderID: "per_hal", ReasonID: "not_1"}
	made := func(from uint32, when time.Time) proto.Message {
		return &tokenv1.LinkReissued{
			FromGeneration: from, Generation: from + 1, Reason: tokenv1.ReissueReason_REISSUE_REASON_ADDRESS_CHANGED, At: at(when),
			ExpiresAt: at(when.Add(lifetime)), HolderId: "per_hal", FormerHolderId: "per_ada", ReasonId: "not_1",
		}
	}
	decide(t, map[string]decision{
		"an open link":                  {given: out(), when: to, at: noon, then: made(1, noon)},
		"an open session":               {given: out(redeemed(ada, noon)), when: to, at: noon.Add(ms), then: made(1, noon.Add(ms))},
		"a withdrawn link":              {given: out(&tokenv1.LinkRevoked{}), when: to, at: noon, then: made(1, noon)},
		"an expired link":               {given: out(), when: to, at: expiry.Add(day), then: made(1, expiry.Add(day))},
		"told twice":                    {given: out(made(1, noon)), when: to, at: noon},
		"while a signature is made":     {given: out(redeemed(ada, noon), admitted(noon)), when: to, at: noon, refused: failure.LinkBusy, wait: rules.AdmissionHold},
		"when that is over":             {given: out(redeemed(ada, noon), admitted(noon)), when: to, at: noon.Add(rules.AdmissionHold), then: made(1, noon.Add(rules.AdmissionHold))},
		"who has signed":                {given: out(&tokenv1.LinkSigned{}), when: to, at: noon, refused: failure.LinkSigned},
		"of a request that has ended":   {given: out(&tokenv1.LinkClosed{}), when: to, at: noon, refused: failure.LinkCancelled},
		"whose turn has come right now": {given: nil, when: to, at: noon, refused: failure.Unavailable},
		"after the deadline":            {given: out(moved(1, noon, noon)), when: to, at: noon, refused: failure.RequestExpired},
	})
}

// TestRenews: a link that lapses is replaced where the profile says so, as often as the limit allows within the window, and in a row
// while nobody opens one.
func TestRenews(t *testing.T) {
	after := func(opened int, wait time.Duration) (facts, time.Time) {
		now, given := expiry, withProfile(func(p *tokenv1.Profile) { p.AutomaticReissue = true })
		for i := range 3 {
			f := &tokenv1.LinkReissued{
				FromGeneration: uint32(i + 1), Generation: uint32(i + 2), Reason: tokenv1.ReissueReason_REISSUE_REASON_AUTOMATIC, At: at(now), ExpiresAt: at(now.Add(lifetime)),
			}
			given = append(given, f, &tokenv1.LinkClockStarted{Generation: f.GetGeneration(), ExpiresAt: f.GetExpiresAt()})
			if i == opened {
				s := sessionOf("ses_1", ada, now)
				given = append(given, &tokenv1.LinkRedeemed{Generation: f.GetGeneration(), Session: s})
			}
			now = now.Add(max(lifetime, wait))
		}
		return given, now
	}
	again := func(from uint32, when time.Time) proto.Message {
		return &tokenv1.LinkReissued{
			FromGeneration: from, Generation: from + 1, Reason: tokenv1.ReissueReason_REISSUE_REASON_AUTOMATIC, At: at(when), ExpiresAt: at(when.Add(lifetime)),
		}
	}
	inRow, inRowAt := after(-1, 2*day)
	opened, openedAt := after(1, 2*day)
	often, oftenAt := after(2, 0)
	session := withProfile(func(p *tokenv1.Profile) { p.AutomaticReissue = true }, redeemed(ada, expiry.Add(-ms)))
	decide(t, map[string]decision{
		"at its expiry":                  {given: inRow[:3], when: rules.Lapse{}, at: expiry, then: again(1, expiry)},
		"not before":                     {given: inRow[:3], when: rules.Lapse{}, at: expiry.Add(-1)},
		"not while somebody may finish":  {given: session, when: rules.Lapse{}, at: expiry.Add(grace - ms)},
		"but then":                       {given: session, when: rules.Lapse{}, at: expiry.Add(grace), then: again(1, expiry.Add(grace))},
		"three in a row are enough":      {given: inRow, when: rules.Lapse{}, at: inRowAt, then: &tokenv1.LinkLapsed{Generation: 4, Exhausted: true}},
		"somebody was there in between":  {given: opened, when: rules.Lapse{}, at: openedAt, then: again(4, openedAt)},
		"three in a day are enough":      {given: often, when: rules.Lapse{}, at: oftenAt.Add(session2), then: &tokenv1.LinkLapsed{Generation: 4, Exhausted: true}},
		"until they are a day ago":       {given: often, when: rules.Lapse{}, at: expiry.Add(day), then: again(4, expiry.Add(day))},
		"not after the deadline":         {given: append(inRow[:3:3], moved(1, noon, noon)), when: rules.Lapse{}, at: noon, then: &tokenv1.LinkLapsed{Generation: 1}},
		"nor when its first mail is not": {given: inRow[:2], when: rules.Lapse{}, at: expiry.Add(day)},
	})
}

// session2 is when a session that began with its generation is over, grace included.
const session2 = grace

// TestAttend: the sender is asked once a generation, while the limit holds.
func TestAttend(t *testing.T) {
	given := out()
	for i := range 3 {
		given = append(given, &tokenv1.LinkReissued{
			FromGeneration: uint32(i + 1), Generation: uint32(i + 2), Reason: tokenv1.ReissueReason_REISSUE_REASON_SIGNER, At: at(expiry), ExpiresAt: at(expiry.Add(lifetime)),
		})
	}
	asked := &tokenv1.LinkAttention{Generation: 4, At: at(expiry)}
	decide(t, map[string]decision{
		"at the limit":          {given: given, when: rules.Attend{}, at: expiry, then: asked},
		"below it":              {given: given[:5], when: rules.Attend{}, at: expiry},
		"once":                  {given: append(given[:6:6], asked), when: rules.Attend{}, at: expiry},
		"not a day later":       {given: given, when: rules.Attend{}, at: expiry.Add(day)},
		"of one that was ended": {given: append(given[:6:6], &tokenv1.LinkClosed{}), when: rules.Attend{}, at: expiry},
	})
}

// TestDeadlineProblem is the range of a deadline at its ends.
func TestDeadlineProblem(t *testing.T) {
	for name, tt := range map[string]struct {
		at    time.Time
		wrong bool
	}{
		"in the past":         {noon.Add(-ms), true},
		"now":                 {noon, true},
		"in a moment":         {noon.Add(ms), false},
		"in five years":       {noon.Add(rules.DeadlineWithin), false},
		"more than five away": {noon.Add(rules.DeadlineWithin + 1), true},
	} {
		if problem := rules.DeadlineProblem(at(tt.at), noon); (problem != "") != tt.wrong {
			t.Errorf("%s: %q", name, problem)
		}
	}
	if problem := rules.DeadlineProblem(nil, noon); problem != "" {
		t.Errorf("none: %q", problem)
	}
}

// TestBusyUntil: who is at work holds the end of a deadline off, and nobody else does.
func TestBusyUntil(t *testing.T) {
	long := withProfile(func(p *tokenv1.Profile) { p.Session = durationpb.New(5 * time.Minute) }, redeemed(ada, noon))
	for name, tt := range map[string]struct {
		given facts
		want  time.Time
	}{
		"nobody":                 {out(), time.Time{}},
		"a session":              {out(redeemed(ada, noon)), noon.Add(session)},
		"one that grace ends":    {out(redeemed(ada, expiry.Add(-ms))), expiry.Add(grace)},
		"a signature beyond it":  {append(long, admitted(noon.Add(session-time.Minute))), noon.Add(session - time.Minute + rules.AdmissionHold)},
		"who has signed":         {out(redeemed(ada, noon), &tokenv1.LinkSigned{}), time.Time{}},
		"whose link was revoked": {out(redeemed(ada, noon), &tokenv1.LinkRevoked{}), time.Time{}},
	} {
		if got := rules.BusyUntil(link(tt.given)); !got.Equal(tt.want) {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}
