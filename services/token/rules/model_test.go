package rules_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"countersign.dev/pkg/failure"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// seatModel is what the spec says of one link, kept apart from the state that the rules keep.
type seatModel struct {
	link *tokenv1.Link
	now  time.Time

	generation uint32
	tokens     map[string]uint32 // every token ever made, and its generation
	expires    time.Time
	out        bool // the message of this generation is out
	used       bool // a token of this generation opened its session
	browser    string
	ends       time.Time // the session, but for grace
	heldUntil  time.Time
	over       bool
	withdrawn  bool
	asked      []time.Time // new links that the signer got, since the seat changed hands
	renewed    []time.Time // new links that nobody asked for
	unopened   int         // so many of them since somebody was there
	moved      uint32      // the generation that the newest changed address or alternate made
	amendments uint32
	deadline   time.Time // the request's; zero is none
	holder     string
	reach      tokenv1.ProfileReach // what the last change of the profile reached
}

// TestLinkModel has random commands at random times and checks every fact against the spec's words.
func TestLinkModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := profile()
		p.Lifetime = durationpb.New(rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, 3 * day}).Draw(t, "lifetime"))
		p.Grace = durationpb.New(rapid.SampledFrom([]time.Duration{0, time.Minute, time.Hour}).Draw(t, "grace"))
		p.AutomaticReissue = rapid.Bool().Draw(t, "renews itself")
		p.Session = durationpb.New(rapid.SampledFrom([]time.Duration{30 * time.Second, 20 * time.Minute, 2 * day}).Draw(t, "session"))
		m := &seatModel{link: &tokenv1.Link{}, now: noon, tokens: map[string]uint32{}, holder: "per_ada"}
		m.do(t, rules.Issue{LinkID: "lnk_1", Tenant: "acme", RequestID: "req_1", HolderID: m.holder, Position: 1, Profile: p})
		browser := rapid.SampledFrom([]string{"b1", "b2", "b3"})
		count := 0
		t.Repeat(map[string]func(*rapid.T){
			"a moment passes":   func(t *rapid.T) { m.pass(t, 20*time.Second) },
			"minutes pass":      func(t *rapid.T) { m.pass(t, time.Hour) },
			"days pass":         func(t *rapid.T) { m.pass(t, 2*day) },
			"a deadline passes": func(t *rapid.T) { m.nearly(t) },
			"mint": func(t *rapid.T) {
				count++
				m.do(t, rules.Mint{Generation: m.generation, Hash: fmt.Append(nil, count), DeliveryID: "dlv"})
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
				if m.now.Before(m.heldUntil) {
					m.do(t, rules.MarkSigned{})
				}
			},
			"declined":  func(t *rapid.T) { m.rarely(t, rules.MarkDeclined{}) },
			"close":     func(t *rapid.T) { m.rarely(t, rules.Close{}) },
			"revoke":    func(t *rapid.T) { m.rarely(t, rules.Revoke{}) },
			"lapse":     func(t *rapid.T) { m.do(t, rules.Lapse{}) },
			"deny":      func(t *rapid.T) { m.do(t, rules.Deny{Code: "LINK_USED"}) },
			"reprofile": m.reprofile,
			"":          m.check,
		})
	})
}

func (m *seatModel) pass(t *rapid.T, most time.Duration) {
	m.now = m.now.Add(time.Duration(rapid.Int64Range(1, int64(most)).Draw(t, "for")))
}

// nearly moves to an instant at which something ends, or just beside it.
func (m *seatModel) nearly(t *rapid.T) {
	l := m.link
	ends := []time.Time{l.GetExpiresAt().AsTime(), rules.GraceEnd(l), rules.SessionEnd(l), m.heldUntil, m.deadline}
	to := rapid.SampledFrom(ends).Draw(t, "end").Add(rapid.SampledFrom([]time.Duration{-1, 0, 1}).Draw(t, "beside"))
	if to.After(m.now) {
		m.now = to
	}
}

