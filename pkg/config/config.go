// Package config reads what tenants set: expiration profiles, reminder plans, escalation policies, branding.
//
// It is pure data with defaults built in (spec 2.3, 6, 7). A tenant's settings lie in three layers: the built-in ones,
// those in DIR/defaults, those in DIR/<tenant>. Every wrong setting is named with file, line, column and what is accepted.
// README.md shows the files.
package config

import (
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
)

// Standard names the profile, plan and policy used where nothing else is named.
const Standard = "standard"

// Profile is an expiration profile (spec 2.3).
type Profile struct {
	Name             string   `json:"name"`
	Lifetime         Duration `json:"lifetime"`          // how long a link opens, from when its message is out
	Grace            Duration `json:"grace"`             // how long after that a session begun in time may finish; 0 = none
	Session          Duration `json:"session"`           // how long a session may last
	Idle             Duration `json:"idle"`              // how long a session may do nothing; at most Session
	ReissueLimit     int      `json:"reissue_limit"`     // new links a signer may ask for in ReissueWindow; 0 = none
	ReissueWindow    Duration `json:"reissue_window"`    //
	AutomaticReissue bool     `json:"automatic_reissue"` // a lapsed link is replaced without being asked for
	Assurance        int      `json:"assurance"`         // level a signer must reach before signing, 0 to 4 (spec 5.1)
	Reminders        string   `json:"reminders"`         // name of a reminder plan
	Escalation       string   `json:"escalation"`        // name of an escalation policy
}

// ProfileRule chooses a profile for requests that name none (spec 1.1).
type ProfileRule struct {
	When string `json:"when" yaml:"when"` // a Condition
	Use  string `json:"use"  yaml:"use"`
}

// ReminderPlan says when a signer is reminded (spec 6).
type ReminderPlan struct {
	Name           string     `json:"name"`
	Offsets        []Duration `json:"offsets"`         // after delivery, rising; empty = no reminders
	PartialOffsets []Duration `json:"partial_offsets"` // after the last activity of a signer who stopped half-way, rising
	ExhaustedAfter Duration   `json:"exhausted_after"` // after the last reminder: then escalation takes over
	RotateWithin   Duration   `json:"rotate_within"`   // a link that expires within this is replaced by the reminder
	MaxPerDay      int        `json:"max_per_day"`     // reminders to one signer in one day of the signer's
	TimeZone       string     `json:"time_zone"`       // IANA name, for a signer of whom none is known
	QuietHours     QuietHours `json:"quiet_hours"`
}

// QuietHours is when nobody is reminded, in the signer's own zone. From may be later than To: then it spans midnight.
// From equal to To is no quiet hours.
type QuietHours struct {
	From     TimeOfDay `json:"from"`
	To       TimeOfDay `json:"to"`
	Weekends bool      `json:"weekends"` // Saturday and Sunday are quiet all day
}

// Trigger begins an escalation.
type Trigger string

// The triggers.
const (
	RemindersExhausted Trigger = "reminders-exhausted"
	LinkLapsed         Trigger = "link-lapsed"
	DeliveryFailed     Trigger = "delivery-failed"
)

// Action is what a step of an escalation does.
type Action string

// The actions.
const (
	NotifyManager    Action = "notify-manager"
	RouteToAlternate Action = "route-to-alternate"
	TellPlatform     Action = "tell-platform"
	Cancel           Action = "cancel"
)

// EscalationPolicy says what is done when a signature does not come (spec 7.1).
type EscalationPolicy struct {
	Name  string           `json:"name"`
	Rules []EscalationRule `json:"rules"` // at most one a trigger
}

// EscalationRule is what one trigger sets off.
type EscalationRule struct {
	On    Trigger          `json:"on"    yaml:"on"`
	Steps []EscalationStep `json:"steps" yaml:"steps"` // in order, until the signature comes
}

// EscalationStep is one step.
type EscalationStep struct {
	Wait   Duration `json:"wait"   yaml:"wait"` // after the step before, or the trigger; 0 = at once
	Action Action   `json:"action" yaml:"action"`
}

// For returns the steps that trigger sets off; none is a policy that leaves it alone.
func (p EscalationPolicy) For(trigger Trigger) []EscalationStep {
	for _, r := range p.Rules {
		if r.On == trigger {
			return slices.Clone(r.Steps)
		}
	}
	return nil
}

// Digest identifies the policy's content, so that it can be shown later which version decided.
func (p EscalationPolicy) Digest() [sha256.Size]byte { return digest(p) }

