// Package rules says what is done when a signature does not come (spec 7). It is pure: state, command and time give the fact.
//
// One escalation stands for one generation of one link; the first trigger wins:
//
//	     Begin: reminders exhausted, link lapsed, delivery failed for good (7.1)
//	none ───────────────────────────────────────────────────────────────────────► running
//
//	running -Tick, wait of the next step over--> running: one step taken
//	            notify-manager      ManagerNotified; skipped where none is named
//	            route-to-alternate  AlternateRouted to the first who was not asked yet (7.2); skipped where none is left
//	            tell-platform       PlatformTold
//	            cancel              RequestStuck
//	running -Tick, every step taken-----------> finished
//	running -Tick or Resolve, link settled----> resolved, with the reason
//
// Finished is final. Resolved is, too, but for one case: a delivery that failed was resolved because the link was opened all
// the same, and the link still waits. Then another trigger may begin anew.
//
// The steps, the manager and the alternates are those of the moment it began, so `why` can show what was decided on. An
// alternate who takes over begins a generation with an escalation of its own, in which everybody asked before is left out:
// so nobody is asked twice, nothing goes round, and it ends when the list does.
//
// What would throw somebody out while they sign, routing and cancelling, waits until their session is over.
package rules

import (
	"time"

	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
)

// Policy is what a tenant has set for one trigger.
type Policy struct {
	Name   string
	SHA256 []byte // of the policy's content, so that it can be shown which version decided
	Steps  []Step
}

// Step is one step of a policy.
type Step struct {
	Wait   time.Duration // after the step before, or the trigger; 0 is at once
	Action escalationv1.Action
}

// Reasons of StepSkipped, in the words of `why`.
const (
	NoManager   = "no manager is named"
	NoAlternate = "no alternate is left"
	NotKnown    = "this release does not know the step"
)
