package identity_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/host/hosttest"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	"countersign.dev/services/identity"
)

const (
	tenant  = "acme"
	link    = "lnk_seat1"
	request = "req_lease"
	person  = "per_ada"
	browser = "a browser's own secret"
)

// world is identity over a real server, asked as the gateway asks it.
type world struct {
	*hosttest.World
	t      *testing.T
	clock  *clock.Manual
	client identityv1.IdentityServiceClient
}

func start(t *testing.T) *world {
	t.Helper()
	c := clock.NewManual(time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC))
	w := &world{World: hosttest.New(t, c, identity.Topology()), t: t, clock: c}
	s, err := identity.New(t.Context(), w.Host(identity.Name), identity.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	w.Serve(identity.Name, s.Register)
	w.Run(s)
	conn, err := w.Host("gateway").Peers.Dial(identity.Name)
	if err != nil {
		t.Fatal(err)
	}
	w.client = identityv1.NewIdentityServiceClient(conn)
	return w
}

func (w *world) challenge(browser string, act identityv1.Purpose) (*identityv1.ChallengeView, error) {
	resp, err := w.client.StartChallenge(w.t.Context(), &identityv1.StartChallengeRequest{
		Tenant: tenant, LinkId: link, RequestId: request, Browser: browser, Purpose: act, PersonId: person,
	})
	return resp.GetChallenge(), err
}

func (w *world) mustChallenge() string {
	w.t.Helper()
	view, err := w.challenge(browser, identityv1.Purpose_PURPOSE_SIGN)
	if err != nil {
		w.t.Fatal(err)
	}
	return view.GetId()
}

func (w *world) render(challenge string) (string, error) {
	resp, err := w.client.RenderCode(w.t.Context(), &identityv1.RenderCodeRequest{Tenant: tenant, LinkId: link, ChallengeId: challenge})
	return resp.GetCode(), err
}

func (w *world) mustRender(challenge string) string {
	w.t.Helper()
	code, err := w.render(challenge)
	if err != nil {
		w.t.Fatal(err)
	}
	return code
}

func (w *world) answer(browser, challenge, code string) error {
	_, err := w.client.Answer(w.t.Context(), &identityv1.AnswerRequest{
		Tenant: tenant, LinkId: link, Browser: browser, ChallengeId: challenge, Code: code,
	})
	return err
}

