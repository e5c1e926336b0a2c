package typeface_test

import (
	"testing"

	"countersign.dev/pkg/typeface"
)

func TestCovers(t *testing.T) {
	for name, tt := range map[string]struct {
		face *typeface.Face
		text string
		want bool
	}{
		"Latin with diacritics": {typeface.Script, "Zoë Łukasiewicz-Ångström", true},
		"decomposed":            {typeface.Script, "Zoe\u0308", true},
		"Vietnamese":            {typeface.Script, "Nguyễn Văn Đức", true},
		"Cyrillic":              {typeface.Script, "Анна Щербакова", true},
		"Greek in print":        {typeface.Regular, "Αλέξανδρος", true},
		"Greek by hand":         {typeface.Script, "Αλέξανδρος", false},
		"Japanese":              {typeface.Regular, "山田太郎", false},
		"bold":                  {typeface.Bold, "Žižek — №5 · §", true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tt.face.Covers(tt.text); got != tt.want {
				t.Errorf("Covers(%q) = %v, want %v", tt.text, got, tt.want)
			}
		})
	}
}

func TestShow(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"plain":        {"Zoë", "Zoë"},
		"composed":     {"Zoe\u0308", "Zoë"},
		"no glyph":     {"A 山", `A \u{5C71}`},
		"one line":     {"a\nb\tc", "a b c"},
		"bidi control": {"a\u202eb", `a\u{202E}b`},
		"zero width":   {"a\u200bb", `a\u{200B}b`},
		"control":      {"a\x00b", `a\u{0000}b`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := typeface.Regular.Show(tt.text); got != tt.want {
				t.Errorf("Show(%q) = %q, want %q", tt.text, got, tt.want)
			}
		})
	}
}
