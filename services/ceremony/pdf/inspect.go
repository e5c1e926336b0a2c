package pdf

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"regexp"

	// Chosen as the one maintained PDF reader in Go with limits on what it decodes.
	"github.com/pdfcpu/pdfcpu/pkg/api"
	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/model"
	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

var encryptPattern = regexp.MustCompile(`/Encrypt[\x00\t\n\f\r ]*(?:\d|<<)`)

// limits of the reader. A field left zero would refuse everything, so all nine are set.
var limits = model.ResourceLimits{
	MaxStreamBytes: 32 << 20, MaxDecodeBytes: 64 << 20, MaxImagePixels: 50 << 20, MaxImageBytes: 128 << 20,
	MaxObjectCount: 100_000, MaxObjectStreamCount: 50_000, MaxObjectStreamFirst: 4 << 20, MaxXRefEntries: 100_000, MaxRecursionDepth: maxDepth,
}

// drawer draws page 1 of a document; the last check of an inspection.
type drawer func(pdf []byte, page, width int) (Image, error)

// inspect runs the checks in the order in which they cost. The error is a *Refusal.
func inspect(b []byte, draw drawer) (report Report, err error) {
	defer func() {
		if recover() != nil { // pdfcpu panics on some damaged files
			report, err = Report{}, Refuse(Broken)
		}
	}()
	received := sha256.Sum256(b)
	report = Report{PDF: b, Received: hex.EncodeToString(received[:])}
	if err := checkBytes(b, MaxBytes); err != nil {
		return Report{}, err
	}
	_, xrefErr := readXRefs(b)
	ctx, err := readAll(b, xrefErr != nil)
	if err != nil {
		return Report{}, err
	}
	s, root, err := check(ctx, &report)
	if err != nil {
		return Report{}, err
	}
	if xrefErr != nil {
		if s.signed {
			return Report{}, Refuse(BrokenSigned)
		}
		if report.PDF, err = rewrite(ctx, b); err != nil {
			return Report{}, Refuse(Broken)
		}
		report.Normalised = true
		if err := recheck(report.PDF, len(report.Pages)); err != nil {
			return Report{}, err
		}
	}
	if report.DocMDP = docMDP(ctx.XRefTable, root); report.DocMDP == 1 {
		return Report{}, Refuse(Locked)
	}
	// Validation changes what it reads, so it comes after everything that looks.
	if err := api.ValidateContext(ctx); err != nil {
		return Report{}, Refuse(Broken)
	}
	if _, err := draw(report.PDF, 1, 240); err != nil {
		return Report{}, err
	}
	digest := sha256.Sum256(report.PDF)
	report.Digest = hex.EncodeToString(digest[:])
	return report, nil
}

// check scans every object and the page tree of a file that was just read.
func check(ctx *model.Context, report *Report) (*scan, types.Dict, error) {
	s := &scan{xref: ctx.XRefTable}
	if err := s.run(); err != nil {
		return nil, nil, err
	}
	root, err := catalog(ctx)
	if err != nil {
		return nil, nil, err
	}
	report.Signed, report.Links, report.Form = s.signed, s.links, s.form
	report.Pages, err = listPages(ctx.XRefTable, root)
	return s, root, err
}

// recheck makes sure that a rewritten file is what it should be.
func recheck(b []byte, pages int) error {
	if _, err := readXRefs(b); err != nil {
		return Refuse(Broken)
	}
	ctx, err := readAll(b, false)
	if err != nil {
		return err
	}
	var again Report
	if _, _, err := check(ctx, &again); err != nil {
		return err
	}
	if len(again.Pages) != pages {
		return Refuse(Broken)
	}
	return nil
}

// checkBytes is what can be said without parsing.
func checkBytes(b []byte, limit int) error {
	if len(b) > limit {
		return Refuse(TooLarge)
	}
	if !bytes.Contains(b[:min(len(b), 1024)], []byte("%PDF-")) {
		return Refuse(NotPDF)
	}
	return nil
}

// read parses all objects of a file. The error is a *Refusal.
func read(b []byte) (*model.Context, error) {
	c := model.NewDefaultConfiguration()
	c.Offline, c.Optimize, c.ValidationMode, c.Limits = true, false, model.ValidationRelaxed, limits
	ctx, err := api.ReadContext(bytes.NewReader(b), c)
	if err != nil {
		if encryptPattern.Match(b) { // an unreadable encrypted file is refused for what its sender can change
			return nil, Refuse(Encrypted)
		}
		return nil, Refuse(Broken)
	}
	if ctx.Encrypt != nil || ctx.E != nil { // files with an empty user password open without a word
		return nil, Refuse(Encrypted)
	}
	if ctx.Root == nil {
		return nil, Refuse(Broken)
	}
	return ctx, nil
}

// readAll reads a file and makes sure that no object got lost: pdfcpu drops what it cannot parse (or what is nested too deep)
// without a word, and a viewer that does read it would show what nobody has checked. With repair it tries once more with the
// objects found by looking for them instead of by the cross references.
func readAll(b []byte, repair bool) (*model.Context, error) {
	ctx, err := read(b)
	if err == nil && lossless(ctx, b) {
		return ctx, nil
	}
	if err != nil && !repair {
		return nil, err
	}
	if repair {
		blind := append([]byte(nil), b...)
		if m := startPattern.FindAllIndex(blind, -1); m != nil {
			last := m[len(m)-1]
			copy(blind[last[0]:last[1]], bytes.Repeat([]byte{' '}, last[1]-last[0]))
		}
		ctx, again := read(blind)
		if again == nil && lossless(ctx, b) {
			return ctx, nil
		}
	}
	if err == nil {
		err = Refuse(Broken)
	}
	return nil, err
}

var (
	startPattern = regexp.MustCompile(`startxref\s+\d+`)
	nullPattern  = regexp.MustCompile(`^\d+\s+\d+\s+obj\s*null\s*endobj`)
)

// lossless says whether every object in use has been read.
func lossless(ctx *model.Context, b []byte) bool {
	for number, e := range ctx.Table {
		if e == nil || e.Free || e.Object != nil || e.ObjectStream != nil || number == 0 {
			continue
		}
		if e.Offset == nil || *e.Offset < 0 || *e.Offset >= int64(len(b)) || !nullPattern.Match(b[*e.Offset:min(int64(len(b)), *e.Offset+100)]) {
			return false
		}
	}
	return true
}

func catalog(ctx *model.Context) (types.Dict, error) {
	o, err := ctx.Dereference(*ctx.Root)
	if err != nil {
		return nil, Refuse(Broken)
	}
	root, ok := o.(types.Dict)
	if !ok {
		return nil, Refuse(Broken)
	}
	return root, nil
}
