package pdf

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/model"
	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

// The strict reading of a file's cross references. Viewers and pdfcpu repair what is wrong here without a word, each in its own
// way; a file on which they could differ is never signed as it is.

const (
	maxSections   = 1000
	maxXRefBytes  = 16 << 20 // decoded, of one cross-reference stream
	maxXRefEntry  = 1 << 20  // object numbers
	tailLength    = 1024
	maxDictLength = 1 << 20
)

var (
	tailPattern   = regexp.MustCompile(`startxref[ \t]*(?:\r\n|\r|\n)[ \t]*(\d{1,10})[ \t]*(?:\r\n|\r|\n)%%EOF[\x00\t\n\f\r ]*$`)
	objectPattern = regexp.MustCompile(`^(\d{1,10})[\x00\t\n\f\r ]+(\d{1,5})[\x00\t\n\f\r ]+obj`)
	rangePattern  = regexp.MustCompile(`^[\t\n\f\r ]*(\d{1,10}) (\d{1,10})[ \t]*(?:\r\n|\r|\n)`)
	entryPattern  = regexp.MustCompile(`^(\d{10}) (\d{5}) ([nf])(?: \r| \n|\r\n)`)
	markPattern   = regexp.MustCompile(`^[\x00\t\n\f\r ]*trailer`)
	streamPattern = regexp.MustCompile(`^[\x00\t\n\f\r ]*stream(?:\r\n|\n)`)

	errXRef = errors.New("cross references are not clean")
)

// xrefs is what the last cross-reference section of a clean file says.
type xrefs struct {
	start   int64      // its offset
	stream  bool       // a cross-reference stream, not a table
	trailer types.Dict // its trailer
	seen    map[int64]bool
	settled map[int]bool // object numbers that a newer section has spoken about
}

// readXRefs follows all sections of b from the last one and checks every entry against what stands at its offset.
// An error means that readers would have to repair the file.
func readXRefs(b []byte) (*xrefs, error) {
	if !bytes.HasPrefix(b, []byte("%PDF-")) {
		return nil, fmt.Errorf("%w: no header at the start", errXRef)
	}
	tail := b[max(0, len(b)-tailLength):]
	m := tailPattern.FindSubmatch(tail)
	if m == nil {
		return nil, fmt.Errorf("%w: no startxref at the end", errXRef)
	}
	start, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errXRef, err)
	}
	x := &xrefs{start: start, seen: map[int64]bool{}, settled: map[int]bool{}}
	for next := start; next >= 0; {
		trailer, err := x.section(b, next)
		if err != nil {
			return nil, err
		}
		if x.trailer == nil {
			x.trailer = trailer
		}
		next = -1
		if prev := trailer.Int64Entry("Prev"); prev != nil {
			next = *prev
		} else if trailer.HasEntry("Prev") {
			return nil, fmt.Errorf("%w: Prev", errXRef)
		}
	}
	if x.trailer.IndirectRefEntry("Root") == nil {
		return nil, fmt.Errorf("%w: no catalog", errXRef)
	}
	return x, nil
}

// section checks the section at offset and returns its trailer.
func (x *xrefs) section(b []byte, offset int64) (types.Dict, error) {
	if offset < 0 || offset >= int64(len(b)) || x.seen[offset] || len(x.seen) >= maxSections {
		return nil, fmt.Errorf("%w: section offset", errXRef)
	}
	first := len(x.seen) == 0
	x.seen[offset] = true
	if rest, ok := bytes.CutPrefix(b[offset:], []byte("xref")); ok {
		return x.table(b, rest)
	}
	if first {
		x.stream = true
	}
	return x.xrefStream(b, b[offset:])
}

