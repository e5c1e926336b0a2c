package pdf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Config says how a Sandbox runs. The zero Config is good for production.
type Config struct {
	Size       int           // helpers at once; 1..32; 0 = one per CPU, at most 4. Each may use up to 512 MiB
	CacheDir   string        // for compiled code, 22 MB; made if missing, only this user may write to it; empty = DefaultCacheDir()
	JobLimit   time.Duration // wall time of one job; 0 = 15 s
	StartLimit time.Duration // wall time of a helper's start; 0 = 2 min, since without a warm cache PDFium must be compiled first
	Stderr     io.Writer     // what helpers print when they crash (it may show parts of a document); nil = discarded
}

// DefaultCacheDir is the place of compiled code when none is given.
func DefaultCacheDir() string {
	base, err := os.UserCacheDir()
	if err != nil {
		base = filepath.Join(os.TempDir(), fmt.Sprintf("countersign-%d", os.Getuid()))
	}
	return filepath.Join(base, "countersign", "pdfium")
}

// Sandbox reads documents in helper processes. It is safe for concurrent use.
type Sandbox struct {
	config Config
	slots  chan *slot
	starts chan struct{}   // one start at a time: the first one fills the cache for the others
	stop   context.Context //nolint:containedctx // ends what was started for no single job
	close  context.CancelFunc
}

// slot is the place of a helper, which may be empty.
type slot struct{ process *process }

// New returns a Sandbox. It starts nothing yet: call Warm, or let the first job do so.
func New(c Config) (*Sandbox, error) {
	if os.Getenv(helperVariable) != "" {
		return nil, errors.New("pdf: this process was started as a helper, but its main does not call RunHelperIfAsked first")
	}
	if c.Size == 0 {
		c.Size = min(runtime.NumCPU(), 4)
	}
	if c.JobLimit == 0 {
		c.JobLimit = 15 * time.Second
	}
	if c.StartLimit == 0 {
		c.StartLimit = 2 * time.Minute
	}
	if c.CacheDir == "" {
		c.CacheDir = DefaultCacheDir()
	}
	if c.Size < 1 || c.Size > 32 || c.JobLimit < 0 || c.StartLimit < 0 {
		return nil, fmt.Errorf("%w: size %d (1..32), job limit %s, start limit %s", ErrOptions, c.Size, c.JobLimit, c.StartLimit)
	}
	dir, err := filepath.Abs(c.CacheDir)
	if err != nil {
		return nil, fmt.Errorf("pdf: cache directory: %w", err)
	}
	if c.CacheDir = dir; os.MkdirAll(dir, 0o700) != nil {
		c.CacheDir = "" // a read-only image without a cache: slow starts, but it works
	}
	s := &Sandbox{config: c, slots: make(chan *slot, c.Size), starts: make(chan struct{}, 1)}
	s.stop, s.close = context.WithCancel(context.Background())
	for range c.Size {
		s.slots <- &slot{}
	}
	return s, nil
}

// Warm starts all helpers. After it has returned nil, jobs start at once; a service is ready only then.
func (s *Sandbox) Warm(ctx context.Context) error {
	for range s.config.Size {
		sl, err := s.take(ctx)
		if err != nil {
			return err
		}
		err = s.start(ctx, sl)
		s.slots <- sl
		if err != nil {
			return err
		}
	}
	return nil
}

// Close ends all helpers, the busy ones too (their jobs return ErrClosed), and waits for their end. It may be called twice.
func (s *Sandbox) Close() error {
	first := s.stop.Err() == nil
	s.close()
	if !first {
		return nil
	}
	for range s.config.Size {
		sl := <-s.slots // every job gives its slot back
		sl.empty()
	}
	return nil
}

// Inspect decides whether a document may be signed here. The error is a *Refusal when it may not be; anything else is our accident.
func (s *Sandbox) Inspect(ctx context.Context, document []byte) (Report, error) {
	res, err := s.job(ctx, request{Op: "inspect"}, document)
	if err != nil {
		return Report{}, err
	}
	report := res.Report
	if report.PDF = res.body; res.Same {
		report.PDF = document
	}
	return report, nil
}

