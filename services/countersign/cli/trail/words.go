package trail

import (
	"fmt"
	"strings"
)

// phrases say what an event of each kind means where nothing in it changes the words.
var phrases = map[string]string{ //nolint:gosec // words about tokens, no token (G101)
	"cs.request.created":            "The request was accepted.",
	"cs.request.progressed":         "One signer is done; others are still to sign.",
	"cs.request.completed":          "Everybody has signed.",
	"cs.request.declined":           "The request ended because a signer declined.",
	"cs.request.cancelled":          "The request was cancelled.",
	"cs.request.amended":            "The platform changed the request.",
	"cs.request.expired":            "The deadline passed before everybody had signed.",
	"cs.pii.erased":                 "What is personal was erased.",
	"cs.token.request_cancel_begun": "It is looked at whether a signature is being made, before the request is ended.",

	"cs.link.issued":         "Their turn to sign came.",
	"cs.link.minted":         "A token was made for a message.",
	"cs.link.delivered":      "The first message is out: the link's lifetime runs.",
	"cs.link.redeemed":       "The link was opened.",
	"cs.link.soft_expired":   "The link expired.",
	"cs.link.reprofiled":     "The sender changed how long the link lives.",
	"cs.link.rerouted":       "An alternate took the signer's place.",
	"cs.link.admitted":       "A signature was begun.",
	"cs.link.signed":         "The link is done: its signer has signed.",
	"cs.link.declined":       "The link is done: its signer declined.",
	"cs.link.revoked":        "The link was withdrawn.",
	"cs.link.closed":         "The link was closed with the request.",
	"cs.link.deadline_moved": "The link was told the request's deadline.",
	"cs.link.attention":      "The signer may have no more links for now; the platform was asked.",
	"cs.session.resumed":     "After verification the signer went on in another browser.",

	"cs.identity.challenged": "A one-time code was asked for.",
	"cs.identity.failed":     "A wrong code was entered.",
	"cs.document.prepared":   "The document is ready to be shown.",
	"cs.document.rendered":   "The document was shown.",
	"cs.consent.given":       "Consent to sign electronically was given.",
	"cs.signature.applied":   "The document was signed.",
	"cs.signature.declined":  "The signer declined.",

	"cs.reminder.reminders_postponed": "A reminder was moved: quiet hours, or one was sent that day.",
	"cs.reminder.reminders_restarted": "The signer began and stopped half-way: reminding begins anew.",
	"cs.escalation.completed":         "Every step of the escalation was taken.",
}

// Words says what happened, in a sentence.
func (e Entry) Words() string {
	if e.Type == "cs.link.minted" && e.Actor == "platform" {
		return "The platform took one more link, to hand over itself."
	}
	if p, ok := phrases[e.Type]; ok {
		return p
	}
	switch group, _, _ := strings.Cut(strings.TrimPrefix(e.Type, "cs."), "."); group {
	case "link", "identity":
		return e.linkWords()
	case "delivery":
		return e.messageWords()
	case "reminder":
		return e.reminderWords()
	case "escalation":
		return e.escalationWords()
	}
	return e.Type
}

func (e Entry) linkWords() string {
	switch e.Type {
	case "cs.link.denied":
		return "Somebody was refused at the link" + because(e.Code) + "."
	case "cs.link.reissued":
		return "A new link took the place of the one before" + asked(e.Info["reason"]) + "."
	case "cs.identity.verified":
		return fmt.Sprintf("The signer was verified, level %d%s.", e.Level, by(e.Methods))
	}
	return e.Type
}

func asked(reason string) string {
	switch reason {
	case "signer":
		return ": the signer asked for it"
	case "platform":
		return ": the platform asked for it"
	case "reminder":
		return ": it came with a reminder, since the old one would soon have expired"
	case "policy":
		return ": a policy asks for it"
	case "automatic":
		return ": nobody had opened it in time, and the profile replaces it then"
	case "address_changed":
		return ": the platform changed the address"
	default:
		return ""
	}
}

func by(methods []string) string {
	if len(methods) == 0 {
		return ""
	}
	return ", by " + strings.ReplaceAll(strings.Join(methods, ", "), "email:code", "a code to their mailbox")
}

