package pages

import (
	"embed"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	// Plural rules of every language and message files translators know.
	"github.com/nicksnyder/go-i18n/v2/i18n"
	"go.yaml.in/yaml/v3"
	"golang.org/x/text/language"
)

//go:embed locales/*.yaml
var localeFiles embed.FS

// tongue is one language pages are written in.
type tongue struct {
	tag string
	loc *i18n.Localizer
}

type tongues struct {
	all     []tongue // English first, which is also what the matcher falls back to
	matcher language.Matcher
}

var languages = sync.OnceValue(func() tongues {
	t, err := loadLanguages()
	if err != nil {
		panic("pages: " + err.Error()) // the files are part of the binary: a fault in them is a programmer's
	}
	return t
})

func loadLanguages() (tongues, error) {
	bundle := i18n.NewBundle(language.English)
	bundle.RegisterUnmarshalFunc("yaml", yaml.Unmarshal)
	entries, err := localeFiles.ReadDir("locales")
	if err != nil {
		return tongues{}, err
	}
	for _, e := range entries {
		if _, err := bundle.LoadMessageFileFS(localeFiles, "locales/"+e.Name()); err != nil {
			return tongues{}, fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	tags := bundle.LanguageTags() // the default language stands first
	sort.SliceStable(tags[1:], func(i, j int) bool { return tags[1+i].String() < tags[1+j].String() })
	t := tongues{matcher: language.NewMatcher(tags)}
	for _, tag := range tags {
		t.all = append(t.all, tongue{tag: tag.String(), loc: i18n.NewLocalizer(bundle, tag.String())})
	}
	return t, nil
}

// Locales returns the languages there are pages in, English first.
func Locales() []string {
	var tags []string
	for _, t := range languages().all {
		tags = append(tags, t.tag)
	}
	return tags
}

// Match returns the language of Locales that fits best. Wishes are BCP 47 tags or whole Accept-Language headers, the
// strongest first (what a person chose, then the request's locale, then what the browser says); malformed ones are skipped.
func Match(wishes ...string) string {
	return speaker(wishes...).tag
}

func speaker(wishes ...string) tongue {
	for _, wish := range wishes {
		tags, _, err := language.ParseAcceptLanguage(strings.ReplaceAll(wish, "_", "-"))
		if err != nil || len(tags) == 0 {
			continue
		}
		if _, index, confidence := languages().matcher.Match(tags...); confidence > language.No {
			return languages().all[index]
		}
	}
	return languages().all[0]
}

// direction is the writing direction of a language, for the dir attribute.
func (t tongue) direction() string {
	script, _ := language.Make(t.tag).Script()
	if slices.Contains([]string{"Arab", "Hebr", "Thaa", "Syrc", "Nkoo", "Adlm"}, script.String()) {
		return "rtl"
	}
	return "ltr"
}

// say returns a message. Pairs of name and value fill its places; text is cleaned and isolated on the way, so that no
// name can turn a sentence round. The value N chooses the plural.
func (t tongue) say(id string, pairs ...any) (string, error) {
	if len(pairs)%2 != 0 {
		return "", fmt.Errorf("pages: message %s: a name without a value", id)
	}
	data := map[string]any{}
	cfg := &i18n.LocalizeConfig{MessageID: id, TemplateData: data}
	for i := 0; i+1 < len(pairs); i += 2 {
		name, ok := pairs[i].(string)
		if !ok {
			return "", fmt.Errorf("pages: message %s: a name is no text", id)
		}
		switch v := pairs[i+1].(type) {
		case string:
			data[name] = shown(v)
		case phrase:
			data[name] = string(v)
		case int:
			data[name] = v
			if name == "N" {
				cfg.PluralCount = v
			}
		default:
			return "", fmt.Errorf("pages: message %s: %s is of a kind no message takes", id, name)
		}
	}
	return t.loc.Localize(cfg)
}

// phrase is text made here, which say does not clean again.
type phrase string

// span says how long something takes, rounded up to what a person would say. Form is "in" (in 3 days) or "for" (for 3 days).
func (t tongue) span(form string, d time.Duration) (phrase, error) {
	unit, n := "seconds", int((d+time.Second-1)/time.Second)
	switch {
	case d > 48*time.Hour:
		unit, n = "days", int((d+24*time.Hour-1)/(24*time.Hour))
	case d > 90*time.Minute:
		unit, n = "hours", int((d+time.Hour-1)/time.Hour)
	case d > 90*time.Second:
		unit, n = "minutes", int((d+time.Minute-1)/time.Minute)
	case d == time.Minute:
		unit, n = "minutes", 1
	}
	s, err := t.say(form+"."+unit, "N", max(n, 1))
	return phrase(s), err
}

// when says a moment in the signer's zone, which it names.
func (t tongue) when(at time.Time, zone *time.Location) (phrase, error) {
	if zone == nil {
		zone = time.UTC
	}
	at = at.In(zone)
	month, err := t.say("month." + strconv.Itoa(int(at.Month())))
	if err != nil {
		return "", err
	}
	name, _ := at.Zone()
	if strings.HasPrefix(name, "+") || strings.HasPrefix(name, "-") { // zones without a name of their own
		name = "UTC" + at.Format("-07:00")
	}
	s, err := t.say("date.time", "Day", at.Day(), "Month", phrase(month), "Year", at.Year(), "Time", phrase(at.Format("15:04")), "Zone", phrase(name))
	return phrase(s), err
}

// size says how large a file is.
func (t tongue) size(bytes int64) (phrase, error) {
	if bytes < 1_000_000 {
		s, err := t.say("size.kb", "Amount", phrase(strconv.FormatInt(max(1, (bytes+500)/1000), 10)))
		return phrase(s), err
	}
	mark, err := t.say("size.mark")
	if err != nil {
		return "", err
	}
	amount := strings.Replace(strconv.FormatFloat(float64(bytes)/1e6, 'f', 1, 64), ".", mark, 1)
	s, err := t.say("size.mb", "Amount", phrase(amount))
	return phrase(s), err
}