// Branding is how a tenant shows itself to its signers.
type Branding struct {
	Name    string  `json:"name"`
	Colour  string  `json:"colour"` // #rrggbb
	Support Support `json:"support"`
	Sender  Sender  `json:"sender"`
}

// Support is where a signer finds help; what is empty is not shown.
type Support struct {
	Email string `json:"email"`
	Phone string `json:"phone"`
	URL   string `json:"url"`
}

// Sender is who mails come from. What is empty is the name of the branding, and the address that delivery was given (--mail-from).
type Sender struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// Tenant is all the settings of one tenant.
type Tenant struct {
	DefaultProfile string                      `json:"default_profile"`
	Rules          []ProfileRule               `json:"rules"`
	Profiles       map[string]Profile          `json:"profiles"`
	Reminders      map[string]ReminderPlan     `json:"reminders"`
	Escalations    map[string]EscalationPolicy `json:"escalations"`
	Branding       Branding                    `json:"branding"`

	given      map[string]bool // profiles of its own files, which are more than what it has from the layers below
	givenRules bool
}

// Gives returns the names of the profiles that the tenant's own files set, sorted; the others it has from the layers below.
func (t Tenant) Gives() []string { return slices.Sorted(maps.Keys(t.given)) }

// GivesRules tells whether the tenant's own files set the rules or the default profile.
func (t Tenant) GivesRules() bool { return t.givenRules }

// Config is the settings of all tenants. It never changes; a change is a new Config. A tenant without a folder of its own
// has the defaults.
type Config struct {
	base    Tenant
	tenants map[string]Tenant
	files   bool
}

// Defaults is the name under which the settings of all tenants lie. No tenant has it.
const Defaults = "defaults"

// FromFiles tells whether somebody gave settings at all, be they empty.
func (c *Config) FromFiles() bool { return c.files }

// Base returns a copy of the settings that hold for a tenant without a folder.
func (c *Config) Base() Tenant { return c.base.clone() }

// Default returns the built-in settings for every tenant.
func Default() *Config { return &Config{base: builtIn()} }

// Tenants returns the names of the tenants that have settings of their own, sorted.
func (c *Config) Tenants() []string { return slices.Sorted(maps.Keys(c.tenants)) }

// Tenant returns a copy of the settings that hold for a tenant.
func (c *Config) Tenant(name string) Tenant { return c.of(name).clone() }

func (c *Config) of(name string) Tenant {
	if t, ok := c.tenants[name]; ok {
		return t
	}
	return c.base
}

// Profile returns a tenant's profile by name, or its default one where name is empty; false where there is none.
func (c *Config) Profile(tenant, name string) (Profile, bool) {
	t := c.of(tenant)
	if name == "" {
		name = t.DefaultProfile
	}
	p, ok := t.Profiles[name]
	return p, ok
}

// Reminders returns a tenant's reminder plan by name, or Standard where name is empty.
func (c *Config) Reminders(tenant, name string) (ReminderPlan, bool) {
	if name == "" {
		name = Standard
	}
	p, ok := c.of(tenant).Reminders[name]
	p.Offsets, p.PartialOffsets = slices.Clone(p.Offsets), slices.Clone(p.PartialOffsets)
	return p, ok
}

// Escalation returns a tenant's escalation policy by name, or Standard where name is empty.
func (c *Config) Escalation(tenant, name string) (EscalationPolicy, bool) {
	if name == "" {
		name = Standard
	}
	p, ok := c.of(tenant).Escalations[name]
	return p, ok
}

// Branding returns how a tenant shows itself.
func (c *Config) Branding(tenant string) Branding { return c.of(tenant).Branding }

// Digest identifies the content of a tenant's settings: equal settings have equal digests, on every machine.
func (c *Config) Digest(tenant string) [sha256.Size]byte { return digest(c.of(tenant)) }

func digest(v any) [sha256.Size]byte {
	text, err := json.Marshal(v) // sorts the keys of maps
	if err != nil {
		panic(err) // plain data always has JSON
	}
	return sha256.Sum256(text)
}

func (t Tenant) clone() Tenant {
	t.Rules, t.Profiles = slices.Clone(t.Rules), maps.Clone(t.Profiles)
	t.Reminders, t.Escalations = maps.Clone(t.Reminders), maps.Clone(t.Escalations)
	t.given = maps.Clone(t.given)
	return t
}
