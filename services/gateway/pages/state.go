package pages

import (
	"strings"
	"time"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/failure/words"
)

// State is the page of a link that does not open now, and of everything else that can get in a signer's way (spec 2.7):
// what happened, one primary action, how long it takes, and whom to ask. The failure's code chooses the words.
type State struct {
	Frame
	Failure   *failure.Error // its RetryAfter, if set, is shown as the wait
	Soft      bool           // LINK_EXPIRED within grace: the signer confirms and goes on in place (spec 2.4)
	Sender    string         // who asked; empty where that is not to be told, as for an unknown link
	Recipient string         // masked
	Stand     string         // who signs instead, where the signer may know (LINK_DELEGATED)
	Remedies  Remedies
	Reference string // what to tell support, such as a trace id; empty is not shown
}

// Broken is the page for an accident on our side.
func Broken(f Frame, reference string) State {
	return State{Frame: f, Failure: failure.Internal, Reference: reference, Remedies: Remedies{Retry: f.Self}}
}

// looks are the picture and mood of a state; others follow from the next step.
var looks = map[string][2]string{
	"LINK_EXPIRED":        {"clock", "warm"},
	"LINK_SUPERSEDED":     {"mail", "calm"},
	"LINK_USED":           {"shield", "calm"},
	"LINK_REVOKED":        {"stop", "warm"},
	"LINK_DELEGATED":      {"people", "calm"},
	"LINK_READDRESSED":    {"mail", "warm"},
	"LINK_SIGNED":         {"check", "good"},
	"LINK_DECLINED":       {"cross", "warm"},
	"LINK_CANCELLED":      {"stop", "warm"},
	"REQUEST_EXPIRED":     {"clock", "warm"},
	"LINK_NOT_YET":        {"hourglass", "calm"},
	"LINK_BUSY":           {"pen", "calm"},
	"LINK_ON_HOLD":        {"pause", "warm"},
	"LINK_UNKNOWN":        {"search", "warm"},
	"SESSION_EXPIRED":     {"clock", "calm"},
	"REISSUE_LIMIT":       {"hourglass", "warm"},
	"IDENTITY_LOCKED":     {"lock", "warm"},
	"IDENTITY_REQUIRED":   {"shield", "calm"},
	"REISSUE_UNPROVED":    {"shield", "calm"},
	"PROVIDER_DOWN":       {"cloud", "warm"},
	"UNAVAILABLE":         {"cloud", "warm"},
	"INTERNAL":            {"cloud", "warm"},
	"DOCUMENT_NOT_READY":  {"page", "calm"},
	"CERTIFICATE_NOT_YET": {"seal", "calm"},
}

var looksByStep = map[string][2]string{
	"wait": {"hourglass", "warm"}, "retry": {"refresh", "warm"}, "reissue": {"mail", "warm"}, "verify": {"shield", "calm"},
	"new-code": {"mail", "calm"}, "check-address": {"search", "warm"}, "ask-sender": {"mail", "warm"},
}

// Status is the failure's.
func (p State) Status() int {
	if p.Failure == nil || p.Failure.HTTP == 0 {
		return failure.Internal.HTTP
	}
	return p.Failure.HTTP
}

func (p State) retryAfter() time.Duration {
	if p.Failure == nil {
		return 0
	}
	return p.Failure.RetryAfter
}

// stateView is State made ready.
type stateView struct {
	State
	Icon, Mood string
	Text       string
	Expected   string
	Primary    action
	Others     []action
}

// Render returns the page.
func (p State) Render() ([]byte, error) {
	if p.Failure == nil {
		p.Failure = failure.Internal
	}
	if err := p.check(local(p.Remedies.paths()...)); err != nil {
		return nil, err
	}
	t := speaker(p.Locale)
	said, err := p.words(t)
	if err != nil {
		return nil, err
	}
	v := stateView{State: p, Text: said.Text, Expected: said.Expected}
	look, ok := looks[p.Failure.Code]
	if !ok {
		look, ok = looksByStep[p.Failure.Next]
	}
	if !ok {
		look = [2]string{"page", "calm"}
	}
	v.Icon, v.Mood = look[0], look[1]
	if v.Primary, err = p.primary(t, said.Action); err != nil {
		return nil, err
	}
	if v.Others, err = p.Remedies.others(t, v.Primary); err != nil {
		return nil, err
	}
	return render("state", p.Frame, said.Title, false, v)
}

// words are the registry's, but for a link in grace and a wait that is known.
func (p State) words(t tongue) (words.Words, error) {
	said := words.For(p.Failure.Code, t.tag)
	if p.Soft && p.Failure.Code == failure.LinkExpired.Code {
		for id, part := range map[string]*string{"soft.title": &said.Title, "soft.text": &said.Text, "soft.action": &said.Action, "soft.expected": &said.Expected} {
			text, err := t.say(id)
			if err != nil {
				return said, err
			}
			*part = text
		}
	}
	if p.Failure.RetryAfter > 0 {
		wait, err := t.span("in", p.Failure.RetryAfter)
		if err != nil {
			return said, err
		}
		if said.Expected, err = t.say("state.wait", "Wait", wait); err != nil {
			return said, err
		}
	}
	return said, nil
}

// primary is the one action: the failure's own, or to ask somebody.
func (p State) primary(t tongue, label string) (action, error) {
	next := p.Failure.Next
	if p.Soft && next == "reissue" && p.Remedies.Verify != "" {
		next = "verify"
	}
	if a := p.Remedies.primary(next, label); a.Target != "" {
		return a, nil
	}
	asks := next == "ask-sender" || next == "check-address" || next == "none" && !strings.HasPrefix(p.Failure.Code, "LINK_SIGNED")
	if !asks {
		var err error
		if label, err = t.say("help.contact"); err != nil {
			return action{}, err
		}
	}
	return p.Tenant.Support.ready().contact(label), nil
}
