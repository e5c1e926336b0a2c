package pdf

import (
	"sort"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/model"
	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

const maxDepth = 64 // of nested direct objects

// Dictionary keys that no document to be signed may have, wherever they stand.
var refusedKeys = map[string]Reason{
	"JS": JavaScript, "JavaScript": JavaScript,
	"XFA": DynamicForm,
	"AA":  ActiveContent,
	"EF":  Attachment,
	// A name tree called EmbeddedFiles alone is no attachment: some writers always add an empty one.
	"RichMedia": Multimedia, "RichMediaContent": Multimedia,
}

// Action types (key S) and what else shares that key: nothing else is called so.
var refusedActions = map[string]Reason{
	"JavaScript": JavaScript,
	"Launch":     ActiveContent, "SubmitForm": ActiveContent, "ImportData": ActiveContent, "GoToE": ActiveContent,
	"Rendition": Multimedia, "Movie": Multimedia, "Sound": Multimedia, "RichMediaExecute": Multimedia,
}

var refusedAnnotations = map[string]Reason{
	"FileAttachment": Attachment,
	"RichMedia":      Multimedia, "Movie": Multimedia, "Screen": Multimedia, "3D": Multimedia, "Sound": Multimedia,
}

// scan looks at every object of a file, reachable or not, before validation (which drops some of them without a word).
type scan struct {
	xref   *model.XRefTable
	signed bool // a signature or document time stamp
	links  bool
	form   bool
}

// run returns nil or a *Refusal.
func (s *scan) run() error {
	for _, number := range numbers(s.xref) {
		o, err := s.object(number)
		if err != nil {
			return err
		}
		if err := s.walk(o, 0); err != nil {
			return err
		}
	}
	return nil
}

// numbers returns the numbers of all objects in use, ascending.
func numbers(x *model.XRefTable) []int {
	all := make([]int, 0, len(x.Table))
	for n, e := range x.Table {
		if e != nil && !e.Free {
			all = append(all, n)
		}
	}
	sort.Ints(all)
	return all
}

// object returns an object by number. What stands in object streams is decoded only here: the table alone would hide it.
func (s *scan) object(number int) (types.Object, error) {
	o, err := s.xref.Dereference(*types.NewIndirectRef(number, generation(s.xref, number)))
	if err != nil {
		return nil, Refuse(Broken)
	}
	return o, nil
}

func generation(x *model.XRefTable, number int) int {
	if e := x.Table[number]; e != nil && e.Generation != nil {
		return *e.Generation
	}
	return 0
}

func (s *scan) walk(o types.Object, depth int) error {
	if depth > maxDepth {
		return Refuse(TooComplex)
	}
	switch o := o.(type) {
	case types.Dict:
		return s.dict(o, depth)
	case types.StreamDict:
		return s.dict(o.Dict, depth)
	case *types.StreamDict:
		return s.dict(o.Dict, depth)
	case types.ObjectStreamDict:
		return s.dict(o.Dict, depth)
	case *types.ObjectStreamDict:
		return s.dict(o.Dict, depth)
	case types.XRefStreamDict:
		return s.dict(o.Dict, depth)
	case *types.XRefStreamDict:
		return s.dict(o.Dict, depth)
	case types.Array:
		for _, item := range o {
			if err := s.walk(item, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *scan) dict(d types.Dict, depth int) error {
	for _, key := range sortedKeys(d) { // in order, so that the same file is always refused for the same reason
		if reason, bad := refusedKeys[key]; bad && !s.null(d[key]) {
			return Refuse(reason)
		}
		if err := s.walk(d[key], depth+1); err != nil {
			return err
		}
	}
	action := s.name(d, "S")
	if reason, bad := refusedActions[action]; bad {
		return Refuse(reason)
	}
	if reason, bad := refusedAnnotations[s.name(d, "Subtype")]; bad {
		return Refuse(reason)
	}
	if action == "URI" || action == "GoToR" {
		s.links = true
	}
	if s.name(d, "FT") != "" {
		s.form = true
	}
	// Whatever has a ByteRange is a signature, a document time stamp or usage rights: all of them break when the file is written anew.
	if _, ok := d.Find("ByteRange"); ok {
		s.signed = true
	}
	return nil
}

func sortedKeys(d types.Dict) []string {
	keys := make([]string, 0, len(d))
	for key := range d {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

func (s *scan) null(o types.Object) bool {
	o, err := s.xref.Dereference(o)
	return err == nil && o == nil
}

// name returns the name at key, which may stand there by reference, or "".
func (s *scan) name(d types.Dict, key string) string {
	v, ok := d.Find(key)
	if !ok {
		return ""
	}
	v, err := s.xref.Dereference(v)
	if err != nil {
		return ""
	}
	if n, ok := v.(types.Name); ok {
		return string(n)
	}
	return ""
}

// docMDP returns what the certification of the document allows (ISO 32000-1, table 254), or 0 without one.
func docMDP(x *model.XRefTable, root types.Dict) int {
	perms := dictAt(x, root, "Perms")
	signature := dictAt(x, perms, "DocMDP")
	if signature == nil {
		return 0
	}
	references, _ := x.Dereference(signature["Reference"])
	list, _ := references.(types.Array)
	for _, r := range list {
		o, _ := x.Dereference(r)
		d, _ := o.(types.Dict)
		parms := dictAt(x, d, "TransformParams")
		if p := parms.IntEntry("P"); p != nil {
			return *p
		}
	}
	return 2 // the default
}

// dictAt returns the dictionary at key of d, by value or reference, or nil.
func dictAt(x *model.XRefTable, d types.Dict, key string) types.Dict {
	if d == nil {
		return nil
	}
	o, err := x.Dereference(d[key])
	if err != nil {
		return nil
	}
	out, _ := o.(types.Dict)
	return out
}
