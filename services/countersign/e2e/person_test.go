package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"countersign.dev/services/countersign/sample"
	"countersign.dev/services/countersign/signer"
	"countersign.dev/services/gateway/pages"
)

// call does one REST call; any failure to get through is an error.
func call(ctx context.Context, method, url string, body []byte, into any) (int, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err
	}
	if into == nil {
		return resp.StatusCode, nil
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return resp.StatusCode, fmt.Errorf("answered %d: %.300s", resp.StatusCode, answer)
	}
	return resp.StatusCode, nil
}

// request is the JSON of the contract for some signers.
func request(reference, profile string, emails ...string) []byte {
	var signers []any
	for i, email := range emails {
		signers = append(signers, map[string]any{"name": fmt.Sprintf("Testperson Nr%d", i+1), "email": email, "locale": "en", "time_zone": "UTC"})
	}
	body, err := json.Marshal(map[string]any{
		"reference": reference, "title": "Vertraulicher Arbeitsvertrag", "profile": profile, "signers": signers,
		"documents": []any{map[string]any{"name": "vertrag.pdf", "content": sample.Offer("Testperson")}},
	})
	if err != nil {
		panic(err)
	}
	return body
}

// view is what a platform sees of a request.
type view struct {
	ID      string `json:"id"`
	Status  string `json:"status"`
	Signers []struct {
		ID, Status string
		Generation int
	} `json:"signers"`
}

// create asks for a request until it is accepted, as a platform does that gets no answer.
func (in *instance) create(ctx context.Context, body []byte) (view, error) {
	var v view
	err := persist(ctx, in, func() error {
		status, err := call(ctx, http.MethodPost, in.Addresses.HTTP+"/v1/requests", body, &v)
		if err == nil && status != http.StatusCreated && status != http.StatusOK { // 200: an earlier try made it
			err = fmt.Errorf("create answered %d", status)
		}
		return err
	})
	return v, err
}

// look returns a request as it stands.
func (in *instance) look(ctx context.Context, id string) (view, error) {
	var v view
	_, err := call(ctx, http.MethodGet, in.Addresses.HTTP+"/v1/requests/"+id, nil, &v)
	return v, err
}

// persist does something again and again until it works. The revive of the instance, if it has one, brings a dead process back.
func persist(ctx context.Context, in *instance, do func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := do()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", ctx.Err(), err)
		case <-tick.C:
		}
		in.reviveIfDead()
	}
}

// person is a signer who does not give up: whatever page they meet, they take its next step; when nothing answers, they try again.
type person struct {
	*signer.Signer
	in   *instance
	seen map[string]bool
	page *signer.Page
	// before each step, for tests that break something in between
	before func(step int)
	steps  int
}

func (in *instance) person(email string) *person {
	return &person{Signer: signer.New(email, in.Addresses.Mailbox), in: in, seen: map[string]bool{}, before: func(int) {}}
}

// signs goes on until the request is completed, or this person's part is done.
func (p *person) signs(ctx context.Context, id string, position int) error {
	return persist(ctx, p.in, func() error {
		v, err := p.in.look(ctx, id)
		if err != nil {
			return err
		}
		if v.Signers[position-1].Status == "SIGNER_STATUS_SIGNED" {
			return nil
		}
		p.before(p.steps)
		p.steps++
		if err := p.step(ctx); err != nil {
			return err
		}
		return fmt.Errorf("not signed yet: %s", v.Signers[position-1].Status)
	})
}

// step takes the next step of whatever is on the screen.
func (p *person) step(ctx context.Context) error {
	if p.page == nil {
		mails, err := p.Mails(ctx)
		if err != nil {
			return err
		}
		for _, m := range mails {
			if m.Link() != "" {
				p.page, err = p.Open(ctx, m.Link())
				return err
			}
		}
		return fmt.Errorf("no mail with a link yet")
	}
	page := p.page
	p.page = nil // whatever goes wrong from here on: begin again with the newest mail
	var next *signer.Page
	var err error
	if form, missing := page.Form(pages.FieldName); missing == nil {
		next, err = p.Submit(ctx, form, map[string]string{pages.FieldAgree: "yes", pages.FieldName: "Testperson"})
	} else if form, missing := page.Form(pages.FieldCode); missing == nil {
		next, err = p.code(ctx, page, form)
	} else if form, missing := page.Form(); missing == nil {
		next, err = p.Submit(ctx, form, nil)
	} else {
		return fmt.Errorf("page %d has nothing to do: %.200s", page.Status, page.Text)
	}
	if err != nil {
		return err
	}
	if next.Status >= http.StatusInternalServerError {
		return fmt.Errorf("answered %d: %.200s", next.Status, next.Text)
	}
	p.page = next
	return nil
}

// code types the newest code. When the line drops they type it again; when none comes for a while, they ask for another.
func (p *person) code(ctx context.Context, page *signer.Page, form signer.Form) (*signer.Page, error) {
	short, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	mail, err := p.Await(short, func(m signer.Mail) bool { return m.Code() != "" }, p.seen)
	if err != nil {
		for _, other := range page.Forms {
			if strings.HasSuffix(other.Action.Path, "/resend") {
				return p.Submit(ctx, other, nil)
			}
		}
		return nil, err
	}
	next, err := p.Submit(ctx, form, map[string]string{pages.FieldCode: mail.Code()})
	if err != nil {
		delete(p.seen, mail.ID)
	}
	return next, err
}

// completed waits until a request is completed.
func (in *instance) completed(t *testing.T, ctx context.Context, id string) {
	t.Helper()
	if err := persist(ctx, in, func() error {
		v, err := in.look(ctx, id)
		if err == nil && v.Status != "REQUEST_STATUS_COMPLETED" {
			err = fmt.Errorf("request is %s", v.Status)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
