package pages

import (
	"net/http"
	"time"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/failure/words"
)

// Purpose is what a signer confirms who they are for.
type Purpose int

// The purposes a page has words for.
const (
	ToSign     Purpose = iota // open or sign the document
	ToRenew                   // get a new link
	ToComeBack                // go on in this browser
	ToDelegate                // let someone else sign
)

var purposes = map[Purpose]string{ToSign: "verify.purpose.sign", ToRenew: "verify.purpose.renew", ToComeBack: "verify.purpose.back", ToDelegate: "verify.purpose.delegate"}

// Channel is how something reaches a signer.
type Channel int

// The channels there are.
const (
	ByEmail Channel = iota
	BySMS
)

func (c Channel) icon() string {
	if c == BySMS {
		return "phone"
	}
	return "mail"
}

// Destination is a place on record that a code can be sent to.
type Destination struct {
	Channel Channel
	Masked  string // see MaskEmail and MaskPhone
	Send    string // POST: send a code there
}

// Verify asks for the one-time code, or, before one was sent, where to send it.
type Verify struct {
	Frame
	Purpose   Purpose
	Sender    string        // who asks
	Sent      bool          // whether a code is on its way to To
	To        Destination   // where the code went, or is to go first; Send sends another
	Also      []Destination // the other places on record
	Digits    int           // how many the code has; 0 is 6
	Submit    string        // POST: the code
	ValidFor  time.Duration // how long a code works; 0 is not shown
	ResendIn  time.Duration // how long until another may be asked for; 0 is now
	Failure   *failure.Error
	TriesLeft int // shown with a wrong code; 0 is not shown
	InPerson  string
	Cancel    string // GET: back to where the signer came from
}

// Status is the failure's, or 200.
func (p Verify) Status() int {
	if p.Failure != nil && p.Failure.HTTP != 0 {
		return p.Failure.HTTP
	}
	return http.StatusOK
}

func (p Verify) retryAfter() time.Duration {
	if p.Failure == nil {
		return 0
	}
	return p.Failure.RetryAfter
}

// verifyView is Verify made ready.
type verifyView struct {
	Verify
	PurposeText string
	Problem     words.Words
	Wait        time.Duration
	Locked      bool // no code can be entered now
	Asks        bool // the field for the code is shown
	AtField     bool // the problem belongs to the field
	Early       bool // the problem is nobody's fault
	MaxLength   int
	Primary     action // the way on while locked
	Others      []action
}

// Render returns the page.
func (p Verify) Render() ([]byte, error) {
	if p.Digits == 0 {
		p.Digits = 6
	}
	paths := []string{p.Submit, p.To.Send, p.InPerson, p.Cancel}
	for _, d := range p.Also {
		paths = append(paths, d.Send)
	}
	complaint := need("destination", p.To.Masked, "path to send a code", p.To.Send)
	if p.Sent {
		complaint = need("destination", p.To.Masked, "path for the code", p.Submit)
	}
	if err := p.check(complaint, local(paths...)); err != nil {
		return nil, err
	}
	t := speaker(p.Locale)
	if p.Failure != nil && p.Failure.Code == failure.CodeExpired.Code && p.To.Send != "" {
		p.Sent = false // there is nothing to type any more: a new code is the way on
	}
	v := verifyView{Verify: p, MaxLength: 2 * p.Digits}
	if p.Failure != nil {
		code := p.Failure.Code
		v.Problem, v.Wait = words.For(code, t.tag), p.Failure.RetryAfter
		v.Locked = code == failure.IdentityLocked.Code
		v.AtField = p.Sent && (code == failure.CodeWrong.Code || code == failure.CodeExpired.Code)
		v.Early = code == failure.CodeTooSoon.Code || code == failure.CodeLimit.Code || code == failure.CodeExpired.Code
	}
	v.Asks = p.Sent && !v.Locked
	var err error
	if v.PurposeText, err = t.say(purposes[p.Purpose]); err != nil {
		return nil, err
	}
	if err = v.ways(t); err != nil {
		return nil, err
	}
	heading, err := t.say("verify.title")
	switch {
	case v.Locked:
		heading = v.Problem.Title
	case v.Asks && err == nil:
		heading, err = t.say("verify.title.sent")
	}
	if err != nil {
		return nil, err
	}
	return render("verify", p.Frame, heading, p.Failure != nil, v)
}

// ways are the other ways to confirm; while the code is locked the first of them, or help, becomes the primary one.
func (v *verifyView) ways(t tongue) error {
	add := func(path, icon, id string, pairs ...any) error {
		if path == "" {
			return nil
		}
		label, err := t.say(id, pairs...)
		v.Others = append(v.Others, post(label, path, icon))
		return err
	}
	if v.Asks {
		if err := add(v.To.Send, "refresh", "verify.resend"); err != nil {
			return err
		}
	}
	for _, d := range v.Also {
		id := "verify.also.email"
		if d.Channel == BySMS {
			id = "verify.also.sms"
		}
		if err := add(d.Send, d.Channel.icon(), id, "To", d.Masked); err != nil {
			return err
		}
	}
	if err := add(v.InPerson, "people", "remedy.inperson"); err != nil || !v.Locked {
		return err
	}
	if len(v.Others) > 0 {
		v.Primary, v.Others = v.Others[0], v.Others[1:]
		return nil
	}
	label, err := t.say("help.contact")
	v.Primary = v.Tenant.Support.ready().contact(label)
	return err
}
