package rules

import (
	"encoding/binary"
	"strings"
	"unicode"
)

// CodeDigits is how long a code is (spec 5.2).
const CodeDigits = 6

const codes = 1_000_000 // 10^CodeDigits

// Code reduces a keyed hash to six digits, all codes alike: what does not fit is drawn again, so that no code is likelier
// than another. mac gives 32 bytes for a round, and must depend on the challenge and a key.
func Code(mac func(round byte) []byte) string {
	const fair = (1<<32 - 1) - (1<<32)%codes // the largest value below which codes divide evenly
	for round := byte(0); ; round++ {
		for sum := mac(round); len(sum) >= 4; sum = sum[4:] {
			if v := binary.BigEndian.Uint32(sum); v <= fair {
				return digits(v % codes)
			}
		}
	}
}

func digits(v uint32) string {
	var d [CodeDigits]byte
	for i := len(d) - 1; i >= 0; i-- {
		d[i] = byte('0' + v%10)
		v /= 10
	}
	return string(d[:])
}

// NormalizeCode returns the digits of a code as people type or paste it: with spaces, dashes or marks of direction, and in
// Arabic, Persian or full-width digits. It returns false for what cannot be a code; that is a slip, not a guess.
func NormalizeCode(typed string) (string, bool) {
	var b strings.Builder
	for _, r := range typed {
		switch {
		case r >= '0' && r <= '9':
			b.WriteRune(r)
		case r >= '\u0660' && r <= '\u0669': // Arabic
			b.WriteRune('0' + r - '\u0660')
		case r >= '\u06f0' && r <= '\u06f9': // Persian
			b.WriteRune('0' + r - '\u06f0')
		case r >= '\uff10' && r <= '\uff19': // full width
			b.WriteRune('0' + r - '\uff10')
		case unicode.IsSpace(r), unicode.Is(unicode.Pd, r), unicode.Is(unicode.Cf, r):
		default:
			return "", false
		}
		if b.Len() > CodeDigits {
			return "", false
		}
	}
	return b.String(), b.Len() == CodeDigits
}
