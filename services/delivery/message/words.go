package message

import (
	"embed"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/nicksnyder/go-i18n/v2/i18n" // message files with plural rules that translators' tools know
	"go.yaml.in/yaml/v3"
	"golang.org/x/text/language"
)

//go:embed locales
var localeFiles embed.FS

// Locales returns the languages that messages exist in; the first is used where none fits.
func Locales() []string { return []string{"en", "de"} }

var bundle = loadBundle()

// loadBundle panics on files that cannot be read: they are part of the program.
func loadBundle() *i18n.Bundle {
	b := i18n.NewBundle(language.English)
	b.RegisterUnmarshalFunc("yaml", yaml.Unmarshal)
	for _, locale := range Locales() {
		if _, err := b.LoadMessageFileFS(localeFiles, "locales/"+locale+".yaml"); err != nil {
			panic(fmt.Sprintf("message: words of %s: %v", locale, err))
		}
	}
	return b
}

// words speaks one language. The first error is kept, so that the caller asks once, at the end.
type words struct {
	localizer *i18n.Localizer
	locale    string
	err       error
}

func speak(locale string) *words {
	tags := make([]language.Tag, 0, 2)
	for _, l := range Locales() {
		tags = append(tags, language.MustParse(l))
	}
	_, index, _ := language.NewMatcher(tags).Match(language.Make(locale))
	found := Locales()[index]
	return &words{localizer: i18n.NewLocalizer(bundle, found), locale: found}
}

// say returns the text of key with values put in. A key without words in this language is an error, never an
// English word in a German mail.
func (w *words) say(key string, values map[string]any) string {
	text, err := w.localizer.Localize(&i18n.LocalizeConfig{MessageID: key, TemplateData: values})
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("words for %s in %s: %w", key, w.locale, err)
	}
	return text
}

// moment writes a time as people say it, with its zone: "Tuesday, 3 March 2026, 12:00 CET".
func (w *words) moment(t time.Time, zone *time.Location) string {
	t = t.In(zone)
	return w.say("time.full", map[string]any{
		"Weekday": w.say("weekday.d"+strconv.Itoa(int(t.Weekday())), nil),
		"Day":     t.Day(), "Month": w.say("month.m"+strconv.Itoa(int(t.Month())), nil), "Year": t.Year(),
		"Clock": t.Format("15:04"), "Zone": w.zone(t),
	})
}

// zone names the zone of t. Zones without letters of their own are told by their distance from UTC.
func (w *words) zone(t time.Time) string {
	name, offset := t.Zone()
	switch name {
	case "CET", "CEST", "WET", "WEST", "EET", "EEST":
		return w.say("zone."+name, nil)
	case "UTC", "GMT":
		return name
	}
	if !strings.HasPrefix(name, "+") && !strings.HasPrefix(name, "-") {
		return name
	}
	sign := "+"
	if offset < 0 {
		sign, offset = "-", -offset
	}
	text := "UTC" + sign + strconv.Itoa(offset/3600)
	if minutes := offset % 3600 / 60; minutes != 0 {
		text += fmt.Sprintf(":%02d", minutes)
	}
	return text
}

// isolated keeps a right-to-left name from turning the words around it: it is wrapped in FSI and PDI, which belong in
// a body and never in a header.
func isolated(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool {
		return unicode.In(r, unicode.Hebrew, unicode.Arabic, unicode.Syriac, unicode.Thaana, unicode.Nko, unicode.Samaritan, unicode.Mandaic, unicode.Adlam)
	}) {
		return "\u2068" + s + "\u2069"
	}
	return s
}
