package rules_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"countersign.dev/pkg/failure"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// step is what an act leads to from an instant on, until the next step: a fact's name, a failure's code, or ok for what holds already.
type step struct {
	from time.Time
	then string
}

// beginning is before every instant that a table names.
var beginning = noon.Add(-day)

// always is an act whose outcome time does not change.
func always(then string) []step { return []step{{beginning, then}} }

// acts are all that is asked of a link, each by somebody of whom spec 2.4 says something.
var acts = map[string]func(l *tokenv1.Link, now time.Time) string{
	"open token here": func(l *tokenv1.Link, now time.Time) string {
		return outcomeOf(nil, rules.CheckToken(l, first, ada, now))
	},
	"open token elsewhere": func(l *tokenv1.Link, now time.Time) string {
		return outcomeOf(nil, rules.CheckToken(l, first, bob, now))
	},
	"go on here":         func(l *tokenv1.Link, now time.Time) string { return outcomeOf(nil, rules.CheckSession(l, ada, now)) },
	"go on elsewhere":    func(l *tokenv1.Link, now time.Time) string { return outcomeOf(nil, rules.CheckSession(l, bob, now)) },
	"redeem here":        deciding(rules.Redeem{Hash: first, Browser: ada, SessionID: "ses_2"}),
	"redeem elsewhere":   deciding(rules.Redeem{Hash: first, Browser: bob, SessionID: "ses_2"}),
	"sign here":          deciding(rules.Admit{Browser: ada, AdmissionID: "adm_2"}),
	"sign elsewhere":     deciding(rules.Admit{Browser: bob, AdmissionID: "adm_2"}),
	"verified here":      deciding(rules.Continue{Browser: ada, SessionID: "ses_2", VerificationID: "evd_1", HolderID: "per_ada"}),
	"verified elsewhere": deciding(rules.Continue{Browser: bob, SessionID: "ses_2", VerificationID: "evd_1", HolderID: "per_ada"}),
	"mint":               deciding(rules.Mint{Generation: 1, Hash: second, DeliveryID: "dlv_2"}),
	"lapse":              deciding(rules.Lapse{}),
	"reissue":            deciding(rules.Reissue{Reason: tokenv1.ReissueReason_REISSUE_REASON_PLATFORM}),
	"reminder rotates":   deciding(rules.Reissue{Reason: tokenv1.ReissueReason_REISSUE_REASON_REMINDER, Generation: 1}),
	"reroute":            deciding(rules.Reroute{HolderID: "per_grace", EscalationID: "esc_1", Generation: 1}),
	"readdress":          deciding(rules.Readdress{HolderID: "per_grace"}),
	"revoke":             deciding(rules.Revoke{}),
	"close":              deciding(rules.Close{}),
}

func deciding(c linkCommand) func(*tokenv1.Link, time.Time) string {
	return func(l *tokenv1.Link, now time.Time) string { return outcomeOf(c.Decide(l, now)) }
}

func outcomeOf(fact proto.Message, err error) string {
	switch {
	case err != nil && failure.From(err) != nil:
		return failure.From(err).Code
	case err != nil:
		return err.Error()
	case fact == nil:
		return "ok"
	}
	return string(fact.ProtoReflect().Descriptor().Name())
}

const (
	expired, used, over, unknownSession, busy, late = "LINK_EXPIRED", "LINK_USED", "SESSION_EXPIRED", "SESSION_UNKNOWN", "LINK_BUSY", "REQUEST_EXPIRED"

	resumes, reissues = "LinkResumed", "LinkReissued"
)

// boundary is one state and what each act leads to in it, by the time.
type boundary struct {
	given facts
	want  map[string][]step
}

// withProfile is a link whose message went out, under a profile that is changed.
func withProfile(change func(*tokenv1.Profile), more ...proto.Message) facts {
	f := &tokenv1.LinkIssued{
		LinkId: "lnk_1", Tenant: "acme", RequestId: "req_1", HolderId: "per_ada", Position: 1, Profile: profile(), IssuedAt: at(noon), ExpiresAt: at(expiry),
	}
	change(f.GetProfile())
	return append(facts{f, minted(1, first, expiry), started(1)}, more...)
}

