package config

import (
	"maps"
	"net/mail"
	"slices"
	"strconv"
	"time"
	_ "time/tzdata" // time zones are the same wherever the program runs
)

// The files, as YAML has them. A nil pointer is a setting left out.

// ProfilesFile is what a profiles.yaml says. What it leaves out is nil.
type ProfilesFile struct {
	Default  *string                  `yaml:"default"`
	Rules    *[]ProfileRule           `yaml:"rules"`
	Profiles map[string]ProfileChange `yaml:"profiles"`
}

// ReadProfiles reads the text of a profiles.yaml as such, without the layers below it: names are not followed. The error is a Problems.
func ReadProfiles(file string, data []byte) (ProfilesFile, error) {
	var f ProfilesFile
	if d := read(file, data, "profiles.schema.json", &f); len(d.problems) > 0 {
		return ProfilesFile{}, Problems(d.problems)
	}
	return f, nil
}

func (l *layer) profiles(file string, data []byte) {
	var f ProfilesFile
	d := read(file, data, "profiles.schema.json", &f)
	defer func() { l.problems = append(l.problems, d.problems...) }()
	t := l.tenant
	standard := t.Profiles[Standard] // of the layer below: what a new profile begins with
	profiles := maps.Clone(t.Profiles)
	t.given = map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(f.Profiles)) {
		p, known := t.Profiles[name]
		if !known {
			p = standard
			p.Name = name
		}
		profiles[name] = l.profile(d, p, f.Profiles[name])
		t.given[name] = true
	}
	t.Profiles = profiles
	set(&t.DefaultProfile, f.Default)
	t.givenRules = f.Default != nil || f.Rules != nil
	if _, ok := profiles[t.DefaultProfile]; !ok {
		d.add([]string{"default"}, "is no profile; accepted: %s", names(profiles))
	}
	if f.Rules == nil {
		return
	}
	t.Rules = *f.Rules
	for i, r := range t.Rules {
		if _, ok := profiles[r.Use]; !ok {
			d.add([]string{"rules", strconv.Itoa(i), "use"}, "is no profile; accepted: %s", names(profiles))
		}
		if _, err := ParseCondition(r.When); err != nil {
			d.add([]string{"rules", strconv.Itoa(i), "when"}, "%v", err)
		}
	}
}

// profile lays a file's profile over p, and checks what no schema can.
func (l *layer) profile(d *document, p Profile, f ProfileChange) Profile {
	p = f.Apply(p)
	for _, w := range l.tenant.CheckProfile(p) {
		if l.broken && (w.Setting == "reminders" || w.Setting == "escalation") {
			continue
		}
		d.add([]string{"profiles", p.Name, w.Setting}, "%s", w.Text)
	}
	return p
}

type remindersFile struct {
	Plans map[string]planFile `yaml:"plans"`
}

type planFile struct {
	Offsets        *[]Duration `yaml:"offsets"`
	PartialOffsets *[]Duration `yaml:"partial_offsets"`
	ExhaustedAfter *Duration   `yaml:"exhausted_after"`
	RotateWithin   *Duration   `yaml:"rotate_within"`
	MaxPerDay      *int        `yaml:"max_per_day"`
	TimeZone       *string     `yaml:"time_zone"`
	QuietHours     struct {
		From     *TimeOfDay `yaml:"from"`
		To       *TimeOfDay `yaml:"to"`
		Weekends *bool      `yaml:"weekends"`
	} `yaml:"quiet_hours"`
}

func (l *layer) reminders(file string, data []byte) {
	var f remindersFile
	d := read(file, data, "reminders.schema.json", &f)
	plans := maps.Clone(l.tenant.Reminders)
	for _, name := range slices.Sorted(maps.Keys(f.Plans)) {
		p, known := l.tenant.Reminders[name]
		if !known {
			p = l.tenant.Reminders[Standard]
			p.Name = name
		}
		plans[name] = plan(d, p, f.Plans[name])
	}
	l.tenant.Reminders = plans
	l.broken = l.broken || len(d.problems) > 0
	l.problems = append(l.problems, d.problems...)
}

