package pages

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// messages reads a language's file as it stands: key to all its forms.
func messages(t *testing.T, locale string) map[string]map[string]string {
	t.Helper()
	data, err := localeFiles.ReadFile("locales/active." + locale + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]any
	if err := yaml.Unmarshal(data, &raw); err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]string{}
	for key, value := range raw {
		forms := map[string]string{}
		switch v := value.(type) {
		case string:
			forms["only"] = v
		case map[string]any:
			for form, text := range v {
				forms[form], _ = text.(string)
			}
		}
		for form, text := range forms {
			if strings.TrimSpace(text) == "" && key != "size.mark" {
				t.Errorf("%s: %s %s says nothing", locale, key, form)
			}
		}
		all[key] = forms
	}
	return all
}

var placeholder = regexp.MustCompile(`\{\{\.\w+\}\}`)

func places(forms map[string]string) []string {
	found := map[string]bool{}
	for form, text := range forms {
		for _, p := range placeholder.FindAllString(text, -1) {
			if form != "one" {
				found[p] = true
			}
		}
	}
	var all []string
	for p := range found {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

// TestSameMessages: no language lacks a message, has one too many, or forgets what has to be filled in.
func TestSameMessages(t *testing.T) {
	english := messages(t, "en")
	for _, locale := range Locales() {
		other := messages(t, locale)
		for key, forms := range english {
			if _, ok := other[key]; !ok {
				t.Errorf("%s lacks %s", locale, key)
			} else if a, b := places(forms), places(other[key]); !slices.Equal(a, b) {
				t.Errorf("%s: %s fills %v, English %v", locale, key, b, a)
			} else if len(forms) != len(other[key]) {
				t.Errorf("%s: %s has %d forms, English %d", locale, key, len(other[key]), len(forms))
			}
		}
		for key := range other {
			if _, ok := english[key]; !ok {
				t.Errorf("%s: %s is in no other language", locale, key)
			}
		}
	}
}

// TestMessagesInUse: every message a page asks for exists, and every message is asked for.
func TestMessagesInUse(t *testing.T) {
	asked := map[string]bool{}
	find := func(pattern, in string) {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(in).FindAllStringSubmatch(string(text), -1) {
				asked[m[1]] = true
			}
		}
	}
	find("templates/*.html", `\bt "([a-z.]+)"`)
	for key := range asked {
		if _, ok := messages(t, "en")[key]; !ok {
			t.Errorf("a page asks for %s, which does not exist", key)
		}
	}
	find("*.go", `"([a-z]+(?:\.[a-z]+)+)"`)
	for key := range messages(t, "en") {
		family, _, _ := strings.Cut(key, ".")
		if !asked[key] && !slices.Contains([]string{"month", "in", "for"}, family) {
			t.Errorf("nobody asks for %s", key)
		}
	}
}

func TestMatch(t *testing.T) {
	for name, tt := range map[string]struct {
		wishes []string
		want   string
	}{
		"plain":              {[]string{"de"}, "de"},
		"region":             {[]string{"de-AT"}, "de"},
		"underscore":         {[]string{"de_DE"}, "de"},
		"browser's list":     {[]string{"", "fr;q=0.9, de;q=0.8, en;q=0.1"}, "de"},
		"first wish wins":    {[]string{"en", "de"}, "en"},
		"unknown, then next": {[]string{"ja", "de"}, "de"},
		"malformed":          {[]string{"<script>", "de"}, "de"},
		"nothing":            {nil, "en"},
		"only unknown":       {[]string{"ja"}, "en"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Match(tt.wishes...); got != tt.want {
				t.Errorf("Match(%q) = %q, want %q", tt.wishes, got, tt.want)
			}
		})
	}
	if got := (tongue{tag: "ar"}).direction(); got != "rtl" {
		t.Errorf("Arabic is written %s", got)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration][2]string{
		time.Millisecond:                {"a second", "einer Sekunde"},
		29500 * time.Millisecond:        {"30 seconds", "30 Sekunden"},
		time.Minute:                     {"a minute", "einer Minute"},
		61 * time.Second:                {"61 seconds", "61 Sekunden"},
		10 * time.Minute:                {"10 minutes", "10 Minuten"},
		14*time.Minute + time.Second:    {"15 minutes", "15 Minuten"},
		24 * time.Hour:                  {"24 hours", "24 Stunden"},
		72 * time.Hour:                  {"3 days", "3 Tagen"},
		400 * 24 * time.Hour:            {"400 days", "400 Tagen"},
		48*time.Hour + time.Millisecond: {"3 days", "3 Tagen"},
	} {
		for i, locale := range []string{"en", "de"} {
			if got, err := speaker(locale).span("in", d); err != nil || string(got) != want[i] {
				t.Errorf("%s %v: %q, %v, want %q", locale, d, got, err, want[i])
			}
		}
	}
}

func TestWhen(t *testing.T) {
	at := time.Date(2026, time.March, 29, 0, 30, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		locale string
		zone   *time.Location
		want   string
	}{
		"no zone":           {"en", nil, "29 March 2026, 00:30 (UTC)"},
		"named":             {"de", time.FixedZone("CET", 3600), "29. März 2026, 01:30 Uhr (CET)"},
		"zone without name": {"en", time.FixedZone("-03", -3*3600), "28 March 2026, 21:30 (UTC-03:00)"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := speaker(tt.locale).when(at, tt.zone); err != nil || string(got) != tt.want {
				t.Errorf("%q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{1: "1 kB", 184_320: "184 kB", 1_500_000: "1,5 MB", 25_000_000: "25,0 MB"} {
		if got, err := speaker("de").size(n); err != nil || string(got) != want {
			t.Errorf("%d: %q, %v, want %q", n, got, err, want)
		}
	}
}
