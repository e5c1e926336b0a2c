package config

import "time"

// builtIn returns the settings that hold where nobody says otherwise: the profiles of spec 2.3, the plan of spec 6.1, a
// policy that asks others before it gives up, and never cancels by itself.
func builtIn() Tenant {
	const m, h = Duration(time.Minute), Duration(time.Hour)
	d := 24 * h
	profile := func(name string, lifetime, grace, session Duration, assurance int) Profile {
		return Profile{
			Name: name, Lifetime: lifetime, Grace: grace, Session: session, Idle: 15 * m,
			ReissueLimit: 3, ReissueWindow: d, Assurance: assurance, Reminders: Standard, Escalation: Standard,
		}
	}
	t := Tenant{
		DefaultProfile: Standard,
		Rules:          []ProfileRule{},
		Profiles:       map[string]Profile{},
		Reminders: map[string]ReminderPlan{Standard: {
			Name: Standard, Offsets: []Duration{d, 3 * d, 7 * d}, PartialOffsets: []Duration{h, d},
			ExhaustedAfter: d, RotateWithin: d, MaxPerDay: 1, TimeZone: "UTC",
			QuietHours: QuietHours{From: 21 * 60, To: 8 * 60},
		}},
		Escalations: map[string]EscalationPolicy{Standard: {Name: Standard, Rules: []EscalationRule{
			{RemindersExhausted, []EscalationStep{{0, NotifyManager}, {d, RouteToAlternate}, {d, TellPlatform}}},
			{LinkLapsed, []EscalationStep{{0, NotifyManager}, {d, RouteToAlternate}}},
			{DeliveryFailed, []EscalationStep{{0, TellPlatform}, {0, NotifyManager}, {h, RouteToAlternate}}},
		}}},
		Branding: Branding{Name: "Countersign", Colour: "#1f4e79"},
	}
	for _, p := range []Profile{
		profile("high-risk", h, 15*m, 20*m, 2),
		profile("sales", 72*h, h, h, 1),
		profile(Standard, 7*d, h, h, 1),
		profile("legal", 14*d, 24*h, 2*h, 1),
		profile("routine", 30*d, 24*h, 2*h, 0),
	} {
		t.Profiles[p.Name] = p
	}
	return t
}