func (w *world) check(browser string, act identityv1.Purpose, level uint32) *identityv1.CheckResponse {
	w.t.Helper()
	resp, err := w.client.Check(w.t.Context(), &identityv1.CheckRequest{
		Tenant: tenant, LinkId: link, Browser: browser, Purpose: act, Level: level, PersonId: person,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return resp
}

// wrong returns a code that is not the right one.
func wrong(right string) string {
	if right == "000000" {
		return "000001"
	}
	return "000000"
}

func refused(t *testing.T, err error, want *failure.Error) *failure.Error {
	t.Helper()
	got := failure.From(err)
	if got == nil || !errors.Is(got, want) {
		t.Fatalf("error %v, want %s", err, want.Code)
	}
	return got
}

func TestASignerIsVerified(t *testing.T) {
	w := start(t)
	if c := w.check(browser, identityv1.Purpose_PURPOSE_SIGN, 1); c.GetSatisfied() || c.GetMissing() != identityv1.Method_METHOD_EMAIL_CODE || c.GetChallenge() != nil {
		t.Fatalf("before anything: %v", c)
	}
	id := w.mustChallenge()
	c := w.check(browser, identityv1.Purpose_PURPOSE_SIGN, 1)
	if c.GetChallenge().GetId() != id || c.GetChallenge().GetTriesLeft() != 5 {
		t.Errorf("the open challenge is shown as %v", c.GetChallenge())
	}
	if other := w.check("another browser of theirs", identityv1.Purpose_PURPOSE_SIGN, 1); other.GetChallenge() != nil {
		t.Error("another browser sees the challenge")
	}
	code := w.mustRender(id)
	if again := w.mustRender(id); again != code {
		t.Errorf("the same challenge rendered %s, then another code", code)
	}
	refused(t, w.answer(browser, id, "12345"), failure.CodeWrong)
	refused(t, w.answer(browser, id, wrong(code)), failure.CodeWrong)
	if left := w.check(browser, identityv1.Purpose_PURPOSE_SIGN, 1).GetChallenge().GetTriesLeft(); left != 4 {
		t.Errorf("%d tries left after a slip and a wrong code, want 4", left)
	}
	if err := w.answer(browser, id, " "+code[:3]+" - "+code[3:]+" "); err != nil {
		t.Fatalf("the right code with spaces and a dash: %v", err)
	}
	if c := w.check(browser, identityv1.Purpose_PURPOSE_SIGN, 1); !c.GetSatisfied() || c.GetEvidence().GetPersonId() != person || c.GetEvidence().GetLevel() != 1 {
		t.Errorf("after the right code: %v", c)
	}
	if c := w.check(browser, identityv1.Purpose_PURPOSE_SIGN, 2); c.GetSatisfied() || c.GetMissing() != identityv1.Method_METHOD_UNSPECIFIED {
		t.Errorf("a higher level: %v", c)
	}
	// Used: it is good for nothing more (T16), not even for being shown.
	refused(t, w.answer(browser, id, code), failure.CodeExpired)
	_, err := w.render(id)
	refused(t, err, failure.CodeExpired)
}

func TestASecondCodeTooSoon(t *testing.T) {
	w := start(t)
	w.mustChallenge()
	w.clock.Advance(10 * time.Second)
	_, err := w.challenge(browser, identityv1.Purpose_PURPOSE_SIGN)
	if f := refused(t, err, failure.CodeTooSoon); f.RetryAfter != 20*time.Second {
		t.Errorf("wait %s, want 20 s", f.RetryAfter)
	}
}

// Security T16: a code serves its own session, request and time.
func TestACodeServesOnlyWhatItWasSentFor(t *testing.T) {
	w := start(t)
	id := w.mustChallenge()
	code := w.mustRender(id)
	refused(t, w.answer("some other browser", id, code), failure.CodeWrong)
	_, err := w.client.Answer(t.Context(), &identityv1.AnswerRequest{Tenant: tenant, LinkId: "lnk_other", Browser: browser, ChallengeId: id, Code: code})
	refused(t, err, failure.CodeExpired)
	_, err = w.client.Answer(t.Context(), &identityv1.AnswerRequest{Tenant: "rival", LinkId: link, Browser: browser, ChallengeId: id, Code: code})
	refused(t, err, failure.CodeExpired)
	if left := w.check(browser, identityv1.Purpose_PURPOSE_SIGN, 1).GetChallenge().GetTriesLeft(); left != 4 {
		t.Errorf("%d tries left, want the other browser's try counted", left)
	}
	w.clock.Advance(10 * time.Minute)
	refused(t, w.answer(browser, id, code), failure.CodeExpired)
	_, err = w.render(id)
	refused(t, err, failure.CodeExpired)

	next := w.mustChallenge()
	refused(t, w.answer(browser, id, code), failure.CodeExpired)
	if err := w.answer(browser, next, w.mustRender(next)); err != nil {
		t.Fatal(err)
	}
	if w.check(browser, identityv1.Purpose_PURPOSE_CONTINUE, 1).GetSatisfied() {
		t.Error("what was proved for signing serves to get a new link")
	}
	if w.check("some other browser", identityv1.Purpose_PURPOSE_SIGN, 1).GetSatisfied() {
		t.Error("what was proved here serves another browser")
	}
}

// Security T15: of twenty answers at once at most five are judged and one passes.
func TestAnswersAtOnce(t *testing.T) {
	w := start(t)
	for round := range 4 {
		w.clock.Advance(25 * time.Hour)
		id := w.mustChallenge()
		code := w.mustRender(id)
		before := len(w.Facts(identity.Name, "fact.identity.>"))
		var passed, judged int
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				try := wrong(code)
				if i%4 == round {
					try = code
				}
				err := w.answer(browser, id, try)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					passed++
				}
			})
		}
		wg.Wait()
		judged = len(w.Facts(identity.Name, "fact.identity.>")) - before
		if judged > 5 || judged < 1 || passed > 1 {
			t.Errorf("%d answers judged, %d passed; want at most 5 and 1", judged, passed)
		}
	}
}

