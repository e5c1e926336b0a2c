package proof

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"countersign.dev/pkg/eventlog"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token"
	"countersign.dev/services/token/rules"
	"countersign.dev/services/token/seatmodel"
)

const (
	strollers       = 4
	stepsOfARequest = 60
	restartEvery    = 700
	stranger        = 9 // a browser that comes only in the end
)

var strolled = flag.Int("steps", 10_000, "how many steps there are in TestSteps; ten times as many in make soak")

// TestSteps takes 10 000 random steps, a hundred thousand in make soak, over real servers: requests are made, links opened, used,
// rotated, revoked, moved to others, signed, declined, amended, cancelled and left to expire; what other services say comes twice, late
// and out of order; Redis is emptied, NATS restarted, and the clock moved. Each answer is what the rules say of what was stated before,
// each fact what the spec allows (seatmodel): never two sessions from one token, never a rotated or revoked token working, never a
// signer without a next step. In the end everything is told once more, and changes nothing.
func TestSteps(t *testing.T) {
	t.Parallel()
	steps := *strolled
	if soaking() {
		steps *= 10
	}
	var mu sync.Mutex
	done, facts := map[string]int{}, map[string]int{}
	t.Run("strollers", func(t *testing.T) {
		for range strollers {
			seed := rand.Uint64()
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				t.Parallel()
				s := newStroll(t, seed)
				s.run(steps / strollers)
				mu.Lock()
				defer mu.Unlock()
				for name, n := range s.done {
					done[name] += n
				}
				for name, n := range s.facts {
					facts[name] += n
				}
			})
		}
	})
	t.Logf("steps %v; facts %v", done, facts)
	for _, m := range moves {
		if done[m.name] == 0 {
			t.Errorf("no step was: %s", m.name)
		}
	}
	for _, name := range []string{
		"LinkIssued", "LinkRedeemed", "LinkResumed", "LinkReissued", "LinkRerouted", "LinkRevoked", "LinkSigned", "LinkDeclined", "LinkClosed", "LinkLapsed",
		"RequestCompleted", "RequestDeclined", "RequestCancelled", "RequestExpired", "RequestAmended",
	} {
		if facts[name] == 0 {
			t.Errorf("nothing was stated as %s", name)
		}
	}
}

func (s *stroll) run(steps int) {
	for n := 0; n < steps; {
		s.begin()
		rest := 8
		for i := 0; i < stepsOfARequest && n < steps && rest > 0; i++ {
			s.step(n)
			n++
			if s.calm && s.closed() {
				rest-- // a little after the end, too
			}
		}
		s.tokensAreOver()
		s.finish()
	}
	s.rewind()
}

func (s *stroll) closed() bool {
	return s.state.GetStatus() != signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS
}

// begin makes a request of up to three signers in up to two groups, twice.
func (s *stroll) begin() {
	s.episode = episode{number: s.number + 1, state: &tokenv1.Request{}, seats: map[string]*seatmodel.Seat{}, tokens: map[string][]string{}}
	r := request(fmt.Sprint("stroll ", s.number), []string{"strolled", "renewed"}[s.random.IntN(2)], 1+s.random.IntN(3))
	for i, signer := range r.GetSigners() {
		signer.Group = uint32(1 + s.random.IntN(2))
		signer.Alternates = []*signingv1.Person{{Name: "Stand-in", Email: fmt.Sprintf("alternate%d@example.com", i)}}
	}
	s.request = eventlog.DeriveID(s.place.ring, "req", tenant, r.GetReference())
	for range 2 {
		answer, err := s.platform.Create(platformOf(s.t.Context()), &signingv1.CreateRequest{Request: r})
		if err != nil || answer.GetRequest().GetId() != s.request {
			s.Fatalf("create: %v, %v", answer, err)
		}
	}
	s.settle(10 * time.Second)
	if len(s.order) == 0 {
		s.Fatal("no link was issued")
	}
}

// step takes one.
func (s *stroll) step(n int) {
	total := 0
	for _, m := range moves {
		total += m.weight
	}
	at := s.random.IntN(total)
	for _, m := range moves {
		if at -= m.weight; at >= 0 {
			continue
		}
		s.done[m.name]++
		link := s.order[s.random.IntN(len(s.order))]
		seat := s.seats[link]
		if seat.Generation == 0 {
			return // closed before its turn came
		}
		wait := 300 * time.Millisecond
		if n%restartEvery == restartEvery-1 {
			s.nats.Stop()
			var back sync.WaitGroup
			back.Go(s.serve)
			m.do(s, link, seat)
			back.Wait()
			wait = 15 * time.Second
			s.done["NATS restarts"]++
		} else {
			m.do(s, link, seat)
		}
		s.settle(wait)
		return
	}
}

// tokensAreOver tries every token of the request in a browser that nobody has seen.
func (s *stroll) tokensAreOver() {
	for _, link := range s.order {
		for _, text := range s.tokens[link] {
			seat := s.seats[link]
			want := rules.CheckToken(seat.Link, s.hash(text), s.browser(stranger), s.now())
			_, err := s.links.Redeem(s.ctx(), &tokenv1.RedeemRequest{Token: text, Browser: browserOf(stranger)})
			s.answers("in the end", err, want)
			s.settle(300 * time.Millisecond)
		}
	}
}

// finish ends a request: what was kept back is told, and time passes until no signature is being made any more.
func (s *stroll) finish() {
	for len(s.kept) > 0 {
		s.late("", nil)
	}
	s.clock.AdvanceTenant(tenant, 3*time.Minute)
	s.settle(15 * time.Second)
}

// ofTimers are facts that follow from the time alone: a start looks for deadlines that have passed, and what a reminder or an escalation
// did not do at its time, since somebody was at work or the deadline was over, it may do when it is told later.
var ofTimers = map[string]bool{
	"LinkReissued REISSUE_REASON_REMINDER": true, "LinkRerouted": true,
	"LinkLapsed": true, "LinkReissued": true, "LinkReissued REISSUE_REASON_AUTOMATIC": true, "LinkDeadlineMoved": true, "LinkClosed": true,
	"RequestCancelBegun": true, "RequestExpired": true,
}

// rewind has the service hear everything from the beginning, as after a restore: nothing is stated again.
func (s *stroll) rewind() {
	s.stop()
	for _, of := range []string{"ceremony", "delivery", "escalation", "reminder", token.Name} {
		if err := s.record.DeleteConsumer(s.t.Context(), eventlog.FactsStream(of), token.Name); err != nil {
			s.Fatal(err)
		}
	}
	s.provision()
	known := maps.Clone(s.facts)
	var err error
	if s.single, err = startSingle(s.t, s.place, s.peers); err != nil {
		s.Fatal(err)
	}
	s.settle(30 * time.Second)
	for name, n := range s.facts {
		if n > known[name] && !ofTimers[name] {
			s.Fatalf("told once more, and %s is stated %d times more", name, n-known[name])
		}
	}
}
