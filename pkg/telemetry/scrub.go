package telemetry

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Redacted stands where something secret or personal was found.
const Redacted = "[redacted]"

// maxText is the longest text, in bytes, that a log line or a span keeps of one value; a stack trace fits.
const maxText = 16 << 10

var (
	// Link tokens, API keys and webhook secrets: prefixes chosen so that they can be found (security.md 3.3, 4.4).
	tokens = regexp.MustCompile(`cs1_[A-Za-z0-9_-]{16,}|csk_[a-z]+_[A-Za-z0-9_-]{8,}|whsec_[A-Za-z0-9+/=_-]{16,}`)
	// Mail addresses, also percent-encoded as in a URL. The last label is letters, so module@v1.2.3 is none.
	emails = regexp.MustCompile(`[\p{L}\p{N}._%+'=-]+(?:@|%40)(?:[\p{L}\p{N}-]+\.)+\p{L}{2,}`)
	// Phone numbers in E.164.
	phones = regexp.MustCompile(`\+[1-9][0-9]{7,14}\b`)
	codes  = regexp.MustCompile(`\b[0-9]{6,8}\b`)
)

// Scrub returns text fit for a log line or a span: control, format and bidirectional characters are gone (a line break
// or tab is a space), what looks like a token, a mail address or a phone number is Redacted, invalid UTF-8 is replaced,
// and what is above 16 KiB is cut. Scrubbing twice changes nothing more.
func Scrub(text string) string {
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + " [cut]"
	}
	text = strings.Map(visible, strings.ToValidUTF8(text, "\uFFFD"))
	if strings.Contains(text, "cs") || strings.Contains(text, "whsec_") {
		text = tokens.ReplaceAllLiteralString(text, Redacted)
	}
	if strings.Contains(text, "@") || strings.Contains(text, "%40") {
		text = emails.ReplaceAllLiteralString(text, Redacted)
	}
	if strings.Contains(text, "+") {
		text = phones.ReplaceAllLiteralString(text, Redacted)
	}
	return text
}

// scrubUnder scrubs the value of a key, and takes out what may be a one-time code where the key says that it is one.
func scrubUnder(key, text string) string {
	text = Scrub(text)
	switch kindOf(key) {
	case secretKey:
		if text != "" {
			return Redacted
		}
	case codeKey:
		return codes.ReplaceAllLiteralString(text, Redacted)
	case plainKey:
	}
	return text
}

type keyKind int

const (
	plainKey keyKind = iota
	codeKey
	secretKey
)

// kindOf tells from its name what an attribute holds. Only the last part of a dotted name counts.
func kindOf(key string) keyKind {
	key = strings.ToLower(key[strings.LastIndexByte(key, '.')+1:])
	switch key {
	case "code", "otp", "pin", "passcode", "answer", "one_time_code", "verification_code", "challenge":
		return codeKey
	case "token", "secret", "password", "authorization", "cookie", "set-cookie", "api_key":
		return secretKey
	}
	return plainKey
}

func visible(r rune) rune {
	switch {
	case r == '\n' || r == '\r' || r == '\t' || r == '\u2028' || r == '\u2029':
		return ' '
	case r < utf8.RuneSelf && r >= ' ' && r != 0x7f:
		return r
	case unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Co, r):
		return -1
	}
	return r
}
