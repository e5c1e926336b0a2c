package config_test

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"countersign.dev/pkg/config"
)

// files writes a tree of settings and returns its folder.
func files(t *testing.T, tree map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range tree {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func load(t *testing.T, tree map[string]string) *config.Config {
	t.Helper()
	c, err := config.Load(files(t, tree))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The numbers of spec 2.3 and 6.
func TestBuiltIn(t *testing.T) {
	t.Parallel()
	c := config.Default()
	for name, want := range map[string][3]time.Duration{
		"high-risk": {time.Hour, 15 * time.Minute, 20 * time.Minute},
		"sales":     {72 * time.Hour, time.Hour, time.Hour},
		"standard":  {7 * 24 * time.Hour, time.Hour, time.Hour},
		"legal":     {14 * 24 * time.Hour, 24 * time.Hour, 2 * time.Hour},
		"routine":   {30 * 24 * time.Hour, 24 * time.Hour, 2 * time.Hour},
	} {
		p, ok := c.Profile("anybody", name)
		if got := [3]time.Duration{p.Lifetime.Std(), p.Grace.Std(), p.Session.Std()}; !ok || got != want || p.ReissueLimit != 3 || p.ReissueWindow.Std() != 24*time.Hour || p.AutomaticReissue {
			t.Errorf("%s: %v %+v", name, ok, p)
		}
	}
	if p, ok := c.Profile("anybody", ""); !ok || p.Name != "standard" {
		t.Errorf("the default profile is %+v", p)
	}
	if _, ok := c.Profile("anybody", "nosuch"); ok {
		t.Error("a profile that nobody made")
	}
	r, ok := c.Reminders("anybody", "")
	if !ok || !slices.Equal(r.Offsets, []config.Duration{dur("24h"), dur("72h"), dur("7d")}) || !slices.Equal(r.PartialOffsets, []config.Duration{dur("1h"), dur("24h")}) ||
		r.QuietHours.From.String() != "21:00" || r.QuietHours.To.String() != "08:00" || r.MaxPerDay != 1 {
		t.Errorf("reminders %+v", r)
	}
	e, ok := c.Escalation("anybody", "")
	if !ok || len(e.For(config.RemindersExhausted)) == 0 || len(e.For(config.LinkLapsed)) == 0 || len(e.For(config.DeliveryFailed)) == 0 {
		t.Errorf("escalation %+v", e)
	}
	for _, rule := range e.Rules {
		for _, s := range rule.Steps {
			if s.Action == config.Cancel {
				t.Error("cancels unless told otherwise")
			}
		}
	}
	if b := c.Branding("anybody"); b.Name == "" || b.Sender != (config.Sender{}) {
		t.Errorf("branding %+v: an address built in would hide --mail-from", b)
	}
	// What is built in would be accepted from a file.
	if _, err := config.Load(files(t, map[string]string{"acme/profiles.yaml": "profiles: {high-risk: {}, sales: {}, standard: {}, legal: {}, routine: {}}", "acme/reminders.yaml": "plans: {standard: {}}", "acme/branding.yaml": "{}"})); err != nil {
		t.Error(err)
	}
}

func dur(text string) config.Duration {
	d, err := config.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return d
}

func TestLayers(t *testing.T) {
	t.Parallel()
	c := load(t, map[string]string{
		"README.md":              "# not read",
		"defaults/profiles.yaml": "default: routine\nprofiles:\n  standard: {lifetime: 10d}\n  flash: {lifetime: 5s, grace: 0s, session: 10s}\n",
		"acme/profiles.yaml": `
default: contract
rules:
  - when: integration == "salesforce" && value.currency_code == "EUR" && value.amount >= 10000
    use: high-risk
  - {when: template == "offer-letter", use: contract}
profiles:
  contract: {grace: 2h, assurance: 3, automatic_reissue: true, reminders: gentle, escalation: none}
  standard: {session: 2h}
`,
		"acme/reminders.yaml":   "plans:\n  gentle: {offsets: [2w], quiet_hours: {from: \"00:00\", to: \"00:00\", weekends: true}, time_zone: Europe/Berlin}\n",
		"acme/escalations.yaml": "policies:\n  none: []\n  standard:\n    - on: link-lapsed\n      steps:\n        - {action: notify-manager}\n        - {wait: 90s, action: cancel}\n",
		"acme/branding.yaml":    "name: Acme GmbH\ncolour: '#AABBCC'\nsupport: {email: help@acme.example, phone: +49 30 1234567, url: https://acme.example/help}\nsender: {address: sign@acme.example}\n",
		"empty/profiles.yaml":   "# nothing yet\n",
		"bare/.keep":            "",
	})
	if got := c.Tenants(); !slices.Equal(got, []string{"acme", "bare", "empty"}) {
		t.Errorf("tenants %v", got)
	}
	contract, _ := c.Profile("acme", "")
	if contract.Name != "contract" || contract.Lifetime != dur("10d") || contract.Grace != dur("2h") || contract.Session != dur("1h") || contract.Assurance != 3 || !contract.AutomaticReissue || contract.Reminders != "gentle" {
		t.Errorf("a new profile begins with standard of the layer below: %+v", contract)
	}
	if p, _ := c.Profile("acme", "standard"); p.Lifetime != dur("10d") || p.Session != dur("2h") {
		t.Errorf("three layers: %+v", p)
	}
	if p, _ := c.Profile("bare", ""); p.Name != "routine" {
		t.Errorf("the default of the defaults: %+v", p)
	}
	if p, _ := c.Profile("stranger", "flash"); p.Lifetime.Std() != 5*time.Second || p.Grace != 0 || p.Idle.Std() != 10*time.Second {
		t.Errorf("a tenant without a folder: %+v", p)
	}
	if got := slices.Sorted(maps.Keys(c.Tenant("acme").Profiles)); !slices.Equal(got, []string{"contract", "flash", "high-risk", "legal", "routine", "sales", "standard"}) {
		t.Errorf("names %v", got)
	}
	gentle, _ := c.Reminders("acme", "gentle")
	if !slices.Equal(gentle.Offsets, []config.Duration{dur("14d")}) || len(gentle.PartialOffsets) != 2 || gentle.QuietHours.From != gentle.QuietHours.To || !gentle.QuietHours.Weekends {
		t.Errorf("plan %+v", gentle)
	}
	policy, _ := c.Escalation("acme", "")
	if steps := policy.For(config.LinkLapsed); len(steps) != 2 || steps[0] != (config.EscalationStep{Action: config.NotifyManager}) || steps[1].Wait.Std() != 90*time.Second || policy.For(config.DeliveryFailed) != nil {
		t.Errorf("policy %+v", policy)
	}
	if b := c.Branding("acme"); b.Name != "Acme GmbH" || b.Sender.Name != "" || b.Sender.Address != "sign@acme.example" || b.Support.Phone != "+49 30 1234567" {
		t.Errorf("branding %+v", b)
	}
	if !reflect.DeepEqual(c.Branding("empty"), config.Default().Branding("x")) {
		t.Error("one tenant's branding shows at another's")
	}
	if got := c.Tenant("acme"); !slices.Equal(got.Gives(), []string{"contract", "standard"}) || !got.GivesRules() || got.Rules[config.Choose(got.Rules, config.Match{Template: "offer-letter"})].Use != "contract" {
		t.Errorf("what the tenant's own files give: %v, rules %v", got.Gives(), got.Rules)
	}
	if got := c.Tenant("bare"); len(got.Gives()) != 0 || got.GivesRules() {
		t.Errorf("a tenant without files gives %v", got.Gives())
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	tree := map[string]string{"acme/profiles.yaml": "profiles: {a: {}, b: {}}", "same/profiles.yaml": "profiles:\n  b: {}\n  a: {lifetime: 168h}\n", "other/profiles.yaml": "profiles: {a: {}, b: {grace: 59m}}"}
	c, again := load(t, tree), load(t, tree)
	if c.Digest("acme") != again.Digest("acme") || c.Digest("acme") != c.Digest("same") || c.Digest("acme") == c.Digest("other") || c.Digest("acme") == c.Digest("nobody") {
		t.Error("equal settings have equal digests, others not")
	}
	before, _ := c.Escalation("acme", "")
	if after, _ := load(t, map[string]string{"acme/escalations.yaml": "policies: {standard: []}"}).Escalation("acme", ""); before.Digest() == after.Digest() {
		t.Error("another policy has the same digest")
	}
}

func TestACopyIsACopy(t *testing.T) {
	t.Parallel()
	c := config.Default()
	before := c.Digest("x")
	tenant := c.Tenant("x")
	tenant.Profiles["standard"] = config.Profile{}
	plan, _ := c.Reminders("x", "")
	plan.Offsets[0] = 1
	policy, _ := c.Escalation("x", "")
	policy.For(config.LinkLapsed)[0].Action = config.Cancel
	if c.Digest("x") != before {
		t.Error("a reader changed the settings")
	}
}

func TestEveryWrongSettingIsNamed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		file, text string
		want       []string // file:line:column: path: part of the text
	}{
		"unknown key":        {"profiles.yaml", "profiles:\n  sales:\n    lifetme: 3d\n", []string{"profiles.yaml:3:5: profiles.sales.lifetme: is no setting here; accepted: assurance, automatic_reissue, escalation, grace"}},
		"unknown at the top": {"profiles.yaml", "profile: {}\n", []string{"profiles.yaml:1:1: profile: is no setting here; accepted: default, profiles, rules"}},
		"several at once": {"profiles.yaml", "profiles:\n  sales:\n    lifetime: 3 days\n    grace: 60\n    assurance: 5\n    automatic_reissue: yes please\n", []string{
			"profiles.yaml:3:5: profiles.sales.lifetime: accepted: a duration such as 90s", "profiles.yaml:4:5: profiles.sales.grace: accepted: a duration", "profiles.yaml:5:5: profiles.sales.assurance: accepted: a level from 0 to 4", "profiles.yaml:6:5: profiles.sales.automatic_reissue: accepted: true or false",
		}},
		"zero":                 {"profiles.yaml", "profiles:\n  sales: {lifetime: 0s, session: 0h}\n", []string{"profiles.yaml:2:11: profiles.sales.lifetime: accepted: a duration such as", "profiles.sales.session"}},
		"too long":             {"profiles.yaml", "profiles:\n  sales: {lifetime: 3651d}\n", []string{"profiles.yaml:2:11: profiles.sales.lifetime: accepted: a duration such as 90s, 15m, 1h30m, 72h, 7d or 2w, from 1s to 3650d"}},
		"idle beyond session":  {"profiles.yaml", "profiles:\n  sales: {session: 10m, idle: 11m}\n", []string{"profiles.yaml:2:25: profiles.sales.idle: is longer than the session; accepted: up to 10m"}},
		"name of a profile":    {"profiles.yaml", "profiles:\n  Big Deal: {}\n", []string{"profiles.yaml:2:3: profiles.Big Deal: is no setting here; accepted: profiles by name: up to 64 lower-case"}},
		"default nobody made":  {"profiles.yaml", "default: nosuch\n", []string{"profiles.yaml:1:1: default: is no profile; accepted: high-risk, legal, routine, sales, standard"}},
		"plan nobody made":     {"profiles.yaml", "profiles:\n  sales: {reminders: nosuch, escalation: nosuch}\n", []string{"profiles.sales.reminders: is no reminder plan; accepted: standard", "profiles.sales.escalation: is no escalation policy; accepted: standard"}},
		"rule":                 {"profiles.yaml", "rules:\n  - {when: '', use: sales}\n  - {use: sales}\n", []string{"profiles.yaml:2:6: rules[0].when: accepted: a CEL expression", "rules[1]: lacks when"}},
		"rule that is no CEL":  {"profiles.yaml", "rules:\n  - {when: tenant == \"a\", use: sales}\n", []string{"profiles.yaml:2:6: rules[0].when: column 1: undeclared reference to 'tenant'; known are integration, template"}},
		"rule's profile":       {"profiles.yaml", "rules:\n  - {when: template == \"a\", use: nosuch}\n", []string{"rules[0].use: is no profile"}},
		"falling offsets":      {"reminders.yaml", "plans:\n  standard:\n    offsets: [24h, 1d]\n", []string{"reminders.yaml:3:20: plans.standard.offsets[1]: accepted: a duration longer than the one before, 1d"}},
		"offset of nothing":    {"reminders.yaml", "plans: {standard: {offsets: [0s]}}\n", []string{"plans.standard.offsets[0]"}},
		"quiet hours":          {"reminders.yaml", "plans:\n  standard:\n    quiet_hours: {from: 9pm, to: \"24:00\"}\n", []string{"reminders.yaml:3:19: plans.standard.quiet_hours.from: accepted: a time of day", "plans.standard.quiet_hours.to"}},
		"time zone":            {"reminders.yaml", "plans: {standard: {time_zone: Mars/Olympus}}\n", []string{"plans.standard.time_zone: accepted: a name of the IANA"}},
		"machine's time zone":  {"reminders.yaml", "plans: {standard: {time_zone: Local}}\n", []string{"plans.standard.time_zone"}},
		"no message a day":     {"reminders.yaml", "plans: {standard: {max_per_day: 0}}\n", []string{"plans.standard.max_per_day: accepted: a whole number from 1"}},
		"trigger, action":      {"escalations.yaml", "policies:\n  standard:\n    - on: bored\n      steps:\n        - {action: shout, wait: soon}\n", []string{"escalations.yaml:3:7: policies.standard[0].on: accepted: one of reminders-exhausted, link-lapsed, delivery-failed", "escalations.yaml:5:12: policies.standard[0].steps[0].action: accepted: one of notify-manager", "policies.standard[0].steps[0].wait"}},
		"no steps":             {"escalations.yaml", "policies: {standard: [{on: link-lapsed, steps: []}]}\n", []string{"policies.standard[0].steps: accepted: a list of 1 to 20 steps"}},
		"trigger twice":        {"escalations.yaml", "policies:\n  standard:\n    - {on: link-lapsed, steps: [{action: cancel}]}\n    - {on: link-lapsed, steps: [{action: cancel}]}\n", []string{"escalations.yaml:4:8: policies.standard[1].on: stands twice"}},
		"after cancel":         {"escalations.yaml", "policies: {standard: [{on: link-lapsed, steps: [{action: cancel}, {action: tell-platform}]}]}\n", []string{"policies.standard[0].steps[1]: comes after cancel"}},
		"colour as a comment":  {"branding.yaml", "colour: #1f4e79\nname: Acme\n", []string{"branding.yaml:1:1: colour: accepted: a colour such as \"#1f4e79\", in quotes"}},
		"a name of two lines":  {"branding.yaml", "name: \"Acme\\nBcc: x\"\n", []string{"branding.yaml:1:1: name: accepted: one line"}},
		"addresses":            {"branding.yaml", "support: {email: a@, url: http://x}\nsender: {address: Acme <a@b.example>}\n", []string{"support.email", "support.url: accepted: an https URL", "branding.yaml:2:10: sender.address"}},
		"address of no sender": {"branding.yaml", "sender: {address: ''}\n", []string{"sender.address: accepted: a mail address"}},
		"no YAML":              {"branding.yaml", "name: [\n", []string{"branding.yaml:1:"}},
		"a key twice":          {"branding.yaml", "name: a\nname: b\n", []string{"branding.yaml:2:1:", "name"}},
		"two documents":        {"branding.yaml", "name: a\n---\nname: b\n", []string{"several documents"}},
		"a list":               {"branding.yaml", "- a\n", []string{"branding.yaml:1:1: accepted: How a tenant shows itself"}},
		"another file":         {"profile.yaml", "", []string{"profile.yaml: is not read; accepted: reminders.yaml, escalations.yaml, branding.yaml, profiles.yaml"}},
		"too large":            {"branding.yaml", "# " + strings.Repeat("x", 1<<20), []string{"is too large"}},
	} {
		for _, folder := range []string{"acme", "defaults"} {
			t.Run(name+" of "+folder, func(t *testing.T) {
				t.Parallel()
				_, err := config.Load(files(t, map[string]string{folder + "/" + tt.file: tt.text}))
				var problems config.Problems
				if !errors.As(err, &problems) {
					t.Fatalf("error %v", err)
				}
				for _, want := range tt.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q is not told in\n%v", want, err)
					}
				}
				if len(problems) != len(tt.want) && name != "a key twice" {
					t.Errorf("%d problems, want %d:\n%v", len(problems), len(tt.want), err)
				}
			})
		}
	}
}

