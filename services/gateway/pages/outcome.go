package pages

import (
	"net/http"
	"time"
)

// Sent says that a new link is on its way.
type Sent struct {
	Frame
	To       Destination // Send, if set, sends it once more
	ResendIn time.Duration
	Remedies Remedies
}

// Status is 200.
func (Sent) Status() int { return http.StatusOK }

type sentView struct {
	Sent
	Others []action
}

// Render returns the page.
func (p Sent) Render() ([]byte, error) {
	if err := p.check(need("destination", p.To.Masked), local(append(p.Remedies.paths(), p.To.Send)...)); err != nil {
		return nil, err
	}
	t := speaker(p.Locale)
	id := "sent.title.email"
	if p.To.Channel == BySMS {
		id = "sent.title.sms"
	}
	heading, err := t.say(id)
	if err != nil {
		return nil, err
	}
	p.Remedies.Reissue = "" // that has just been done
	others, err := p.Remedies.others(t, action{})
	if err != nil {
		return nil, err
	}
	return render("sent", p.Frame, heading, false, sentView{p, others})
}

// Signed thanks, and says what happens next.
type Signed struct {
	Frame
	Title    string // the document's
	Sender   string
	Name     string // as it was typed
	At       time.Time
	Waiting  int    // how many others are still to sign
	Complete bool   // everybody has signed
	CopyTo   string // masked: where the copy goes once complete; empty is not shown
	Copy     string // GET: the signed copy; empty while there is none
	Proof    string // GET: the certificate of completion; empty while there is none
	Refresh  string // GET: this page again, while something is still to come
	Return   string // GET: back to where the signer came from, if the platform wants that
}

// Status is 200.
func (Signed) Status() int { return http.StatusOK }

// Render returns the page.
func (p Signed) Render() ([]byte, error) {
	err := p.check(need("title", p.Title, "sender", p.Sender, "name", p.Name), local(p.Copy, p.Proof, p.Refresh, p.Return))
	if err != nil {
		return nil, err
	}
	heading, err := speaker(p.Locale).say("signed.title")
	if err != nil {
		return nil, err
	}
	return render("signed", p.Frame, heading, false, p)
}

// Declined confirms that the signer will not sign.
type Declined struct {
	Frame
	Title  string
	Sender string
	At     time.Time
	Reason string // as the signer wrote it; empty is not shown
	Return string // GET: back to where the signer came from, if the platform wants that
}

// Status is 200.
func (Declined) Status() int { return http.StatusOK }

type declinedView struct {
	Declined
	Primary action
}

// Render returns the page.
func (p Declined) Render() ([]byte, error) {
	if err := p.check(need("title", p.Title, "sender", p.Sender), local(p.Return)); err != nil {
		return nil, err
	}
	t := speaker(p.Locale)
	heading, err := t.say("declined.title")
	if err != nil {
		return nil, err
	}
	label, err := t.say("declined.contact")
	if err != nil {
		return nil, err
	}
	return render("declined", p.Frame, heading, false, declinedView{p, p.Tenant.Support.ready().contact(label)})
}