// TestBoundaries is spec 2.4 and security.md 3.4 at every boundary: a millisecond before, at, and after each instant at which anything
// ends, for every command and check in every state.
func TestBoundaries(t *testing.T) {
	deadline := expiry.Add(-30 * time.Minute)
	for name, b := range map[string]boundary{
		"nobody opened it": {out(), map[string][]step{
			"open token here": {{beginning, "ok"}, {expiry, expired}}, "open token elsewhere": {{beginning, "ok"}, {expiry, expired}},
			"redeem here": {{beginning, "LinkRedeemed"}, {expiry, expired}}, "redeem elsewhere": {{beginning, "LinkRedeemed"}, {expiry, expired}},
			"go on here": {{beginning, unknownSession}, {expiry, expired}}, "go on elsewhere": {{beginning, unknownSession}, {expiry, expired}},
			"sign here": {{beginning, unknownSession}, {expiry, expired}}, "sign elsewhere": {{beginning, unknownSession}, {expiry, expired}},
			"verified here": {{beginning, resumes}, {expiry, reissues}}, "verified elsewhere": {{beginning, resumes}, {expiry, reissues}},
			"mint": {{beginning, "LinkMinted"}, {expiry, expired}}, "lapse": {{beginning, "ok"}, {expiry, "LinkLapsed"}},
			"reminder rotates": always(reissues),
		}},
		"grace ends the session":    sessionBoundary(out(redeemed(ada, expiry.Add(-ms))), expiry.Add(grace), true),
		"it ends within grace":      sessionBoundary(out(redeemed(ada, expiry.Add(-10*time.Minute))), expiry.Add(10*time.Minute), true),
		"it ends before expiry":     sessionBoundary(out(redeemed(ada, noon)), noon.Add(session), false),
		"no grace":                  sessionBoundary(withProfile(func(p *tokenv1.Profile) { p.Grace = durationpb.New(0) }, redeemed(ada, expiry.Add(-ms))), expiry, true),
		"a signature is being made": {out(redeemed(ada, expiry.Add(-time.Minute)), admitted(expiry.Add(grace-time.Minute))), held(expiry.Add(grace), expiry.Add(grace+time.Minute))},
		"the deadline cut it short": {
			append(out(), &tokenv1.LinkDeadlineMoved{Number: 1, Deadline: at(deadline), ExpiresAt: at(deadline)}),
			map[string][]step{
				"open token here": {{beginning, "ok"}, {deadline, late}}, "open token elsewhere": {{beginning, "ok"}, {deadline, late}},
				"redeem here": {{beginning, "LinkRedeemed"}, {deadline, late}}, "redeem elsewhere": {{beginning, "LinkRedeemed"}, {deadline, late}},
				"go on here": {{beginning, unknownSession}, {deadline, late}}, "go on elsewhere": {{beginning, unknownSession}, {deadline, late}},
				"sign here": {{beginning, unknownSession}, {deadline, late}}, "sign elsewhere": {{beginning, unknownSession}, {deadline, late}},
				"verified here": {{beginning, resumes}, {deadline, late}}, "verified elsewhere": {{beginning, resumes}, {deadline, late}},
				"mint": {{beginning, "LinkMinted"}, {deadline, late}}, "lapse": {{beginning, "ok"}, {deadline, "LinkLapsed"}},
				"reissue": {{beginning, reissues}, {deadline, late}}, "reminder rotates": {{beginning, reissues}, {deadline, late}},
				"reroute": {{beginning, "LinkRerouted"}, {deadline, "ok"}}, "readdress": {{beginning, reissues}, {deadline, late}},
			},
		},
		"begun before the deadline": {
			append(out(redeemed(ada, deadline.Add(-ms))), &tokenv1.LinkDeadlineMoved{Number: 1, Deadline: at(deadline), ExpiresAt: at(deadline)}),
			map[string][]step{
				"open token here": {{beginning, "ok"}, {deadline.Add(grace), late}}, "open token elsewhere": {{beginning, used}, {deadline, late}},
				"redeem here": {{beginning, "ok"}, {deadline.Add(grace), late}}, "redeem elsewhere": {{beginning, used}, {deadline, late}},
				"go on here": {{beginning, "ok"}, {deadline.Add(grace), late}}, "go on elsewhere": {{beginning, used}, {deadline, late}},
				"sign here": {{beginning, "LinkAdmitted"}, {deadline.Add(grace), late}}, "sign elsewhere": {{beginning, used}, {deadline, late}},
				"verified here": {{beginning, "ok"}, {deadline.Add(grace), late}}, "verified elsewhere": {{beginning, resumes}, {deadline, late}},
				"mint": {{beginning, "LinkMinted"}, {deadline, late}}, "lapse": {{beginning, "ok"}, {deadline.Add(grace), "LinkLapsed"}},
				"reissue": {{beginning, reissues}, {deadline, late}}, "reminder rotates": {{beginning, "ok"}, {deadline.Add(grace), late}},
				"reroute": {{beginning, "LinkRerouted"}, {deadline, "ok"}}, "readdress": {{beginning, reissues}, {deadline, late}},
			},
		},
		"it renews itself": {withProfile(func(p *tokenv1.Profile) { p.AutomaticReissue = true }), map[string][]step{
			"open token here": {{beginning, "ok"}, {expiry, expired}}, "open token elsewhere": {{beginning, "ok"}, {expiry, expired}},
			"redeem here": {{beginning, "LinkRedeemed"}, {expiry, expired}}, "redeem elsewhere": {{beginning, "LinkRedeemed"}, {expiry, expired}},
			"go on here": {{beginning, unknownSession}, {expiry, expired}}, "go on elsewhere": {{beginning, unknownSession}, {expiry, expired}},
			"sign here": {{beginning, unknownSession}, {expiry, expired}}, "sign elsewhere": {{beginning, unknownSession}, {expiry, expired}},
			"verified here": {{beginning, resumes}, {expiry, reissues}}, "verified elsewhere": {{beginning, resumes}, {expiry, reissues}},
			"mint": {{beginning, "LinkMinted"}, {expiry, expired}}, "lapse": {{beginning, "ok"}, {expiry, reissues}},
			"reminder rotates": always(reissues),
		}},
		"withdrawn": ended("LINK_REVOKED", &tokenv1.LinkRevoked{}, map[string]string{
			"reissue": reissues, "reminder rotates": reissues, "reroute": "LinkRerouted", "readdress": reissues, "revoke": "ok", "close": "LinkClosed",
		}),
		"signed":           ended("LINK_SIGNED", &tokenv1.LinkSigned{}, nil),
		"declined":         ended("LINK_DECLINED", &tokenv1.LinkDeclined{}, nil),
		"cancelled":        ended("LINK_CANCELLED", &tokenv1.LinkClosed{Reason: tokenv1.EndReason_END_REASON_CANCELLED}, nil),
		"deadline passed":  ended(late, &tokenv1.LinkClosed{Reason: tokenv1.EndReason_END_REASON_DEADLINE}, nil),
		"given to another": replaced(rerouted(1, noon), "LINK_DELEGATED"),
		"sent elsewhere": replaced(&tokenv1.LinkReissued{
			FromGeneration: 1, Generation: 2, Reason: tokenv1.ReissueReason_REISSUE_REASON_ADDRESS_CHANGED, At: at(noon), ExpiresAt: at(expiry),
			HolderId: "per_hal", FormerHolderId: "per_ada",
		}, "LINK_READDRESSED"),
		"superseded": replaced(reissued(1, noon), "LINK_SUPERSEDED"),
	} {
		t.Run(name, func(t *testing.T) { b.check(t) })
	}
}

