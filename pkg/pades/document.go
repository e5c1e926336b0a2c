package pades

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strconv"

	// Chosen as the reader: Apache-2.0, bounded by limits on every dimension, and it keeps objects as written.
	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu"
	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/model"
	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 64 << 20

const (
	maxObjects = 100_000
	maxDepth   = 64
)

// document is one revision of a PDF, read and found clean.
type document struct {
	raw    []byte
	xref   int  // where the newest cross-reference section begins
	stream bool // that section is a stream, not a table
	ctx    *model.Context
	root   types.Dict
	pages  []page
	nodes  map[int]bool // object numbers of the page tree, pages included
	onPage map[int]int  // object number of an annotation: index of the first page that lists it
	fields []field
}

// The end of a clean file: startxref, one number, %%EOF, at most one line end.
var cleanEnd = regexp.MustCompile(`startxref[ \t]*(?:\r\n|\r|\n)([0-9]{1,10})[ \t]*(?:\r\n|\r|\n)%%EOF(?:\r\n|\r|\n)?$`)

var objectHeader = regexp.MustCompile(`^([0-9]{1,10})[ \t\r\n\f\x00]+([0-9]{1,5})[ \t\r\n\f\x00]+obj`)

// open reads raw and refuses what is encrypted, too large, or would need repair. It never panics, and keeps raw.
func open(raw []byte) (d *document, err error) {
	defer rescue(&err)
	d = &document{raw: raw}
	if err := d.locate(); err != nil {
		return nil, err
	}
	ctx, err := pdfcpu.ReadWithContext(context.Background(), bytes.NewReader(raw), readerConfig())
	if err != nil {
		return nil, d.whyUnreadable()
	}
	if ctx.Encrypt != nil {
		return nil, ErrEncrypted
	}
	if ctx.Root == nil || len(ctx.Table) > maxObjects {
		return nil, fmt.Errorf("%w: no catalog, or too many objects", ErrUnclean)
	}
	d.ctx = ctx
	if err := d.checkOffsets(); err != nil {
		return nil, err
	}
	root, ok := d.resolve(*ctx.Root).(types.Dict)
	if !ok {
		return nil, fmt.Errorf("%w: no catalog", ErrUnclean)
	}
	d.root = root
	if err := d.readPages(); err != nil {
		return nil, err
	}
	return d, d.readFields()
}

// rescue turns a panic of the reader, which malformed files can cause, into an error.
func rescue(err *error) {
	if recover() != nil {
		*err = fmt.Errorf("%w: the reader gave up", ErrUnclean)
	}
}

// readerConfig is built by hand: the reader's default would look for a folder in the home directory.
func readerConfig() *model.Configuration {
	return &model.Configuration{
		Reader15: true, Offline: true, ValidationMode: model.ValidationRelaxed, Eol: types.EolLF,
		Limits: model.ResourceLimits{
			MaxStreamBytes: 32 << 20, MaxDecodeBytes: 64 << 20, MaxImagePixels: 50 << 20, MaxImageBytes: 128 << 20,
			MaxObjectCount: maxObjects, MaxObjectStreamCount: maxObjects / 2, MaxObjectStreamFirst: 4 << 20,
			MaxXRefEntries: maxObjects, MaxRecursionDepth: maxDepth,
		},
	}
}

// locate checks the bytes a reader would otherwise repair in silence: the header at 0, the end, and where startxref points.
func (d *document) locate() error {
	switch {
	case len(d.raw) > MaxSize:
		return ErrTooLarge
	case !bytes.HasPrefix(d.raw, []byte("%PDF-")):
		return fmt.Errorf("%w: it does not begin with %%PDF-", ErrUnclean)
	}
	end := cleanEnd.FindSubmatch(d.raw[max(0, len(d.raw)-64):])
	if end == nil {
		return fmt.Errorf("%w: it does not end with startxref and %%%%EOF", ErrUnclean)
	}
	at, err := strconv.Atoi(string(end[1]))
	if err != nil || at >= len(d.raw) {
		return fmt.Errorf("%w: startxref points outside the file", ErrUnclean)
	}
	head := d.raw[at:min(len(d.raw), at+40)]
	d.xref, d.stream = at, objectHeader.Match(head)
	if !d.stream && !bytes.HasPrefix(head, []byte("xref")) {
		return fmt.Errorf("%w: startxref does not point at a cross-reference section", ErrUnclean)
	}
	return nil
}

