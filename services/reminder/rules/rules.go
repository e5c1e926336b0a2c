// Package rules says when a signer is reminded (spec 6). It is pure: state, command and time give the fact.
//
// One plan stands for one generation of one link:
//
//	        Begin: the link's message was accepted
//	none ──────────────────────────────────────────► running: 24 h, 72 h, 7 d after it (6.1)
//	  │                                               │  │
//	  │ Act: the link was opened                      │  │ Act: opened, document seen, consent given
//	  ▼                                               │  ▼
//	running, partial: 1 h, 24 h after the last act ◄──┴── every act starts it anew
//
//	running -Tick, slot passed, quiet hours-----------------> running, moved to their end (6.3)
//	running -Tick, slot passed, day had its reminder--------> running, moved to the next (6.5)
//	running -Tick, slots passed-----------------------------> running, one reminder for all of them (6.2)
//	running -Tick, last slot used and the final wait over---> exhausted: escalation takes over
//	running -Tick, but it makes no sense any more-----------> stopped, with the reason (6.2)
//	running -Stop: signed, declined, closed, rotated...-----> stopped, with the reason
//
// Exhausted and stopped are final: a new generation has a plan of its own. One that a reminder itself began, because the
// link would have expired soon (6.4), goes on with the plan of the generation before (Carry), or it would never end.
//
// Offsets count from the plan's base. The final wait counts from the last reminder, so that a signer who was reminded late,
// after an outage or a night, has it in full. A reminder that is moved is still sent; slots that pass meanwhile are folded
// into it.
package rules

import (
	"errors"
	"fmt"
	"time"
)

// mostOffsets bounds a plan, so that its state stays small.
const mostOffsets = 64

// mostPerDay bounds what a plan remembers of a day.
const mostPerDay = 100

// Policy is a plan as a tenant has configured it; a plan keeps a copy, so that changing it does not touch what runs.
type Policy struct {
	Offsets        []time.Duration // of reminders after the message was accepted, rising
	PartialOffsets []time.Duration // of reminders after a signer's last act, rising
	FinalWait      time.Duration   // after the last reminder, before the plan is exhausted
	RotateWithin   time.Duration   // a link that expires within this is replaced by the reminder
	MaxPerDay      int             // reminders in one day of the signer's, up to 100; 0 is any number
	Quiet          Quiet
}

// Quiet is when nobody is disturbed, by the clock on the signer's wall.
type Quiet struct {
	From, Until time.Duration // times of day counted from midnight, 0 to 24 h; equal means never
	Weekends    bool          // Saturdays and Sundays as well
}

// Defaults returns the numbers of spec 6.1 and 6.3. The final wait is ours: a day to answer the last reminder.
func Defaults() Policy {
	const day = 24 * time.Hour
	return Policy{
		Offsets:        []time.Duration{day, 3 * day, 7 * day},
		PartialOffsets: []time.Duration{time.Hour, day},
		FinalWait:      day,
		RotateWithin:   day,
		MaxPerDay:      1,
		Quiet:          Quiet{From: 21 * time.Hour, Until: 8 * time.Hour},
	}
}

// Validate names everything that is out of its range.
func (p Policy) Validate() error {
	var wrong []error
	for name, offsets := range map[string][]time.Duration{"offsets": p.Offsets, "partial offsets": p.PartialOffsets} {
		if len(offsets) > mostOffsets {
			wrong = append(wrong, fmt.Errorf("%s: %d of them, at most %d", name, len(offsets), mostOffsets))
		}
		for i, o := range offsets {
			if o <= 0 || i > 0 && o <= offsets[i-1] {
				wrong = append(wrong, fmt.Errorf("%s: %s is not above 0 and the one before", name, o))
			}
		}
	}
	if p.FinalWait <= 0 {
		wrong = append(wrong, fmt.Errorf("final wait is %s, give more than 0", p.FinalWait))
	}
	if p.RotateWithin < 0 {
		wrong = append(wrong, fmt.Errorf("rotation is %s, give 0 or more", p.RotateWithin))
	}
	if p.MaxPerDay < 0 || p.MaxPerDay > mostPerDay {
		wrong = append(wrong, fmt.Errorf("%d reminders a day, give 0 to %d", p.MaxPerDay, mostPerDay))
	}
	for name, d := range map[string]time.Duration{"quiet from": p.Quiet.From, "quiet until": p.Quiet.Until} {
		if d < 0 || d > 24*time.Hour {
			wrong = append(wrong, fmt.Errorf("%s is %s, give a time of day from 0 to 24 h", name, d))
		}
	}
	if gap := p.Quiet.From - p.Quiet.Until; p.Quiet.From != p.Quiet.Until && (gap+24*time.Hour)%(24*time.Hour) < time.Hour {
		wrong = append(wrong, errors.New("quiet hours leave less than an hour of the day"))
	}
	return errors.Join(wrong...)
}
