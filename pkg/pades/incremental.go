package pades

import (
	"fmt"
	"strconv"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

// update collects the objects of one incremental update behind the bytes of the source.
type update struct {
	doc     *document
	out     []byte
	written map[int]place // object number: where it stands now
	next    int           // first object number never used
	catalog types.Dict    // a copy to change; written by finish when dirty
	dirty   bool
	err     error // the first object that could not be written
}

// place is where an object stands.
type place struct{ offset, generation int }

func newUpdate(doc *document) *update {
	u := &update{doc: doc, written: map[int]place{}, catalog: copyOf(doc.root)}
	u.next = max(*doc.ctx.Size, doc.ctx.MaxObjNr+1)
	for n := range doc.ctx.Table {
		u.next = max(u.next, n+1)
	}
	u.out = make([]byte, len(doc.raw), len(doc.raw)+32<<10)
	copy(u.out, doc.raw)
	if last := u.out[len(u.out)-1]; last != '\n' && last != '\r' {
		u.out = append(u.out, '\n')
	}
	return u
}

// alloc takes a new object number.
func (u *update) alloc() types.IndirectRef {
	ref := *types.NewIndirectRef(u.next, 0)
	u.next++
	return ref
}

// begin notes where object ref starts. An object is written at most once in an update.
func (u *update) begin(ref types.IndirectRef) {
	n := ref.ObjectNumber.Value()
	if _, twice := u.written[n]; twice {
		panic(fmt.Sprintf("pades: object %d written twice in one update", n))
	}
	u.written[n] = place{len(u.out), ref.GenerationNumber.Value()}
	u.out = fmt.Appendf(u.out, "%d %d obj\n", n, ref.GenerationNumber.Value())
}

func (u *update) end() { u.out = append(u.out, "\nendobj\n"...) }

// put writes object ref. An error shows in finish.
func (u *update) put(ref types.IndirectRef, o types.Object) {
	u.begin(ref)
	out, err := appendObject(u.out, o)
	if err != nil {
		u.err = err
		return
	}
	u.out = out
	u.end()
}

// putStream writes ref as a stream of data with the entries of dict and its length.
func (u *update) putStream(ref types.IndirectRef, dict types.Dict, data []byte) {
	dict["Length"] = types.Integer(len(data))
	u.begin(ref)
	out, err := appendDict(u.out, dict)
	if err != nil {
		u.err = err
		return
	}
	u.out = append(append(append(out, "\nstream\n"...), data...), "\nendstream"...)
	u.end()
}

// placeField puts value into the field that opts name, made if need be.
func (u *update) placeField(opts Options, value types.IndirectRef) error {
	name := opts.FieldName
	if name == "" {
		name = u.freeName()
	}
	if f := u.doc.find(name); f != nil {
		return u.fillField(f, opts, value)
	}
	if u.doc.nameInUse(name) {
		return ErrFieldTaken
	}
	return u.newField(name, opts, value)
}

// freeName is the first of Signature1, Signature2, ... that no field has.
func (u *update) freeName() string {
	for n := 1; ; n++ {
		if name := "Signature" + strconv.Itoa(n); !u.doc.nameInUse(name) {
			return name
		}
	}
}

// nameInUse reports whether name is that of a field or the beginning of one.
func (d *document) nameInUse(name string) bool {
	for _, f := range d.fields {
		if f.name == name || (len(f.name) > len(name) && f.name[:len(name)+1] == name+".") {
			return true
		}
	}
	return false
}

// newField makes a signature field merged with its widget. Invisible ones stand on the first page, without area: viewers want a page.
func (u *update) newField(name string, opts Options, value types.IndirectRef) error {
	for _, c := range name {
		if c == '.' || c < ' ' {
			return fmt.Errorf("%w: a new field's name may not have full stops or control characters", ErrOptions)
		}
	}
	index := 0
	if a := opts.Appearance; a != nil {
		if a.Page < 1 || a.Page > len(u.doc.pages) {
			return fmt.Errorf("%w: the document has no such page", ErrOptions)
		}
		index = a.Page - 1
	}
	on := u.doc.pages[index]
	dict := types.Dict{
		"Type": types.Name("Annot"), "Subtype": types.Name("Widget"), "FT": types.Name("Sig"), "T": textString(name),
		"V": value, "P": on.ref, "F": types.Integer(printedAndLocked), "Rect": numbers(0, 0, 0, 0),
	}
	if a := opts.Appearance; a != nil {
		v, err := u.doc.view(on)
		if err != nil {
			return err
		}
		area, err := v.userRect(a.Rect)
		if err != nil {
			return err
		}
		if u.doc.overSignature(index, area) {
			return fmt.Errorf("%w: the rectangle lies over an earlier signature", ErrOptions)
		}
		dict["Rect"] = numbers(area.x0, area.y0, area.x1, area.y1)
		if err := u.draw(dict, area, v, a.PNG); err != nil {
			return err
		}
	}
	ref := u.alloc()
	u.put(ref, dict)
	u.annotate(on, ref)
	return u.enlist(&ref)
}

// printedAndLocked are the annotation flags Print and Locked.
const printedAndLocked = 132

// fillField signs an empty field that exists, where it stands.
func (u *update) fillField(f *field, opts Options, value types.IndirectRef) error {
	if f.kind != "Sig" || u.doc.resolve(f.value) != nil {
		return ErrFieldTaken
	}
	if f.number() == 0 || len(f.widgets) > 1 {
		return fmt.Errorf("%w: a signature field that is a direct object or shows in several places", ErrUnsupported)
	}
	if seed := u.doc.dict(f.dict["SV"]); seed != nil {
		if flags, _ := u.doc.integer(seed["Ff"]); flags != 0 {
			return ErrFieldRules
		}
	}
	if lock := u.doc.dict(f.dict["Lock"]); lock != nil && lock["P"] != nil {
		return ErrFieldRules // a lock of the whole document, PDF 2.0
	}
	dict := copyOf(f.dict)
	dict["V"] = value
	if len(f.widgets) == 1 {
		shows := dict
		apart := f.widgets[0].ref != f.ref
		if apart {
			if f.widgets[0].ref.ObjectNumber == 0 {
				return fmt.Errorf("%w: a widget that is a direct object", ErrUnsupported)
			}
			shows = copyOf(f.widgets[0].dict)
			shows["V"] = value // poppler and MuPDF look for the signature at the widget
		}
		if err := u.dress(shows, f.widgets[0], opts); err != nil {
			return err
		}
		if apart {
			u.put(f.widgets[0].ref, shows)
		}
	}
	u.put(f.ref, dict)
	return u.enlist(nil)
}

// dress gives the widget of an existing field its flags and, where it has an area, its picture.
func (u *update) dress(dict types.Dict, w widget, opts Options) error {
	dict["F"] = types.Integer(printedAndLocked)
	area, ok := u.doc.box(dict["Rect"])
	if opts.Appearance == nil || !ok || area.empty() {
		return nil
	}
	index := u.doc.pageOf(w)
	if index < 0 {
		return fmt.Errorf("%w: a signature field that stands on no page", ErrUnsupported)
	}
	v, err := u.doc.view(u.doc.pages[index])
	if err != nil {
		return err
	}
	return u.draw(dict, area, v, opts.Appearance.PNG)
}

// annotate adds ref to the annotations of a page, rewriting the page or its array, whichever holds them.
func (u *update) annotate(on page, ref types.IndirectRef) {
	list := append(append(types.Array{}, u.doc.array(on.dict["Annots"])...), ref)
	if at, ok := on.dict["Annots"].(types.IndirectRef); ok && u.doc.array(at) != nil {
		u.put(at, list)
		return
	}
	dict := copyOf(on.dict)
	dict["Annots"] = list
	u.put(on.ref, dict)
}

// enlist adds ref (nil: none) to the form and sets SigFlags to 3 (there are signatures, append only), making the form if need be.
func (u *update) enlist(ref *types.IndirectRef) error {
	form := u.doc.dict(u.catalog["AcroForm"])
	at, indirect := u.catalog["AcroForm"].(types.IndirectRef)
	if form == nil {
		at, indirect, u.dirty = u.alloc(), true, true
		u.catalog["AcroForm"] = at
	}
	form = copyOf(form)
	changed := false
	if flags, _ := u.doc.integer(form["SigFlags"]); flags&3 != 3 {
		form["SigFlags"], changed = types.Integer(flags|3), true
	}
	if ref != nil {
		list := append(append(types.Array{}, u.doc.array(form["Fields"])...), *ref)
		if fieldsAt, ok := form["Fields"].(types.IndirectRef); ok && u.doc.array(fieldsAt) != nil {
			u.put(fieldsAt, list)
		} else {
			form["Fields"], changed = list, true
		}
	}
	switch {
	case !changed:
	case indirect:
		u.put(at, form)
	default:
		u.catalog["AcroForm"], u.dirty = form, true
	}
	return nil
}
