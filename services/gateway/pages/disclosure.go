package pages

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"strings"
	"sync"
)

//go:embed disclosure/*.txt
var disclosureFiles embed.FS

// Versions of the two texts. A text never changes under a version: a test holds the sums of those that were released.
const (
	disclosureID, disclosureVersion = "consent-electronic", "2026-11"
	intentID, intentVersion         = "intent-to-sign", "2026-11"
)

// Statement is a text whose exact words are evidence (audit 1.1): what was shown, in which language, and its sum.
type Statement struct {
	ID      string
	Version string
	Locale  string
	Text    string // exactly what the page shows, with "# " before headings and empty lines between paragraphs
	SHA256  string // of Text, hexadecimal
}

// Name identifies the statement: id/version/locale, as FieldDisclosure carries it.
func (s Statement) Name() string { return s.ID + "/" + s.Version + "/" + s.Locale }

// Disclosure is what a consumer has to be told before consenting to electronic form (ESIGN, 15 USC 7001(c)): paper, what
// it costs, withdrawing, scope, contact details, what is needed. The language is matched as everywhere.
func Disclosure(locale string) Statement { return statements()["consent "+Match(locale)] }

// Intent is what a signer means by the button: the words beside it.
func Intent(locale string) Statement { return statements()["intent "+Match(locale)] }

var statements = sync.OnceValue(func() map[string]Statement {
	all := map[string]Statement{}
	for _, locale := range Locales() {
		for kind, id := range map[string][2]string{"consent": {disclosureID, disclosureVersion}, "intent": {intentID, intentVersion}} {
			text, err := disclosureFiles.ReadFile("disclosure/" + kind + "." + locale + ".txt")
			if err != nil {
				panic("pages: " + err.Error()) // the files are part of the binary: a fault in them is a programmer's
			}
			sum := sha256.Sum256(text)
			all[kind+" "+locale] = Statement{ID: id[0], Version: id[1], Locale: locale, Text: string(text), SHA256: hex.EncodeToString(sum[:])}
		}
	}
	return all
})

// part is a heading with its paragraphs.
type part struct {
	Heading    string
	Paragraphs []string
}

func (s Statement) parts() []part {
	var all []part
	for block := range strings.SplitSeq(strings.TrimSpace(s.Text), "\n\n") {
		if heading, ok := strings.CutPrefix(block, "# "); ok {
			all = append(all, part{Heading: heading})
			continue
		}
		if len(all) == 0 {
			all = append(all, part{})
		}
		last := &all[len(all)-1]
		last.Paragraphs = append(last.Paragraphs, block)
	}
	return all
}
