package channel

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// joining lists the scripts in which U+200C and U+200D change how a word is written, so that they may stay.
var joining = []*unicode.RangeTable{
	unicode.Arabic, unicode.Syriac, unicode.Nko, unicode.Mongolian, unicode.Devanagari, unicode.Bengali,
	unicode.Gurmukhi, unicode.Gujarati, unicode.Oriya, unicode.Tamil, unicode.Telugu, unicode.Kannada,
	unicode.Malayalam, unicode.Sinhala, unicode.Khmer, unicode.Myanmar, unicode.Tibetan,
}

// hidden reports whether r, following prev, is invisible or turns the reading direction: category Cf but for the two
// joiners inside scripts that need them.
func hidden(prev, r rune) bool {
	if !unicode.Is(unicode.Cf, r) {
		return false
	}
	const zwnj, zwj = 0x200C, 0x200D
	return (r != zwnj && r != zwj) || !unicode.In(prev, joining...)
}

func breaksLine(r rune) bool { return unicode.IsControl(r) || r == 0x2028 || r == 0x2029 }

// Clean returns s as one line fit for display: bidi controls, zero-width and tag characters are dropped, whatever
// breaks a line becomes a space, runs of spaces become one, and the ends are trimmed. A clean s comes back unchanged.
func Clean(s string) string {
	var b strings.Builder
	prev := ' '
	for _, r := range s {
		switch {
		case hidden(prev, r):
			continue
		case breaksLine(r) || unicode.IsSpace(r):
			r = ' '
			if prev == ' ' {
				continue
			}
		}
		b.WriteRune(r)
		prev = r
	}
	return strings.TrimRight(b.String(), " ")
}

// Problem says why s may not stand in a header field or a title, and "" where it may: it must be valid UTF-8 of at
// most limit characters, without control characters, line breaks, and hidden characters. It never repeats s.
func Problem(s string, limit int) string {
	switch {
	case !utf8.ValidString(s):
		return "must be valid UTF-8"
	case utf8.RuneCountInString(s) > limit:
		return "is too long"
	}
	prev := ' '
	for _, r := range s {
		if breaksLine(r) {
			return "must not contain line breaks or control characters"
		}
		if hidden(prev, r) {
			return "must not contain invisible or direction-changing characters"
		}
		prev = r
	}
	return ""
}
