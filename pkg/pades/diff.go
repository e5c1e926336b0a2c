package pades

import (
	"fmt"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

const (
	signatureAdded = "a signature was added"
	visibleAdded   = "a signature was added, visible in a new place"
	timeAdded      = "a document time stamp was added"
	evidenceAdded  = "validation data was added"
)

// compare lists what now shows differently from old, an earlier revision of the same file. Content, resources and boxes of pages,
// annotations, fields and the catalog all count; signatures, their fields and validation data may be added.
func compare(old, now *document) []Change {
	c := newComparison(old, now)
	var out []Change
	note := func(what string) { out = append(out, Change{What: what}) }

	c.pages(note)
	added := c.signatureFields(note)
	c.plainFields(note)
	c.form(note)
	c.annotations(note)
	if key := c.differs(old.root, now.root, catalogApart); key != "" {
		note("catalog: " + known(key))
	}
	if len(old.signed()) > 0 && !c.equal(old.root["Perms"], now.root["Perms"]) {
		note("catalog: Perms")
	}
	for _, f := range added {
		out = append(out, c.addition(f))
		if old.find(f.name) == nil && c.covers(f) {
			note("a new signature hides an earlier one")
		}
	}
	if !c.equal(old.root["DSS"], now.root["DSS"]) {
		out = append(out, Change{What: evidenceAdded, Harmless: true})
	}
	return out
}

// addition words what signing f since adds. One that shows in a field of its own making chose its place: the reader is told.
func (c *comparison) addition(f field) Change {
	switch {
	case c.now.name(c.now.dict(f.value)["SubFilter"]) == subFilterTSA:
		return Change{What: timeAdded, Harmless: true}
	case c.old.find(f.name) == nil && c.looks(f):
		return Change{What: visibleAdded, Harmless: true}
	}
	return Change{What: signatureAdded, Harmless: true}
}

// catalogApart are the entries compared in their own way, and those that signing itself writes.
var catalogApart = map[string]bool{"AcroForm": true, "DSS": true, "Perms": true, "Extensions": true, "Version": true, "Pages": true}

// known is key if it is one that the standard names in a catalog: a made-up key could carry text of the document.
func known(key string) string {
	switch key {
	case "Names", "Dests", "Outlines", "OpenAction", "AA", "URI", "StructTreeRoot", "MarkInfo", "Lang", "OCProperties", "Metadata",
		"OutputIntents", "PageLabels", "PageLayout", "PageMode", "ViewerPreferences", "Threads", "PieceInfo", "Legal", "Requirements", "Collection":
		return key
	}
	return "another entry"
}

// pages compares the pages one by one, in order.
func (c *comparison) pages(note func(string)) {
	if len(c.old.pages) != len(c.now.pages) {
		note("number of pages")
		return
	}
	for i, a := range c.old.pages {
		b := c.now.pages[i]
		switch {
		case a.ref != b.ref:
			note(fmt.Sprintf("page %d: another page in its place", i+1))
		case !c.equal(a.dict["Contents"], b.dict["Contents"]):
			note(fmt.Sprintf("page %d: content", i+1))
		case !c.equal(a.resources, b.resources):
			note(fmt.Sprintf("page %d: fonts, images or other resources", i+1))
		case !c.equal(a.media, b.media) || !c.equal(a.crop, b.crop) || !c.equal(a.rotate, b.rotate):
			note(fmt.Sprintf("page %d: size or rotation", i+1))
		case c.differs(a.dict, b.dict, pageApart) != "":
			note(fmt.Sprintf("page %d: properties", i+1))
		}
	}
}

// pageApart are the entries of a page compared in their own way, or that do not show.
var pageApart = map[string]bool{
	"Contents": true, "Resources": true, "MediaBox": true, "CropBox": true, "Rotate": true, "Annots": true, "Parent": true, "StructParents": true,
}

// signatureFields checks that every signature field of the old revision is still there, as it was if signed, and returns the fields
// that were signed since. A field added without a signature in it, yet with a look, is a picture that nobody answers for.
func (c *comparison) signatureFields(note func(string)) (added []field) {
	before := map[string]field{}
	for _, f := range c.old.fields {
		if f.kind == "Sig" {
			before[f.name] = f
		}
	}
	index := 0
	for _, f := range c.now.fields {
		if f.kind != "Sig" {
			continue
		}
		index++
		was, existed := before[f.name]
		delete(before, f.name)
		signed := c.now.dict(f.value) != nil
		switch {
		case existed && c.old.dict(was.value) != nil:
			if f.ref != was.ref || !c.sameField(was, f) || !c.equal(was.value, f.value) || !c.sameWidgets(was, f, nil) {
				note(fmt.Sprintf("signature field %d: changed after it was signed", index))
			}
		case existed:
			if f.ref != was.ref || !c.sameWidgets(was, f, signingWidget) || c.differs(was.dict, f.dict, signingField) != "" {
				note(fmt.Sprintf("signature field %d: moved or changed", index))
			}
			if !signed && !c.sameWidgets(was, f, nil) {
				note(fmt.Sprintf("signature field %d: a picture without a signature", index))
			}
		case !signed && c.looks(f):
			note(fmt.Sprintf("signature field %d: a picture without a signature", index))
		}
		if signed && (!existed || c.old.dict(was.value) == nil) {
			added = append(added, f)
		}
	}
	if len(before) > 0 {
		note("a signature field was removed")
	}
	return added
}

// signingField and signingWidget are the entries that signing an empty field may set.
var (
	signingField  = map[string]bool{"V": true, "AP": true, "F": true, "MK": true, "Kids": true, "Parent": true, "P": true, "M": true}
	signingWidget = map[string]bool{"V": true, "AP": true, "F": true, "MK": true, "Parent": true, "P": true, "M": true}
	fieldApart    = map[string]bool{"Kids": true, "Parent": true, "P": true}
)

func (c *comparison) looks(f field) bool {
	for _, w := range f.widgets {
		if c.now.resolve(w.dict["AP"]) != nil {
			return true
		}
	}
	return false
}

// sameField compares a field's own dictionary and those it inherits from.
func (c *comparison) sameField(a, b field) bool {
	if len(a.chain) != len(b.chain) || a.kind != b.kind {
		return false
	}
	for i := range a.chain {
		if c.differs(a.chain[i], b.chain[i], fieldApart) != "" {
			return false
		}
	}
	return true
}

func (c *comparison) sameWidgets(a, b field, skip map[string]bool) bool {
	if len(a.widgets) != len(b.widgets) {
		return false
	}
	if skip == nil {
		skip = fieldApart
	}
	for i := range a.widgets {
		if a.widgets[i].ref != b.widgets[i].ref || c.differs(a.widgets[i].dict, b.widgets[i].dict, skip) != "" {
			return false
		}
	}
	return true
}

// plainFields compares the fields that are not signatures, in order.
func (c *comparison) plainFields(note func(string)) {
	plain := func(d *document) (out []field) {
		for _, f := range d.fields {
			if f.kind != "Sig" {
				out = append(out, f)
			}
		}
		return out
	}
	before, after := plain(c.old), plain(c.now)
	if len(before) != len(after) {
		note("number of form fields")
		return
	}
	for i, a := range before {
		switch b := after[i]; {
		case a.name != b.name || a.ref != b.ref || !c.equal(a.value, b.value):
			note(fmt.Sprintf("field %d: value", i+1))
		case !c.sameField(a, b) || !c.sameWidgets(a, b, nil):
			note(fmt.Sprintf("field %d: look or properties", i+1))
		}
	}
}

// form compares what the form says beside its fields. A form that only now came into being has no fields to affect.
func (c *comparison) form(note func(string)) {
	before, after := c.old.dict(c.old.root["AcroForm"]), c.now.dict(c.now.root["AcroForm"])
	skip := map[string]bool{"Fields": true, "SigFlags": true}
	if before == nil {
		skip["DR"], skip["DA"] = true, true
	}
	if c.differs(before, after, skip) != "" {
		note("form: properties")
	}
}

// annotations compares the annotations of every page, in order. Widgets of older signature fields must stand where they stood, and were
// compared as fields; those of signature fields made since are left out.
func (c *comparison) annotations(note func(string)) {
	if len(c.old.pages) != len(c.now.pages) {
		return
	}
	older, newer := c.old.signatureWidgets(), c.now.signatureWidgets()
	for i := range c.old.pages {
		before := c.old.array(c.old.pages[i].dict["Annots"])
		var after types.Array
		for _, o := range c.now.array(c.now.pages[i].dict["Annots"]) {
			if n := objectNumber(o); newer[n] && !c.apart[n] {
				continue
			}
			after = append(after, o)
		}
		same := len(before) == len(after)
		for k := 0; same && k < len(before); k++ {
			x, y := objectNumber(before[k]), objectNumber(after[k])
			same = x == y && (older[x] && newer[x] || c.sameAnnotation(before[k], after[k]))
		}
		if !same {
			note(fmt.Sprintf("page %d: annotations", i+1))
		}
	}
}

func (c *comparison) sameAnnotation(a, b types.Object) bool {
	x, y := c.old.dict(a), c.now.dict(b)
	if x == nil || y == nil {
		return c.equal(a, b)
	}
	return c.differs(x, y, fieldApart) == ""
}

// signatureWidgets are the object numbers of all widgets of signature fields.
func (d *document) signatureWidgets() map[int]bool {
	out := map[int]bool{}
	for _, f := range d.fields {
		for _, w := range f.widgets {
			if f.kind == "Sig" {
				out[objectNumber(w.ref)] = true
			}
		}
	}
	delete(out, 0)
	return out
}

// objectNumber is the number of an indirect object, 0 of a direct one.
func objectNumber(o types.Object) int {
	ref, _ := o.(types.IndirectRef)
	return ref.ObjectNumber.Value()
}

// covers reports whether a field made since lies over an earlier signature.
func (c *comparison) covers(f field) bool {
	for _, w := range f.widgets {
		area, ok := c.now.box(w.dict["Rect"])
		if ok && c.old.overSignature(c.now.pageOf(w), area) {
			return true
		}
	}
	return false
}

// overSignature reports whether area touches a visible signature on that page.
func (d *document) overSignature(page int, area rect) bool {
	for _, f := range d.signed() {
		for _, w := range f.widgets {
			box, ok := d.box(w.dict["Rect"])
			if ok && d.pageOf(w) == page && area.overlaps(box) {
				return true
			}
		}
	}
	return false
}