// Security T13: guesses stop at five a challenge and ten in an hour; new codes reset nothing, and there is no Redis to empty.
func TestGuessingIsLockedOut(t *testing.T) {
	w := start(t)
	var guesses int
	var locked *failure.Error
	for range 6 {
		id := w.mustChallenge()
		code := w.mustRender(id)
		for i := range 7 {
			err := w.answer(fmt.Sprintf("browser %d of many machines", i), id, code)
			if f := failure.From(err); errors.Is(f, failure.IdentityLocked) {
				locked = f
			}
			if err == nil {
				t.Fatal("a guess from elsewhere passed")
			}
		}
		guesses += 5
		if locked != nil {
			break
		}
		w.clock.Advance(30 * time.Second)
	}
	if locked == nil || guesses != 10 || locked.RetryAfter != 15*time.Minute {
		t.Fatalf("locked %v after %d guesses, want 15 min after 10", locked, guesses)
	}
	if n := len(w.Facts(identity.Name, "fact.identity.>")); n != 2+10 {
		t.Errorf("%d facts, want two challenges and ten refusals", n)
	}
	w.NATS.Restart()
	if c := w.check(browser, identityv1.Purpose_PURPOSE_SIGN, 1); c.GetLockedUntil() == nil {
		t.Error("not locked after a restart of the record")
	}
	_, err := w.challenge(browser, identityv1.Purpose_PURPOSE_SIGN)
	refused(t, err, failure.IdentityLocked)
	w.clock.Advance(15 * time.Minute)
	id := w.mustChallenge()
	if err := w.answer(browser, id, w.mustRender(id)); err != nil {
		t.Errorf("after the lock: %v", err)
	}
}

// What is stored and logged holds neither codes nor browsers.
func TestNothingSecretIsKept(t *testing.T) {
	w := start(t)
	id := w.mustChallenge()
	code := w.mustRender(id)
	_ = w.answer(browser, id, wrong(code))
	if err := w.answer(browser, id, code); err != nil {
		t.Fatal(err)
	}
	for _, f := range w.Facts(identity.Name, "fact.identity.>") {
		if bytes.Contains(f.Bytes, []byte(code)) || bytes.Contains(f.Bytes, []byte(browser)) {
			t.Errorf("%s holds a secret", f.Name())
		}
		if f.Record.GetRequestId() != request || f.Record.GetActor().GetRef() != person {
			t.Errorf("%s is recorded for %s by %v", f.Name(), f.Record.GetRequestId(), f.Record.GetActor())
		}
		if s := proto.Size(f.Record); s > 4<<10 {
			t.Errorf("%s has %d bytes", f.Name(), s)
		}
	}
	if logs := w.Logs.String(); strings.Contains(logs, code) || strings.Contains(logs, browser) {
		t.Error("a log line holds a secret")
	}
}

func TestDefaultsAreTheFlagsDefaults(t *testing.T) {
	var c identity.Config
	p, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse(nil); err != nil {
		t.Fatal(err)
	}
	if c != identity.Defaults() {
		t.Errorf("flags give %+v, want %+v", c, identity.Defaults())
	}
	if err := (identity.Config{}).Validate(); err == nil {
		t.Error("no settings at all are accepted")
	}
}
