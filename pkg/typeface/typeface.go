// Package typeface carries the fonts that Countersign's own pages and pictures are set in, and knows what they can show.
//
// Noto Sans covers Latin, Greek and Cyrillic with all their diacritics; Great Vibes is the hand a typed name is written in.
// Both are under the SIL Open Font License (OFL-NotoSans.txt, OFL-GreatVibes.txt), which allows embedding in documents.
package typeface

import (
	_ "embed" // the font files
	"fmt"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/image/font/sfnt" // chosen because it is the Go project's own font reader
	"golang.org/x/text/unicode/norm"
)

//go:embed NotoSans-Regular.ttf
var regularTTF []byte

//go:embed NotoSans-Bold.ttf
var boldTTF []byte

//go:embed GreatVibes-Regular.ttf
var scriptTTF []byte

// Face is one of the embedded fonts. A Face is safe for concurrent use.
type Face struct {
	ttf   []byte
	parse func() *sfnt.Font
}

// The embedded fonts.
var (
	Regular = face(regularTTF) // Noto Sans
	Bold    = face(boldTTF)    // Noto Sans Bold
	Script  = face(scriptTTF)  // Great Vibes, a signature's hand
)

func face(ttf []byte) *Face {
	return &Face{ttf: ttf, parse: sync.OnceValue(func() *sfnt.Font {
		f, err := sfnt.Parse(ttf)
		if err != nil {
			panic("typeface: an embedded font is broken: " + err.Error())
		}
		return f
	})}
}

// TTF returns a copy of the font file: PDF writers cut their subset out of it in place.
func (f *Face) TTF() []byte { return append([]byte(nil), f.ttf...) }

// SFNT returns the parsed font.
func (f *Face) SFNT() *sfnt.Font { return f.parse() }

// Has says whether the font has a glyph for r.
func (f *Face) Has(r rune) bool {
	var buf sfnt.Buffer
	glyph, err := f.parse().GlyphIndex(&buf, r)
	return err == nil && glyph != 0
}

// Covers says whether every character of s, composed (NFC), has a glyph.
func (f *Face) Covers(s string) bool {
	for _, r := range norm.NFC.String(s) {
		if !f.Has(r) {
			return false
		}
	}
	return true
}

// Show returns s composed (NFC) and on one line, with what the font cannot show, or must not (control characters and those that
// reorder or hide text), written out as \u{5C71}: a reader sees that something stands there instead of an empty box.
func (f *Face) Show(s string) string {
	var b strings.Builder
	for _, r := range norm.NFC.String(s) {
		switch {
		case r == '\n' || r == '\r' || r == '\t' || r == '\u00a0':
			b.WriteByte(' ')
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || !f.Has(r):
			fmt.Fprintf(&b, `\u{%04X}`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
