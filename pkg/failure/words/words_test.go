package words

import (
	"strings"
	"testing"
	"time"

	"countersign.dev/pkg/failure"
)

// TestEveryFailureHasWords holds spec 9: a build fails where a language or an action is missing.
func TestEveryFailureHasWords(t *testing.T) {
	for _, locale := range []string{"en", "de"} {
		if _, ok := lexicons()[locale]; !ok {
			t.Errorf("no file for %s", locale)
		}
	}
	for locale, l := range lexicons() {
		steps := map[string]bool{}
		for _, f := range failure.All() {
			steps[f.Next] = true
			w := l.Failures[f.Code]
			for part, text := range map[string]string{"title": w.Title, "text": w.Text, "expected": w.Expected, "action for " + f.Next: l.Actions[f.Next]} {
				if strings.TrimSpace(text) == "" {
					t.Errorf("%s: %s has no %s", locale, f.Code, part)
				}
			}
			if strings.HasSuffix(w.Title, ".") {
				t.Errorf("%s: %s: a title ends without a full stop: %q", locale, f.Code, w.Title)
			}
			if !strings.HasSuffix(w.Text, ".") || !strings.HasSuffix(w.Expected, ".") {
				t.Errorf("%s: %s: text and expected are sentences", locale, f.Code)
			}
		}
		for code := range l.Failures {
			if failure.Lookup(code) == nil {
				t.Errorf("%s: words for %s, which no failure has", locale, code)
			}
		}
		for next := range l.Actions {
			if !steps[next] {
				t.Errorf("%s: words for step %q, which no failure has", locale, next)
			}
		}
	}
}

// TestSameOverrides keeps the languages from telling different stories: a label of its own in one is one in all.
func TestSameOverrides(t *testing.T) {
	for locale, l := range lexicons() {
		for code, w := range l.Failures {
			if own, want := w.Action != "", lexicons()[Default].Failures[code].Action != ""; own != want {
				t.Errorf("%s: %s has a label of its own: %v, in English: %v", locale, code, own, want)
			}
		}
	}
}

// TestExpectedAgrees compares the sentence with the registry's number, so that neither is changed alone.
func TestExpectedAgrees(t *testing.T) {
	units := map[string]map[time.Duration]string{
		"en": {time.Minute: "minute", 2 * time.Minute: "two minutes", 15 * time.Minute: "15 minutes", 24 * time.Hour: "24 hours"},
		"de": {time.Minute: "Minute", 2 * time.Minute: "zwei Minuten", 15 * time.Minute: "15 Minuten", 24 * time.Hour: "24 Stunden"},
	}
	for locale, phrases := range units {
		for _, f := range failure.All() {
			if f.Expected == 0 {
				continue
			}
			phrase, ok := phrases[f.Expected]
			if !ok {
				t.Errorf("%s: no phrase for %v (%s)", locale, f.Expected, f.Code)
			} else if got := For(f.Code, locale).Expected; !strings.Contains(got, phrase) {
				t.Errorf("%s: %s takes %v, but the words say %q", locale, f.Code, f.Expected, got)
			}
		}
	}
}

func TestFor(t *testing.T) {
	for name, tt := range map[string]struct{ code, locale, title, action string }{
		"as asked":                 {"LINK_EXPIRED", "de", "Dieser Link ist abgelaufen", "Neuen Link senden"},
		"region falls to base":     {"LINK_EXPIRED", "de-AT", "Dieser Link ist abgelaufen", "Neuen Link senden"},
		"underscore":               {"LINK_EXPIRED", "de_CH", "Dieser Link ist abgelaufen", "Neuen Link senden"},
		"capitals":                 {"LINK_EXPIRED", "DE", "Dieser Link ist abgelaufen", "Neuen Link senden"},
		"unknown language":         {"LINK_EXPIRED", "tlh", "This link has expired", "Send me a new link"},
		"no language":              {"LINK_EXPIRED", "", "This link has expired", "Send me a new link"},
		"a label of its own":       {"LINK_SIGNED", "en", "You have already signed", "Download your copy"},
		"unknown code is internal": {"NO_SUCH_CODE", "en", "Something went wrong on our side", "Try again"},
	} {
		t.Run(name, func(t *testing.T) {
			if w := For(tt.code, tt.locale); w.Title != tt.title || w.Action != tt.action {
				t.Errorf("For(%q, %q) = %q / %q, want %q / %q", tt.code, tt.locale, w.Title, w.Action, tt.title, tt.action)
			}
		})
	}
	if Action("reissue", "de") == "" || Action("no-such-step", "de") != "" {
		t.Error("Action: a step has a label, no step has none")
	}
}
