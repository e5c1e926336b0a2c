package pages

import (
	"net/http"
	"time"
)

// Open is the page behind a link that is good: who asks, for what, and one button. It shows no content, changes nothing,
// and is the same for people and for machines that look at links (spec 2.2).
type Open struct {
	Frame
	Sender    string    // who asks, as signers know them
	Title     string    // the document's; may be empty
	Recipient string    // masked, see MaskEmail
	Until     time.Time // when the link ends; zero is not shown
	Review    string    // POST: redeem
	NotMe     string    // POST: this is not for me; empty is not offered
}

// Status is 200.
func (Open) Status() int { return http.StatusOK }

// Render returns the page.
func (p Open) Render() ([]byte, error) {
	if err := p.check(need("sender", p.Sender, "recipient", p.Recipient, "review path", p.Review), local(p.Review, p.NotMe)); err != nil {
		return nil, err
	}
	heading, err := speaker(p.Locale).say("open.title")
	if err != nil {
		return nil, err
	}
	return render("open", p.Frame, heading, false, p)
}