func TestFolders(t *testing.T) {
	t.Parallel()
	if _, err := config.Load(filepath.Join(t.TempDir(), "nosuch")); !errors.Is(err, config.ErrNone) {
		t.Errorf("error %v", err)
	}
	_, err := config.Load(files(t, map[string]string{"Acme/branding.yaml": "", "branding.yaml": ""}))
	if err == nil || !strings.Contains(err.Error(), "Acme: is no tenant") || !strings.Contains(err.Error(), "branding.yaml: is no folder") {
		t.Errorf("error %v", err)
	}
	_, err = config.Load(files(t, map[string]string{"a/branding.yaml": "colour: red", "b/profiles.yaml": "default: 5"}))
	if err == nil || !strings.Contains(err.Error(), "a/branding.yaml:1:1") || !strings.Contains(err.Error(), "b/profiles.yaml:1:1") {
		t.Errorf("the problems of one tenant hide another's: %v", err)
	}
}

func TestABrokenFileBlamesNoOther(t *testing.T) {
	t.Parallel()
	_, err := config.Load(files(t, map[string]string{"acme/reminders.yaml": "plans: {gentle: {offsets: [soon]}}", "acme/profiles.yaml": "profiles: {sales: {reminders: gentle}}"}))
	var problems config.Problems
	if !errors.As(err, &problems) || len(problems) != 1 || problems[0].Path != "plans.gentle.offsets[0]" {
		t.Errorf("error %v", err)
	}
}