func plan(d *document, p ReminderPlan, f planFile) ReminderPlan {
	set(&p.Offsets, f.Offsets)
	set(&p.PartialOffsets, f.PartialOffsets)
	set(&p.ExhaustedAfter, f.ExhaustedAfter)
	set(&p.RotateWithin, f.RotateWithin)
	set(&p.MaxPerDay, f.MaxPerDay)
	set(&p.TimeZone, f.TimeZone)
	set(&p.QuietHours.From, f.QuietHours.From)
	set(&p.QuietHours.To, f.QuietHours.To)
	set(&p.QuietHours.Weekends, f.QuietHours.Weekends)
	at := func(steps ...string) []string { return append([]string{"plans", p.Name}, steps...) }
	rising(d, at("offsets"), p.Offsets)
	rising(d, at("partial_offsets"), p.PartialOffsets)
	if _, err := time.LoadLocation(p.TimeZone); err != nil || p.TimeZone == "Local" {
		d.add(at("time_zone"), "accepted: a name of the IANA time zone database such as Europe/Berlin")
	}
	return p
}

func rising(d *document, path []string, offsets []Duration) {
	last := Duration(0)
	for i, o := range offsets {
		if o <= last {
			d.add(append(slices.Clone(path), strconv.Itoa(i)), "accepted: a duration longer than the one before, %s", last)
		}
		last = o
	}
}

type escalationsFile struct {
	Policies map[string][]EscalationRule `yaml:"policies"`
}

func (l *layer) escalations(file string, data []byte) {
	var f escalationsFile
	d := read(file, data, "escalations.schema.json", &f)
	policies := maps.Clone(l.tenant.Escalations)
	for _, name := range slices.Sorted(maps.Keys(f.Policies)) {
		rules := f.Policies[name]
		seen := map[Trigger]bool{}
		for i, r := range rules {
			if seen[r.On] {
				d.add([]string{"policies", name, strconv.Itoa(i), "on"}, "stands twice in this policy; accepted: one rule a trigger")
			}
			seen[r.On] = true
			cancelled(d, []string{"policies", name, strconv.Itoa(i), "steps"}, r.Steps)
		}
		if rules == nil {
			rules = []EscalationRule{}
		}
		policies[name] = EscalationPolicy{Name: name, Rules: rules}
	}
	l.tenant.Escalations = policies
	l.broken = l.broken || len(d.problems) > 0
	l.problems = append(l.problems, d.problems...)
}

// cancelled refuses steps that could never be reached.
func cancelled(d *document, path []string, steps []EscalationStep) {
	for i, s := range steps {
		if s.Action == Cancel && i < len(steps)-1 {
			d.add(append(slices.Clone(path), strconv.Itoa(i+1)), "comes after cancel, so it would never be done; accepted: cancel as the last step")
		}
	}
}

type brandingFile struct {
	Name    *string `yaml:"name"`
	Colour  *string `yaml:"colour"`
	Support struct {
		Email *string `yaml:"email"`
		Phone *string `yaml:"phone"`
		URL   *string `yaml:"url"`
	} `yaml:"support"`
	Sender struct {
		Name    *string `yaml:"name"`
		Address *string `yaml:"address"`
	} `yaml:"sender"`
}

func (l *layer) branding(file string, data []byte) {
	var f brandingFile
	d := read(file, data, "branding.schema.json", &f)
	b := &l.tenant.Branding
	set(&b.Name, f.Name)
	set(&b.Colour, f.Colour)
	set(&b.Support.Email, f.Support.Email)
	set(&b.Support.Phone, f.Support.Phone)
	set(&b.Support.URL, f.Support.URL)
	set(&b.Sender.Name, f.Sender.Name)
	set(&b.Sender.Address, f.Sender.Address)
	if a := b.Support.Email; a != "" && !isAddress(a) {
		d.add([]string{"support", "email"}, "accepted: a mail address such as help@acme.example")
	}
	if a := f.Sender.Address; a != nil && !isAddress(*a) {
		d.add([]string{"sender", "address"}, "accepted: a mail address such as sign@acme.example")
	}
	l.problems = append(l.problems, d.problems...)
}

func isAddress(text string) bool {
	a, err := mail.ParseAddress(text)
	return err == nil && a.Name == "" && a.Address == text
}