// Prepare appends the signature pages to an inspected document that holds no signature, as an incremental update: the document
// given stays the start of the result, byte for byte, and the same input gives the same bytes. It returns a Box for each seat.
// A document that is signed already comes back unchanged with no boxes, since an added page would break its signatures.
func (s *Sandbox) Prepare(ctx context.Context, document []byte, o PrepareOptions) ([]byte, []Box, error) {
	if err := o.validate(); err != nil {
		return nil, nil, err
	}
	res, err := s.job(ctx, request{Op: "prepare", Options: o}, document)
	if err != nil {
		return nil, nil, err
	}
	if res.Same {
		return document, nil, nil
	}
	return res.body, res.Boxes, nil
}

// RenderPage draws a page (from 1) at most width pixels wide (MinWidth..MaxWidth), with its annotations and signatures.
// The error is a *Refusal when the page cannot be drawn, ErrNoPage when there is none.
func (s *Sandbox) RenderPage(ctx context.Context, document []byte, page, width int) (Image, error) {
	res, err := s.job(ctx, request{Op: "draw", Page: page, Width: width}, document)
	if err != nil {
		return Image{}, err
	}
	img := res.Image
	img.Bytes = res.body
	return img, nil
}

// PageText returns the text of a page (from 1) for reading aloud, at most 256 KiB; empty for a page of pictures alone.
// It is an aid: what is signed is the PDF.
func (s *Sandbox) PageText(ctx context.Context, document []byte, page int) (string, error) {
	res, err := s.job(ctx, request{Op: "text", Page: page}, document)
	return string(res.body), err
}

// job runs one request, once more if the helper died of something that need not be the document's fault.
func (s *Sandbox) job(ctx context.Context, req request, document []byte) (response, error) {
	switch {
	case len(document) == 0:
		return response{}, Refuse(NotPDF)
	case len(document) > maxPrepared || req.Op == "inspect" && len(document) > MaxBytes:
		return response{}, Refuse(TooLarge)
	}
	res, err := s.try(ctx, req, document)
	if errors.Is(err, errCrash) {
		res, err = s.try(ctx, req, document)
	}
	switch {
	case errors.Is(err, errCrash), errors.Is(err, errLimit):
		return response{}, Refuse(TooComplex)
	case err != nil:
		return response{}, err
	}
	return res, res.failure()
}

// maxPrepared leaves room for signature pages and signatures on top of the largest document.
const maxPrepared = MaxBytes + 8<<20

func (s *Sandbox) try(ctx context.Context, req request, document []byte) (response, error) {
	sl, err := s.take(ctx)
	if err != nil {
		return response{}, err
	}
	defer func() { s.slots <- sl }()
	if err := s.start(ctx, sl); err != nil {
		return response{}, err
	}
	res, err := sl.process.call(ctx, s.stop, s.config.JobLimit, req, document)
	if err != nil || res.Retire {
		sl.empty()
	}
	return res, err
}

func (s *Sandbox) take(ctx context.Context) (*slot, error) {
	if s.stop.Err() != nil {
		return nil, ErrClosed
	}
	select {
	case sl := <-s.slots:
		return sl, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.stop.Done():
		return nil, ErrClosed
	}
}

// start fills an empty slot with a warm helper. The errors of a helper that cannot start are no refusals.
func (s *Sandbox) start(ctx context.Context, sl *slot) error {
	if sl.process != nil {
		return nil
	}
	select {
	case s.starts <- struct{}{}:
		defer func() { <-s.starts }()
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stop.Done():
		return ErrClosed
	}
	p, err := startProcess(s.config.CacheDir, s.config.Stderr)
	if err != nil {
		return err
	}
	res, err := p.call(ctx, s.stop, s.config.StartLimit, request{Op: "warm"}, nil)
	switch {
	case errors.Is(err, errLimit), errors.Is(err, errCrash):
		return fmt.Errorf("pdf: helper does not start: %w (is RunHelperIfAsked called first in main?)", err)
	case err != nil:
		return err
	case res.Error != "":
		p.end(0)
		return fmt.Errorf("pdf: helper does not start: %s", res.Error)
	}
	sl.process = p
	return nil
}

func (sl *slot) empty() {
	if sl.process != nil {
		sl.process.end(0)
		sl.process = nil
	}
}

// failure is the error that an answer stands for, or nil.
func (r response) failure() error {
	switch {
	case r.Refused != "":
		if texts[r.Refused] == "" {
			return Refuse(TooComplex)
		}
		return Refuse(r.Refused)
	case r.Kind == "options":
		return fmt.Errorf("%w: %s", ErrOptions, r.Error)
	case r.Kind == "page":
		return ErrNoPage
	case r.Error != "":
		return errors.New(r.Error)
	}
	return nil
}
