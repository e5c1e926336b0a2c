package message

import (
	"strings"
	"unicode/utf8"
)

// lineWidth is what mail readers and terminals show without breaking lines once more (RFC 5322 2.1.1 advises 78).
const lineWidth = 72

// wrap breaks text between words into lines of at most 72 characters, each after the first led by hang spaces. A word
// that is longer stays whole: it may be a link.
func wrap(hang int, text string) string {
	var b strings.Builder
	column := hang
	for i, word := range strings.Fields(text) {
		length := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+length > lineWidth:
			b.WriteString("\n" + strings.Repeat(" ", hang))
			column = hang
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += length
	}
	return b.String()
}

// labelWidth aligns the values of facts; no label is longer in any language.
const labelWidth = 14

func label(text string) string {
	return text + ":" + strings.Repeat(" ", max(1, labelWidth-utf8.RuneCountInString(text)-1))
}

// rule underlines a title, which may have wrapped.
func rule(text string) string {
	longest := 0
	for line := range strings.SplitSeq(wrap(0, text), "\n") {
		longest = max(longest, utf8.RuneCountInString(line))
	}
	return strings.Repeat("=", longest)
}

// tidy leaves at most one empty line between paragraphs and no spaces at the ends of lines, but for the "-- " that
// starts a signature.
func tidy(text string) string {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		if line != "-- " {
			line = strings.TrimRight(line, " ")
		}
		if line == "" && len(lines) > 0 && lines[len(lines)-1] == "" {
			continue
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n") + "\n"
}
