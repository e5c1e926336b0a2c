package config_test

import (
	"strings"
	"testing"

	"countersign.dev/pkg/config"
)

func TestConditions(t *testing.T) {
	t.Parallel()
	lease := config.Match{Integration: "hr", Template: "lease", Locale: "de-CH", Value: &config.Value{CurrencyCode: "EUR", Units: 9999, Nanos: 500_000_000}}
	for text, fits := range map[string]bool{
		`true`:                                      true,
		`integration == "hr"`:                       true,
		`template == "lease" && locale == "en"`:     false,
		`locale.startsWith("de")`:                   true,
		`template.matches("^le.*e$")`:               true,
		`template in ["lease", "eviction"]`:         true,
		`value.currency_code == "EUR"`:              true,
		`value.amount >= 9999.5`:                    true,
		`value.amount >= 10000`:                     false, // whole numbers compare with amounts
		`value.units == 9999 && value.amount > 100`: true,
		`value.units / (value.units - 9999) > 0`:    false, // dividing by zero cannot be decided
	} {
		c, err := config.ParseCondition(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if c.Fits(lease) != fits {
			t.Errorf("%s: %v, want %v", text, !fits, fits)
		}
	}
	for text, fits := range map[string]bool{
		`value.amount < 100`:                         false,
		`!(value.amount < 100)`:                      false, // neither: there is none
		`integration == "hr" || value.amount >= 100`: true,
	} {
		if c, err := config.ParseCondition(text); err != nil || c.Fits(config.Match{Integration: "hr"}) != fits {
			t.Errorf("without a value, %s: error %v, want %v", text, err, fits)
		}
	}
	first := []config.ProfileRule{{When: `value.amount > 100`, Use: "a"}, {When: `template == "lease"`, Use: "b"}, {When: `true`, Use: "c"}}
	if got := config.Choose(first, config.Match{Template: "lease"}); got != 1 {
		t.Errorf("rule %d, want the first that fits, 1", got)
	}
	if got := config.Choose(first[:2], config.Match{}); got != -1 {
		t.Errorf("rule %d, want none", got)
	}
}

func TestConditionsThatAreNone(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`integration = "hr"`:                             "column 13: ",
		`signer == "ada"`:                                "column 1: undeclared reference to 'signer'",
		`template == "x" && reference == 1`:              "column 20: undeclared reference to 'reference'",
		`value.nanos > 0`:                                "undeclared reference to 'value'",
		`value.amount == "1"`:                            "no matching overload",
		`integration`:                                    "gives string, where true or false is accepted",
		`template.matches("(")`:                          "cannot be decided: ",
		`["a"].all(x, x == template)`:                    "undeclared reference to 'all'",
		`template == "` + strings.Repeat("x", 500) + `"`: "is longer than 500 characters",
		strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200): "recursion",
		``: "column 1: ",
	} {
		if _, err := config.ParseCondition(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: error %v, want one with %q", text, err, want)
		}
	}
	if _, err := config.ParseCondition(`signer == "ada"`); !strings.Contains(err.Error(), "known are integration, template, locale") {
		t.Errorf("the error does not say what is known: %v", err)
	}
}

// A condition of any length that is accepted is decided at a bounded cost: there are no loops, and one that goes on too long does not fit.
func TestConditionsAreBounded(t *testing.T) {
	t.Parallel()
	long := `template.matches("(a*)*b")` + strings.Repeat(` || template.matches("(a*)*b")`, 15)
	c, err := config.ParseCondition(long)
	if err != nil {
		t.Fatal(err)
	}
	if c.Fits(config.Match{Template: strings.Repeat("a", 64)}) {
		t.Error("fits")
	}
}

func TestCheckProfile(t *testing.T) {
	t.Parallel()
	tenant := config.Default().Tenant("acme")
	good := tenant.Profiles[config.Standard]
	for name, tt := range map[string]struct {
		change func(p *config.Profile)
		wrong  string
	}{
		"as it is": {func(*config.Profile) {}, ""},
		"one second": {func(p *config.Profile) {
			p.Lifetime, p.Session, p.Idle, p.ReissueWindow = dur("1s"), dur("1s"), dur("1s"), dur("1s")
		}, ""},
		"ten years": {func(p *config.Profile) {
			p.Lifetime, p.Grace, p.Session = config.MaxDuration, config.MaxDuration, config.MaxDuration
		}, ""},
		"no grace":         {func(p *config.Profile) { p.Grace = 0 }, ""},
		"no lifetime":      {func(p *config.Profile) { p.Lifetime = 0 }, "lifetime"},
		"half a second":    {func(p *config.Profile) { p.Lifetime = dur("1s") + 1 }, "lifetime"},
		"beyond ten years": {func(p *config.Profile) { p.Grace = config.MaxDuration + dur("1s") }, "grace"},
		"before the link":  {func(p *config.Profile) { p.Grace = -dur("1s") }, "grace"},
		"idle too long":    {func(p *config.Profile) { p.Idle = p.Session + dur("1s") }, "idle"},
		"reissues":         {func(p *config.Profile) { p.ReissueLimit = 1001 }, "reissue_limit"},
		"assurance":        {func(p *config.Profile) { p.Assurance = 5 }, "assurance"},
		"no such plan":     {func(p *config.Profile) { p.Reminders = "x" }, "reminders"},
		"no such policy":   {func(p *config.Profile) { p.Escalation = "" }, "escalation"},
		"a name":           {func(p *config.Profile) { p.Name = "No Name" }, "name"},
		"several at once":  {func(p *config.Profile) { p.Lifetime, p.Assurance = 0, -1 }, "lifetime assurance"},
	} {
		p := good
		tt.change(&p)
		var got []string
		for _, w := range tenant.CheckProfile(p) {
			got = append(got, w.Setting)
		}
		if strings.Join(got, " ") != tt.wrong {
			t.Errorf("%s: wrong are %v, want %q", name, got, tt.wrong)
		}
	}
}
