package rules_test

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"countersign.dev/pkg/failure"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// TestIdle is the idle time-out of spec 2.3 at its boundary: a session that did nothing for that long is over, and the signer who is
// verified again goes on.
func TestIdle(t *testing.T) {
	const idle = 5 * time.Minute
	for name, tt := range map[string]struct {
		idle    time.Duration
		seen    rules.Activity
		at      time.Time
		refused error
	}{
		"a millisecond before":       {idle, rules.Activity{SessionID: "ses_1", At: noon}, noon.Add(idle - ms), nil},
		"at the end":                 {idle, rules.Activity{SessionID: "ses_1", At: noon}, noon.Add(idle), failure.SessionExpired},
		"a millisecond after":        {idle, rules.Activity{SessionID: "ses_1", At: noon}, noon.Add(idle + ms), failure.SessionExpired},
		"seen since":                 {idle, rules.Activity{SessionID: "ses_1", At: noon.Add(ms)}, noon.Add(idle), nil},
		"not known":                  {idle, rules.Activity{}, noon.Add(idle), nil},
		"of another session":         {idle, rules.Activity{SessionID: "ses_0", At: noon.Add(-day)}, noon.Add(idle), nil},
		"no idle time-out":           {0, rules.Activity{SessionID: "ses_1", At: noon}, noon.Add(session - ms), nil},
		"as long as the session":     {session, rules.Activity{SessionID: "ses_1", At: noon}, noon.Add(session - ms), nil},
		"the session's own end wins": {idle, rules.Activity{SessionID: "ses_1", At: noon.Add(session - ms)}, noon.Add(session), failure.SessionExpired},
	} {
		t.Run(name, func(t *testing.T) {
			l := rules.EvolveLink(&tokenv1.Link{}, issued())
			l.Profile.Idle = durationpb.New(tt.idle)
			redeem, err := rules.Redeem{Hash: first, Browser: ada, SessionID: "ses_1"}.Decide(rules.EvolveLink(l, minted(1, first, expiry)), noon)
			if err != nil {
				t.Fatal(err)
			}
			l = rules.EvolveLink(l, redeem)
			was := proto.CloneOf(l)
			if err := rules.CheckSession(tt.seen.On(l, tt.at), ada, tt.at); !errors.Is(err, tt.refused) {
				t.Errorf("the session: %v, want %v", err, tt.refused)
			}
			if _, err := (rules.Redeem{Hash: first, Browser: ada, SessionID: "ses_2", Seen: tt.seen}).Decide(l, tt.at); !errors.Is(err, tt.refused) {
				t.Errorf("Redeem: %v, want %v", err, tt.refused)
			}
			if _, err := (rules.Admit{Browser: ada, AdmissionID: "adm_1", Seen: tt.seen}).Decide(l, tt.at); !errors.Is(err, tt.refused) {
				t.Errorf("Admit: %v, want %v", err, tt.refused)
			}
			fact, err := rules.Continue{Browser: ada, SessionID: "ses_2", HolderID: "per_ada", Seen: tt.seen}.Decide(l, tt.at)
			if resumed, ok := fact.(*tokenv1.LinkResumed); err != nil || ok != (tt.refused != nil) || ok && resumed.GetSession().GetId() != "ses_2" {
				t.Errorf("Continue: %v, %v", fact, err)
			}
			if !proto.Equal(was, l) {
				t.Error("a look at the link changed it")
			}
		})
	}
}

// TestSigningIsActivity: while a signature is being made nobody is idle, so that asking again is the same admission.
func TestSigningIsActivity(t *testing.T) {
	l := rules.EvolveLink(rules.EvolveLink(&tokenv1.Link{}, issued()), minted(1, first, expiry))
	l.Profile.Idle = durationpb.New(time.Minute)
	l.Status = tokenv1.LinkStatus_LINK_STATUS_REDEEMED
	l.Session = &tokenv1.Session{Id: "ses_1", Browser: ada, StartedAt: at(noon), EndsAt: at(noon.Add(session))}
	l.Admission = &tokenv1.Admission{Id: "adm_1", Until: at(noon.Add(rules.AdmissionHold))}
	seen := rules.Activity{SessionID: "ses_1", At: noon}
	when := noon.Add(rules.AdmissionHold - ms)
	if fact, err := (rules.Admit{Browser: ada, AdmissionID: "adm_1", Seen: seen}).Decide(l, when); fact != nil || err != nil {
		t.Errorf("asked again: %v, %v", fact, err)
	}
	if err := rules.CheckSession(seen.On(l, when.Add(ms)), ada, when.Add(ms)); !errors.Is(err, failure.SessionExpired) {
		t.Errorf("after it: %v", err)
	}
}
