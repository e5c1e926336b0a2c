// Package words says every failure of the registry in the reader's own language: what happened, what to do next, how
// long it takes (spec 9). A test fails where an entry of the registry, or one of its next steps, lacks words in a language.
package words

import (
	"bytes"
	"embed"
	"fmt"
	"path"
	"strings"
	"sync"

	// The maintained successor of gopkg.in/yaml.v3; refuses unknown and repeated keys.
	"go.yaml.in/yaml/v3"

	"countersign.dev/pkg/failure"
)

//go:embed *.yaml
var files embed.FS

// Default is the language For falls back to.
const Default = "en"

// Words is what a person is told about one failure. No field is ever empty.
type Words struct {
	Title    string `yaml:"title"`    // what happened, as a heading; no full stop
	Text     string `yaml:"text"`     // one to three sentences: why, and what becomes of their work
	Action   string `yaml:"action"`   // label of the button that helps; in the file it may be left out where the next step's own label fits
	Expected string `yaml:"expected"` // how long that takes, as a sentence
}

// lexicon is one language's file.
type lexicon struct {
	Actions  map[string]string `yaml:"actions"`  // by failure.Error.Next
	Failures map[string]Words  `yaml:"failures"` // by failure.Error.Code
}

var lexicons = sync.OnceValue(func() map[string]lexicon {
	all, err := load()
	if err != nil {
		panic("words: " + err.Error()) // the files are part of the binary: a fault in them is a programmer's
	}
	return all
})

func load() (map[string]lexicon, error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, err
	}
	all := map[string]lexicon{}
	for _, e := range entries {
		data, err := files.ReadFile(e.Name())
		if err != nil {
			return nil, err
		}
		var l lexicon
		dec := yaml.NewDecoder(bytes.NewReader(data))
		dec.KnownFields(true)
		if err := dec.Decode(&l); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		all[strings.TrimSuffix(e.Name(), path.Ext(e.Name()))] = l
	}
	return all, nil
}

// For returns the words for a code in a locale such as "de" or "de-AT". A locale we do not have falls back to its base
// language, then to English; a code we do not have gets the words of INTERNAL.
func For(code, locale string) Words {
	l, ok := find(locale)
	if !ok {
		l = lexicons()[Default]
	}
	if failure.Lookup(code) == nil {
		code = failure.Internal.Code
	}
	w := l.Failures[code]
	if w.Action == "" {
		w.Action = l.Actions[failure.Lookup(code).Next]
	}
	return w
}

// Action returns the label of a next step in a locale, or "" for a step that no failure has.
func Action(next, locale string) string {
	l, ok := find(locale)
	if !ok {
		l = lexicons()[Default]
	}
	return l.Actions[next]
}

// Locales returns the languages there are words in, in no order.
func Locales() []string {
	var all []string
	for name := range lexicons() {
		all = append(all, name)
	}
	return all
}

// find looks for the whole locale first, then without its last parts: de-AT-1996, de-AT, de.
func find(locale string) (lexicon, bool) {
	locale = strings.ReplaceAll(locale, "_", "-")
	for {
		if l, ok := lexicons()[locale]; ok {
			return l, true
		}
		cut := strings.LastIndexByte(locale, '-')
		if cut < 0 {
			l, ok := lexicons()[strings.ToLower(locale)]
			return l, ok
		}
		locale = locale[:cut]
	}
}