// sessionBoundary is a session of ada's that began in time and is over at end.
func sessionBoundary(given facts, end time.Time, grace bool) boundary {
	gone, anew := over, resumes // before expiry: the session alone is over
	if grace {
		gone, anew = expired, reissues
	}
	elsewhere := []step{{beginning, used}, {expiry, expired}}
	here := func(then string) []step {
		s := []step{{beginning, then}, {end, gone}}
		if !grace {
			s = append(s, step{expiry, expired})
		}
		return s
	}
	verified := []step{{beginning, "ok"}, {end, anew}}
	if !grace {
		verified = append(verified, step{expiry, reissues})
	}
	lapse := end
	if expiry.After(end) {
		lapse = expiry
	}
	return boundary{given, map[string][]step{
		"open token here": here("ok"), "redeem here": here("ok"), "go on here": here("ok"), "sign here": here("LinkAdmitted"),
		"open token elsewhere": elsewhere, "redeem elsewhere": elsewhere, "go on elsewhere": elsewhere, "sign elsewhere": elsewhere,
		"verified here": verified, "verified elsewhere": {{beginning, resumes}, {expiry, reissues}},
		"mint": {{beginning, "LinkMinted"}, {expiry, expired}}, "lapse": {{beginning, "ok"}, {lapse, "LinkLapsed"}},
		"reminder rotates": {{beginning, "ok"}, {end, reissues}},
	}}
}

