package rules_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"countersign.dev/pkg/failure"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
	"countersign.dev/services/token/seatmodel"
)

// linkSteps counts what was asked of links.
var linkSteps atomic.Int64

// walk asks at random what may be asked of a link, at random times.
type walk struct{ *seatmodel.Seat }

// TestLinkModel has random commands at random times and checks every fact against the spec's words.
func TestLinkModel(t *testing.T) { rapid.Check(t, linkModel) }

// BenchmarkLinkModel tells how many steps of it there are in a minute.
func BenchmarkLinkModel(b *testing.B) {
	before := linkSteps.Load()
	for b.Loop() {
		rapid.Check(b, linkModel)
	}
	b.ReportMetric(float64(linkSteps.Load()-before)/b.Elapsed().Minutes(), "steps/min")
}

func linkModel(t *rapid.T) {
	p := profile()
	p.Lifetime = durationpb.New(rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, 3 * day}).Draw(t, "lifetime"))
	p.Grace = durationpb.New(rapid.SampledFrom([]time.Duration{0, time.Minute, time.Hour}).Draw(t, "grace"))
	p.AutomaticReissue = rapid.Bool().Draw(t, "renews itself")
	p.Session = durationpb.New(rapid.SampledFrom([]time.Duration{30 * time.Second, 20 * time.Minute, 2 * day}).Draw(t, "session"))
	m := &walk{seatmodel.New(noon, "b1", "b2", "b3")}
	m.do(t, rules.Issue{LinkID: "lnk_1", Tenant: "acme", RequestID: "req_1", HolderID: "per_ada", Position: 1, Profile: p})
	browser := rapid.SampledFrom([]string{"b1", "b2", "b3"})
	count := 0
	t.Repeat(map[string]func(*rapid.T){
		"a moment passes":   func(t *rapid.T) { m.pass(t, 20*time.Second) },
		"minutes pass":      func(t *rapid.T) { m.pass(t, time.Hour) },
		"days pass":         func(t *rapid.T) { m.pass(t, 2*day) },
		"a deadline passes": func(t *rapid.T) { m.nearly(t) },
		"mint": func(t *rapid.T) {
			count++
			m.do(t, rules.Mint{Generation: m.Generation, Hash: fmt.Append(nil, count), DeliveryID: "dlv"})
		},
		"the message is out": func(t *rapid.T) { m.do(t, rules.StartClock{Generation: m.near(t)}) },
		"redeem": func(t *rapid.T) {
			m.redeem(t, rapid.IntRange(1, max(1, count)).Draw(t, "token"), browser.Draw(t, "browser"))
		},
		"continue": func(t *rapid.T) {
			holder := rapid.SampledFrom([]string{"per_ada", "per_grace"}).Draw(t, "verified")
			m.do(t, rules.Continue{Browser: []byte(browser.Draw(t, "browser")), SessionID: "ses", VerificationID: "evd", HolderID: holder})
		},
		"reissue": func(t *rapid.T) {
			m.do(t, rules.Reissue{Reason: tokenv1.ReissueReason_REISSUE_REASON_PLATFORM, Generation: rapid.SampledFrom([]uint32{0, m.near(t)}).Draw(t, "of")})
		},
		"reroute": func(t *rapid.T) {
			m.do(t, rules.Reroute{HolderID: "per_grace", EscalationID: "esc", Generation: m.near(t)})
		},
		"readdress": func(t *rapid.T) {
			m.do(t, rules.Readdress{HolderID: rapid.SampledFrom([]string{"per_ada", "per_grace", "per_hal"}).Draw(t, "to")})
		},
		"the deadline moves": func(t *rapid.T) { m.moves(t) },
		"attend":             func(t *rapid.T) { m.do(t, rules.Attend{}) },
		"admit": func(t *rapid.T) {
			m.do(t, rules.Admit{Browser: []byte(browser.Draw(t, "browser")), AdmissionID: "adm"})
		},
		"signed": func(t *rapid.T) {
			if m.Now.Before(m.HeldUntil) {
				m.do(t, rules.MarkSigned{})
			}
		},
		"declined":  func(t *rapid.T) { m.rarely(t, rules.MarkDeclined{}) },
		"close":     func(t *rapid.T) { m.rarely(t, rules.Close{}) },
		"revoke":    func(t *rapid.T) { m.rarely(t, rules.Revoke{}) },
		"lapse":     func(t *rapid.T) { m.do(t, rules.Lapse{}) },
		"deny":      func(t *rapid.T) { m.do(t, rules.Deny{Code: "LINK_USED"}) },
		"reprofile": m.reprofile,
		"": func(t *rapid.T) {
			linkSteps.Add(1)
			m.Check(t)
		},
	})
}

