package pades

import (
	"fmt"
	"strings"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

const maxFields = 10_000

// field is a terminal field of the form, with what it inherits.
type field struct {
	name    string // fully qualified: the partial names joined by full stops
	ref     types.IndirectRef
	dict    types.Dict
	kind    string       // FT: Sig, Tx, Btn, Ch
	value   types.Object // V
	chain   []types.Dict // the field's own dictionary and those of its ancestors, nearest first
	widgets []widget     // where it shows; a field merged with its widget is its own
}

// widget is an annotation that shows a field.
type widget struct {
	ref  types.IndirectRef // number 0: a direct object
	dict types.Dict
}

func (f field) number() int { return f.ref.ObjectNumber.Value() }

// readFields walks the form's fields. A file without a form has none.
func (d *document) readFields() error {
	form := d.dict(d.root["AcroForm"])
	if form == nil {
		return nil
	}
	seen := map[int]bool{}
	for _, o := range d.array(form["Fields"]) {
		if err := d.walkFields(o, field{}, seen, 0); err != nil {
			return err
		}
	}
	return nil
}

func (d *document) walkFields(o types.Object, parent field, seen map[int]bool, depth int) error {
	dict := d.dict(o)
	if dict == nil { // a dangling entry: viewers skip it as well
		return nil
	}
	ref, _ := o.(types.IndirectRef)
	if n := ref.ObjectNumber.Value(); n != 0 {
		if seen[n] {
			return fmt.Errorf("%w: broken form", ErrUnclean)
		}
		seen[n] = true
	}
	if depth > maxDepth || len(seen) > maxFields || len(d.fields) > maxFields {
		return fmt.Errorf("%w: broken form", ErrUnclean)
	}
	f := parent
	f.ref, f.dict, f.widgets = ref, dict, nil
	f.chain = append([]types.Dict{dict}, parent.chain...)
	if dict["T"] != nil {
		f.name = strings.TrimPrefix(parent.name+"."+d.text(dict["T"]), ".")
	}
	if kind := d.name(dict["FT"]); kind != "" {
		f.kind = kind
	}
	if d.resolve(dict["V"]) != nil {
		f.value = dict["V"]
	}
	inner, err := d.walkKids(&f, seen, depth)
	if err != nil || inner {
		return err
	}
	if d.name(dict["Subtype"]) == "Widget" || dict["Rect"] != nil {
		f.widgets = append(f.widgets, widget{ref, dict})
	}
	d.fields = append(d.fields, f)
	return nil
}

// walkKids takes kids with a name of their own as fields and the others as widgets of f. It reports whether f is an inner node.
func (d *document) walkKids(f *field, seen map[int]bool, depth int) (inner bool, err error) {
	for _, kid := range d.array(f.dict["Kids"]) {
		dict := d.dict(kid)
		if dict == nil {
			continue
		}
		if dict["T"] != nil {
			inner = true
			if err := d.walkFields(kid, *f, seen, depth+1); err != nil {
				return inner, err
			}
			continue
		}
		ref, _ := kid.(types.IndirectRef)
		if n := ref.ObjectNumber.Value(); n != 0 {
			if seen[n] {
				return inner, fmt.Errorf("%w: broken form", ErrUnclean)
			}
			seen[n] = true
		}
		f.widgets = append(f.widgets, widget{ref, dict})
	}
	return inner, nil
}

// signed lists the signature fields that hold a signature.
func (d *document) signed() []field {
	var out []field
	for _, f := range d.fields {
		if f.kind == "Sig" && d.dict(f.value) != nil {
			out = append(out, f)
		}
	}
	return out
}

// find returns the terminal field of that name, nil where there is none.
func (d *document) find(name string) *field {
	for i := range d.fields {
		if d.fields[i].name == name {
			return &d.fields[i]
		}
	}
	return nil
}

// pageOf is the index of the page whose annotations include the widget, -1 where none does.
func (d *document) pageOf(w widget) int {
	if i, ok := d.onPage[w.ref.ObjectNumber.Value()]; ok {
		return i
	}
	return -1
}

// permission reads the DocMDP transform of a signature dictionary; Approval where it has none.
func (d *document) permission(sig types.Dict) Permission {
	for _, o := range d.array(sig["Reference"]) {
		ref := d.dict(o)
		if ref == nil || d.name(ref["TransformMethod"]) != "DocMDP" {
			continue
		}
		p, ok := d.integer(d.dict(ref["TransformParams"])["P"])
		if !ok || p < int(NoChanges) || p > int(AlsoAnnotate) {
			return defaultPermit
		}
		return Permission(p)
	}
	return Approval
}

// admits says whether the signatures that the file holds already let opts sign it.
func (d *document) admits(opts Options) error {
	signed := d.signed()
	if opts.Certify != Approval && len(signed) > 0 {
		return fmt.Errorf("%w: a certification must come first", ErrForbidden)
	}
	if len(signed) >= maxSignatures {
		return fmt.Errorf("%w: more than %d signatures", ErrTooLarge, maxSignatures)
	}
	for _, f := range signed {
		if d.permission(d.dict(f.value)) == NoChanges {
			return fmt.Errorf("%w: it is certified against changes", ErrForbidden)
		}
		if lock := d.dict(f.dict["Lock"]); lock != nil {
			if p, ok := d.integer(lock["P"]); ok && p == int(NoChanges) {
				return fmt.Errorf("%w: a signer locked the document", ErrForbidden)
			}
		}
	}
	if certifying := d.dict(d.dict(d.root["Perms"])["DocMDP"]); certifying != nil && d.permission(certifying) == NoChanges {
		return fmt.Errorf("%w: it is certified against changes", ErrForbidden)
	}
	return nil
}
