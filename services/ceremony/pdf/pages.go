package pdf

import (
	"math"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/model"
	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

// tree walks the page tree of a file that nothing has validated yet.
type tree struct {
	xref  *model.XRefTable
	seen  map[int]bool
	pages []Page
}

// inherited are the page attributes that a node hands down.
type inherited struct {
	media, crop *rect
	rotate      int
}

type rect struct{ x0, y0, x1, y1 float64 }

func (r rect) width() float64  { return r.x1 - r.x0 }
func (r rect) height() float64 { return r.y1 - r.y0 }

// listPages returns all pages in order, or a *Refusal.
func listPages(x *model.XRefTable, root types.Dict) ([]Page, error) {
	t := &tree{xref: x, seen: map[int]bool{}}
	node, ok := root["Pages"].(types.IndirectRef)
	if !ok {
		return nil, Refuse(Broken)
	}
	if err := t.node(node, inherited{}, 0); err != nil {
		return nil, err
	}
	if len(t.pages) == 0 {
		return nil, Refuse(NoPages)
	}
	return t.pages, nil
}

func (t *tree) node(ref types.IndirectRef, in inherited, depth int) error {
	number := int(ref.ObjectNumber)
	if t.seen[number] || depth > maxDepth {
		return Refuse(Broken)
	}
	t.seen[number] = true
	o, err := t.xref.Dereference(ref)
	if err != nil {
		return Refuse(Broken)
	}
	d, ok := o.(types.Dict)
	if !ok {
		return Refuse(Broken)
	}
	if in, err = t.inherit(d, in); err != nil {
		return err
	}
	kids, inner := d.Find("Kids")
	if !inner {
		return t.page(in)
	}
	list, err := t.xref.Dereference(kids)
	if err != nil {
		return Refuse(Broken)
	}
	array, ok := list.(types.Array)
	if !ok {
		return Refuse(Broken)
	}
	for _, kid := range array {
		k, ok := kid.(types.IndirectRef)
		if !ok {
			return Refuse(Broken)
		}
		if err := t.node(k, in, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) page(in inherited) error {
	if len(t.pages) == MaxPages {
		return Refuse(TooManyPages)
	}
	if in.media == nil {
		return Refuse(PageSize)
	}
	for _, side := range []float64{in.media.width(), in.media.height()} {
		if side < MinPageSide || side > MaxPageSide {
			return Refuse(PageSize)
		}
	}
	shown := *in.media
	if in.crop != nil {
		c := rect{math.Max(shown.x0, in.crop.x0), math.Max(shown.y0, in.crop.y0), math.Min(shown.x1, in.crop.x1), math.Min(shown.y1, in.crop.y1)}
		if c.width() > 0 && c.height() > 0 {
			shown = c
		}
	}
	p := Page{Width: shown.width(), Height: shown.height()}
	if in.rotate%180 != 0 {
		p.Width, p.Height = p.Height, p.Width
	}
	t.pages = append(t.pages, p)
	return nil
}

func (t *tree) inherit(d types.Dict, in inherited) (inherited, error) {
	for key, at := range map[string]**rect{"MediaBox": &in.media, "CropBox": &in.crop} {
		if _, ok := d.Find(key); !ok {
			continue
		}
		r, ok := t.rect(d[key])
		if !ok {
			return in, Refuse(PageSize)
		}
		*at = &r
	}
	if v, ok := d.Find("Rotate"); ok {
		o, err := t.xref.Dereference(v)
		n, ok := o.(types.Integer)
		if err != nil || !ok || n%90 != 0 {
			return in, Refuse(Broken)
		}
		in.rotate = int(n)
	}
	return in, nil
}

// rect reads a rectangle, whose corners may be given in any order.
func (t *tree) rect(o types.Object) (rect, bool) {
	o, err := t.xref.Dereference(o)
	a, ok := o.(types.Array)
	if err != nil || !ok || len(a) != 4 {
		return rect{}, false
	}
	var v [4]float64
	for i, item := range a {
		item, err := t.xref.Dereference(item)
		if err != nil {
			return rect{}, false
		}
		switch n := item.(type) {
		case types.Integer:
			v[i] = float64(n)
		case types.Float:
			v[i] = float64(n)
		default:
			return rect{}, false
		}
		if math.IsNaN(v[i]) || math.Abs(v[i]) > 1e7 {
			return rect{}, false
		}
	}
	return rect{math.Min(v[0], v[2]), math.Min(v[1], v[3]), math.Max(v[0], v[2]), math.Max(v[1], v[3])}, true
}
