package bench

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/server"
	"countersign.dev/services/ceremony/pdf"
)

// sides is how often everything but the whole way is measured in a round, one after the other: each time gives one ratio.
const sides = 5

// budget is how long rounds may begin, setting up included.
const budget = 100 * time.Second

func TestMain(m *testing.M) {
	pdf.RunHelperIfAsked()                       // documents are read in a copy of this program
	server.Memory(slog.New(slog.DiscardHandler)) // as every program of ours does
	os.Exit(m.Run())
}

// BenchmarkCountersign takes one round a turn: every subject at every number of callers, then the way from intake to mail server.
// It prints rates and ratios as a table, and reports the ratios. Run it for a number of rounds: -benchtime 5x.
func BenchmarkCountersign(b *testing.B) {
	watch := clock.Stopwatch()
	w := newWorld(b, 1)
	subjects, rows, published := w.subjects()
	p := newPipeline(b)
	whole := newSubject("**requests, intake to mail server**", p.ask)
	whole.most, whole.slice = 64, 3*time.Second
	_, err := spread(b.Context(), 2, whole.calls, 4, whole.do) // the first draw on cold caches
	check(b, err)
	whole.calls += 4
	before, err := p.stored()
	check(b, err)
	asked := p.asked.Load()
	rounds := 0
	for b.Loop() {
		if watch() > budget {
			continue // a busy machine: what was measured so far counts
		}
		rounds++
		for _, at := range callers {
			for range sides {
				for _, s := range subjects {
					s.measure(b, at)
				}
			}
			whole.measure(b, at)
		}
	}
	after, err := p.stored()
	check(b, err)
	each := float64(after-before) / float64(p.asked.Load()-asked)
	rows = append(rows, row{whole, nil}, row{multiplied(whole, "**the same in stored messages**", each), []*subject{published}})
	fmt.Fprintf(os.Stdout, "\n\n%s\n%s\n%s\n%d rounds in %s, medians; %d CPUs; a redemption is %d bytes, a request %.0f stored messages.\n\n",
		ratios(rows), rates(rows), times(rows), rounds, watch().Round(time.Second), runtime.GOMAXPROCS(0), len(w.sample.Data), each)
	report(b, rows)
}

// report hands the ratios to what compares runs.
func report(b *testing.B, rows []row) {
	for _, r := range rows {
		for _, c := range r.ceilings {
			for _, at := range callers {
				b.ReportMetric(ratio(r.subject, c, at), metric(r.subject.name, c.name, at))
			}
		}
	}
	b.ReportMetric(0, "ns/op") // a round is no operation
}

// metric names a ratio in one word, as testing wants it.
func metric(subject, ceiling string, at int) string {
	return fmt.Sprintf("%s/%s@%d", metricWord(subject), metricWord(ceiling), at)
}

func metricWord(name string) string {
	return strings.NewReplacer("*", "", ",", "", "… ", "", " ", "-").Replace(name)
}
