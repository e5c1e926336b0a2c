package bench

import (
	"context"
	"sync"
	"testing"
)

// BenchmarkPath takes one subject alone, by 64 callers, so that a profile shows where its time goes:
//
//	make profile OF=resolve
func BenchmarkPath(b *testing.B) {
	w := newWorld(b, 1)
	subjects, _, _ := w.subjects()
	// All of Countersign runs only where it is what is looked at.
	whole := sync.OnceValue(func() *pipeline { return newPipeline(b) })
	for _, s := range append(subjects, newSubject("pipeline", func(ctx context.Context, call int) error { return whole().ask(ctx, call) })) {
		b.Run(metricWord(s.name), func(b *testing.B) {
			if s.prepare != nil {
				check(b, s.prepare(b.Context(), b.N))
			}
			b.ResetTimer()
			took, err := spread(context.WithoutCancel(b.Context()), callers[len(callers)-1], s.calls, b.N, s.do)
			check(b, err)
			s.calls += b.N
			b.ReportMetric(float64(b.N)/took.Seconds(), "calls/s")
		})
	}
}
