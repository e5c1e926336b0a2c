package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"countersign.dev/services/countersign/signer"
	"countersign.dev/services/gateway/pages"
)

// Walk is what a simulated signer does with a link that may have expired meanwhile: open it, get on from there, prove the
// mailbox, read, agree, sign.
type Walk struct {
	Signer *signer.Signer
	Name   string
	// Step is told what was done, as it is done.
	Step func(what string)
	// Expire waits with the first link until it has expired.
	Expire bool

	seen map[string]bool
}

// Sign goes the whole way from the first mail to the signature, and returns the page that confirms it.
func (w *Walk) Sign(ctx context.Context) (*signer.Page, error) {
	w.seen = map[string]bool{}
	mail, err := w.Signer.Await(ctx, func(m signer.Mail) bool { return m.Link() != "" }, w.seen)
	if err != nil {
		return nil, err
	}
	w.Step("the mail with the link arrived")
	page, err := w.open(ctx, mail.Link())
	if err != nil {
		return nil, err
	}
	if page, err = w.verify(ctx, page); err != nil {
		return nil, err
	}
	if w.Expire {
		again, err := w.Signer.OtherBrowser().Open(ctx, mail.Link())
		if err != nil {
			return nil, err
		}
		if again.Status == http.StatusOK {
			return nil, errors.New("demo: the link that was replaced still opens something")
		}
		w.Step("the old link is dead in every browser")
	}
	return w.act(ctx, page)
}

// open opens a link and presses its button; an expired one is renewed in place.
func (w *Walk) open(ctx context.Context, link string) (*signer.Page, error) {
	page, err := w.Signer.Open(ctx, link)
	if err != nil {
		return nil, err
	}
	if w.Expire {
		if page, err = w.untilExpired(ctx, link); err != nil {
			return nil, err
		}
		w.Step("the link expired; its page offers a new one")
		form, err := page.Form()
		if err != nil {
			return nil, err
		}
		return w.Signer.Submit(ctx, form, nil)
	}
	w.Step("the link's page opened; it changed nothing")
	form, err := page.Form()
	if err != nil {
		return nil, err
	}
	return w.Signer.Submit(ctx, form, nil)
}

// untilExpired looks at a link again and again until it has expired.
func (w *Walk) untilExpired(ctx context.Context, link string) (*signer.Page, error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		page, err := w.Signer.Open(ctx, link)
		if err != nil {
			return nil, err
		}
		if page.Status == http.StatusGone {
			return page, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("demo: the link did not expire: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// verify types the code that came by mail, where the page asks for one.
func (w *Walk) verify(ctx context.Context, page *signer.Page) (*signer.Page, error) {
	if _, err := page.Form(pages.FieldName); err == nil {
		return page, nil
	}
	form, err := page.Form(pages.FieldCode)
	if err != nil {
		return nil, err
	}
	mail, err := w.Signer.Await(ctx, func(m signer.Mail) bool { return m.Code() != "" }, w.seen)
	if err != nil {
		return nil, err
	}
	w.Step("the one-time code arrived")
	if page, err = w.Signer.Submit(ctx, form, map[string]string{pages.FieldCode: mail.Code()}); err != nil {
		return nil, err
	}
	w.Step("the mailbox is confirmed")
	return page, nil
}

// act looks at every page of the document, agrees, types the name and signs.
func (w *Walk) act(ctx context.Context, page *signer.Page) (*signer.Page, error) {
	form, err := page.Form(pages.FieldName)
	if err != nil {
		return nil, err
	}
	for _, image := range page.Images {
		seen, err := w.Signer.Open(ctx, image)
		if err != nil {
			return nil, err
		}
		if seen.Status != http.StatusOK {
			return nil, fmt.Errorf("demo: a page's picture answered %d", seen.Status)
		}
	}
	w.Step(fmt.Sprintf("the document was read (%d pages)", len(page.Images)))
	page, err = w.Signer.Submit(ctx, form, map[string]string{pages.FieldAgree: "yes", pages.FieldName: w.Name})
	if err != nil {
		return nil, err
	}
	if page.Status != http.StatusOK || strings.Contains(page.Text, pages.FieldName) {
		return nil, fmt.Errorf("demo: signing answered %d: %.300s", page.Status, page.Text)
	}
	if _, err := page.Form(pages.FieldName); err == nil {
		return nil, fmt.Errorf("demo: the signature was not taken: %.300s", page.Text)
	}
	w.Step("agreed and signed")
	return page, nil
}
