package rules_test

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"countersign.dev/pkg/failure"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	"countersign.dev/services/identity/rules"
)

// history is the model: everything that happened, from which each promise is counted afresh.
type history struct {
	sent   []time.Time
	failed []time.Time
	tries  map[string]int
	used   map[string]bool
	newest string
	until  time.Time // locked until
	locks  int
}

// TestVerificationModel has random browsers ask and answer at random times and checks every fact against the spec's words.
func TestVerificationModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &signer{t: t, state: &identityv1.Verification{}}
		h := &history{tries: map[string]int{}, used: map[string]bool{}}
		now := noon
		browser := rapid.SampledFrom([]string{"b1", "b2"})
		act := rapid.SampledFrom([]identityv1.Purpose{toSign, toContinue})
		t.Repeat(map[string]func(*rapid.T){
			"time passes": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.Int64Range(1, int64(40*time.Minute)).Draw(t, "for")))
			},
			"a moment passes": func(t *rapid.T) { now = now.Add(15 * time.Second) },
			"start": func(t *rapid.T) {
				id, err := s.start(now, browser.Draw(t, "browser"), act.Draw(t, "act"), "per_1")
				h.started(t, id, now, err)
			},
			"answer": func(t *rapid.T) {
				if h.newest == "" {
					t.Skip("no code yet")
				}
				b := browser.Draw(t, "browser")
				same := string(s.state.GetChallenge().GetBrowser()) == b
				right := rapid.Bool().Draw(t, "right")
				fact, err := s.answer(now, b, h.newest, right)
				h.answered(t, s, b, fact, now, err, right && same)
			},
			"": func(t *rapid.T) {
				if n := int(s.state.GetFailures()); n > 100 {
					t.Fatalf("%d failures in a row", n)
				}
				if size := proto.Size(s.state); size > 16<<10 {
					t.Fatalf("the state has %d bytes", size)
				}
			},
		})
	})
}

func count(times []time.Time, now time.Time, window time.Duration) int {
	n := 0
	for _, at := range times {
		if at.After(now.Add(-window)) {
			n++
		}
	}
	return n
}

func (h *history) started(t *rapid.T, id string, now time.Time, err error) {
	locked := now.Before(h.until)
	full := count(h.sent, now, 30*time.Second) > 0 || count(h.sent, now, 10*time.Minute) >= 3 || count(h.sent, now, 24*time.Hour) >= 10
	if (err != nil) != (locked || full) {
		t.Fatalf("start: %v; locked %t, limits full %t", err, locked, full)
	}
	if err == nil {
		h.sent, h.newest = append(h.sent, now), id
	}
}

func (h *history) answered(t *rapid.T, s *signer, browser string, fact proto.Message, now time.Time, err error, right bool) {
	switch f := fact.(type) {
	case *identityv1.VerificationPassed:
		if !right || now.Before(h.until) || h.used[h.newest] || h.tries[h.newest] >= 5 || !now.Before(h.sent[len(h.sent)-1].Add(10*time.Minute)) {
			t.Fatalf("passed: right %t, %d tries, used %t", right, h.tries[h.newest], h.used[h.newest])
		}
		if rules.Proof(s.state, "per_1", []byte(browser), f.GetEvidence().GetPurpose(), 1, now) == nil {
			t.Fatal("passed without proof")
		}
		h.used[h.newest], h.failed, h.locks = true, nil, 0
	case *identityv1.AnswerRefused:
		if right {
			t.Fatal("the right code was refused")
		}
		h.tries[h.newest]++
		h.failed = append(h.failed, now)
		locks := count(h.failed, now, time.Hour) >= 10
		if h.tries[h.newest] > 5 || locks != (f.GetLockedUntil() != nil) {
			t.Fatalf("try %d, lock %v, want a lock: %t", h.tries[h.newest], f.GetLockedUntil(), locks)
		}
		if locks {
			h.until, h.failed = now.Add(15*time.Minute<<h.locks), nil
			h.locks++
			if !f.GetLockedUntil().AsTime().Equal(h.until) {
				t.Fatalf("locked until %s, want %s", f.GetLockedUntil().AsTime(), h.until)
			}
		}
	default:
		if !errors.Is(err, failure.IdentityLocked) && !errors.Is(err, failure.CodeExpired) {
			t.Fatalf("answer: %v", err)
		}
		if errors.Is(err, failure.IdentityLocked) != now.Before(h.until) {
			t.Fatalf("answer: %v, locked until %s at %s", err, h.until, now)
		}
	}
}
