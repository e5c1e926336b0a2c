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

func TestTable(t *testing.T) {
	ceiling, s := newSubject("echo", nil), newSubject("resolve", nil)
	for i, at := range callers {
		ceiling.rates[at] = []float64{1000, 500, 2000}
		s.rates[at] = []float64{500 * float64(i+1), 250 * float64(i+1), 100} // a ratio is taken round by round
	}
	want := `| a second, by | 1 caller | 8 callers | 64 callers | 64 against 1 |
|---|---:|---:|---:|---:|
| resolve | 250 | 500 | 750 | 3.0× |
| … of echo | 0.5× | 1× | 1.5× | |
`
	if got := table([]row{{s, []*subject{ceiling}}}); got != want {
		t.Errorf("table:\n%s\nwant\n%s", got, want)
	}
}