func TestSchemasAreForEditorsToo(t *testing.T) {
	t.Parallel()
	found, err := fs.Glob(config.Schemas(), "*.schema.json")
	if err != nil || len(found) != 4 {
		t.Errorf("%v, %v", found, err)
	}
}

func TestDurations(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"1s": time.Second, "0s": 0, "90s": 90 * time.Second, "1h30m": 90 * time.Minute, "72h": 72 * time.Hour, "30d": 720 * time.Hour, "2w": 336 * time.Hour,
		"1d12h": 36 * time.Hour, "3650d": 3650 * 24 * time.Hour, "1m1m": 2 * time.Minute,
	} {
		if got, err := config.ParseDuration(text); err != nil || got.Std() != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "5", "s", "1.5h", "-1s", "+1s", "1 h", "1ms", "1y", "1H", "3651d", "999999999w", "9999999999s", "1h5", "١s"} {
		if got, err := config.ParseDuration(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"1s", "1h30m", "3650d", "0s", "99w"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := config.ParseDuration(text)
		if err != nil {
			return
		}
		if d < 0 || d > config.MaxDuration {
			t.Fatalf("%q is %v", text, d)
		}
		if again, err := config.ParseDuration(d.String()); err != nil || again != d {
			t.Fatalf("%q is %v, which reads as %v, %v", text, d, again, err)
		}
	})
}

func FuzzFiles(f *testing.F) {
	f.Add("profiles.yaml", "profiles:\n  sales: {lifetime: 3d}\n")
	f.Add("escalations.yaml", "policies: {a: [{on: link-lapsed, steps: [{action: cancel}]}]}")
	f.Add("reminders.yaml", "plans: {a: &x {offsets: [1s]}, b: *x}")
	f.Add("branding.yaml", "name: !!str a\n? b\n: c")
	f.Fuzz(func(t *testing.T, name, text string) {
		if !slices.Contains([]string{"profiles.yaml", "escalations.yaml", "reminders.yaml", "branding.yaml"}, name) {
			return
		}
		c, err := config.Load(files(t, map[string]string{"acme/" + name: text}))
		var problems config.Problems
		if err != nil && !errors.As(err, &problems) {
			t.Fatalf("an accident: %v", err)
		}
		if err == nil {
			for _, n := range slices.Sorted(maps.Keys(c.Tenant("acme").Profiles)) {
				if p, _ := c.Profile("acme", n); p.Lifetime <= 0 || p.Session <= 0 || p.Idle > p.Session || p.Name != n {
					t.Fatalf("accepted %+v", p)
				}
			}
		}
	})
}
