package pades

import (
	"fmt"
	"math"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

const maxPages = 10_000

// rect is a rectangle in default user space, ordered: x0 <= x1, y0 <= y1.
type rect struct{ x0, y0, x1, y1 float64 }

func (r rect) width() float64  { return r.x1 - r.x0 }
func (r rect) height() float64 { return r.y1 - r.y0 }
func (r rect) overlaps(o rect) bool {
	return !r.empty() && !o.empty() && r.x0 < o.x1 && o.x0 < r.x1 && r.y0 < o.y1 && o.y0 < r.y1
}
func (r rect) empty() bool { return !(r.width() > 0 && r.height() > 0) }

// page is a leaf of the page tree with what it inherits.
type page struct {
	ref       types.IndirectRef
	dict      types.Dict
	resources types.Object
	media     types.Object
	crop      types.Object
	rotate    types.Object
}

// readPages walks the page tree. Each node counts once; a loop, a node without number or a wrong type is unclean.
func (d *document) readPages() error {
	d.nodes = map[int]bool{}
	ref, ok := d.root["Pages"].(types.IndirectRef)
	if !ok {
		return fmt.Errorf("%w: no page tree", ErrUnclean)
	}
	if err := d.walkPages(ref, page{}, 0); err != nil {
		return err
	}
	if len(d.pages) == 0 {
		return fmt.Errorf("%w: no pages", ErrUnclean)
	}
	d.onPage = map[int]int{}
	for i, p := range d.pages {
		for _, o := range d.array(p.dict["Annots"]) {
			ref, _ := o.(types.IndirectRef)
			if _, listed := d.onPage[ref.ObjectNumber.Value()]; !listed && ref.ObjectNumber != 0 {
				d.onPage[ref.ObjectNumber.Value()] = i
			}
		}
	}
	return nil
}

func (d *document) walkPages(ref types.IndirectRef, inherited page, depth int) error {
	number := ref.ObjectNumber.Value()
	dict := d.dict(ref)
	if dict == nil || d.nodes[number] || depth > maxDepth || len(d.pages) >= maxPages {
		return fmt.Errorf("%w: broken page tree", ErrUnclean)
	}
	d.nodes[number] = true
	p := inherited
	for key, slot := range map[string]*types.Object{"Resources": &p.resources, "MediaBox": &p.media, "CropBox": &p.crop, "Rotate": &p.rotate} {
		if v := d.resolve(dict[key]); v != nil {
			*slot = dict[key]
		}
	}
	kids, isNode := d.resolve(dict["Kids"]).(types.Array)
	if !isNode {
		p.ref, p.dict = ref, dict
		d.pages = append(d.pages, p)
		return nil
	}
	for _, kid := range kids {
		kidRef, ok := kid.(types.IndirectRef)
		if !ok {
			return fmt.Errorf("%w: broken page tree", ErrUnclean)
		}
		if err := d.walkPages(kidRef, p, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// box reads a rectangle, ordering its corners.
func (d *document) box(o types.Object) (rect, bool) {
	a := d.array(o)
	if len(a) != 4 {
		return rect{}, false
	}
	var v [4]float64
	for i := range v {
		n, ok := d.number(a[i])
		if !ok || math.Abs(n) > 1e6 {
			return rect{}, false
		}
		v[i] = n
	}
	return rect{min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3])}, true
}

// view is how a viewer shows a page: which part, turned by how much, at which scale.
type view struct {
	shown rect    // in user space
	turn  int     // clockwise, 0 90 180 270
	unit  float64 // points for one unit of user space
}

func (d *document) view(p page) (view, error) {
	shown, ok := d.box(p.media)
	if !ok || shown.empty() {
		return view{}, fmt.Errorf("%w: a page without size", ErrUnclean)
	}
	if crop, ok := d.box(p.crop); ok {
		cut := rect{max(crop.x0, shown.x0), max(crop.y0, shown.y0), min(crop.x1, shown.x1), min(crop.y1, shown.y1)}
		if !cut.empty() {
			shown = cut
		}
	}
	v := view{shown: shown, unit: 1}
	if turn, ok := d.integer(p.rotate); ok {
		v.turn = ((turn % 360) + 360) % 360
	}
	if v.turn%90 != 0 {
		return view{}, fmt.Errorf("%w: a page rotated by an odd angle", ErrUnclean)
	}
	if unit, ok := d.number(p.dict["UserUnit"]); ok && unit > 0 {
		v.unit = unit
	}
	return v, nil
}

// size is what the viewer shows, in points.
func (v view) size() (width, height float64) {
	w, h := v.shown.width()*v.unit, v.shown.height()*v.unit
	if v.turn%180 != 0 {
		return h, w
	}
	return w, h
}

// user maps a point of the shown page (points, origin at its lower left) to user space.
func (v view) user(x, y float64) (ux, uy float64) {
	x, y = x/v.unit, y/v.unit
	w, h := v.shown.width(), v.shown.height()
	switch v.turn {
	case 90: // the left edge of the page is shown at the top
		x, y = w-y, x
	case 180:
		x, y = w-x, h-y
	case 270:
		x, y = y, h-x
	}
	return v.shown.x0 + x, v.shown.y0 + y
}

// userRect maps a rectangle of the shown page, which must lie on it and have an area.
func (v view) userRect(r [4]float64) (rect, error) {
	w, h := v.size()
	const slack = 0.01 // points: coordinates arrive rounded
	for _, n := range r {
		if math.IsNaN(n) || math.IsInf(n, 0) {
			return rect{}, fmt.Errorf("%w: the rectangle is not a number", ErrOptions)
		}
	}
	if r[0] < -slack || r[1] < -slack || r[2] > w+slack || r[3] > h+slack || r[2]-r[0] < 1 || r[3]-r[1] < 1 {
		return rect{}, fmt.Errorf("%w: the rectangle does not lie on the page or has no area", ErrOptions)
	}
	x0, y0 := v.user(r[0], r[1])
	x1, y1 := v.user(r[2], r[3])
	return rect{min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)}, nil
}