// moves has the request's deadline set or moved; now and then an older amendment is heard after a newer one.
func (m *seatModel) moves(t *rapid.T) {
	to := m.now.Add(time.Duration(rapid.Int64Range(1, int64(4*day)).Draw(t, "ahead")))
	stale := m.amendments > 0 && rapid.IntRange(0, 3).Draw(t, "late") == 0
	number := m.amendments + 1
	if stale {
		number = m.amendments
	}
	fact, _ := m.do(t, rules.MoveDeadline{Number: number, Deadline: timestamppb.New(to)})
	if stale && fact != nil {
		t.Fatal("an older amendment undid a newer one")
	}
}

// late tells whether the request's deadline has passed.
func (m *seatModel) late() bool { return !m.deadline.IsZero() && !m.now.Before(m.deadline) }

// lifetime is when a generation that is made now expires.
func (m *seatModel) lifetime() time.Time {
	end := m.now.Add(m.link.GetProfile().GetLifetime().AsDuration())
	if !m.deadline.IsZero() && m.deadline.Before(end) {
		return m.deadline
	}
	return end
}

// near is the present generation, or the one before it.
func (m *seatModel) near(t *rapid.T) uint32 {
	return m.generation - min(m.generation-1, rapid.Uint32Range(0, 1).Draw(t, "before"))
}

func (m *seatModel) rarely(t *rapid.T, c linkCommand) {
	if rapid.IntRange(0, 5).Draw(t, "rarely") == 0 {
		m.do(t, c)
	}
}

func (m *seatModel) redeem(t *rapid.T, token int, browser string) {
	hash := fmt.Append(nil, token)
	fact, err := m.do(t, rules.Redeem{Hash: hash, Browser: []byte(browser), SessionID: "ses"})
	if generation := m.tokens[string(hash)]; err == nil && (generation != m.generation || m.over || m.withdrawn) {
		t.Fatalf("a token of generation %d opened generation %d", generation, m.generation)
	}
	if err == nil && fact == nil && browser != m.browser {
		t.Fatalf("%s came back to the session of %s", browser, m.browser)
	}
}

// do decides and follows: the fact must be one that the model allows.
func (m *seatModel) do(t *rapid.T, c linkCommand) (proto.Message, error) {
	fact, err := c.Decide(m.link, m.now)
	if fact != nil && err != nil {
		t.Fatalf("%T: a fact and a refusal", c)
	}
	if err != nil && failure.From(err) == nil {
		t.Fatalf("%T: an accident: %v", c, err)
	}
	if fact == nil {
		return nil, err
	}
	if _, denied := fact.(*tokenv1.LinkDenied); m.over && !denied {
		t.Fatalf("%T after the end", fact)
	}
	m.follow(t, fact)
	m.link = rules.EvolveLink(proto.CloneOf(m.link), fact)
	return fact, nil
}