func (x *xrefs) table(b, rest []byte) (types.Dict, error) {
	for {
		if m := markPattern.Find(rest); m != nil {
			rest = rest[len(m):]
			break
		}
		m := rangePattern.FindSubmatch(rest)
		if m == nil {
			return nil, fmt.Errorf("%w: subsection", errXRef)
		}
		rest = rest[len(m[0]):]
		first, _ := strconv.Atoi(string(m[1]))
		count, _ := strconv.Atoi(string(m[2]))
		for i := range count {
			e := entryPattern.FindSubmatch(rest)
			if e == nil {
				return nil, fmt.Errorf("%w: entry", errXRef)
			}
			rest = rest[len(e[0]):]
			offset, _ := strconv.ParseInt(string(e[1]), 10, 64)
			generation, _ := strconv.Atoi(string(e[2]))
			if err := x.entry(b, first+i, offset, generation, e[3][0] == 'n'); err != nil {
				return nil, err
			}
		}
	}
	trailer, _, err := parseDict(rest)
	if err != nil {
		return nil, err
	}
	if hybrid := trailer.Int64Entry("XRefStm"); hybrid != nil {
		if *hybrid < 0 || *hybrid >= int64(len(b)) {
			return nil, fmt.Errorf("%w: XRefStm", errXRef)
		}
		if _, err := x.xrefStream(b, b[*hybrid:]); err != nil {
			return nil, err
		}
	}
	return trailer, nil
}

// entry checks that an object in use stands where the table says. Only the newest word on an object counts.
func (x *xrefs) entry(b []byte, number int, offset int64, generation int, used bool) error {
	if number < 0 || number > maxXRefEntry {
		return fmt.Errorf("%w: object number", errXRef)
	}
	if x.settled[number] {
		return nil
	}
	x.settled[number] = true
	if !used {
		return nil
	}
	if offset <= 0 || offset >= int64(len(b)) {
		return fmt.Errorf("%w: object %d", errXRef, number)
	}
	m := objectPattern.FindSubmatch(b[offset:min(int64(len(b)), offset+40)])
	if m == nil || string(trimZeros(m[1])) != strconv.Itoa(number) || string(trimZeros(m[2])) != strconv.Itoa(generation) {
		return fmt.Errorf("%w: object %d", errXRef, number)
	}
	return nil
}

func trimZeros(digits []byte) []byte {
	if t := bytes.TrimLeft(digits, "0"); len(t) > 0 {
		return t
	}
	return []byte("0")
}

// xrefStream checks a cross-reference stream, which must be plain or deflated.
func (x *xrefs) xrefStream(b, at []byte) (types.Dict, error) {
	m := objectPattern.Find(at)
	if m == nil {
		return nil, fmt.Errorf("%w: neither table nor stream", errXRef)
	}
	dict, rest, err := parseDict(at[len(m):])
	if err != nil {
		return nil, err
	}
	kind := dict.Type()
	length := dict.IntEntry("Length")
	mark := streamPattern.Find(rest)
	if kind == nil || *kind != "XRef" || length == nil || mark == nil || *length < 0 || *length > len(rest)-len(mark) {
		return nil, fmt.Errorf("%w: stream", errXRef)
	}
	data, err := decodeXRef(dict, rest[len(mark):len(mark)+*length])
	if err != nil {
		return nil, err
	}
	return dict, x.rows(b, dict, data)
}