func because(code string) string {
	if code == "" || code == "ok" {
		return ""
	}
	return " (" + code + ")"
}

// kinds are messages' kinds in words.
var kinds = map[string]string{
	"link": "message with the link", "reissued": "message with the new link", "alternate": "message to the alternate", "reminder": "reminder",
	"partial": "reminder to finish", "code": "one-time code", "manager": "message to the manager", "completed": "message that all have signed",
	"declined": "message that it was declined", "cancelled": "message that it was cancelled",
	"address_changed": "message to the old address",
}

func kindWords(kind string) string {
	if w, ok := kinds[kind]; ok {
		return w
	}
	return "message"
}

func (e Entry) messageWords() string {
	what := "The " + kindWords(e.Info["kind"])
	switch e.Type {
	case "cs.delivery.planned":
		return what + " is to be sent."
	case "cs.delivery.accepted":
		words := what + " was handed to the mail server"
		if n := e.Info["attempt"]; n != "" && n != "1" {
			words += ", at attempt " + n
		}
		return words + "."
	case "cs.delivery.deferred":
		return what + " could not be handed over yet" + because(e.Code) + "; it is tried again."
	case "cs.delivery.bounced":
		return what + " was refused" + because(e.Code) + "."
	case "cs.delivery.failed":
		return what + " could not be delivered" + because(e.Code) + "; the tries are used up."
	case "cs.delivery.skipped":
		return what + " was not sent: it had become pointless" + because(e.Code) + "."
	}
	return e.Type
}

func (e Entry) reminderWords() string {
	switch e.Type {
	case "cs.reminder.scheduled":
		return fmt.Sprintf("Reminding was planned: up to %s.", plural(e.Info["of"], "reminder", "reminders"))
	case "cs.reminder.due":
		if e.Info["partial"] == "true" {
			return "Time for a reminder to finish."
		}
		return fmt.Sprintf("Time for reminder %s of %s.", e.Info["ordinal"], e.Info["of"])
	case "cs.reminder.reminders_exhausted":
		return fmt.Sprintf("The reminders are used up: %s sent, no signature.", e.Info["sent"])
	case "cs.reminder.stopped":
		return "Reminding stopped" + because(e.Info["reason"]) + "."
	}
	return e.Type
}

func plural(n, one, many string) string {
	if n == "1" {
		return "1 " + one
	}
	return n + " " + many
}

// triggers are what began an escalation, in words.
var triggers = map[string]string{
	"reminders_exhausted": "the reminders are used up", "link_lapsed": "the link expired", "delivery_failed": "the message could not be delivered",
}

// actions are what a step of a policy does, in words.
var actions = map[string]string{
	"notify_manager": "the manager is told", "route_alternate": "an alternate is asked", "cancel": "the request is cancelled", "tell_platform": "the platform is told",
}

func named(words map[string]string, name string) string {
	if w, ok := words[name]; ok {
		return w
	}
	return strings.ReplaceAll(name, "_", " ")
}

func (e Entry) escalationWords() string {
	step := fmt.Sprintf("Step %s of %s: ", e.Info["step"], e.Info["steps"])
	switch e.Type {
	case "cs.escalation.triggered":
		return fmt.Sprintf("An escalation began by policy %s: %s.", e.Info["policy"], named(triggers, e.Info["trigger"]))
	case "cs.escalation.manager_notified":
		return step + "the manager is told."
	case "cs.escalation.alternate_routed":
		return step + "an alternate is asked."
	case "cs.escalation.request_stuck":
		return step + "the request is cancelled."
	case "cs.escalation.platform_told":
		return step + "the platform is told."
	case "cs.escalation.step_skipped":
		return step + "left out (" + named(actions, e.Info["action"]) + "): " + e.Info["reason"] + "."
	case "cs.escalation.resolved":
		return "The escalation ended: there is nothing to escalate any more" + because(e.Info["reason"]) + "."
	}
	return e.Type
}

// Trigger says what began an escalation.
func Trigger(name string) string { return named(triggers, name) }