func (m *seatModel) follow(t *rapid.T, fact proto.Message) {
	switch f := fact.(type) {
	case *tokenv1.LinkIssued:
		m.generation, m.expires = 1, m.now.Add(f.GetProfile().GetLifetime().AsDuration())
	case *tokenv1.LinkMinted:
		if m.late() {
			t.Fatal("a token was made after the deadline")
		}
		m.tokens[string(f.GetHash())] = m.generation
		if !m.out && m.browser == "" {
			m.expires = m.lifetime()
		}
	case *tokenv1.LinkClockStarted:
		m.out = true
	case *tokenv1.LinkRedeemed:
		if m.used || !m.now.Before(m.expires) || m.withdrawn {
			t.Fatalf("redeemed: used %t, expires %s, withdrawn %t at %s", m.used, m.expires, m.withdrawn, m.now)
		}
		m.used = true
		m.begin(f.GetSession())
	case *tokenv1.LinkResumed:
		m.unheld(t, f)
		if !m.now.Before(m.expires) || f.GetVerificationId() == "" {
			t.Fatalf("resumed at %s, expires %s", m.now, m.expires)
		}
		m.begin(f.GetSession())
	case *tokenv1.LinkReissued:
		m.unheld(t, f)
		m.reissued(t, f)
	case *tokenv1.LinkRerouted:
		m.unheld(t, f)
		m.rotate(t, f.GetGeneration(), f.GetExpiresAt().AsTime())
		m.handsOver(f.GetHolderId())
	case *tokenv1.LinkDeadlineMoved:
		if after := f.GetExpiresAt().AsTime(); !m.now.Before(m.expires) && !after.Equal(m.expires) || m.now.Before(m.expires) && after.After(f.GetDeadline().AsTime()) {
			t.Fatalf("expires %s after it was %s, deadline %s", after, m.expires, f.GetDeadline().AsTime())
		}
		m.expires, m.deadline, m.amendments = f.GetExpiresAt().AsTime(), f.GetDeadline().AsTime(), f.GetNumber()
	case *tokenv1.LinkAttention:
		if count(m.asked, m.now) < 3 {
			t.Fatal("the sender was asked without need")
		}
	case *tokenv1.LinkAdmitted:
		m.unheld(t, f)
		if !m.live() {
			t.Fatalf("admitted without a live session at %s", m.now)
		}
		m.heldUntil = m.now.Add(2 * time.Minute)
	case *tokenv1.LinkReprofiled:
		m.reprofiled(t, f)
	case *tokenv1.LinkSigned, *tokenv1.LinkDeclined:
		m.over, m.heldUntil = true, time.Time{}
	case *tokenv1.LinkClosed:
		m.unheld(t, f)
		m.over, m.browser = true, ""
	case *tokenv1.LinkRevoked:
		m.unheld(t, f)
		m.withdrawn, m.browser = true, ""
	case *tokenv1.LinkLapsed:
		m.unheld(t, f)
		if p := m.link.GetProfile(); p.GetAutomaticReissue() && !m.late() && m.unopened < 3 && count(m.renewed, m.now) < 3 {
			t.Fatal("lapsed, and the profile replaces it")
		}
		if m.now.Before(m.expires) || m.live() {
			t.Fatalf("lapsed at %s, expires %s, live %t", m.now, m.expires, m.live())
		}
	}
}

func (m *seatModel) unheld(t *rapid.T, fact proto.Message) {
	if m.now.Before(m.heldUntil) {
		t.Fatalf("%T at %s while held until %s", fact, m.now, m.heldUntil)
	}
}

func (m *seatModel) begin(s *tokenv1.Session) {
	m.browser, m.ends, m.unopened = string(s.GetBrowser()), m.now.Add(m.link.GetProfile().GetSession().AsDuration()), 0
}

// handsOver makes somebody else the holder, for whom nothing counts of what was before.
func (m *seatModel) handsOver(to string) {
	m.holder, m.asked, m.renewed, m.unopened, m.moved = to, nil, nil, 0, m.generation
}

// reprofile changes the profile as somebody who may do so would, to any other values.
func (m *seatModel) reprofile(t *rapid.T) {
	p := proto.CloneOf(m.link.GetProfile())
	p.Version++
	p.Lifetime = durationpb.New(rapid.SampledFrom([]time.Duration{time.Second, time.Hour, 30 * day}).Draw(t, "new lifetime"))
	p.Grace = durationpb.New(rapid.SampledFrom([]time.Duration{0, time.Minute, day}).Draw(t, "new grace"))
	p.Session = durationpb.New(rapid.SampledFrom([]time.Duration{time.Second, time.Hour, 3 * day}).Draw(t, "new session"))
	m.reach = rapid.SampledFrom([]tokenv1.ProfileReach{newLinks, extend, allSent}).Draw(t, "reach")
	m.do(t, rules.Reprofile{Profile: p, Reach: m.reach})
}