// whyUnreadable tells a locked file from a broken one. The reader's own text may quote the document and is left out.
func (d *document) whyUnreadable() error {
	if bytes.Contains(d.raw, []byte("/Encrypt")) {
		return ErrEncrypted
	}
	return fmt.Errorf("%w: the reader refused it", ErrUnclean)
}

// checkOffsets makes sure that every object stands where the cross-reference says and that the reader understood it: an object which it
// skips, and another viewer shows, would escape every comparison.
func (d *document) checkOffsets() error {
	for number, e := range d.ctx.Table {
		if e == nil || e.Free {
			continue
		}
		if e.Offset == nil || *e.Offset == 0 { // in an object stream
			if _, err := d.ctx.Dereference(*types.NewIndirectRef(number, 0)); err != nil {
				return fmt.Errorf("%w: object %d could not be read", ErrUnclean, number)
			}
			continue
		}
		at := int(*e.Offset)
		if at < 0 || at >= len(d.raw) {
			return fmt.Errorf("%w: object %d lies outside the file", ErrUnclean, number)
		}
		head := objectHeader.FindSubmatch(d.raw[at:min(len(d.raw), at+40)])
		if head == nil {
			return fmt.Errorf("%w: object %d is not where the cross-reference says", ErrUnclean, number)
		}
		n, _ := strconv.Atoi(string(head[1]))
		g, _ := strconv.Atoi(string(head[2]))
		if n != number || e.Generation == nil || g != *e.Generation {
			return fmt.Errorf("%w: object %d is not where the cross-reference says", ErrUnclean, number)
		}
		if e.Object == nil && !isNull(d.raw[at+len(head[0]):]) {
			return fmt.Errorf("%w: object %d could not be read", ErrUnclean, number)
		}
	}
	return nil
}

func isNull(body []byte) bool {
	body = bytes.TrimLeft(body[:min(len(body), 64)], " \t\r\n\f\x00")
	return bytes.HasPrefix(body, []byte("null")) || bytes.HasPrefix(body, []byte("endobj"))
}

// resolve follows references. What is missing, free or cyclic is nil, like the null object.
func (d *document) resolve(o types.Object) types.Object {
	for range 8 {
		switch ref := o.(type) {
		case types.IndirectRef:
			o = d.object(ref)
		case *types.IndirectRef:
			o = d.object(*ref)
		default:
			return o
		}
	}
	return nil
}

func (d *document) object(ref types.IndirectRef) types.Object {
	e := d.ctx.Table[ref.ObjectNumber.Value()]
	if e == nil || e.Free || (e.Generation != nil && *e.Generation != ref.GenerationNumber.Value()) {
		return nil
	}
	o, err := d.ctx.Dereference(ref)
	if err != nil {
		return nil
	}
	return o
}

func (d *document) dict(o types.Object) types.Dict {
	dict, _ := d.resolve(o).(types.Dict)
	return dict
}

func (d *document) array(o types.Object) types.Array {
	array, _ := d.resolve(o).(types.Array)
	return array
}

func (d *document) name(o types.Object) string {
	name, _ := d.resolve(o).(types.Name)
	return string(name)
}

func (d *document) integer(o types.Object) (int, bool) {
	i, ok := d.resolve(o).(types.Integer)
	return int(i), ok
}

func (d *document) number(o types.Object) (float64, bool) {
	switch n := d.resolve(o).(type) {
	case types.Integer:
		return float64(n), true
	case types.Float:
		return float64(n), true
	}
	return 0, false
}

// text decodes a text string (UTF-16, UTF-8 or PDFDocEncoding); what is none is empty.
func (d *document) text(o types.Object) string {
	s, err := model.Text(d.resolve(o))
	if err != nil {
		return ""
	}
	return s
}

// bytes decodes a byte string.
func (d *document) bytes(o types.Object) []byte {
	switch s := d.resolve(o).(type) {
	case types.HexLiteral:
		b, err := s.Bytes()
		if err == nil {
			return b
		}
	case types.StringLiteral:
		b, err := types.Unescape(string(s))
		if err == nil {
			return b
		}
	}
	return nil
}
