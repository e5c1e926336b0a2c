package pdf

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"sort"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/model"
	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

// emitter writes objects and their cross references after what buf holds already. The same calls give the same bytes.
type emitter struct {
	buf     *bytes.Buffer
	entries map[int]place
}

type place struct {
	offset     int
	generation int
}

func newEmitter(buf *bytes.Buffer) *emitter { return &emitter{buf: buf, entries: map[int]place{}} }

// object writes one indirect object. Strings and stream data stand as they were read.
func (e *emitter) object(number, generation int, o types.Object) error {
	e.entries[number] = place{e.buf.Len(), generation}
	fmt.Fprintf(e.buf, "%d %d obj\n", number, generation)
	switch o := o.(type) {
	case types.StreamDict:
		d, ok := o.Dict.Clone().(types.Dict)
		if !ok {
			return fmt.Errorf("pdf: stream %d has no dictionary", number)
		}
		d["Length"] = types.Integer(len(o.Raw))
		e.buf.WriteString(d.PDFString())
		e.buf.WriteString("\nstream\n")
		e.buf.Write(o.Raw)
		e.buf.WriteString("\nendstream")
	case nil:
		e.buf.WriteString("null")
	default:
		e.buf.WriteString(o.PDFString())
	}
	e.buf.WriteString("\nendobj\n")
	return nil
}

// table ends the section as a cross-reference table with its trailer.
func (e *emitter) table(trailer types.Dict, full bool) {
	start := e.buf.Len()
	e.buf.WriteString("xref\n")
	if full {
		e.buf.WriteString("0 1\n0000000000 65535 f \n")
	}
	for _, run := range e.runs() {
		fmt.Fprintf(e.buf, "%d %d\n", run[0], len(run))
		for _, n := range run {
			fmt.Fprintf(e.buf, "%010d %05d n \n", e.entries[n].offset, e.entries[n].generation)
		}
	}
	fmt.Fprintf(e.buf, "trailer\n%s\nstartxref\n%d\n%%%%EOF\n", trailer.PDFString(), start)
}

// stream ends the section as a cross-reference stream, which is object number.
func (e *emitter) stream(number int, trailer types.Dict) error {
	start := e.buf.Len()
	e.entries[number] = place{start, 0}
	var rows []byte
	var index types.Array
	for _, run := range e.runs() {
		index = append(index, types.Integer(run[0]), types.Integer(len(run)))
		for _, n := range run {
			p := e.entries[n]
			rows = append(rows, 1, byte(p.offset>>24), byte(p.offset>>16), byte(p.offset>>8), byte(p.offset), byte(p.generation>>8), byte(p.generation))
		}
	}
	trailer["Type"], trailer["W"], trailer["Index"] = types.Name("XRef"), types.Array{types.Integer(1), types.Integer(4), types.Integer(2)}, index
	if err := e.object(number, 0, types.StreamDict{Dict: trailer, Raw: rows}); err != nil {
		return err
	}
	fmt.Fprintf(e.buf, "startxref\n%d\n%%%%EOF\n", start)
	return nil
}

// runs returns the object numbers written, ascending, cut where one is missing.
func (e *emitter) runs() [][]int {
	all := make([]int, 0, len(e.entries))
	for n := range e.entries {
		all = append(all, n)
	}
	sort.Ints(all)
	var runs [][]int
	for i, n := range all {
		if i == 0 || n != all[i-1]+1 {
			runs = append(runs, nil)
		}
		runs[len(runs)-1] = append(runs[len(runs)-1], n)
	}
	return runs
}

// fileID returns the two parts of a trailer's ID: the first stays with the document, the second changes with its content.
func fileID(old types.Array, content ...[]byte) types.Array {
	h := sha256.New()
	for _, c := range content {
		h.Write(c)
	}
	fresh := types.HexLiteral(fmt.Sprintf("%x", h.Sum(nil)[:16]))
	if len(old) == 2 {
		switch old[0].(type) {
		case types.HexLiteral, types.StringLiteral:
			return types.Array{old[0], fresh}
		}
	}
	return types.Array{fresh, fresh}
}

// rewrite writes the objects that pdfcpu could make out of a damaged file as a clean file with one cross-reference table.
// Nothing is decoded, dropped or renumbered but the containers that the new table replaces. ctx must not have been validated.
func rewrite(ctx *model.Context, original []byte) ([]byte, error) {
	version := "1.7"
	if ctx.HeaderVersion != nil {
		version = ctx.HeaderVersion.String()
	}
	var buf bytes.Buffer
	fmt.Fprintf(&buf, "%%PDF-%s\n%%\xe2\xe3\xcf\xd3\n", version)
	e := newEmitter(&buf)
	s := &scan{xref: ctx.XRefTable}
	last := 0
	for _, number := range numbers(ctx.XRefTable) {
		if number == 0 {
			continue
		}
		o, err := s.object(number)
		if err != nil {
			return nil, err
		}
		if o == nil || container(o) {
			continue
		}
		if sd, ok := o.(*types.StreamDict); ok {
			o = *sd
		}
		if err := e.object(number, generation(ctx.XRefTable, number), o); err != nil {
			return nil, err
		}
		last = number
	}
	trailer := types.Dict{"Size": types.Integer(last + 1), "Root": *ctx.Root, "ID": fileID(ctx.ID, original)}
	if ctx.Info != nil {
		trailer["Info"] = *ctx.Info
	}
	e.table(trailer, true)
	return buf.Bytes(), nil
}

// container says whether o only served the old file structure: object and cross-reference streams, the linearization dictionary.
func container(o types.Object) bool {
	switch o := o.(type) {
	case types.ObjectStreamDict, *types.ObjectStreamDict, types.XRefStreamDict, *types.XRefStreamDict:
		return true
	case types.StreamDict:
		return o.IsObjStm() || o.Type() != nil && *o.Type() == "XRef"
	case types.Dict:
		return o.IsLinearizationParmDict()
	}
	return false
}
