package rules_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid" // rapid runs random commands against a model and shrinks what fails

	"countersign.dev/pkg/failure"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	"countersign.dev/services/identity/rules"
)

const (
	toSign     = identityv1.Purpose_PURPOSE_SIGN
	toContinue = identityv1.Purpose_PURPOSE_CONTINUE
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// signer plays the way of one verification; any step that is refused is told.
type signer struct {
	t     rapid.TB
	state *identityv1.Verification
	codes int
}

func newSigner(t rapid.TB) *signer { return &signer{t: t, state: &identityv1.Verification{}} }

type command interface {
	Decide(*identityv1.Verification, time.Time) (proto.Message, error)
}

func (s *signer) do(c command, at time.Time) (proto.Message, error) {
	before := proto.CloneOf(s.state)
	fact, err := c.Decide(s.state, at)
	if !proto.Equal(before, s.state) {
		s.t.Fatalf("Decide changed the state:\n%s", cmp.Diff(before, s.state, protocmp.Transform()))
	}
	if fact != nil && err == nil {
		s.state = rules.Evolve(proto.CloneOf(s.state), fact)
	}
	return fact, err
}

func (s *signer) start(at time.Time, browser string, act identityv1.Purpose, person string) (string, error) {
	s.codes++
	id := fmt.Sprintf("chl_%d", s.codes)
	_, err := s.do(rules.Start{
		Limits: rules.Defaults(), ID: id, VerificationID: "vrf_1", Tenant: "acme", RequestID: "req_1", LinkID: "lnk_1",
		PersonID: person, Purpose: act, Browser: []byte(browser),
	}, at)
	return id, err
}

func (s *signer) answer(at time.Time, browser, challenge string, right bool) (proto.Message, error) {
	given := []byte("wrong " + challenge)
	if right {
		given = []byte("right " + challenge)
	}
	return s.do(rules.Answer{
		Limits: rules.Defaults(), ChallengeID: challenge, Browser: []byte(browser), Given: given, Expected: []byte("right " + challenge),
	}, at)
}

// must starts a challenge that may not be refused.
func (s *signer) must(at time.Time, browser string, act identityv1.Purpose) string {
	s.t.Helper()
	id, err := s.start(at, browser, act, "per_1")
	if err != nil {
		s.t.Fatalf("start at %s: %v", at.Format(time.TimeOnly), err)
	}
	return id
}

func refusedAfter(t *testing.T, err error, want *failure.Error, wait time.Duration) {
	t.Helper()
	if !errors.Is(err, want) || failure.From(err).RetryAfter != wait {
		t.Errorf("error %v (wait %s), want %s after %s", err, retryAfter(err), want.Code, wait)
	}
}

func retryAfter(err error) time.Duration {
	if f := failure.From(err); f != nil {
		return f.RetryAfter
	}
	return 0
}

// Security T16: a code serves the session, the request and the act it was asked for, once, while it lives.
func TestAnswer(t *testing.T) {
	for name, tt := range map[string]struct {
		before  func(s *signer, id string)
		browser string
		other   string // another challenge is answered
		right   bool
		after   time.Duration
		want    proto.Message
		refused error
	}{
		"right until the last instant": {browser: "b1", right: true, after: 10*time.Minute - 1, want: &identityv1.VerificationPassed{}},
		"is over after ten minutes":    {browser: "b1", right: true, after: 10 * time.Minute, refused: failure.CodeExpired},
		"wrong":                        {browser: "b1", want: &identityv1.AnswerRefused{}},
		"right in another browser":     {browser: "b2", right: true, want: &identityv1.AnswerRefused{}},
		"of another challenge":         {browser: "b1", right: true, other: "chl_9", refused: failure.CodeExpired},
		"void after a new code": {browser: "b1", right: true, after: time.Minute, refused: failure.CodeExpired, before: func(s *signer, _ string) {
			s.must(noon.Add(30*time.Second), "b1", toSign)
		}},
		"used": {browser: "b1", right: true, after: time.Minute, refused: failure.CodeExpired, before: func(s *signer, id string) {
			_, _ = s.answer(noon, "b1", id, true)
		}},
		"right at the fifth try": {browser: "b1", right: true, want: &identityv1.VerificationPassed{}, before: func(s *signer, id string) {
			for range 4 {
				_, _ = s.answer(noon, "b1", id, false)
			}
		}},
		"no sixth try": {browser: "b1", right: true, refused: failure.CodeExpired, before: func(s *signer, id string) {
			for range 5 {
				_, _ = s.answer(noon, "b1", id, false)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSigner(t)
			id := s.must(noon, "b1", toSign)
			if tt.before != nil {
				tt.before(s, id)
			}
			if tt.other != "" {
				id = tt.other
			}
			got, err := s.answer(noon.Add(tt.after), tt.browser, id, tt.right)
			if !errors.Is(err, tt.refused) || (tt.want == nil) != (got == nil) || got != nil && fmt.Sprintf("%T", got) != fmt.Sprintf("%T", tt.want) {
				t.Errorf("got %T and %v, want %T and %v", got, err, tt.want, tt.refused)
			}
		})
	}
}

func TestCodesAreLimited(t *testing.T) {
	s := newSigner(t)
	s.must(noon, "b1", toSign)
	_, err := s.start(noon.Add(30*time.Second-1), "b1", toSign, "per_1")
	refusedAfter(t, err, failure.CodeTooSoon, 1)
	_, err = s.start(noon, "b2", toContinue, "per_1")
	refusedAfter(t, err, failure.CodeTooSoon, 30*time.Second)

	s.must(noon.Add(30*time.Second), "b1", toSign)
	s.must(noon.Add(time.Minute), "b1", toSign)
	_, err = s.start(noon.Add(2*time.Minute), "b1", toSign, "per_1")
	refusedAfter(t, err, failure.CodeLimit, 8*time.Minute)

	for i := range 7 {
		s.must(noon.Add(time.Duration(i+1)*11*time.Minute), "b1", toSign)
	}
	_, err = s.start(noon.Add(23*time.Hour), "b1", toSign, "per_1")
	refusedAfter(t, err, failure.CodeLimit, time.Hour)
	s.must(noon.Add(24*time.Hour), "b1", toSign)

	if _, err := s.start(noon.Add(24*time.Hour), "b1", toSign, "per_2"); err != nil {
		t.Errorf("a new holder of the link is somebody else: %v", err)
	}
}

// fail gives wrong codes from at on until it is refused, taking new codes as far as they are given out.
func (s *signer) fail(at time.Time) (wrong int, end time.Time, err error) {
	for range 100 {
		id, err := s.start(at, "b1", toSign, "per_1")
		if errors.Is(err, failure.CodeTooSoon) || errors.Is(err, failure.CodeLimit) {
			at = at.Add(retryAfter(err))
			continue
		}
		if err != nil {
			return wrong, at, err
		}
		for range 5 {
			fact, err := s.answer(at, "b1", id, false)
			if err != nil {
				break
			}
			wrong++
			if fact.(*identityv1.AnswerRefused).GetLockedUntil() != nil {
				return wrong, at, nil
			}
		}
	}
	return wrong, at, errors.New("never locked")
}

// Security T13: ten wrong codes within an hour lock, new codes do not reset the count, and each lock lasts twice as long.
func TestFailuresLock(t *testing.T) {
	s := newSigner(t)
	at, lock := noon, 15*time.Minute
	for range 4 {
		wrong, end, err := s.fail(at)
		if err != nil || wrong != 10 {
			t.Fatalf("%d wrong codes, %v; want a lock at the tenth", wrong, err)
		}
		_, err = s.start(end, "b1", toSign, "per_1")
		refusedAfter(t, err, failure.IdentityLocked, lock)
		_, err = s.answer(end, "b1", fmt.Sprintf("chl_%d", s.codes-1), true)
		refusedAfter(t, err, failure.IdentityLocked, lock)
		at, lock = end.Add(lock), 2*lock
	}
	if _, err := s.start(at.Add(-1), "b1", toSign, "per_2"); err != nil {
		t.Errorf("a lock is the signer's, not the link's: %v", err)
	}
}

func TestSlowFailuresDoNotLockAndSuccessResets(t *testing.T) {
	s := newSigner(t)
	id := s.must(noon, "b1", toSign)
	for range 4 {
		_, _ = s.answer(noon, "b1", id, false)
	}
	id = s.must(noon.Add(time.Hour), "b1", toSign)
	for range 5 {
		_, _ = s.answer(noon.Add(time.Hour), "b1", id, false)
	}
	id = s.must(noon.Add(time.Hour+time.Minute), "b1", toSign)
	fact, _ := s.answer(noon.Add(time.Hour+time.Minute), "b1", id, false)
	if fact.(*identityv1.AnswerRefused).GetLockedUntil() != nil {
		t.Error("locked by ten failures of which only six were within the hour")
	}
	if _, err := s.answer(noon.Add(time.Hour+time.Minute), "b1", id, true); err != nil {
		t.Fatal(err)
	}
	if s.state.GetFailures() != 0 || len(s.state.GetFailedAt()) != 0 || s.state.GetLocks() != 0 {
		t.Errorf("a success left %v", s.state)
	}
}

func TestLongestLockFromTheCeilingOn(t *testing.T) {
	s := newSigner(t)
	s.must(noon, "b1", toSign)
	s.state.Failures = 99
	fact, err := s.answer(noon, "b1", "chl_1", false)
	if err != nil || !fact.(*identityv1.AnswerRefused).GetLockedUntil().AsTime().Equal(noon.Add(30*24*time.Hour)) {
		t.Errorf("the hundredth failure led to %v, %v", fact, err)
	}
	s = newSigner(t)
	s.must(noon, "b1", toSign)
	s.state.Locks = 50
	for range 9 {
		s.state.FailedAt = append(s.state.FailedAt, timestamppb.New(noon))
	}
	fact, _ = s.answer(noon, "b1", "chl_1", false)
	if got := fact.(*identityv1.AnswerRefused).GetLockedUntil().AsTime(); !got.Equal(noon.Add(30 * 24 * time.Hour)) {
		t.Errorf("the fiftieth lock ends %s", got)
	}
}

func TestProof(t *testing.T) {
	proved := func(act identityv1.Purpose) *signer {
		s := newSigner(t)
		id := s.must(noon, "b1", act)
		if _, err := s.answer(noon, "b1", id, true); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, tt := range map[string]struct {
		of              identityv1.Purpose
		person, browser string
		act             identityv1.Purpose
		level           uint32
		after           time.Duration
		want            bool
	}{
		"same act":                               {toSign, "per_1", "b1", toSign, 1, 0, true},
		"until the last instant":                 {toSign, "per_1", "b1", toSign, 1, time.Hour - 1, true},
		"not after an hour":                      {toSign, "per_1", "b1", toSign, 1, time.Hour, false},
		"not in another browser":                 {toSign, "per_1", "b2", toSign, 1, 0, false},
		"not for somebody else":                  {toSign, "per_2", "b1", toSign, 1, 0, false},
		"not above its level":                    {toSign, "per_1", "b1", toSign, 2, 0, false},
		"nothing needed":                         {toSign, "per_1", "b1", toSign, 0, 0, true},
		"a new link's proof serves signing":      {toContinue, "per_1", "b1", toSign, 1, 0, true},
		"but not in another browser":             {toContinue, "per_1", "b2", toSign, 1, 0, false},
		"signing's proof does not serve a link":  {toSign, "per_1", "b1", toContinue, 1, 0, false},
		"and a new link's proof serves the next": {toContinue, "per_1", "b1", toContinue, 1, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			got := rules.Proof(proved(tt.of).state, tt.person, []byte(tt.browser), tt.act, tt.level, noon.Add(tt.after))
			if (got != nil) != tt.want {
				t.Errorf("proof %v, want %t", got, tt.want)
			}
		})
	}
}

func TestUnknownFactChangesNothing(t *testing.T) {
	s := newSigner(t)
	s.must(noon, "b1", toSign)
	before := proto.CloneOf(s.state)
	if diff := cmp.Diff(before, rules.Evolve(s.state, &timestamppb.Timestamp{}), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestLimitsNameWhatIsWrong(t *testing.T) {
	if err := rules.Defaults().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	if err := (rules.Limits{}).Validate(); err == nil {
		t.Error("no limits at all are accepted")
	}
}
