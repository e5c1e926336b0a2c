// Package signer is a simulated signer: it reads mail, opens links and fills forms over real HTTP, as a person with a browser that
// runs no script would. The demo and the tests across services use it.
package signer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"time"

	"golang.org/x/net/html" // the HTML parser of the Go team: what a browser would make of a page
)

// maxPage is the most that is read of a page, in bytes.
const maxPage = 64 << 20

// Signer is one person with one browser and one mailbox.
type Signer struct {
	Email   string
	Mailbox string // base URL of the development mailbox
	client  *http.Client
}

// New returns a signer whose browser has no cookies.
func New(email, mailbox string) *Signer {
	jar, _ := cookiejar.New(nil) // never fails without options
	return &Signer{Email: email, Mailbox: mailbox, client: &http.Client{Jar: jar, Timeout: 2 * time.Minute}}
}

// OtherBrowser returns the same person with a browser of their own.
func (s *Signer) OtherBrowser() *Signer { return New(s.Email, s.Mailbox) }

// Page is what a browser shows.
type Page struct {
	URL    *url.URL
	Status int
	Text   string // all words of the page, white space folded
	Forms  []Form
	Images []string // absolute URLs
	Links  []string // absolute URLs
	Body   []byte
}

// Form is a form of a page with what its fields hold already.
type Form struct {
	Method string
	Action *url.URL
	Fields url.Values
	Files  bool
}

// Form returns the first POST form that has all of the named fields.
func (p *Page) Form(fields ...string) (Form, error) {
	for _, f := range p.Forms {
		has := f.Method == http.MethodPost
		for _, name := range fields {
			has = has && f.Fields.Has(name)
		}
		if has {
			return f, nil
		}
	}
	return Form{}, fmt.Errorf("signer: the page %d at %s has no form with %v; it says: %.300s", p.Status, p.URL.Path, fields, p.Text)
}

// Open gets a page, following redirects.
func (s *Signer) Open(ctx context.Context, address string) (*Page, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	return s.do(req)
}

// Submit posts a form with some of its fields filled in.
func (s *Signer) Submit(ctx context.Context, f Form, fill map[string]string) (*Page, error) {
	values := url.Values{}
	for name, v := range f.Fields {
		values[name] = v
	}
	for name, v := range fill {
		values.Set(name, v)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.Action.String(), strings.NewReader(values.Encode()))
	if err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin") // what every current browser says of a form of the page itself
	return s.do(req)
}

func (s *Signer) do(req *http.Request) (*Page, error) {
	req.Header.Set("User-Agent", "countersign-simulated-signer")
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("signer: %w", scrubbed(err))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, fmt.Errorf("signer: %w", scrubbed(err))
	}
	p := &Page{URL: resp.Request.URL, Status: resp.StatusCode, Body: body}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		err = p.parse()
	}
	return p, err
}

// scrubbed drops the URL of an error: it may be a link.
func scrubbed(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// parse finds forms, images and words.
func (p *Page) parse() error {
	root, err := html.Parse(strings.NewReader(string(p.Body)))
	if err != nil {
		return fmt.Errorf("signer: %w", err)
	}
	var words []string
	var form *Form
	for n := range root.Descendants() {
		switch {
		case n.Type == html.TextNode && n.Parent.Data != "style" && n.Parent.Data != "script":
			words = append(words, strings.Fields(n.Data)...)
		case n.Type == html.ElementNode && n.Data == "form":
			p.Forms = append(p.Forms, Form{Method: strings.ToUpper(attr(n, "method")), Action: p.resolve(attr(n, "action")), Fields: url.Values{}})
			form = &p.Forms[len(p.Forms)-1]
		case n.Type == html.ElementNode && (n.Data == "input" || n.Data == "textarea") && form != nil && attr(n, "name") != "":
			form.Fields.Add(attr(n, "name"), fieldValue(n))
		case n.Type == html.ElementNode && n.Data == "img":
			p.Images = append(p.Images, p.resolve(attr(n, "src")).String())
		case n.Type == html.ElementNode && n.Data == "a":
			p.Links = append(p.Links, p.resolve(attr(n, "href")).String())
		}
	}
	p.Text = strings.Join(words, " ")
	return nil
}

// fieldValue is what a field would send: an unticked box sends nothing.
func fieldValue(n *html.Node) string {
	if attr(n, "type") == "checkbox" {
		return ""
	}
	return attr(n, "value")
}

func (p *Page) resolve(ref string) *url.URL {
	u, err := p.URL.Parse(ref)
	if err != nil {
		return p.URL
	}
	return u
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// Mail is a message as the mailbox's API shows it.
type Mail struct {
	ID          string
	Subject     string
	Text        string
	HTML        string
	Attachments []struct {
		PartID   string
		FileName string
	}
}

var (
	linkPattern = regexp.MustCompile(`https?://\S+/s/cs1_[A-Za-z0-9_-]+`)
	codePattern = regexp.MustCompile(`\b\d{3} ?\d{3}\b`)
)

// Link returns the signing link in a mail; "" for none.
func (m Mail) Link() string { return linkPattern.FindString(m.Text) }

// Code returns the one-time code in a mail; "" for none.
func (m Mail) Code() string {
	if m.Link() != "" {
		return ""
	}
	return strings.ReplaceAll(codePattern.FindString(m.Text), " ", "")
}

// Await waits for the newest mail to this signer that accept takes, among those after the given ones.
func (s *Signer) Await(ctx context.Context, accept func(Mail) bool, seen map[string]bool) (Mail, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		mails, err := s.Mails(ctx)
		if err != nil {
			return Mail{}, err
		}
		for _, m := range mails {
			if !seen[m.ID] && accept(m) {
				seen[m.ID] = true
				return m, nil
			}
		}
		select {
		case <-ctx.Done():
			return Mail{}, fmt.Errorf("signer: no such mail came to %d mails: %w", len(mails), ctx.Err())
		case <-tick.C:
		}
	}
}

// Mails returns all mails to this signer, newest first.
func (s *Signer) Mails(ctx context.Context) ([]Mail, error) {
	var list struct {
		Messages []struct {
			ID string
			To []struct{ Address string }
		} `json:"messages"`
	}
	if err := s.get(ctx, "/api/v1/messages?limit=200", &list); err != nil {
		return nil, err
	}
	var out []Mail
	for _, summary := range list.Messages {
		for _, to := range summary.To {
			if !strings.EqualFold(to.Address, s.Email) {
				continue
			}
			var m Mail
			if err := s.get(ctx, "/api/v1/message/"+summary.ID, &m); err != nil {
				return nil, err
			}
			out = append(out, m)
		}
	}
	return out, nil
}

// Attachment returns a file of a mail.
func (s *Signer) Attachment(ctx context.Context, m Mail, suffix string) ([]byte, error) {
	for _, a := range m.Attachments {
		if strings.HasSuffix(a.FileName, suffix) {
			p, err := s.Open(ctx, s.Mailbox+"/api/v1/message/"+m.ID+"/part/"+a.PartID)
			if err != nil {
				return nil, err
			}
			return p.Body, nil
		}
	}
	return nil, fmt.Errorf("signer: the mail %q has no attachment that ends in %s", m.Subject, suffix)
}

func (s *Signer) get(ctx context.Context, path string, into any) error {
	p, err := s.Open(ctx, s.Mailbox+path)
	if err != nil {
		return err
	}
	if p.Status != http.StatusOK {
		return fmt.Errorf("signer: the mailbox answered %d", p.Status)
	}
	return json.Unmarshal(p.Body, into)
}
