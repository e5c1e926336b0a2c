package pades

import (
	"bytes"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

// comparison walks two revisions of a file side by side.
type comparison struct {
	old, now *document
	seen     map[[2]types.IndirectRef]bool // pairs of references met before: taken as equal, which their first meeting decides
	pending  [][2]types.IndirectRef
	apart    map[int]bool // pages, fields and annotations by object number: compared for themselves, not wherever they are referred to
}

func newComparison(old, now *document) *comparison {
	c := &comparison{old: old, now: now, seen: map[[2]types.IndirectRef]bool{}, apart: map[int]bool{}}
	before, after := old.landmarks(), now.landmarks()
	for n := range before {
		if after[n] {
			c.apart[n] = true
		}
	}
	return c
}

// landmarks are the object numbers of the page tree, of all annotations and of all fields.
func (d *document) landmarks() map[int]bool {
	out := make(map[int]bool, len(d.nodes))
	for n := range d.nodes {
		out[n] = true
	}
	for _, p := range d.pages {
		for _, o := range d.array(p.dict["Annots"]) {
			if ref, ok := o.(types.IndirectRef); ok && d.dict(ref) != nil {
				out[ref.ObjectNumber.Value()] = true
			}
		}
	}
	for _, f := range d.fields {
		out[f.number()] = true
		for _, w := range f.widgets {
			out[w.ref.ObjectNumber.Value()] = true
		}
	}
	delete(out, 0)
	return out
}

// equal reports whether a in the old revision and b in the new one are equal once all references are followed. References are followed
// from a list, not by recursion: chains such as those of outlines are as long as the document.
func (c *comparison) equal(a, b types.Object) bool {
	c.pending = c.pending[:0]
	if !c.same(a, b, 0) {
		return false
	}
	for len(c.pending) > 0 {
		last := len(c.pending) - 1
		pair := c.pending[last]
		c.pending = c.pending[:last]
		if !c.same(c.old.resolve(pair[0]), c.now.resolve(pair[1]), 0) {
			return false
		}
	}
	return true
}

// same compares two objects and notes the references below them for later.
func (c *comparison) same(a, b types.Object, depth int) bool {
	if depth > 2*maxDepth {
		return false
	}
	refA, isRefA := a.(types.IndirectRef)
	refB, isRefB := b.(types.IndirectRef)
	if isRefA && isRefB {
		pair := [2]types.IndirectRef{refA, refB}
		if !c.seen[pair] && (refA != refB || !c.apart[refA.ObjectNumber.Value()]) {
			c.seen[pair] = true
			c.pending = append(c.pending, pair)
		}
		return true
	}
	a, b = c.old.resolve(a), c.now.resolve(b)
	if sa, ok := asStream(a); ok {
		sb, ok := asStream(b)
		return ok && bytes.Equal(sa.Raw, sb.Raw) && c.sameDict(sa.Dict, sb.Dict, depth+1)
	}
	switch a := a.(type) {
	case nil:
		return b == nil
	case types.Dict:
		b, ok := b.(types.Dict)
		return ok && c.sameDict(a, b, depth+1)
	case types.Array:
		b, ok := b.(types.Array)
		return ok && c.sameArray(a, b, depth+1)
	case types.StringLiteral, types.HexLiteral:
		return isString(b) && bytes.Equal(c.old.bytes(a), c.now.bytes(b))
	case types.Integer, types.Float:
		x, _ := c.old.number(a)
		y, ok := c.now.number(b)
		return ok && x == y
	case types.Name, types.Boolean:
		return a == b
	}
	return false
}

func (c *comparison) sameArray(a, b types.Array, depth int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !c.same(a[i], b[i], depth) {
			return false
		}
	}
	return true
}

// sameDict compares all entries; one that is null counts as absent.
func (c *comparison) sameDict(a, b types.Dict, depth int) bool {
	for k, v := range a {
		if !c.same(v, b[k], depth) {
			return false
		}
	}
	return c.extra(a, b, nil) == ""
}

// differs returns a key, not in skip, whose values differ once all references are followed; "" for none.
func (c *comparison) differs(a, b types.Dict, skip map[string]bool) string {
	for k, v := range a {
		if !skip[k] && !c.equal(v, b[k]) {
			return k
		}
	}
	return c.extra(a, b, skip)
}

// extra returns a key of b, not in skip, that a lacks.
func (c *comparison) extra(a, b types.Dict, skip map[string]bool) string {
	for k, v := range b {
		if _, both := a[k]; !both && !skip[k] && c.now.resolve(v) != nil {
			return k
		}
	}
	return ""
}

func asStream(o types.Object) (types.StreamDict, bool) {
	switch s := o.(type) {
	case types.StreamDict:
		return s, true
	case *types.StreamDict:
		return *s, true
	case types.ObjectStreamDict:
		return s.StreamDict, true
	case types.XRefStreamDict:
		return s.StreamDict, true
	}
	return types.StreamDict{}, false
}

func isString(o types.Object) bool {
	switch o.(type) {
	case types.StringLiteral, types.HexLiteral:
		return true
	}
	return false
}

// sameSignature reports whether two signature values are one: same range, same contents.
func sameSignature(old, now *document, a, b types.Object) bool {
	return (&comparison{old: old, now: now, seen: map[[2]types.IndirectRef]bool{}}).equal(a, b)
}
