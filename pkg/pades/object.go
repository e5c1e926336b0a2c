package pades

import (
	"encoding/hex"
	"fmt"
	"sort"
	"strconv"
	"time"
	"unicode/utf16"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

// appendObject writes o as PDF source. Strings keep the escapes they were read with; names are escaped again.
func appendObject(b []byte, o types.Object) ([]byte, error) {
	switch o := o.(type) {
	case nil:
		return append(b, "null"...), nil
	case types.Boolean:
		return strconv.AppendBool(b, bool(o)), nil
	case types.Integer:
		return strconv.AppendInt(b, int64(o), 10), nil
	case types.Float:
		return strconv.AppendFloat(b, float64(o), 'f', -1, 64), nil
	case types.Name:
		return append(append(b, '/'), types.EncodeName(string(o))...), nil
	case types.StringLiteral:
		return append(append(append(b, '('), o...), ')'), nil
	case types.HexLiteral:
		return append(append(append(b, '<'), o...), '>'), nil
	case types.IndirectRef:
		return fmt.Appendf(b, "%d %d R", int(o.ObjectNumber), int(o.GenerationNumber)), nil
	case types.Array:
		return appendArray(b, o)
	case types.Dict:
		return appendDict(b, o)
	}
	return nil, fmt.Errorf("%w: an object of type %T inside another", ErrUnsupported, o)
}

func appendArray(b []byte, a types.Array) ([]byte, error) {
	b = append(b, '[')
	for i, o := range a {
		if i > 0 {
			b = append(b, ' ')
		}
		var err error
		if b, err = appendObject(b, o); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendDict(b []byte, d types.Dict) ([]byte, error) {
	keys := make([]string, 0, len(d))
	for k := range d {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	b = append(b, "<<"...)
	for _, k := range keys {
		b = append(append(append(b, '/'), types.EncodeName(k)...), ' ')
		var err error
		if b, err = appendObject(b, d[k]); err != nil {
			return nil, err
		}
	}
	return append(b, ">>"...), nil
}

// textString is any text as UTF-16BE in hexadecimal: no escapes, all of Unicode.
func textString(s string) types.HexLiteral {
	b := []byte{0xFE, 0xFF}
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u>>8), byte(u))
	}
	return types.HexLiteral(hex.EncodeToString(b))
}

// dateString is a PDF date in UTC, to the second.
func dateString(t time.Time) string {
	return t.UTC().Format("D:20060102150405") + "Z"
}

// parseDate reads a PDF date (ISO 32000-1, 7.9.4); the zero time where it is none. A date without zone is taken as UTC.
func parseDate(s string) time.Time {
	at, ok := types.DateTime(s, true)
	if !ok {
		return time.Time{}
	}
	return at.UTC()
}

func numbers(vs ...float64) types.Array {
	a := make(types.Array, len(vs))
	for i, v := range vs {
		a[i] = types.Float(v)
	}
	return a
}

// copyOf copies the top level of a dictionary, so that what was read stays as it was read.
func copyOf(d types.Dict) types.Dict {
	c := make(types.Dict, len(d)+2)
	for k, v := range d {
		c[k] = v
	}
	return c
}
