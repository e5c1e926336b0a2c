package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"html"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf16"
)

// needles are values that must be nowhere, by what they are. More may be added while a run goes on.
type needles struct {
	mu     sync.Mutex
	values map[string]string // value to what it is
}

func (n *needles) add(what string, values ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, v := range values {
		if n.values == nil {
			n.values = map[string]string{}
		}
		if v != "" {
			n.values[v] = what
		}
	}
}

// count returns how many values there are of each kind.
func (n *needles) count() map[string]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := map[string]int{}
	for _, what := range n.values {
		count[what]++
	}
	return count
}

// form is one way in which a value may stand somewhere.
type form struct {
	value string
	what  string
	how   string
	bytes []byte
	exact bool // upper and lower case differ
	whole bool // digits that stand for themselves, not a part of a longer number or word
}

// forms returns every way to look for every value: as it is, escaped as in URLs, JSON, HTML and mail, in hex, in UTF-16, and in base64
// wherever in a longer text it begins.
func (n *needles) forms() []form {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []form
	for _, value := range slices.Sorted(maps.Keys(n.values)) {
		what, seen := n.values[value], map[string]bool{}
		add := func(how string, b []byte, exact bool) {
			digits := len(value) < 10 && strings.Trim(value, "0123456789 ") == ""
			f := form{value: value, what: what, how: how, bytes: b, exact: exact, whole: digits && !exact && len(b) == len(value)}
			if !exact {
				f.bytes = lower(b)
			}
			if !seen[string(f.bytes)] {
				seen[string(f.bytes)] = true
				out = append(out, f)
			}
		}
		add("as it is", []byte(value), false)
		add("as a URL's query", []byte(url.QueryEscape(value)), false)
		add("as a URL's path", []byte(url.PathEscape(value)), false)
		quoted := strconv.QuoteToASCII(value)
		add("in JSON's escapes", []byte(quoted[1:len(quoted)-1]), false)
		add("in HTML's escapes", []byte(html.EscapeString(value)), false)
		add("quoted-printable", []byte(strings.ReplaceAll(url.PathEscape(value), "%", "=")), false)
		add("in hex", []byte(hex.EncodeToString([]byte(value))), false)
		var little, big []byte
		for _, u := range utf16.Encode([]rune(value)) {
			little, big = append(little, byte(u), byte(u>>8)), append(big, byte(u>>8), byte(u))
		}
		add("in UTF-16LE", little, true)
		add("in UTF-16BE", big, true)
		for offset := range 3 {
			for _, code := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				add("in base64", inBase64(code, value, offset), true)
			}
		}
	}
	return out
}

// inBase64 is what of a value is certain in base64 when it begins offset bytes after a group of three: without the characters that it
// shares with its neighbours.
func inBase64(code *base64.Encoding, value string, offset int) []byte {
	text := code.EncodeToString(append(make([]byte, offset), value...))
	first := (offset*8 + 5) / 6
	last := (offset + len(value)) * 8 / 6
	return []byte(text[first:last])
}

// found is a value that stands where it must not.
type found struct{ what, how, value, where, around string }

// search looks for every form in a place; at most one finding for a value.
func search(forms []form, where string, place []byte) []found {
	var out []found
	low := lower(place)
	hit := map[string]bool{}
	for _, f := range forms {
		if hit[f.value] {
			continue
		}
		in := low
		if f.exact {
			in = place
		}
		if i := f.index(in); i >= 0 {
			hit[f.value] = true
			around := place[max(0, i-60):min(len(place), i+len(f.bytes)+60)]
			out = append(out, found{f.what, f.how, f.value, where, strconv.QuoteToASCII(string(around))})
		}
	}
	return out
}

func (f form) index(in []byte) int {
	for from := 0; ; {
		i := bytes.Index(in[from:], f.bytes)
		if i < 0 {
			return -1
		}
		i += from
		if !f.whole || !wordAt(in, i-1) && !wordAt(in, i+len(f.bytes)) {
			return i
		}
		from = i + 1
	}
}

func wordAt(b []byte, i int) bool {
	return i >= 0 && i < len(b) && (b[i] >= '0' && b[i] <= '9' || b[i] >= 'a' && b[i] <= 'z')
}

// lower is bytes.ToLower for ASCII alone, which leaves binary data as long as it is.
func lower(b []byte) []byte {
	out := bytes.Clone(b)
	for i, c := range out {
		if c >= 'A' && c <= 'Z' {
			out[i] = c + 'a' - 'A'
		}
	}
	return out
}

// TestSearchFinds plants values in every form, at every offset, and wants each found; numbers alone are not found in longer ones.
func TestSearchFinds(t *testing.T) {
	t.Parallel()
	var n needles
	n.add("a name", "Zoë Ångström-Müller & Söhne")
	n.add("a code", "482917")
	forms := n.forms()
	for _, f := range forms {
		for _, planted := range [][]byte{f.bytes, append([]byte("\x00\xff\n"), f.bytes...), append(bytes.Clone(f.bytes), "\"}"...)} {
			if got := search(forms, "here", planted); len(got) != 1 || got[0].value != f.value {
				t.Errorf("%s %s was found as %v", f.what, f.how, got)
			}
		}
	}
	for offset := range 7 {
		text := append(bytes.Repeat([]byte("x"), offset), "Zoë Ångström-Müller & Söhne and more"...)
		for _, code := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			if got := search(forms, "here", []byte(code.EncodeToString(text))); len(got) != 1 {
				t.Errorf("base64 after %d bytes is found as %v", offset, got)
			}
		}
	}
	for _, innocent := range []string{"1482917", "4829170", "a482917", "0.482917z", "zoe angstrom"} {
		if got := search(forms, "here", []byte(innocent)); len(got) != 0 {
			t.Errorf("%q holds none of them: %v", innocent, got)
		}
	}
}
