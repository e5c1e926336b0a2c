// Package seatmodel is what the spec says of one link, apart from the rules that say it too: every fact that is stated of a link is
// checked against it, be it by the rules alone or by the service over real servers.
package seatmodel

import (
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// T is a test, or a check of rapid's.
type T interface {
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

const day = 24 * time.Hour

// Seat is what the spec says of one link, kept apart from the state that the rules keep.
type Seat struct {
	Link *tokenv1.Link
	Now  time.Time

	Generation uint32
	Tokens     map[string]uint32 // every token ever made, and its generation
	Expires    time.Time
	Out        bool // the message of this generation is out
	Used       bool // a token of this generation opened its session
	Browser    string
	Ends       time.Time // the session, but for grace
	HeldUntil  time.Time
	Over       bool
	Withdrawn  bool
	Asked      []time.Time // new links that the signer got, since the seat changed hands
	Renewed    []time.Time // new links that nobody asked for
	Unopened   int         // so many of them since somebody was there
	Moved      uint32      // the generation that the newest changed address or alternate made
	Amendments uint32
	Deadline   time.Time // the request's; zero is none
	Holder     string
	Reach      tokenv1.ProfileReach // what the last change of the profile reached
	// Browsers are those that ask anything, by what is kept of them.
	Browsers []string
}

// New returns a link that was not issued yet.
func New(now time.Time, browsers ...string) *Seat {
	return &Seat{Link: &tokenv1.Link{}, Now: now, Tokens: map[string]uint32{}, Browsers: browsers}
}

// Hear follows a fact that was stated at Now: one that the spec does not allow then fails the test.
func (m *Seat) Hear(t T, fact proto.Message) {
	if _, denied := fact.(*tokenv1.LinkDenied); m.Over && !denied {
		t.Fatalf("%T after the end", fact)
	}
	m.follow(t, fact)
	m.Link = rules.EvolveLink(proto.CloneOf(m.Link), fact)
}

// Late tells whether the request's deadline has passed.
func (m *Seat) Late() bool { return !m.Deadline.IsZero() && !m.Now.Before(m.Deadline) }

// Lifetime is when a generation that is made now expires.
func (m *Seat) Lifetime() time.Time {
	end := m.Now.Add(m.Link.GetProfile().GetLifetime().AsDuration())
	if !m.Deadline.IsZero() && m.Deadline.Before(end) {
		return m.Deadline
	}
	return end
}

func (m *Seat) follow(t T, fact proto.Message) {
	switch f := fact.(type) {
	case *tokenv1.LinkIssued:
		m.Link.Profile, m.Holder = f.GetProfile(), f.GetHolderId()
		if f.GetDeadline() != nil {
			m.Deadline, m.Amendments = f.GetDeadline().AsTime(), f.GetDeadlineNumber()
		}
		m.Generation, m.Expires = 1, m.Lifetime()
	case *tokenv1.LinkMinted:
		if m.Late() {
			t.Fatal("a token was made after the deadline")
		}
		m.Tokens[string(f.GetHash())] = m.Generation
		if !m.Out && m.Browser == "" {
			m.Expires = m.Lifetime()
		}
	case *tokenv1.LinkClockStarted:
		m.Out = true
	case *tokenv1.LinkRedeemed:
		if m.Used || !m.Now.Before(m.Expires) || m.Withdrawn {
			t.Fatalf("redeemed: used %t, expires %s, withdrawn %t at %s", m.Used, m.Expires, m.Withdrawn, m.Now)
		}
		m.Used = true
		m.begin(f.GetSession())
	case *tokenv1.LinkResumed:
		m.unheld(t, f)
		if !m.Now.Before(m.Expires) || f.GetVerificationId() == "" {
			t.Fatalf("resumed at %s, expires %s", m.Now, m.Expires)
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
		// What is over stays as it is: past a deadline, too, whose sessions may finish.
		over := m.Late() || !m.Now.Before(m.Expires)
		if after := f.GetExpiresAt().AsTime(); over && !after.Equal(m.Expires) || !over && after.After(f.GetDeadline().AsTime()) {
			t.Fatalf("expires %s after it was %s, deadline %s", after, m.Expires, f.GetDeadline().AsTime())
		}
		m.Expires, m.Deadline, m.Amendments = f.GetExpiresAt().AsTime(), f.GetDeadline().AsTime(), f.GetNumber()
	case *tokenv1.LinkAttention:
		if count(m.Asked, m.Now) < 3 {
			t.Fatal("the sender was asked without need")
		}
	case *tokenv1.LinkAdmitted:
		m.unheld(t, f)
		if !m.Live() {
			t.Fatalf("admitted without a live session at %s", m.Now)
		}
		m.HeldUntil = m.Now.Add(2 * time.Minute)
	case *tokenv1.LinkReprofiled:
		m.reprofiled(t, f)
	case *tokenv1.LinkSigned, *tokenv1.LinkDeclined:
		m.Over, m.HeldUntil = true, time.Time{}
	case *tokenv1.LinkClosed:
		m.unheld(t, f)
		m.Over, m.Browser = true, ""
	case *tokenv1.LinkRevoked:
		m.unheld(t, f)
		m.Withdrawn, m.Browser = true, ""
	case *tokenv1.LinkLapsed:
		m.unheld(t, f)
		if p := m.Link.GetProfile(); p.GetAutomaticReissue() && !m.Late() && m.Unopened < 3 && count(m.Renewed, m.Now) < 3 {
			t.Fatal("lapsed, and the profile replaces it")
		}
		if m.Now.Before(m.Expires) || m.Live() {
			t.Fatalf("lapsed at %s, expires %s, live %t", m.Now, m.Expires, m.Live())
		}
	}
}

func (m *Seat) unheld(t T, fact proto.Message) {
	if m.Now.Before(m.HeldUntil) {
		t.Fatalf("%T at %s while held until %s", fact, m.Now, m.HeldUntil)
	}
}

func (m *Seat) begin(s *tokenv1.Session) {
	m.Browser, m.Ends, m.Unopened = string(s.GetBrowser()), m.Now.Add(m.Link.GetProfile().GetSession().AsDuration()), 0
}

// handsOver makes somebody else the holder, for whom nothing counts of what was before.
func (m *Seat) handsOver(to string) {
	m.Holder, m.Asked, m.Renewed, m.Unopened, m.Moved = to, nil, nil, 0, m.Generation
}

// reprofiled: what is sent becomes shorter only where that was asked for; who is at work is never thrown out; what is over stays over.
func (m *Seat) reprofiled(t T, f *tokenv1.LinkReprofiled) {
	m.unheld(t, f)
	was, expires := m.GraceEnd(), f.GetExpiresAt().AsTime()
	working, expired := m.Live(), !m.Now.Before(m.Expires)
	if m.Reach == tokenv1.ProfileReach_PROFILE_REACH_NEW_LINKS || m.Withdrawn || expired && !working {
		t.Fatalf("reach %v, withdrawn %t, expired %t: %v", m.Reach, m.Withdrawn, expired, f)
	}
	if m.Reach == tokenv1.ProfileReach_PROFILE_REACH_EXTEND_SENT && (expires.Before(m.Expires) || expires.Add(f.GetProfile().GetGrace().AsDuration()).Before(was)) {
		t.Fatalf("extended from %s to %s", m.Expires, expires)
	}
	if !working && expires.Before(m.Now) {
		t.Fatalf("expires at %s, in the past", expires)
	}
	end := m.Ends
	if was.Before(end) {
		end = was
	}
	m.Expires, m.Link.Profile = expires, f.GetProfile()
	if f.GetSessionEndsAt() != nil {
		m.Ends = f.GetSessionEndsAt().AsTime()
	}
	if now := m.GraceEnd(); working && (m.Ends.Before(end) || now.Before(end)) {
		t.Fatalf("a session that went on until %s ends at %s or %s", end, m.Ends, now)
	}
}

// GraceEnd is until when a session begun in time may finish.
func (m *Seat) GraceEnd() time.Time {
	return m.Expires.Add(m.Link.GetProfile().GetGrace().AsDuration())
}

func (m *Seat) reissued(t T, f *tokenv1.LinkReissued) {
	if m.Late() {
		t.Fatal("a new link after the deadline")
	}
	if f.GetReason() == tokenv1.ReissueReason_REISSUE_REASON_AUTOMATIC {
		if m.Now.Before(m.Expires) || m.Live() || m.Unopened >= 3 || count(m.Renewed, m.Now) >= 3 {
			t.Fatalf("replaced unasked at %s, expires %s, live %t, %d in a row", m.Now, m.Expires, m.Live(), m.Unopened)
		}
		m.Renewed, m.Unopened = append(m.Renewed, m.Now), m.Unopened+1
	}
	if f.GetReason() == tokenv1.ReissueReason_REISSUE_REASON_SIGNER {
		if m.Now.Before(m.Expires) || count(m.Asked, m.Now) >= 3 || f.GetVerificationId() == "" {
			t.Fatalf("a new link in place at %s, expires %s, asked %v", m.Now, m.Expires, m.Asked)
		}
		m.Asked = append(m.Asked, m.Now)
	}
	m.rotate(t, f.GetGeneration(), f.GetExpiresAt().AsTime())
	switch f.GetReason() {
	case tokenv1.ReissueReason_REISSUE_REASON_PLATFORM:
		m.Unopened = 0
	case tokenv1.ReissueReason_REISSUE_REASON_ADDRESS_CHANGED:
		if f.GetHolderId() == m.Holder || f.GetFormerHolderId() != m.Holder {
			t.Fatalf("readdressed from %s to %s, held by %s", f.GetFormerHolderId(), f.GetHolderId(), m.Holder)
		}
		m.handsOver(f.GetHolderId())
	default:
	}
	if f.GetSession() != nil {
		m.begin(f.GetSession())
		m.Out = true
	}
}

func (m *Seat) rotate(t T, generation uint32, expires time.Time) {
	if generation != m.Generation+1 || !expires.Equal(m.Lifetime()) {
		t.Fatalf("generation %d follows %d, expires %s at %s", generation, m.Generation, expires, m.Now)
	}
	m.Generation, m.Expires, m.Out, m.Used, m.Browser, m.Withdrawn = generation, expires, false, false, "", false
}

// Live says whether the session goes on: until its own end or the end of grace (spec 2.4).
func (m *Seat) Live() bool {
	return m.Browser != "" && !m.Over && m.Now.Before(m.Ends) && m.Now.Before(m.GraceEnd())
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

// Check fails unless what holds at every moment does.
func (m *Seat) Check(t T) {
	if got := m.Link.GetExpiresAt().AsTime(); !got.Equal(m.Expires) || m.Link.GetGeneration() != m.Generation {
		t.Fatalf("generation %d expires %s, want %d and %s", m.Link.GetGeneration(), got, m.Generation, m.Expires)
	}
	for token, generation := range m.Tokens {
		for _, browser := range append([]string{""}, m.Browsers...) {
			err := rules.CheckToken(m.Link, []byte(token), []byte(browser), m.Now)
			if generation < m.Moved && !m.Over && err == nil {
				t.Fatalf("a token of generation %d works, and somebody else holds the link since %d", generation, m.Moved)
			}
			if err == nil && (generation != m.Generation || m.Used && browser != m.Browser || m.Over || m.Withdrawn) {
				t.Fatalf("a token of generation %d works in %q", generation, browser)
			}
		}
	}
	here := 0
	for _, browser := range m.Browsers {
		if rules.CheckSession(m.Link, []byte(browser), m.Now) == nil {
			here++
		}
	}
	if want := 0; m.Live() {
		if want = 1; here != want {
			t.Fatalf("%d sessions while one is live", here)
		}
	} else if here != want {
		t.Fatalf("%d sessions while none is live", here)
	}
	if m.Out && !m.Over && !m.Withdrawn && !m.Link.GetLapsed() && rules.Deadline(m.Link).IsZero() {
		t.Fatal("nothing waits for the lapse of a link that is out")
	}
	if size := proto.Size(m.Link); size > 32<<10 {
		t.Fatalf("the state has %d bytes", size)
	}
	m.lineage(t)
	m.nextStep(t)
}

// lineage: every generation is told, in order, and all but the present one have ended.
func (m *Seat) lineage(t T) {
	all := m.Link.GetLineage()
	for i, g := range all {
		if g.GetNumber() != m.Generation-uint32(len(all)-1-i) || g.GetOrigin() == tokenv1.Origin_ORIGIN_UNSPECIFIED {
			t.Fatalf("generation %d is told as %v", m.Generation, g)
		}
		if over := g.GetEnd() != tokenv1.GenerationEnd_GENERATION_END_UNSPECIFIED; i < len(all)-1 && !over || g.GetEndedAt() != nil != over {
			t.Fatalf("a generation of the past ended as %v", g)
		}
	}
	if want := min(int(m.Generation), 20); len(all) != want {
		t.Fatalf("%d generations are told of %d", len(all), m.Generation)
	}
}

// nextStep: a signer who is not done has one (spec 2.4): to go on here, to wait for a moment, or to ask the sender, who can help.
func (m *Seat) nextStep(t T) {
	if m.Over {
		return
	}
	_, err := rules.Continue{Browser: []byte("b4"), SessionID: "ses", VerificationID: "evd", HolderID: m.Holder}.Decide(m.Link, m.Now)
	if refusal := failure.From(err); refusal != nil && (refusal.Next == "" || refusal.Next == "none") {
		t.Fatalf("%s leads nowhere", refusal.Code)
	}
	if err == nil || errors.Is(err, failure.LinkBusy) {
		return
	}
	if errors.Is(err, failure.RequestExpired) && m.Late() {
		// The sender moves the deadline, or the request expires within the moment.
		fact, _ := rules.MoveDeadline{Number: m.Amendments + 1, Deadline: timestamppb.New(m.Now.Add(day))}.Decide(m.Link, m.Now)
		if fact == nil {
			t.Fatal("the sender cannot move the deadline")
		}
		return
	}
	if !errors.Is(err, failure.ReissueLimit) && !errors.Is(err, failure.LinkRevoked) {
		t.Fatalf("a verified signer cannot go on: %v", err)
	}
	if m.Late() {
		return // withdrawn, and late beside
	}
	fact, err := rules.Reissue{Reason: tokenv1.ReissueReason_REISSUE_REASON_PLATFORM}.Decide(m.Link, m.Now)
	if fact == nil && !errors.Is(err, failure.LinkBusy) {
		t.Fatalf("the sender cannot help: %v", err)
	}
}
