package trail

import (
	"fmt"
	"slices"
	"strings"
	"time"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// Reasons is why a request stands where it stands.
type Reasons struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	Status  string   `json:"status"`
	Signers []Signer `json:"signers"`
}

// Signer is why one signer is waited for, or is not.
type Signer struct {
	Position   uint32      `json:"position"`
	LinkID     string      `json:"link_id"`
	Name       string      `json:"name"`
	Email      string      `json:"email"`
	Status     string      `json:"status"`
	WaitedFor  bool        `json:"waited_for"`
	Reason     string      `json:"reason"`
	Generation uint32      `json:"generation,omitempty"`
	Message    *Message    `json:"message,omitempty"`
	Reminders  *Reminders  `json:"reminders,omitempty"`
	Escalation *Escalation `json:"escalation,omitempty"`
	Next       []Next      `json:"next,omitempty"` // soonest first
}

// Message is the newest message to a signer, and its fate.
type Message struct {
	Kind    string    `json:"kind"`
	State   string    `json:"state"` // planned, accepted, deferred, bounced, failed, skipped
	At      time.Time `json:"at"`
	Attempt string    `json:"attempt,omitempty"`
	Code    string    `json:"code,omitempty"`
	NextAt  time.Time `json:"next_at,omitzero"`
	Words   string    `json:"words"`
}

// Reminders are the reminders of a signer's link as it is.
type Reminders struct {
	State  string    `json:"state"` // running, exhausted, stopped
	Sent   string    `json:"sent"`
	Of     string    `json:"of"`
	Reason string    `json:"reason,omitempty"`
	NextAt time.Time `json:"next_at,omitzero"`
}

// Escalation is the escalation of a signer's link as it is, or of the link it took the place of.
type Escalation struct {
	State        string    `json:"state"` // running, finished, resolved
	Trigger      string    `json:"trigger"`
	Policy       string    `json:"policy"`
	PolicyDigest string    `json:"policy_digest"`
	BegunAt      time.Time `json:"begun_at"`
	Taken        []Step    `json:"taken,omitempty"`
	Steps        string    `json:"steps"` // how many the policy has
	NextAction   string    `json:"next_action,omitempty"`
	NextAt       time.Time `json:"next_at,omitzero"`
}

// Step is a step that was taken.
type Step struct {
	At    time.Time `json:"at"`
	Words string    `json:"words"`
}

// Next is something that happens by itself, unless the signer signs before.
type Next struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
}

// Explain says of each signer whether and why they are waited for.
func Explain(r *signingv1.RequestView, entries []Entry) Reasons {
	reasons := Reasons{ID: r.GetId(), Title: r.GetTitle(), Status: lower(r.GetStatus().String(), "REQUEST_STATUS_")}
	open := r.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS
	for _, v := range r.GetSigners() {
		s := Signer{
			Position: v.GetPosition(), LinkID: v.GetId(), Name: v.GetName(), Email: v.GetEmail(),
			Status: lower(v.GetStatus().String(), "SIGNER_STATUS_"), Generation: v.GetGeneration(),
		}
		var own []Entry
		for _, e := range entries {
			if e.LinkID != v.GetId() {
				continue
			}
			own = append(own, e)
			s.hear(e)
		}
		s.WaitedFor, s.Reason = s.reason(r, v, own)
		s.WaitedFor = s.WaitedFor && open
		if s.WaitedFor {
			s.Next = s.next(v, own)
		}
		reasons.Signers = append(reasons.Signers, s)
	}
	return reasons
}

func lower(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }

// hear folds one entry of the signer's link in.
func (s *Signer) hear(e Entry) {
	group, what, _ := strings.Cut(strings.TrimPrefix(e.Type, "cs."), ".")
	switch group {
	case "delivery":
		if e.Info["kind"] == "manager" {
			return // about the signer, but not to them
		}
		s.Message = &Message{Kind: e.Info["kind"], State: what, At: e.At, Attempt: e.Info["attempt"], NextAt: e.at("next_at"), Words: e.Words()}
		if e.Code != "ok" {
			s.Message.Code = e.Code
		}
	case "reminder":
		if e.Generation < s.Generation {
			return // of a link that is gone
		}
		s.Reminders = &Reminders{State: "running", Sent: e.Info["sent"], Of: e.Info["of"], Reason: e.Info["reason"], NextAt: e.at("next_at")}
		switch what {
		case "stopped":
			s.Reminders.State = "stopped"
		case "reminders_exhausted":
			s.Reminders.State = "exhausted"
		}
	case "escalation":
		s.escalate(e, what)
	}
}

// escalate folds one entry of an escalation in.
func (s *Signer) escalate(e Entry, what string) {
	if what == "triggered" || s.Escalation == nil {
		s.Escalation = &Escalation{
			Trigger: e.Info["trigger"], Policy: e.Info["policy"], PolicyDigest: e.Info["policy_digest"], BegunAt: e.At, Steps: e.Info["steps"],
		}
	}
	x := s.Escalation
	x.State, x.NextAction, x.NextAt = "running", e.Info["next_action"], e.at("next_at")
	switch what {
	case "triggered":
	case "completed":
		x.State = "finished"
	case "resolved":
		x.State = "resolved"
	default:
		x.Taken = append(x.Taken, Step{At: e.At, Words: e.Words()})
	}
}

