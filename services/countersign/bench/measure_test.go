package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"countersign.dev/pkg/clock"
)

// callers are how many ask at once.
var callers = []int{1, 8, 64}

// slice is about how long most subjects are measured in one round.
const slice = 100 * time.Millisecond

// subject is something whose rate is measured. do must be safe for concurrent use; call counts up from 0 over all rounds.
type subject struct {
	name string
	do   func(ctx context.Context, call int) error
	// prepare makes ready for this many more calls, outside the time that counts; nil for nothing to make ready.
	prepare func(ctx context.Context, calls int) error
	// most bounds the calls of one measurement; 0 is no bound.
	most int
	// slice is about how long one measurement takes.
	slice time.Duration

	// timed subjects keep how long each call took.
	timed bool

	calls int                   // made so far
	rates map[int][]float64     // calls per second, by callers, one a round
	took  map[int]time.Duration // by one call at that many callers, as last seen: how the next measurement is sized

	mu     sync.Mutex
	lasted map[int][]time.Duration // each call of a timed subject, by callers
}

// measure takes the rate of a subject once.
func (s *subject) measure(b *testing.B, at int) {
	b.Helper()
	n := 2 * at // the first time only finds out how many fill a slice
	if per := s.took[at]; per > 0 {
		n = max(n, int(s.slice/per))
	} else if s.most == 0 || s.most > 4*at {
		s.rate(b, at, n)
		n = max(n, int(s.slice/s.took[at]))
	}
	if s.most > 0 {
		n = max(min(n, s.most), at)
	}
	s.rates[at] = append(s.rates[at], s.rate(b, at, n))
}

// rate makes n calls by so many callers and returns how many went through a second.
func (s *subject) rate(b *testing.B, at, n int) float64 {
	b.Helper()
	if s.prepare != nil {
		if err := s.prepare(b.Context(), n); err != nil {
			b.Fatalf("prepare %s: %v", s.name, err)
		}
	}
	do := s.do
	if s.timed {
		do = s.clocked(at)
	}
	took, err := spread(b.Context(), at, s.calls, n, do)
	if err != nil {
		b.Fatalf("%s: %v", s.name, err)
	}
	s.calls += n
	s.took[at] = took / time.Duration(n)
	return float64(n) / took.Seconds()
}

// clocked is do, and notes how long it took.
func (s *subject) clocked(at int) func(context.Context, int) error {
	return func(ctx context.Context, call int) error {
		watch := clock.Stopwatch()
		err := s.do(ctx, call)
		took := watch()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lasted[at] = append(s.lasted[at], took)
		return err
	}
}

// spread makes the calls first to first+n-1 by so many callers at once, and returns how long all of them took together.
func spread(ctx context.Context, at, first, n int, do func(context.Context, int) error) (time.Duration, error) {
	var next, left atomic.Int64
	left.Store(int64(n))
	errs := make(chan error, at)
	var g sync.WaitGroup
	watch := clock.Stopwatch()
	for range at {
		g.Go(func() {
			for left.Add(-1) >= 0 {
				if err := do(ctx, first+int(next.Add(1)-1)); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	g.Wait()
	took := watch()
	select {
	case err := <-errs:
		return took, err
	default:
		return max(took, 1), nil
	}
}

func newSubject(name string, do func(context.Context, int) error) *subject {
	return &subject{name: name, do: do, slice: slice, rates: map[int][]float64{}, took: map[int]time.Duration{}, lasted: map[int][]time.Duration{}}
}

// median returns the middle of some numbers; 0 of none.
func median(of []float64) float64 {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// ratio is how a subject compares with a ceiling: the median over rounds of what each round shows, so that a moment in which the
// machine is busy counts for both; or of the medians, where they were not measured side by side.
func ratio(s, ceiling *subject, at int) float64 {
	if len(s.rates[at]) != len(ceiling.rates[at]) {
		return median(s.rates[at]) / median(ceiling.rates[at])
	}
	var all []float64
	for round, rate := range s.rates[at] {
		all = append(all, rate/ceiling.rates[at][round])
	}
	return median(all)
}

// multiplied returns a subject whose every rate is so many times that of s.
func multiplied(s *subject, name string, factor float64) *subject {
	t := newSubject(name, nil)
	for at, rates := range s.rates {
		for _, rate := range rates {
			t.rates[at] = append(t.rates[at], rate*factor)
		}
	}
	return t
}

// row is one subject with the ceilings it is compared with.
type row struct {
	subject  *subject
	ceilings []*subject
}

// ratios renders how subjects compare with their ceilings, and how they grow, as Markdown.
func ratios(rows []row) string {
	var out strings.Builder
	head(&out, "")
	for _, r := range rows {
		for _, c := range r.ceilings {
			fmt.Fprintf(&out, "| %s, of %s |", r.subject.name, c.name)
			for _, at := range callers {
				fmt.Fprintf(&out, " %.2f |", ratio(r.subject, c, at))
			}
			fmt.Fprintf(&out, " %s× |\n", number(growth(r.subject)))
		}
	}
	return out.String()
}

// rates renders how many went through a second.
func rates(rows []row) string {
	var out strings.Builder
	head(&out, "a second")
	for _, r := range rows {
		fmt.Fprintf(&out, "| %s |", r.subject.name)
		for _, at := range callers {
			fmt.Fprintf(&out, " %s |", number(median(r.subject.rates[at])))
		}
		fmt.Fprintf(&out, " %s× |\n", number(growth(r.subject)))
	}
	return out.String()
}

// times renders how long the calls of timed subjects took: the median, and what 1 of 100 exceeds.
func times(rows []row) string {
	var out strings.Builder
	head(&out, "p50 / p99 in ms")
	for _, r := range rows {
		if !r.subject.timed {
			continue
		}
		fmt.Fprintf(&out, "| %s |", r.subject.name)
		for _, at := range callers {
			fmt.Fprintf(&out, " %.2f / %.2f |", milliseconds(r.subject.lasted[at], 50), milliseconds(r.subject.lasted[at], 99))
		}
		fmt.Fprintf(&out, " |\n")
	}
	return out.String()
}

// milliseconds returns what so many of 100 calls took at most.
func milliseconds(of []time.Duration, percent int) float64 {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	return float64(sorted[(len(sorted)-1)*percent/100]) / float64(time.Millisecond)
}

func head(out *strings.Builder, corner string) {
	fmt.Fprintf(out, "| %s |", corner)
	for _, at := range callers {
		fmt.Fprintf(out, " %d %s |", at, plural(at))
	}
	fmt.Fprintf(out, " growth |\n|---|%s---:|\n", strings.Repeat("---:|", len(callers)))
}

// growth is how much more many callers get through than one does.
func growth(s *subject) float64 {
	return median(s.rates[callers[len(callers)-1]]) / median(s.rates[callers[0]])
}

func plural(n int) string {
	if n == 1 {
		return "caller"
	}
	return "callers"
}

func number(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v/100) + "00"
	case v >= 20:
		return fmt.Sprintf("%.0f", v)
	default:
		return fmt.Sprintf("%.1f", v)
	}
}