// held is a session of ada's whose time ends with grace, and a signature of hers that may be made until hold.
func held(end, hold time.Time) map[string][]step {
	elsewhere := []step{{beginning, used}, {expiry, expired}}
	return map[string][]step{
		"open token here": {{beginning, "ok"}, {end, expired}}, "redeem here": {{beginning, "ok"}, {end, expired}}, "go on here": {{beginning, "ok"}, {end, expired}},
		"open token elsewhere": elsewhere, "redeem elsewhere": elsewhere, "go on elsewhere": elsewhere, "sign elsewhere": elsewhere,
		"sign here": {{beginning, busy}, {end, expired}}, "verified here": {{beginning, "ok"}, {end, busy}, {hold, reissues}},
		"verified elsewhere": {{beginning, busy}, {hold, reissues}}, "mint": {{beginning, "LinkMinted"}, {expiry, expired}},
		"lapse": {{beginning, "ok"}, {hold, "LinkLapsed"}}, "reissue": {{beginning, busy}, {hold, reissues}},
		"reminder rotates": {{beginning, "ok"}, {end, busy}, {hold, reissues}}, "reroute": {{beginning, busy}, {hold, "LinkRerouted"}},
		"readdress": {{beginning, busy}, {hold, reissues}}, "revoke": {{beginning, busy}, {hold, "LinkRevoked"}}, "close": {{beginning, busy}, {hold, "LinkClosed"}},
	}
}

// ended is a link that opens nothing for anybody, whatever time it is; some acts may lead on.
func ended(code string, how proto.Message, on map[string]string) boundary {
	b := boundary{out(redeemed(ada, noon), how), map[string][]step{}}
	for act := range acts {
		b.want[act] = always(code)
	}
	for _, nothing := range []string{"lapse", "reroute", "close"} {
		b.want[nothing] = always("ok")
	}
	for act, then := range on {
		b.want[act] = always(then)
	}
	return b
}

// replaced is a link of which a newer generation is there: what was of the old one is dead at once, for whoever has it.
func replaced(how proto.Message, code string) boundary {
	want := map[string][]step{}
	for _, act := range []string{"open token here", "open token elsewhere", "redeem here", "redeem elsewhere"} {
		want[act] = always(code)
	}
	for _, act := range []string{"go on here", "go on elsewhere", "sign here", "sign elsewhere"} {
		want[act] = []step{{beginning, unknownSession}, {expiry, expired}}
	}
	for _, act := range []string{"verified here", "verified elsewhere"} {
		if want[act] = always(code); code == "LINK_SUPERSEDED" {
			want[act] = []step{{beginning, resumes}, {expiry, reissues}}
		}
	}
	want["mint"], want["lapse"] = always("LINK_SUPERSEDED"), always("ok")
	want["reminder rotates"], want["reroute"] = always("ok"), always("ok")
	if code == "LINK_DELEGATED" {
		want["readdress"] = always("ok") // per_grace has it already
	}
	return boundary{out(redeemed(ada, noon), how), want}
}

// usual is what an act leads to where a state says nothing of it.
var usual = map[string]string{"reissue": reissues, "reroute": "LinkRerouted", "readdress": reissues, "revoke": "LinkRevoked", "close": "LinkClosed"}

func (b boundary) check(t *testing.T) {
	instants := map[time.Time]bool{}
	for _, steps := range b.want {
		for _, s := range steps[1:] {
			instants[s.from] = true
		}
	}
	for _, more := range []time.Time{noon, noon.Add(session), expiry, expiry.Add(grace), expiry.Add(session), expiry.Add(day)} {
		instants[more] = true
	}
	for act, do := range acts {
		want, named := b.want[act]
		if !named {
			if usual[act] == "" {
				t.Fatalf("nothing is said of %q", act)
			}
			want = always(usual[act])
		}
		for instant := range instants {
			for _, beside := range []time.Duration{-ms, -1, 0, 1, ms} {
				now := instant.Add(beside)
				then := ""
				for _, s := range want {
					if !now.Before(s.from) {
						then = s.then
					}
				}
				if got := do(link(b.given), now); got != then {
					t.Errorf("%s at %s: %s, want %s", act, fmt.Sprintf("%s%+d ns", instant.Format(time.TimeOnly), beside), got, then)
				}
			}
		}
	}
}
