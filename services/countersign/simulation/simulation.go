// Package simulation runs the rules of all services against each other under one seed: a queue of events that duplicates, loses and
// delivers again, reorders, delays, kills handlers between any two effects and moves the clock; signers who open, verify with right
// and wrong codes, sign, decline, forward their mail or vanish; strangers who try the links; platforms that repeat, cancel, withdraw
// and reissue; a mail relay on bad days.
//
// Only the pure functions are the product's own. What stands around them here is the shells' order of effects, without transport:
// when a shell changes what it does because of a fact, so does its file here.
//
// After every step it is checked what is promised whatever happens (check.go). A failure names its seed, and the same seed with the
// same number of events plays it again.
package simulation

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Options says what is run.
type Options struct {
	Seed uint64
	// Events is how many events there are at least: when they are over no new request is made, and those that are open come to their end.
	Events int
	// broken names a protection that is taken away, to see that the checks notice. Empty takes none.
	broken breakage
}

// Result is what a run that kept all promises saw.
type Result struct {
	Events   int
	Requests int
	// Facts counts what was stated, by name; Ends how requests ended; Faults what was done to the services.
	Facts, Ends, Faults map[string]int
	// Lived is how much time passed by the simulated clock.
	Lived time.Duration
}

// Failure is a promise that was not kept.
type Failure struct {
	Seed    uint64
	Events  int // the run was to have
	Step    int // at which it happened
	Problem string
	Story   string // what was stated about the request in question, in order
}

// Error says which promise, and how to see it again.
func (f *Failure) Error() string {
	return fmt.Sprintf("simulation: %s\nat step %d of seed %d; again: go test ./services/countersign/simulation -run TestSimulation -seed %d -events %d\n%s",
		f.Problem, f.Step, f.Seed, f.Seed, f.Events, f.Story)
}

// begin is when every simulated world begins: a Monday, four weeks before clocks change in Europe.
var begin = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// Run plays a world until so many events have happened and everything has come to its end. The error is a *Failure.
func Run(o Options) (result Result, err error) {
	w := newWorld(o)
	defer func() {
		if p := recover(); p != nil {
			f, ours := p.(*Failure)
			if !ours {
				panic(fmt.Sprintf("seed %d, step %d: %v", o.Seed, w.steps, p))
			}
			err = f
		}
	}()
	w.play()
	return Result{
		Events: w.steps, Requests: w.made, Facts: w.facts, Ends: w.ends, Faults: w.faults, Lived: w.now.Sub(begin),
	}, nil
}

// breakage is a protection that a test takes away.
type breakage string

const (
	noExpectedSequence breakage = "transitions are recorded whatever was recorded before"
	noCommandIDs       breakage = "a repeated command is decided again"
	noAdmission        breakage = "signatures and cancellations do not look at each other"
	noPatience         breakage = "a signature is stated however late"
	noGeneration       breakage = "messages carry whatever token there is"
	noSettling         breakage = "whether an admitted signature was made is not asked"
	noCauseFirst       breakage = "the log takes facts in any order"
	noFolding          breakage = "the log does not look for what it has"
	noTimers           breakage = "timers are forgotten"
	noGrace            breakage = "a deadline ends a request whoever is at work"
	noAlternates       breakage = "escalations ask whom they asked before"
)

// world is everything there is.
type world struct {
	o   Options
	rng *rand.Rand
	now time.Time

	queue queue
	steps int
	made  int // requests
	// fuse is after how many effects the handler at work dies; 0 is never.
	fuse    int
	streams map[string]uint64 // newest sequence of each stream
	ledger  ledger
	// relayBack is until when the mail relay does not answer.
	relayBack time.Time

	facts, ends, faults map[string]int
}

func newWorld(o Options) *world {
	return &world{
		o: o, rng: rand.New(rand.NewPCG(o.Seed, o.Seed^0x9e3779b97f4a7c15)), now: begin, //nolint:gosec // a run is to be repeatable
		streams: map[string]uint64{}, ledger: newLedger(), facts: map[string]int{}, ends: map[string]int{}, faults: map[string]int{},
	}
}

// play runs until everything has come to its end.
func (w *world) play() {
	w.at(nil, w.now, w.newRequest)
	w.at(nil, w.now.Add(w.upTo(10*day)), w.weather)
	for {
		it := w.queue.pop()
		if it == nil {
			return
		}
		if it.at.After(w.now) {
			w.now = it.at
		}
		w.steps++
		it.run()
		if r := it.about; r != nil {
			if r.waiting--; r.waiting == 0 {
				w.retire(r)
			}
		}
	}
}

// over tells whether the world winds down.
func (w *world) over() bool { return w.steps >= w.o.Events }

// weather is what befalls everybody at once: the clock is moved, or the mail relay is away.
func (w *world) weather() {
	if w.over() {
		return
	}
	if w.oneIn(2) {
		w.faults["clock moved"]++
		w.now = w.now.Add(w.upTo(day))
	} else {
		w.faults["relay away"]++
		w.relayBack = w.now.Add(w.upTo(36 * time.Hour))
	}
	w.at(nil, w.now.Add(w.upTo(10*day)), w.weather)
}

// --- chance ---

const day = 24 * time.Hour

func (w *world) oneIn(n int) bool { return w.rng.IntN(n) == 0 }

func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d) + 1)) }

// soon is mostly short, and now and then up to d.
func (w *world) soon(d time.Duration) time.Duration {
	f := w.rng.Float64()
	return time.Duration(float64(d) * f * f * f * f)
}

func pick[T any](w *world, from ...T) T { return from[w.rng.IntN(len(from))] }

// clock is the time on the machine that decides: machines differ by up to a second, and what is decided may take up to 15 s to be
// recorded. What is decided is decided by the earlier time.
func (w *world) clock() time.Time {
	now := w.now.Add(w.upTo(2*time.Second) - time.Second)
	if w.oneIn(200) {
		w.faults["record slow"]++
		now = now.Add(-w.upTo(15 * time.Second))
	}
	return now
}

// --- failing ---

// fail ends the run: a promise was not kept.
func (w *world) fail(r *request, format string, args ...any) {
	f := &Failure{Seed: w.o.Seed, Events: w.o.Events, Step: w.steps, Problem: fmt.Sprintf(format, args...)}
	if r != nil {
		f.Problem = r.id + ": " + f.Problem
		f.Story = r.story()
	}
	panic(f)
}

// story tells what was stated about a request.
func (r *request) story() string {
	var b strings.Builder
	from := max(0, len(r.trail)-400)
	for _, e := range r.trail[from:] {
		fmt.Fprintf(&b, "  %s %-10s %4d %-10s %s {%v}\n", e.at.Format("01-02 15:04:05.000"), e.service, e.sequence, e.id, e.name(), e.fact)
	}
	return b.String()
}