func (x *xrefs) rows(b []byte, dict types.Dict, data []byte) error {
	w, err := ints(dict.W(), 3)
	if err != nil || w[0] > 2 || w[1] < 1 || w[1] > 8 || w[2] > 8 {
		return fmt.Errorf("%w: W", errXRef)
	}
	size := dict.Size()
	if size == nil {
		return fmt.Errorf("%w: Size", errXRef)
	}
	index := []int{0, *size}
	if a := dict.Index(); a != nil {
		if index, err = ints(a, len(a)); err != nil || len(index)%2 != 0 {
			return fmt.Errorf("%w: Index", errXRef)
		}
	}
	width := w[0] + w[1] + w[2]
	for i := 0; i < len(index); i += 2 {
		for n := range index[i+1] {
			if len(data) < width {
				return fmt.Errorf("%w: rows missing", errXRef)
			}
			kind := int64(1)
			if w[0] > 0 {
				kind = number(data[:w[0]])
			}
			offset, generation := number(data[w[0]:w[0]+w[1]]), number(data[w[0]+w[1]:width])
			data = data[width:]
			if kind == 1 {
				err = x.entry(b, index[i]+n, offset, int(generation), true)
			} else {
				err = x.entry(b, index[i]+n, 0, 0, false)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func number(b []byte) int64 {
	var n uint64
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return int64(n & (1<<62 - 1))
}

func ints(a types.Array, n int) ([]int, error) {
	out := make([]int, 0, len(a))
	for _, o := range a {
		i, ok := o.(types.Integer)
		if !ok || i < 0 {
			return nil, errXRef
		}
		out = append(out, int(i))
	}
	if len(out) != n {
		return nil, errXRef
	}
	return out, nil
}

// parseDict reads the dictionary at the start of b and returns what follows it.
func parseDict(b []byte) (types.Dict, []byte, error) {
	window := string(b[:min(len(b), maxDictLength)])
	line := window
	o, err := model.ParseObject(&line)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errXRef, err)
	}
	d, ok := o.(types.Dict)
	if !ok {
		return nil, nil, fmt.Errorf("%w: no dictionary", errXRef)
	}
	return d, b[len(window)-len(line):], nil
}

// decodeXRef undoes the filters that producers use for cross-reference streams: none, or Flate with or without a predictor.
func decodeXRef(dict types.Dict, raw []byte) ([]byte, error) {
	filter, ok := dict.Find("Filter")
	if !ok {
		return raw, nil
	}
	parms, _ := dict.Find("DecodeParms")
	if a, is := filter.(types.Array); is && len(a) == 1 {
		filter = a[0]
		if p, is := parms.(types.Array); is && len(p) == 1 {
			parms = p[0]
		}
	}
	if filter != types.Name("FlateDecode") {
		return nil, fmt.Errorf("%w: filter", errXRef)
	}
	z, err := zlib.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errXRef, err)
	}
	data, err := io.ReadAll(io.LimitReader(z, maxXRefBytes+1))
	if err != nil || len(data) > maxXRefBytes {
		return nil, fmt.Errorf("%w: stream data", errXRef)
	}
	p, ok := parms.(types.Dict)
	if !ok {
		return data, nil
	}
	predictor, columns := p.IntEntry("Predictor"), 1
	if predictor == nil || *predictor < 2 {
		return data, nil
	}
	if c := p.IntEntry("Columns"); c != nil {
		columns = *c
	}
	if *predictor < 10 || columns < 1 || columns > 32 {
		return nil, fmt.Errorf("%w: predictor", errXRef)
	}
	return unpredict(data, columns)
}

// unpredict undoes PNG prediction of one-byte components (ISO 32000-1, 7.4.4.4).
func unpredict(data []byte, columns int) ([]byte, error) {
	out := make([]byte, 0, len(data))
	prior := make([]byte, columns)
	for len(data) > 0 {
		if len(data) < columns+1 {
			return nil, fmt.Errorf("%w: predictor row", errXRef)
		}
		row := append([]byte(nil), data[1:columns+1]...)
		for i := range row {
			var left, corner byte
			if i > 0 {
				left, corner = row[i-1], prior[i-1]
			}
			switch data[0] {
			case 0:
			case 1:
				row[i] += left
			case 2:
				row[i] += prior[i]
			case 3:
				row[i] += byte((int(left) + int(prior[i])) / 2)
			case 4:
				row[i] += paeth(left, prior[i], corner)
			default:
				return nil, fmt.Errorf("%w: predictor kind", errXRef)
			}
		}
		out, prior, data = append(out, row...), row, data[columns+1:]
	}
	return out, nil
}

func paeth(a, b, c byte) byte {
	p := int(a) + int(b) - int(c)
	pa, pb, pc := abs(p-int(a)), abs(p-int(b)), abs(p-int(c))
	switch {
	case pa <= pb && pa <= pc:
		return a
	case pb <= pc:
		return b
	default:
		return c
	}
}

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}
