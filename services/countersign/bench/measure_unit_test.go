package bench

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestMedian(t *testing.T) {
	for want, of := range map[float64][]float64{0: nil, 3: {9, 1, 3}, 2.5: {1, 2, 3, 4}} {
		if got := median(of); got != want {
			t.Errorf("median(%v) = %v", of, got)
		}
	}
}

func TestSpreadMakesEachCallOnce(t *testing.T) {
	var mu sync.Mutex
	seen := map[int]int{}
	if _, err := spread(t.Context(), 8, 100, 1000, func(_ context.Context, call int) error {
		mu.Lock()
		defer mu.Unlock()
		seen[call]++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for call := 100; call < 1100; call++ {
		if seen[call] != 1 {
			t.Fatalf("call %d was made %d times", call, seen[call])
		}
	}
	if len(seen) != 1000 {
		t.Errorf("%d calls", len(seen))
	}
	broken := errors.New("broken")
	if _, err := spread(t.Context(), 8, 0, 1000, func(context.Context, int) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("a failing call: %v", err)
	}
}

func TestTables(t *testing.T) {
	ceiling, s := newSubject("echo", nil), newSubject("resolve", nil)
	for i, at := range callers {
		ceiling.rates[at] = []float64{1000, 500, 2000}
		s.rates[at] = []float64{500 * float64(i+1), 250 * float64(i+1), 100} // a ratio is taken round by round
	}
	for got, want := range map[string]string{
		ratios([]row{{s, []*subject{ceiling}}}): `|  | 1 caller | 8 callers | 64 callers | growth |
|---|---:|---:|---:|---:|
| resolve, of echo | 0.50 | 1.00 | 1.50 | 3.0× |
`,
		rates([]row{{s, nil}}): `| a second | 1 caller | 8 callers | 64 callers | growth |
|---|---:|---:|---:|---:|
| resolve | 250 | 500 | 750 | 3.0× |
`,
	} {
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	few := newSubject("few", nil)
	few.rates[1] = []float64{500}
	if got := ratio(few, ceiling, 1); got != 0.5 {
		t.Errorf("measured apart: %v", got)
	}
}