func (m *walk) pass(t *rapid.T, most time.Duration) {
	m.Now = m.Now.Add(time.Duration(rapid.Int64Range(1, int64(most)).Draw(t, "for")))
}

// nearly moves to an instant at which something ends, or just beside it.
func (m *walk) nearly(t *rapid.T) {
	l := m.Link
	ends := []time.Time{l.GetExpiresAt().AsTime(), rules.GraceEnd(l), rules.SessionEnd(l), m.HeldUntil, m.Deadline}
	to := rapid.SampledFrom(ends).Draw(t, "end").Add(rapid.SampledFrom([]time.Duration{-1, 0, 1}).Draw(t, "beside"))
	if to.After(m.Now) {
		m.Now = to
	}
}

// moves has the request's deadline set or moved; now and then an older amendment is heard after a newer one.
func (m *walk) moves(t *rapid.T) {
	to := m.Now.Add(time.Duration(rapid.Int64Range(1, int64(4*day)).Draw(t, "ahead")))
	stale := m.Amendments > 0 && rapid.IntRange(0, 3).Draw(t, "late") == 0
	number := m.Amendments + 1
	if stale {
		number = m.Amendments
	}
	fact, _ := m.do(t, rules.MoveDeadline{Number: number, Deadline: timestamppb.New(to)})
	if stale && fact != nil {
		t.Fatal("an older amendment undid a newer one")
	}
}

// near is the present generation, or the one before it.
func (m *walk) near(t *rapid.T) uint32 {
	return m.Generation - min(m.Generation-1, rapid.Uint32Range(0, 1).Draw(t, "before"))
}

func (m *walk) rarely(t *rapid.T, c linkCommand) {
	if rapid.IntRange(0, 5).Draw(t, "rarely") == 0 {
		m.do(t, c)
	}
}

func (m *walk) redeem(t *rapid.T, token int, browser string) {
	hash := fmt.Append(nil, token)
	fact, err := m.do(t, rules.Redeem{Hash: hash, Browser: []byte(browser), SessionID: "ses"})
	if generation := m.Tokens[string(hash)]; err == nil && (generation != m.Generation || m.Over || m.Withdrawn) {
		t.Fatalf("a token of generation %d opened generation %d", generation, m.Generation)
	}
	if err == nil && fact == nil && browser != m.Browser {
		t.Fatalf("%s came back to the session of %s", browser, m.Browser)
	}
}

// do decides and follows: the fact must be one that the model allows.
func (m *walk) do(t *rapid.T, c linkCommand) (proto.Message, error) {
	fact, err := c.Decide(m.Link, m.Now)
	if fact != nil && err != nil {
		t.Fatalf("%T: a fact and a refusal", c)
	}
	if err != nil && failure.From(err) == nil {
		t.Fatalf("%T: an accident: %v", c, err)
	}
	if fact == nil {
		return nil, err
	}
	m.Hear(t, fact)
	return fact, nil
}

// reprofile changes the profile as somebody who may do so would, to any other values.
func (m *walk) reprofile(t *rapid.T) {
	p := proto.CloneOf(m.Link.GetProfile())
	p.Version++
	p.Lifetime = durationpb.New(rapid.SampledFrom([]time.Duration{time.Second, time.Hour, 30 * day}).Draw(t, "new lifetime"))
	p.Grace = durationpb.New(rapid.SampledFrom([]time.Duration{0, time.Minute, day}).Draw(t, "new grace"))
	p.Session = durationpb.New(rapid.SampledFrom([]time.Duration{time.Second, time.Hour, 3 * day}).Draw(t, "new session"))
	m.Reach = rapid.SampledFrom([]tokenv1.ProfileReach{newLinks, extend, allSent}).Draw(t, "reach")
	m.do(t, rules.Reprofile{Profile: p, Reach: m.Reach})
}
