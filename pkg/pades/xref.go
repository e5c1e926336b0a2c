package pades

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sort"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

// finish writes the catalog if it changed, then a cross-reference section of the same kind as the newest one of the source:
// a mixture makes some viewers reject the signed range.
func (u *update) finish() ([]byte, error) {
	if u.dirty {
		u.put(*u.doc.ctx.Root, u.catalog)
	}
	if u.err != nil {
		return nil, u.err
	}
	var start int
	var err error
	if u.doc.stream {
		start, err = u.xrefStream()
	} else {
		start, err = u.xrefTable()
	}
	if err != nil {
		return nil, err
	}
	u.out = fmt.Appendf(u.out, "startxref\n%d\n%%%%EOF\n", start)
	if len(u.out) > MaxSize {
		return nil, ErrTooLarge
	}
	return u.out, nil
}

// trailer carries Root and Info over, keeps the first half of ID and makes the second anew.
func (u *update) trailer() types.Dict {
	fresh := make([]byte, 16)
	_, _ = rand.Read(fresh) // never fails
	id := types.HexLiteral(hex.EncodeToString(fresh))
	t := types.Dict{
		"Size": types.Integer(u.next), "Root": *u.doc.ctx.Root, "Prev": types.Integer(u.doc.xref),
		"ID": types.Array{id, id},
	}
	if old := u.doc.ctx.ID; len(old) == 2 {
		t["ID"] = types.Array{old[0], id}
	}
	if u.doc.ctx.Info != nil {
		t["Info"] = *u.doc.ctx.Info
	}
	return t
}

// runs groups the written objects into runs of consecutive numbers, as both kinds of section want them.
func (u *update) runs() [][]int {
	numbers := make([]int, 0, len(u.written))
	for n := range u.written {
		numbers = append(numbers, n)
	}
	sort.Ints(numbers)
	var runs [][]int
	for i, n := range numbers {
		if i == 0 || n != numbers[i-1]+1 {
			runs = append(runs, nil)
		}
		runs[len(runs)-1] = append(runs[len(runs)-1], n)
	}
	return runs
}

func (u *update) xrefTable() (start int, err error) {
	start = len(u.out)
	u.out = append(u.out, "xref\n"...)
	for _, run := range u.runs() {
		u.out = fmt.Appendf(u.out, "%d %d\n", run[0], len(run))
		for _, n := range run {
			u.out = fmt.Appendf(u.out, "%010d %05d n \n", u.written[n].offset, u.written[n].generation) // 20 bytes exactly
		}
	}
	u.out = append(u.out, "trailer\n"...)
	if u.out, err = appendDict(u.out, u.trailer()); err != nil {
		return 0, err
	}
	u.out = append(u.out, '\n')
	return start, nil
}

func (u *update) xrefStream() (start int, err error) {
	ref := u.alloc()
	start = len(u.out)
	u.begin(ref)
	dict := u.trailer()
	dict["Type"] = types.Name("XRef")
	dict["W"] = types.Array{types.Integer(1), types.Integer(4), types.Integer(2)}
	var index types.Array
	var data []byte
	for _, run := range u.runs() {
		index = append(index, types.Integer(run[0]), types.Integer(len(run)))
		for _, n := range run {
			p := u.written[n]
			data = append(data, 1, byte(p.offset>>24), byte(p.offset>>16), byte(p.offset>>8), byte(p.offset), byte(p.generation>>8), byte(p.generation))
		}
	}
	dict["Index"], dict["Length"] = index, types.Integer(len(data))
	if u.out, err = appendDict(u.out, dict); err != nil {
		return 0, err
	}
	u.out = append(append(append(u.out, "\nstream\n"...), data...), "\nendstream"...)
	u.end()
	return start, nil
}
