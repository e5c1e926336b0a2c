package pdf

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"runtime/debug"

	"github.com/pdfcpu/pdfcpu/pkg/api"
)

// The helper's environment.
const (
	helperVariable = "COUNTERSIGN_HELPER" // what to be
	helperName     = "pdf"
	cacheVariable  = "COUNTERSIGN_HELPER_CACHE" // directory of compiled code; empty: none
)

// How a helper ends when it was the document that ended it.
const (
	exitTime   = 71
	exitMemory = 72
)

const (
	softMemory     = 256 << 20 // the garbage collector works harder from here on
	compileMemory  = 448 << 20 // as long as PDFium is being compiled
	retireMemory   = 320 << 20 // a helper that has grown so far is replaced after its job
	hardMemory     = 512 << 20 // and ends here
	cpuSecondsEach = 10        // of CPU a job
)

// RunHelperIfAsked turns this process into a PDF helper, and does not return, if a Sandbox has started it as one.
// Call it first thing in main and in TestMain of whatever uses a Sandbox; in any other process it does nothing.
func RunHelperIfAsked() {
	if os.Getenv(helperVariable) != helperName {
		return
	}
	out := os.Stdout
	os.Stdout = os.Stderr // a library that prints must not disturb the wire
	err := serve(os.Stdin, out, os.Getenv(cacheVariable))
	if err != nil && !errors.Is(err, io.EOF) {
		os.Exit(1)
	}
	os.Exit(0)
}

// serve answers requests until in ends.
func serve(in io.Reader, out io.Writer, cacheDir string) error {
	api.DisableConfigDir() // before anything else of pdfcpu: it would write to the home directory
	debug.SetMemoryLimit(compileMemory)
	guardProcess()
	h := &helper{cacheDir: cacheDir}
	r, w := bufio.NewReaderSize(in, 64<<10), bufio.NewWriterSize(out, 64<<10)
	for {
		var req request
		body, err := readMessage(r, &req)
		if err != nil {
			return err
		}
		allowCPU(cpuSecondsEach)
		stop := watchMemory()
		res := h.do(req, body)
		stop()
		res.Retire = res.Retire || residentMemory() > retireMemory
		if err := writeMessage(w, res, res.body); err != nil {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if res.Retire {
			return nil
		}
	}
}

type helper struct {
	cacheDir string
	engine   *engine
}

func (h *helper) do(req request, body []byte) response {
	if req.Op == "warm" {
		allowCPU(10 * cpuSecondsEach) // compiling takes 7 to 13 s of CPU, more on a slow machine
		engine, err := newEngine(context.Background(), h.cacheDir)
		if err != nil {
			return response{Error: err.Error(), Retire: true}
		}
		h.engine = engine
		debug.FreeOSMemory()
		debug.SetMemoryLimit(softMemory)
		return response{}
	}
	if h.engine == nil {
		return response{Error: "pdf: helper is not warm", Retire: true}
	}
	res, err := h.job(req, body)
	if err == nil {
		return res
	}
	return failed(err)
}

func (h *helper) job(req request, body []byte) (response, error) {
	switch req.Op {
	case "inspect":
		report, err := inspect(body, h.engine.draw)
		if err != nil {
			return response{}, err
		}
		res := response{Report: report, Same: !report.Normalised}
		if report.Normalised {
			res.body = report.PDF
		}
		return res, nil
	case "prepare":
		out, boxes, err := prepare(body, req.Options)
		if err != nil {
			return response{}, err
		}
		if boxes == nil {
			return response{Same: true}, nil
		}
		return response{Boxes: boxes, body: out}, nil
	case "draw":
		img, err := h.engine.draw(body, req.Page, req.Width)
		return response{Image: img, body: img.Bytes}, err
	case "text":
		text, err := h.engine.text(body, req.Page)
		return response{body: []byte(text)}, err
	default:
		return response{}, errors.New("pdf: unknown job")
	}
}

// failed tells apart whose fault an error is.
func failed(err error) response {
	var refusal *Refusal
	switch {
	case errors.Is(err, errTrap):
		return response{Refused: TooComplex, Retire: true}
	case errors.As(err, &refusal):
		return response{Refused: refusal.Reason}
	case errors.Is(err, ErrOptions):
		return response{Error: err.Error(), Kind: "options"}
	case errors.Is(err, ErrNoPage):
		return response{Error: err.Error(), Kind: "page"}
	default:
		return response{Error: err.Error()}
	}
}
