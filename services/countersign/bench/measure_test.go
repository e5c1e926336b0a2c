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
const slice = 300 * time.Millisecond

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

	calls int                   // made so far
	rates map[int][]float64     // calls per second, by callers, one a round
	took  map[int]time.Duration // by one call at that many callers, as last seen: how the next measurement is sized
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
	took, err := spread(b.Context(), at, s.calls, n, s.do)
	if err != nil {
		b.Fatalf("%s: %v", s.name, err)
	}
	s.calls += n
	s.took[at] = took / time.Duration(n)
	return float64(n) / took.Seconds()
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
	return &subject{name: name, do: do, slice: slice, rates: map[int][]float64{}, took: map[int]time.Duration{}}
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

// ratio is the median over rounds of how a subject compares with a ceiling in the same round.
func ratio(s, ceiling *subject, at int) float64 {
	var all []float64
	for round, rate := range s.rates[at] {
		all = append(all, rate/ceiling.rates[at][round])
	}
	return median(all)
}

// row is one subject with the ceilings it is compared with.
type row struct {
	subject  *subject
	ceilings []*subject
}

// times returns a subject whose every rate is so many times that of s.
func times(s *subject, name string, factor float64) *subject {
	t := newSubject(name, nil)
	for at, rates := range s.rates {
		for _, rate := range rates {
			t.rates[at] = append(t.rates[at], rate*factor)
		}
	}
	return t
}

// table renders rates, growth and ratios as Markdown.
func table(rows []row) string {
	var out strings.Builder
	out.WriteString("| a second, by |")
	for _, at := range callers {
		fmt.Fprintf(&out, " %d %s |", at, plural(at))
	}
	fmt.Fprintf(&out, " %d against %d |\n|---|%s---:|\n", callers[len(callers)-1], callers[0], strings.Repeat("---:|", len(callers)))
	for _, r := range rows {
		fmt.Fprintf(&out, "| %s |", r.subject.name)
		for _, at := range callers {
			fmt.Fprintf(&out, " %s |", number(median(r.subject.rates[at])))
		}
		fmt.Fprintf(&out, " %s× |\n", number(ratio64(r.subject)))
		for _, c := range r.ceilings {
			fmt.Fprintf(&out, "| … of %s |", c.name)
			for _, at := range callers {
				fmt.Fprintf(&out, " %s |", share(ratio(r.subject, c, at)))
			}
			out.WriteString(" |\n")
		}
	}
	return out.String()
}

// ratio64 is how much more many callers get through than one does.
func ratio64(s *subject) float64 {
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

func share(v float64) string { return fmt.Sprintf("%.2g×", v) }
