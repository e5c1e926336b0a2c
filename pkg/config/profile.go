package config

import (
	"fmt"
	"regexp"
	"time"
)

const (
	// MaxReissues is the highest limit of reissues.
	MaxReissues = 1000
	// MaxAssurance is the highest level there is (spec 5.1).
	MaxAssurance = 4
)

var profileName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

// ProfileChange is what somebody says about a profile, in a file or by a call. A nil pointer is a setting left out.
type ProfileChange struct {
	Lifetime         *Duration `yaml:"lifetime"`
	Grace            *Duration `yaml:"grace"`
	Session          *Duration `yaml:"session"`
	Idle             *Duration `yaml:"idle"`
	ReissueLimit     *int      `yaml:"reissue_limit"`
	ReissueWindow    *Duration `yaml:"reissue_window"`
	AutomaticReissue *bool     `yaml:"automatic_reissue"`
	Assurance        *int      `yaml:"assurance"`
	Reminders        *string   `yaml:"reminders"`
	Escalation       *string   `yaml:"escalation"`
}

// Apply returns p with what the change says; what it leaves out stays. A session that becomes shorter than the idle time-out takes it
// along, unless the change says otherwise.
func (f ProfileChange) Apply(p Profile) Profile {
	set(&p.Lifetime, f.Lifetime)
	set(&p.Grace, f.Grace)
	set(&p.Session, f.Session)
	set(&p.Idle, f.Idle)
	if f.Idle == nil {
		p.Idle = min(p.Idle, p.Session)
	}
	set(&p.ReissueLimit, f.ReissueLimit)
	set(&p.ReissueWindow, f.ReissueWindow)
	set(&p.AutomaticReissue, f.AutomaticReissue)
	set(&p.Assurance, f.Assurance)
	set(&p.Reminders, f.Reminders)
	set(&p.Escalation, f.Escalation)
	return p
}

// Wrong is a setting that is not accepted.
type Wrong struct{ Setting, Text string }

// CheckProfile names every setting of a profile of this tenant that is not accepted, whoever gives it: the one place that knows.
func (t Tenant) CheckProfile(p Profile) []Wrong {
	var wrong []Wrong
	bad := func(setting, format string, args ...any) {
		wrong = append(wrong, Wrong{setting, fmt.Sprintf(format, args...)})
	}
	if !profileName.MatchString(p.Name) {
		bad("name", "accepted: a name of up to 64 lower-case letters, digits and -")
	}
	for _, d := range []struct {
		setting string
		value   Duration
		least   Duration
	}{
		{"lifetime", p.Lifetime, Duration(time.Second)},
		{"grace", p.Grace, 0},
		{"session", p.Session, Duration(time.Second)},
		{"idle", p.Idle, Duration(time.Second)},
		{"reissue_window", p.ReissueWindow, Duration(time.Second)},
	} {
		if d.value < d.least || d.value > MaxDuration || d.value%Duration(time.Second) != 0 {
			bad(d.setting, "accepted: a duration in whole seconds, from %s to 3650d", d.least)
		}
	}
	if p.Idle > p.Session {
		bad("idle", "is longer than the session; accepted: up to %s", p.Session)
	}
	if p.ReissueLimit < 0 || p.ReissueLimit > MaxReissues {
		bad("reissue_limit", "accepted: a whole number from 0 to %d", MaxReissues)
	}
	if p.Assurance < 0 || p.Assurance > MaxAssurance {
		bad("assurance", "accepted: a level from 0 to %d", MaxAssurance)
	}
	if _, ok := t.Reminders[p.Reminders]; !ok {
		bad("reminders", "is no reminder plan; accepted: %s", names(t.Reminders))
	}
	if _, ok := t.Escalations[p.Escalation]; !ok {
		bad("escalation", "is no escalation policy; accepted: %s", names(t.Escalations))
	}
	return wrong
}
