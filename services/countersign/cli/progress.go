package cli

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	// progressbar: the bar of most Go command lines; knows its rate and when it will be done, and needs no goroutine.
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"countersign.dev/pkg/clock"
)

const (
	barEvery = 100 * time.Millisecond
	// lineEvery is how often a line tells how far it is where nobody watches a bar: in a log.
	lineEvery = 5 * time.Second
)

// progress shows how far something has come: by a bar on a terminal, by a line now and then elsewhere. It implements hotstate.Progress.
type progress struct {
	to   io.Writer
	unit string                   // of what, in the plural
	bar  *progressbar.ProgressBar // nil: lines

	mu            sync.Mutex
	what          string
	elapsed       func() time.Duration
	told          time.Duration
	read, expects uint64
}

func newProgress(to io.Writer, unit string) *progress {
	return &progress{to: to, unit: unit, elapsed: clock.Stopwatch()}
}

// terminal tells whether somebody reads along.
func terminal(w io.Writer) bool {
	file, is := w.(*os.File)
	return is && term.IsTerminal(int(file.Fd()))
}

// Begin starts to show; 0 is not known how many.
func (p *progress) Begin(what string, expects uint64) {
	p.what, p.expects = what, expects
	if terminal(p.to) {
		p.bar = progressbar.NewOptions64(int64(expects),
			progressbar.OptionSetWriter(p.to), progressbar.OptionSetDescription(what), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
			progressbar.OptionSetItsString(p.unit), progressbar.OptionFullWidth(), progressbar.OptionThrottle(barEvery),
			progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish())
	}
}

// Read shows that so many more messages were read.
func (p *progress) Read(messages int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.read += uint64(messages)
	p.expects = max(p.expects, p.read) // more were published meanwhile
	expects, now := p.expects, p.elapsed()
	if p.bar != nil {
		p.bar.ChangeMax64(int64(expects))
		_ = p.bar.Add(messages)
		return
	}
	if now-p.told >= lineEvery {
		p.told = now
		_, _ = fmt.Fprintf(p.to, "%s: %d of %d %s, %d %%, %s a second\n", p.what, p.read, expects, p.unit, 100*p.read/expects, number(int64(float64(p.read)/now.Seconds())))
	}
}

// end takes the bar away: what follows says how it ended.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}

// number writes a number with a space between thousands.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}