// reprofiled: what is sent becomes shorter only where that was asked for; who is at work is never thrown out; what is over stays over.
func (m *seatModel) reprofiled(t *rapid.T, f *tokenv1.LinkReprofiled) {
	m.unheld(t, f)
	was, expires := m.graceEnd(), f.GetExpiresAt().AsTime()
	working, expired := m.live(), !m.now.Before(m.expires)
	if m.reach == newLinks || m.withdrawn || expired && !working {
		t.Fatalf("reach %v, withdrawn %t, expired %t: %v", m.reach, m.withdrawn, expired, f)
	}
	if m.reach == extend && (expires.Before(m.expires) || expires.Add(f.GetProfile().GetGrace().AsDuration()).Before(was)) {
		t.Fatalf("extended from %s to %s", m.expires, expires)
	}
	if !working && expires.Before(m.now) {
		t.Fatalf("expires at %s, in the past", expires)
	}
	end := m.ends
	if was.Before(end) {
		end = was
	}
	m.expires, m.link.Profile = expires, f.GetProfile()
	if f.GetSessionEndsAt() != nil {
		m.ends = f.GetSessionEndsAt().AsTime()
	}
	if now := m.graceEnd(); working && (m.ends.Before(end) || now.Before(end)) {
		t.Fatalf("a session that went on until %s ends at %s or %s", end, m.ends, now)
	}
}

func (m *seatModel) graceEnd() time.Time {
	return m.expires.Add(m.link.GetProfile().GetGrace().AsDuration())
}

func (m *seatModel) reissued(t *rapid.T, f *tokenv1.LinkReissued) {
	if m.late() {
		t.Fatal("a new link after the deadline")
	}
	if f.GetReason() == tokenv1.ReissueReason_REISSUE_REASON_AUTOMATIC {
		if m.now.Before(m.expires) || m.live() || m.unopened >= 3 || count(m.renewed, m.now) >= 3 {
			t.Fatalf("replaced unasked at %s, expires %s, live %t, %d in a row", m.now, m.expires, m.live(), m.unopened)
		}
		m.renewed, m.unopened = append(m.renewed, m.now), m.unopened+1
	}
	if f.GetReason() == tokenv1.ReissueReason_REISSUE_REASON_SIGNER {
		if m.now.Before(m.expires) || count(m.asked, m.now) >= 3 || f.GetVerificationId() == "" {
			t.Fatalf("a new link in place at %s, expires %s, asked %v", m.now, m.expires, m.asked)
		}
		m.asked = append(m.asked, m.now)
	}
	m.rotate(t, f.GetGeneration(), f.GetExpiresAt().AsTime())
	switch f.GetReason() {
	case tokenv1.ReissueReason_REISSUE_REASON_PLATFORM:
		m.unopened = 0
	case tokenv1.ReissueReason_REISSUE_REASON_ADDRESS_CHANGED:
		if f.GetHolderId() == m.holder || f.GetFormerHolderId() != m.holder {
			t.Fatalf("readdressed from %s to %s, held by %s", f.GetFormerHolderId(), f.GetHolderId(), m.holder)
		}
		m.handsOver(f.GetHolderId())
	default:
	}
	if f.GetSession() != nil {
		m.begin(f.GetSession())
		m.out = true
	}
}

func (m *seatModel) rotate(t *rapid.T, generation uint32, expires time.Time) {
	if generation != m.generation+1 || !expires.Equal(m.lifetime()) {
		t.Fatalf("generation %d follows %d, expires %s at %s", generation, m.generation, expires, m.now)
	}
	m.generation, m.expires, m.out, m.used, m.browser, m.withdrawn = generation, expires, false, false, "", false
}

// live says whether the session goes on: until its own end or the end of grace (spec 2.4).
func (m *seatModel) live() bool {
	return m.browser != "" && !m.over && m.now.Before(m.ends) && m.now.Before(m.graceEnd())
}

func count(times []time.Time, now time.Time) int {
	n := 0
	for _, at := range times {
		if at.After(now.Add(-day)) {
			n++
		}
	}
	return n
}

