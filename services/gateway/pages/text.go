package pages

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Invisible marks that keep the direction of foreign text to itself (Unicode bidi, UAX 9).
const (
	firstStrongIsolate    = "\u2068"
	popDirectionalIsolate = "\u2069"
)

// Longest stretches shown, in runes.
const (
	maxLine = 200
	maxNote = 20_000
)

// joining are the scripts in which zero width joiners change what a word says.
var joining = []*unicode.RangeTable{
	unicode.Arabic, unicode.Syriac, unicode.Mongolian, unicode.Devanagari, unicode.Bengali, unicode.Gurmukhi, unicode.Gujarati,
	unicode.Oriya, unicode.Tamil, unicode.Telugu, unicode.Kannada, unicode.Malayalam, unicode.Sinhala, unicode.Khmer, unicode.Myanmar,
}

// Clean makes foreign text fit for one line: valid, without control or format characters (category Cf; zero width
// joiners stay after letters of scripts that need them) and invisible letters, white space folded, at most limit runes.
func Clean(s string, limit int) string {
	var b strings.Builder
	count, blank, last := 0, false, rune(0)
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			blank = b.Len() > 0
			continue
		case !visible(r, last):
			continue
		}
		if count >= limit {
			return b.String() + "…"
		}
		if blank {
			b.WriteByte(' ')
			count++
		}
		b.WriteRune(r)
		count, blank, last = count+1, false, r
	}
	return b.String()
}

// CleanLines is Clean line by line; empty lines in a row become one.
func CleanLines(s string, limit int) string {
	var kept []string
	for line := range strings.SplitSeq(strings.ReplaceAll(s, "\r\n", "\n"), "\n") {
		line = Clean(line, limit)
		if line == "" && (len(kept) == 0 || kept[len(kept)-1] == "") {
			continue
		}
		kept = append(kept, line)
	}
	return strings.TrimRight(strings.Join(kept, "\n"), "\n")
}

func visible(r, before rune) bool {
	switch r {
	case utf8.RuneError, 0x034F, 0x115F, 0x1160, 0x3164, 0xFFA0: // combining grapheme joiner, Hangul fillers
		return false
	case 0x200C, 0x200D: // zero width non-joiner, joiner
		return unicode.In(before, joining...)
	}
	return unicode.IsGraphic(r)
}

// isolate keeps the direction of a piece of text from reaching its neighbours.
func isolate(s string) string {
	if s == "" {
		return ""
	}
	return firstStrongIsolate + s + popDirectionalIsolate
}

// shown is foreign text for one line of a page, cleaned and isolated. Where nothing visible is left a dash stands for it.
func shown(s string) string {
	cleaned := Clean(s, maxLine)
	if cleaned == "" && s != "" {
		cleaned = "—"
	}
	return isolate(cleaned)
}

// MaskEmail hides a mailbox but for what its owner recognises it by: j•••@example.com. What is no address is hidden whole.
func MaskEmail(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 1 || at == len(address)-1 {
		return "•••"
	}
	first, _ := utf8.DecodeRuneInString(address)
	return string(first) + "•••" + address[at:]
}

// MaskPhone hides a number but for its last two digits: •••67.
func MaskPhone(number string) string {
	var digits []rune
	for _, r := range number {
		if r >= '0' && r <= '9' {
			digits = append(digits, r)
		}
	}
	if len(digits) < 6 {
		return "•••"
	}
	return "•••" + string(digits[len(digits)-2:])
}