// reason says whether the request waits for a signer, and for what.
func (s *Signer) reason(r *signingv1.RequestView, v *signingv1.SignerView, own []Entry) (waited bool, why string) {
	switch v.GetStatus() {
	case signingv1.SignerStatus_SIGNER_STATUS_SIGNED:
		return false, "has signed"
	case signingv1.SignerStatus_SIGNER_STATUS_DECLINED:
		return false, "has declined"
	case signingv1.SignerStatus_SIGNER_STATUS_WITHDRAWN:
		if r.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS {
			return true, fmt.Sprintf("the link was withdrawn, so nobody can sign here until a new one is made: countersign links reissue %s %d", r.GetId(), v.GetPosition())
		}
		return false, "the request ended before they signed"
	case signingv1.SignerStatus_SIGNER_STATUS_OPENED:
		return true, opened(own)
	case signingv1.SignerStatus_SIGNER_STATUS_NOTIFIED:
		if lapsed(own) {
			return true, "the link expired before it was opened; they can ask for a new one on its page"
		}
		if e := latest(own, "cs.link.denied"); e != nil && latest(own, "cs.link.reissued") == nil {
			return true, "the message is out, but who tried the link was refused" + because(e.Code)
		}
		return true, "the message is out, and the link has not been opened yet"
	default: // waiting: for a turn, or for a message
	}
	if v.GetGeneration() == 0 && latest(own, "cs.link.issued") == nil {
		return false, turn(r, v)
	}
	return true, s.unsent()
}

// unsent says why somebody whose turn it is has no message yet.
func (s *Signer) unsent() string {
	if s.Message == nil {
		return "their turn has come; the message is about to be sent"
	}
	switch s.Message.State {
	case "planned":
		return "the message is about to be sent"
	case "deferred":
		return "the mail server did not take the message yet" + because(s.Message.Code) + "; it is tried again"
	case "bounced":
		return "the message was refused" + because(s.Message.Code) + ": is the address right?"
	case "failed":
		return "the message could not be delivered" + because(s.Message.Code)
	case "skipped":
		return "the message was not sent" + because(s.Message.Code)
	default:
		return "the message is out"
	}
}

// opened says how far somebody has come who has opened the link.
func opened(own []Entry) string {
	if lapsed(own) {
		return "opened the link, and the session ended before they signed; they can ask for a new link on its page"
	}
	far := "has opened the link, and has not been verified yet"
	for _, e := range own {
		switch e.Type {
		case "cs.link.redeemed", "cs.link.reissued":
			far = "has opened the link, and has not been verified yet"
		case "cs.identity.challenged":
			far = "asked for a one-time code, and has not entered it yet"
		case "cs.identity.failed":
			far = "entered a wrong code"
		case "cs.identity.verified":
			far = "was verified, and has not signed yet"
		case "cs.document.rendered":
			far = "has seen the document, and has not signed yet"
		case "cs.consent.given":
			far = "has agreed to sign electronically, and has not signed yet"
		}
	}
	return far
}

// turn says whose signatures come before.
func turn(r *signingv1.RequestView, v *signingv1.SignerView) string {
	var before []string
	for _, o := range r.GetSigners() {
		if o.GetGroup() < v.GetGroup() && o.GetStatus() != signingv1.SignerStatus_SIGNER_STATUS_SIGNED {
			before = append(before, fmt.Sprintf("%s (signer %d)", o.GetName(), o.GetPosition()))
		}
	}
	if len(before) == 0 {
		return "their turn is about to come"
	}
	return "not their turn yet: first " + strings.Join(before, ", ")
}

func latest(own []Entry, kind string) *Entry {
	for i := len(own) - 1; i >= 0; i-- {
		if own[i].Type == kind {
			return &own[i]
		}
	}
	return nil
}

// lapsed reports whether the newest link expired.
func lapsed(own []Entry) bool {
	is := false
	for _, e := range own {
		switch e.Type {
		case "cs.link.soft_expired":
			is = true
		case "cs.link.reissued", "cs.link.rerouted", "cs.session.resumed":
			is = false
		}
	}
	return is
}

// next lists what happens by itself.
func (s *Signer) next(v *signingv1.SignerView, own []Entry) []Next {
	var all []Next
	if m := s.Message; m != nil && m.State == "deferred" && !m.NextAt.IsZero() {
		all = append(all, Next{m.NextAt, "the message is tried again"})
	}
	if p := s.Reminders; p != nil && p.State == "running" && !p.NextAt.IsZero() {
		what := "a reminder is sent"
		if p.Sent != "" && p.Sent == p.Of {
			what = "the reminders are used up"
		}
		all = append(all, Next{p.NextAt, what})
	}
	if x := s.Escalation; x != nil && x.State == "running" && !x.NextAt.IsZero() {
		all = append(all, Next{x.NextAt, "escalation: " + named(actions, x.NextAction)})
	}
	switch v.GetStatus() {
	case signingv1.SignerStatus_SIGNER_STATUS_NOTIFIED:
		if v.GetExpiresAt() != nil && !lapsed(own) {
			all = append(all, Next{v.GetExpiresAt().AsTime(), "the link expires"})
		}
	default: // a session or no message: its end is not known here
	}
	slices.SortStableFunc(all, func(a, b Next) int { return a.At.Compare(b.At) })
	return all
}
