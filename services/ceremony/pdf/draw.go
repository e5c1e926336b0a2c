package pdf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/klippa-app/go-pdfium" // chosen because PDFium runs in it as WebAssembly: no C library, a wall around the parser
	"github.com/klippa-app/go-pdfium/enums"
	"github.com/klippa-app/go-pdfium/requests"
	"github.com/klippa-app/go-pdfium/webassembly"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

const (
	guestPages    = 2048      // of 64 KiB: PDFium's whole memory is 128 MiB
	tallest       = 4         // height of a page image in widths; a longer page is drawn narrower
	maxTextBytes  = 256 << 10 // of one page
	instanceLimit = 30 * time.Second
)

// engine is PDFium, compiled once. Every job gets a fresh instance, so that no document can leave anything behind for the next.
type engine struct{ pool pdfium.Pool }

// newEngine compiles PDFium, or loads the compiled code from cacheDir ("" = no cache): 7 to 13 s of CPU against 0.1 to 0.4 s.
func newEngine(ctx context.Context, cacheDir string) (*engine, error) {
	config := wazero.NewRuntimeConfig().
		WithCoreFeatures(api.CoreFeaturesV2 | experimental.CoreFeaturesExceptionHandling). // the module uses both
		WithCloseOnContextDone(true).
		WithMemoryLimitPages(guestPages)
	if cacheDir != "" {
		cache, err := wazero.NewCompilationCacheWithDir(cacheDir)
		if err != nil {
			return nil, fmt.Errorf("pdf: compile cache: %w", err)
		}
		config = config.WithCompilationCache(cache)
	}
	pool, err := webassembly.Init(webassembly.Config{
		Context: ctx, MaxTotal: 1, RuntimeConfig: config,
		FSConfig: wazero.NewFSConfig(), // nothing is mounted; nil would mount all of /
		Stdout:   io.Discard, Stderr: io.Discard,
	})
	if err != nil {
		return nil, fmt.Errorf("pdf: start PDFium: %w", err)
	}
	return &engine{pool}, nil
}

// errTrap says that an instance fell over: out of memory, an illegal access. The process that saw it is not to be trusted with more.
var errTrap = errors.New("pdf: PDFium trapped")

// with runs do on an open document. Its error is a *Refusal, ErrNoPage, or errTrap.
func (e *engine) with(b []byte, page int, do func(inst pdfium.Pdfium, at requests.Page) error) (err error) {
	inst, err := e.pool.GetInstance(instanceLimit)
	if err != nil {
		return fmt.Errorf("%w: no instance: %w", errTrap, err)
	}
	defer func() {
		if recover() != nil {
			err = errTrap
		}
		if err != nil {
			_ = inst.Kill() // its state is unknown; closing it would call into it again
			return
		}
		_ = inst.Close()
	}()
	doc, err := inst.OpenDocument(&requests.OpenDocument{File: &b})
	if err != nil {
		return drawError(err)
	}
	count, err := inst.FPDF_GetPageCount(&requests.FPDF_GetPageCount{Document: doc.Document})
	if err != nil {
		return drawError(err)
	}
	if page < 1 || page > count.PageCount {
		return ErrNoPage
	}
	return do(inst, requests.Page{ByIndex: &requests.PageByIndex{Document: doc.Document, Index: page - 1}})
}

func drawError(err error) error {
	if s := err.Error(); strings.Contains(s, "wasm") || strings.Contains(s, "module closed") {
		return fmt.Errorf("%w: %w", errTrap, err)
	}
	return Refuse(Undrawable)
}

// draw makes a picture of a page (from 1), width pixels wide unless the page is taller than four times that.
func (e *engine) draw(b []byte, page, width int) (Image, error) {
	if width < MinWidth || width > MaxWidth {
		return Image{}, fmt.Errorf("%w: width %d, accepted are %d..%d pixels", ErrOptions, width, MinWidth, MaxWidth)
	}
	var out Image
	err := e.with(b, page, func(inst pdfium.Pdfium, at requests.Page) error {
		drawn, err := inst.RenderPageInPixels(&requests.RenderPageInPixels{
			Page: at, Width: width, Height: tallest * width,
			RenderFlags: enums.FPDF_RENDER_FLAG_ANNOT,
			RenderForm:  true, // signatures are form fields, which the flag above leaves out
		})
		if err != nil {
			return drawError(err)
		}
		defer drawn.Cleanup() // the pixels lie in the guest's memory until then
		out, err = encode(drawn.Result.RenderedImage)
		return err
	})
	return out, err
}

// text returns the text of a page in the order in which it was written, for reading aloud; it is not what is signed.
func (e *engine) text(b []byte, page int) (string, error) {
	var out string
	err := e.with(b, page, func(inst pdfium.Pdfium, at requests.Page) error {
		t, err := inst.GetPageText(&requests.GetPageText{Page: at})
		if err != nil {
			return drawError(err)
		}
		out = cleanText(t.Text)
		return nil
	})
	return out, err
}

// cleanText keeps line ends and what can be printed, within maxTextBytes.
func cleanText(s string) string {
	var b strings.Builder
	for _, r := range strings.ReplaceAll(s, "\r\n", "\n") {
		if b.Len() >= maxTextBytes {
			break
		}
		switch {
		case r == '\n' || r == '\r':
			b.WriteByte('\n')
		case r == '\t' || r == '\u00a0':
			b.WriteByte(' ')
		case r == 0xFFFE || r == 0x02: // PDFium's marks for a hyphen at a line's end
			b.WriteByte('-')
		case unicode.IsPrint(r):
			b.WriteRune(r)
		}
	}
	return b.String()
}