// check is what holds at every moment.
func (m *seatModel) check(t *rapid.T) {
	if got := m.link.GetExpiresAt().AsTime(); !got.Equal(m.expires) || m.link.GetGeneration() != m.generation {
		t.Fatalf("generation %d expires %s, want %d and %s", m.link.GetGeneration(), got, m.generation, m.expires)
	}
	for token, generation := range m.tokens {
		for _, browser := range []string{"", "b1", "b2", "b3"} {
			err := rules.CheckToken(m.link, []byte(token), []byte(browser), m.now)
			if generation < m.moved && !m.over && err == nil {
				t.Fatalf("a token of generation %d works, and somebody else holds the link since %d", generation, m.moved)
			}
			if err == nil && (generation != m.generation || m.used && browser != m.browser || m.over || m.withdrawn) {
				t.Fatalf("a token of generation %d works in %q", generation, browser)
			}
		}
	}
	here := 0
	for _, browser := range []string{"b1", "b2", "b3"} {
		if rules.CheckSession(m.link, []byte(browser), m.now) == nil {
			here++
		}
	}
	if want := 0; m.live() {
		if want = 1; here != want {
			t.Fatalf("%d sessions while one is live", here)
		}
	} else if here != want {
		t.Fatalf("%d sessions while none is live", here)
	}
	if m.out && !m.over && !m.withdrawn && !m.link.GetLapsed() && rules.Deadline(m.link).IsZero() {
		t.Fatal("nothing waits for the lapse of a link that is out")
	}
	if size := proto.Size(m.link); size > 32<<10 {
		t.Fatalf("the state has %d bytes", size)
	}
	m.lineage(t)
	m.nextStep(t)
}

// lineage: every generation is told, in order, and all but the present one have ended.
func (m *seatModel) lineage(t *rapid.T) {
	all := m.link.GetLineage()
	for i, g := range all {
		if g.GetNumber() != m.generation-uint32(len(all)-1-i) || g.GetOrigin() == tokenv1.Origin_ORIGIN_UNSPECIFIED {
			t.Fatalf("generation %d is told as %v", m.generation, g)
		}
		if over := g.GetEnd() != tokenv1.GenerationEnd_GENERATION_END_UNSPECIFIED; i < len(all)-1 && !over || g.GetEndedAt() != nil != over {
			t.Fatalf("a generation of the past ended as %v", g)
		}
	}
	if want := min(int(m.generation), 20); len(all) != want {
		t.Fatalf("%d generations are told of %d", len(all), m.generation)
	}
}

// nextStep: a signer who is not done has one (spec 2.4): to go on here, to wait for a moment, or to ask the sender, who can help.
func (m *seatModel) nextStep(t *rapid.T) {
	if m.over {
		return
	}
	_, err := rules.Continue{Browser: []byte("b4"), SessionID: "ses", VerificationID: "evd", HolderID: m.holder}.Decide(m.link, m.now)
	if refusal := failure.From(err); refusal != nil && (refusal.Next == "" || refusal.Next == "none") {
		t.Fatalf("%s leads nowhere", refusal.Code)
	}
	if err == nil || errors.Is(err, failure.LinkBusy) {
		return
	}
	if errors.Is(err, failure.RequestExpired) && m.late() {
		// The sender moves the deadline, or the request expires within the moment.
		fact, _ := rules.MoveDeadline{Number: m.amendments + 1, Deadline: timestamppb.New(m.now.Add(day))}.Decide(m.link, m.now)
		if fact == nil {
			t.Fatal("the sender cannot move the deadline")
		}
		return
	}
	if !errors.Is(err, failure.ReissueLimit) && !errors.Is(err, failure.LinkRevoked) {
		t.Fatalf("a verified signer cannot go on: %v", err)
	}
	if m.late() {
		return // withdrawn, and late beside
	}
	fact, err := rules.Reissue{Reason: tokenv1.ReissueReason_REISSUE_REASON_PLATFORM}.Decide(m.link, m.now)
	if fact == nil && !errors.Is(err, failure.LinkBusy) {
		t.Fatalf("the sender cannot help: %v", err)
	}
}
