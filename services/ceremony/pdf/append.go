package pdf

import (
	"bytes"
	"fmt"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/model"
	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

// appendPages adds all pages of extra (a file of our own) behind those of b (clean, unsigned) as an incremental update:
// b stays, byte for byte, the start of the result. It returns the result and the number of the first new page.
func appendPages(b, extra []byte) ([]byte, int, error) {
	x, err := readXRefs(b)
	if err != nil {
		return nil, 0, Refuse(Broken)
	}
	ctx, err := readAll(b, false)
	if err != nil {
		return nil, 0, err
	}
	root, err := catalog(ctx)
	if err != nil {
		return nil, 0, err
	}
	pages, err := listPages(ctx.XRefTable, root)
	if err != nil {
		return nil, 0, err
	}
	source, err := read(extra)
	if err != nil {
		return nil, 0, fmt.Errorf("pdf: read own pages: %w", err)
	}

	buf := bytes.NewBuffer(append(make([]byte, 0, len(b)+len(extra)+4096), b...))
	if b[len(b)-1] != '\n' {
		buf.WriteByte('\n')
	}
	e := newEmitter(buf)
	next := nextNumber(ctx.XRefTable, x)
	parent := root["Pages"].(types.IndirectRef) //nolint:errcheck // listPages has seen to it
	g := &graft{from: source.XRefTable, out: e, next: next, moved: map[int]types.IndirectRef{}, parent: parent}
	kids, err := g.pages(source)
	if err != nil {
		return nil, 0, err
	}
	if err := extendTree(ctx.XRefTable, e, parent, kids, len(pages)); err != nil {
		return nil, 0, err
	}
	return seal(e, x, g.next, b), len(pages) + 1, nil
}

// nextNumber returns the first object number that nothing in the file uses, declared or not.
func nextNumber(t *model.XRefTable, x *xrefs) int {
	next := 1
	if size := x.trailer.Size(); size != nil {
		next = max(next, *size)
	}
	for n := range t.Table {
		next = max(next, n+1)
	}
	for n := range x.settled {
		next = max(next, n+1)
	}
	return next
}

// extendTree writes the root of the page tree again, with the new pages as its last children.
func extendTree(t *model.XRefTable, e *emitter, ref types.IndirectRef, fresh []types.IndirectRef, pages int) error {
	o, err := t.Dereference(ref)
	if err != nil {
		return Refuse(Broken)
	}
	d, ok := o.(types.Dict)
	if !ok {
		return Refuse(Broken)
	}
	old, err := t.Dereference(d["Kids"])
	if err != nil {
		return Refuse(Broken)
	}
	kids, ok := old.(types.Array) // a root without children is a single page, which cannot take siblings
	if !ok {
		return Refuse(Broken)
	}
	kids = append(types.Array(nil), kids...)
	for _, k := range fresh {
		kids = append(kids, k)
	}
	node := types.Dict{}
	for k, v := range d {
		node[k] = v
	}
	node["Kids"], node["Count"] = kids, types.Integer(pages+len(fresh))
	return e.object(int(ref.ObjectNumber), int(ref.GenerationNumber), node)
}

// seal ends the update with cross references of the same kind as the file's last ones: readers distrust a mixture.
func seal(e *emitter, x *xrefs, next int, b []byte) []byte {
	trailer := types.Dict{"Size": types.Integer(next), "Prev": types.Integer(x.start), "Root": x.trailer["Root"]}
	if info, ok := x.trailer.Find("Info"); ok {
		trailer["Info"] = info
	}
	id, _ := x.trailer["ID"].(types.Array)
	trailer["ID"] = fileID(id, e.buf.Bytes()[len(b):], b)
	if !x.stream {
		e.table(trailer, false)
		return e.buf.Bytes()
	}
	trailer["Size"] = types.Integer(next + 1)
	if err := e.stream(next, trailer); err != nil {
		panic("pdf: a cross-reference stream of our own has no dictionary: " + err.Error())
	}
	return e.buf.Bytes()
}

// graft copies pages with everything they refer to into another file under new numbers.
type graft struct {
	from   *model.XRefTable
	out    *emitter
	next   int
	moved  map[int]types.IndirectRef
	parent types.IndirectRef
}

// Attributes that a page would otherwise inherit from its new parent.
var ownAttributes = types.Dict{"Rotate": types.Integer(0)}

func (g *graft) pages(source *model.Context) ([]types.IndirectRef, error) {
	root, err := catalog(source)
	if err != nil {
		return nil, err
	}
	node := dictAt(g.from, root, "Pages")
	kids, _ := node["Kids"].(types.Array)
	var out []types.IndirectRef
	for _, kid := range kids {
		o, err := g.from.Dereference(kid)
		if err != nil {
			return nil, fmt.Errorf("pdf: own page: %w", err)
		}
		d, ok := o.(types.Dict)
		if !ok {
			return nil, fmt.Errorf("pdf: own page is %T", o)
		}
		page := types.Dict{}
		for k, v := range ownAttributes {
			page[k] = v
		}
		for _, k := range []string{"MediaBox", "Resources"} {
			if v, ok := node.Find(k); ok {
				page[k] = v
			}
		}
		for k, v := range d {
			page[k] = v
		}
		page["CropBox"] = page["MediaBox"]
		delete(page, "Parent")
		moved, err := g.value(page)
		if err != nil {
			return nil, err
		}
		page = moved.(types.Dict) //nolint:errcheck // value keeps the type
		page["Parent"] = g.parent
		number := g.take()
		if err := g.out.object(number, 0, page); err != nil {
			return nil, err
		}
		out = append(out, *types.NewIndirectRef(number, 0))
	}
	return out, nil
}

func (g *graft) take() int {
	g.next++
	return g.next - 1
}

// value returns o with every reference moved, writing what it refers to.
func (g *graft) value(o types.Object) (types.Object, error) {
	switch o := o.(type) {
	case types.IndirectRef:
		return g.reference(o)
	case types.Dict:
		out := types.Dict{}
		for _, k := range sortedKeys(o) {
			v, err := g.value(o[k])
			if err != nil {
				return nil, err
			}
			out[k] = v
		}
		return out, nil
	case types.Array:
		out := make(types.Array, 0, len(o))
		for _, item := range o {
			v, err := g.value(item)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	case types.StreamDict:
		d, err := g.value(o.Dict)
		if err != nil {
			return nil, err
		}
		return types.StreamDict{Dict: d.(types.Dict), Raw: o.Raw}, nil //nolint:errcheck // value keeps the type
	default:
		return o, nil
	}
}

func (g *graft) reference(ref types.IndirectRef) (types.Object, error) {
	old := int(ref.ObjectNumber)
	if to, ok := g.moved[old]; ok {
		return to, nil
	}
	to := *types.NewIndirectRef(g.take(), 0)
	g.moved[old] = to
	o, err := g.from.Dereference(ref)
	if err != nil {
		return nil, fmt.Errorf("pdf: own object: %w", err)
	}
	v, err := g.value(o)
	if err != nil {
		return nil, err
	}
	return to, g.out.object(int(to.ObjectNumber), 0, v)
}
