// Package rules says how a signer proves who they are (spec 5). It is pure: state, command and time give the fact.
//
// One verification stands for one link, whoever holds it:
//
//	          Start                    Answer, right
//	no code ────────► code is open ──────────────────► evidence, good for 60 min
//	   ▲               │  ▲    │                            │
//	   │ 10 min passed │  │    │ Answer, wrong              │ Start: another act, another browser
//	   │ or 5 tries    ▼  │    ▼                            ▼
//	   └───────────────   │  counted; the 10th within an hour locks for 15 min,
//	                      │  and each further lock lasts twice as long (spec 5.2)
//	                      └─ Start again: a new code, the one before is void
//
// What is counted is counted in this state, which the record holds: emptying Redis resets nothing (security 2.3). A try is
// counted before it is judged, because being judged is the transition; so of any number of answers at once only as many as
// there are tries left are judged. A new code resets no count; a success does, and so does a new holder of the link, who
// is somebody else.
//
// # What evidence is good for
//
// Evidence is bound to link, person, browser and act, and ends after 60 minutes. Evidence for one act does not serve
// another, with one exception: whoever has just proved their mailbox in this browser to get on with a link (continue) is
// not asked for the same mailbox again before signing at level 1. Nothing would be missing (spec 5.1), since the same
// person, browser and mailbox are what a second code would prove. It does not hold the other way: a new link is worth a
// fresh proof, since a browser left alone after signing in must not yield one.
//
// A code to the link's own mailbox is level 1 (decisions 11), and evidence never serves above its own level.
package rules

import (
	"errors"
	"fmt"
	"time"
)

// keep is how many of the newest sends and failures a state remembers; limits cannot be larger.
const keep = 64

// Limits are the numbers of spec 5.2. Durations take any value from a second to years.
type Limits struct {
	CodeLife  time.Duration // how long a code is good for
	CodeTries int           // wrong or right answers that a code bears
	Cooldown  time.Duration // between two codes

	ShortWindow time.Duration // in which at most ShortSends codes are sent
	ShortSends  int
	LongWindow  time.Duration // in which at most LongSends codes are sent
	LongSends   int

	LockAfter  int           // failures within LockWindow that lock
	LockWindow time.Duration //
	Lock       time.Duration // how long the first lock lasts; each further one twice as long
	LockMost   time.Duration // the longest lock
	Ceiling    int           // failures without a success from which on every lock is the longest (NIST 800-63B 3.2.2: at most 100)

	EvidenceLife time.Duration // how long evidence of level 1 is good for
}

// Defaults returns the numbers of spec 5.2 and security 2.3.
func Defaults() Limits {
	return Limits{
		CodeLife: 10 * time.Minute, CodeTries: 5, Cooldown: 30 * time.Second,
		ShortWindow: 10 * time.Minute, ShortSends: 3, LongWindow: 24 * time.Hour, LongSends: 10,
		LockAfter: 10, LockWindow: time.Hour, Lock: 15 * time.Minute, LockMost: 30 * 24 * time.Hour, Ceiling: 100,
		EvidenceLife: time.Hour,
	}
}

// Validate names every limit that is out of its range.
func (l Limits) Validate() error {
	var wrong []error
	for name, d := range map[string]time.Duration{
		"code life": l.CodeLife, "short window": l.ShortWindow, "long window": l.LongWindow, "lock window": l.LockWindow,
		"lock": l.Lock, "longest lock": l.LockMost, "evidence life": l.EvidenceLife,
	} {
		if d < time.Second {
			wrong = append(wrong, fmt.Errorf("%s is %s; give a second or more", name, d))
		}
	}
	if l.Cooldown < 0 {
		wrong = append(wrong, fmt.Errorf("cool-down is %s; give 0 or more", l.Cooldown))
	}
	if l.LockMost < l.Lock {
		wrong = append(wrong, fmt.Errorf("longest lock is %s, shorter than the first, %s", l.LockMost, l.Lock))
	}
	for name, n := range map[string]int{"tries": l.CodeTries, "codes in the short window": l.ShortSends, "codes in the long window": l.LongSends, "failures before a lock": l.LockAfter} {
		if n < 1 || n > keep {
			wrong = append(wrong, fmt.Errorf("%s is %d; give 1 to %d", name, n, keep))
		}
	}
	if l.Ceiling < l.LockAfter || l.Ceiling > 100 {
		wrong = append(wrong, fmt.Errorf("ceiling is %d; give %d (failures before a lock) to 100", l.Ceiling, l.LockAfter))
	}
	return errors.Join(wrong...)
}
