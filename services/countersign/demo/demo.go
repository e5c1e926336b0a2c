// Package demo shows Countersign at work: a real request for a real document, sent to a mailbox on this machine.
package demo

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/pades"
	"countersign.dev/services/countersign/sample"
	"countersign.dev/services/countersign/signer"
	"countersign.dev/services/countersign/stack"
)

// The person of the demonstration.
const (
	name  = "Ada Lovelace"
	email = "ada@example.com"
)

// patience is how long the demonstration waits for the whole way; the first start on a machine compiles the page renderer.
const patience = 5 * time.Minute

//go:embed profiles.yaml
var profiles []byte

// WriteConfig writes the tenant settings that the demonstration uses: a profile whose links expire within seconds.
func WriteConfig(dir string) error {
	tenant := filepath.Join(dir, "demo")
	if err := os.MkdirAll(tenant, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(tenant, "profiles.yaml"), profiles, 0o600)
}

// Request is the request of the demonstration, in the JSON of the contract.
func Request(reference, profile string) map[string]any {
	return map[string]any{
		"reference": reference, "title": "Offer letter", "profile": profile, "integration": "hr", "template": "offer",
		"value":     map[string]any{"currency_code": "GBP", "units": "48500"},
		"documents": []any{map[string]any{"name": "offer.pdf", "content": sample.Offer(name)}},
		"signers":   []any{map[string]any{"name": name, "email": email, "locale": "en", "time_zone": "Europe/London"}},
	}
}

// Demo is one demonstration against a running stack.
type Demo struct {
	Addresses stack.Addresses
	Out       io.Writer
	Now       func() time.Time
	watch     func() time.Duration
	last      time.Duration
	steps     []step
}

type step struct {
	what string
	took time.Duration
}

// note records a step with the time since the one before, and shows it.
func (d *Demo) note(what string) {
	now := d.watch()
	d.steps = append(d.steps, step{what, now - d.last})
	fmt.Fprintf(d.Out, "  %7s  %s\n", (now - d.last).Round(time.Millisecond), what)
	d.last = now
}

// Auto has a simulated signer go the whole way, over a link that expires on the way, and leaves signed.pdf, certificate.pdf and
// events.jsonl in dir.
func (d *Demo) Auto(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d.watch = clock.Stopwatch()
	person := signer.New(email, d.Addresses.Mailbox)
	id, err := d.send(ctx, "blink")
	if err != nil {
		return err
	}
	d.note("the request was accepted: " + id)
	walk := &Walk{Signer: person, Name: name, Expire: true, Step: d.note}
	if _, err := walk.Sign(ctx); err != nil {
		return err
	}
	copies, err := person.Await(ctx, func(m signer.Mail) bool { return len(m.Attachments) == 2 }, walk.seen)
	if err != nil {
		return err
	}
	d.note("the signed copy and the certificate arrived by mail")
	if err := d.keep(ctx, person, copies, id, dir); err != nil {
		return err
	}
	d.summary()
	return nil
}

// send posts the request as a platform would, and returns its id.
func (d *Demo) send(ctx context.Context, profile string) (string, error) {
	body, err := json.Marshal(Request(fmt.Sprintf("offer-%d", d.Now().UnixMilli()), profile))
	if err != nil {
		return "", err
	}
	var view struct {
		ID      string `json:"id"`
		Message string `json:"detail"`
	}
	answer, status, err := call(ctx, http.MethodPost, d.Addresses.HTTP+"/v1/requests", body)
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(answer, &view); err != nil || view.ID == "" {
		return "", fmt.Errorf("demo: the request was answered %d: %.500s", status, answer)
	}
	return view.ID, nil
}

func call(ctx context.Context, method, address string, body []byte) ([]byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	return answer, resp.StatusCode, err
}

// keep writes what came out of it, after looking at it: the signatures must hold, and the trail must be there.
func (d *Demo) keep(ctx context.Context, person *signer.Signer, copies signer.Mail, id, dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	for file, suffix := range map[string]string{"signed.pdf": "-signed.pdf", "certificate.pdf": "certificate.pdf"} {
		content, err := person.Attachment(ctx, copies, suffix)
		if err != nil {
			return err
		}
		signatures, err := pades.Verify(content, nil)
		if err != nil || len(signatures) != 1 || !signatures[0].Intact || signatures[0].Altered() {
			return fmt.Errorf("demo: the signature of %s does not hold: %d signatures, %w", file, len(signatures), err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
			return err
		}
	}
	d.note("both signatures hold")
	answer, status, err := call(ctx, http.MethodGet, d.Addresses.HTTP+"/v1/requests/"+id+"/events", nil)
	if err != nil {
		return err
	}
	var trail struct {
		Events []struct{ Leaf string }
	}
	if err := json.Unmarshal(answer, &trail); err != nil || len(trail.Events) == 0 {
		return fmt.Errorf("demo: the events were answered %d: %.500s", status, answer)
	}
	var lines strings.Builder
	for _, e := range trail.Events {
		lines.WriteString(e.Leaf + "\n")
	}
	d.note(fmt.Sprintf("the audit trail has %d leaves", len(trail.Events)))
	return os.WriteFile(filepath.Join(dir, "events.jsonl"), []byte(lines.String()), 0o600)
}

// summary prints how long each step took.
func (d *Demo) summary() {
	fmt.Fprintln(d.Out, "\nWhat took how long:")
	w := tabwriter.NewWriter(d.Out, 0, 0, 2, ' ', tabwriter.AlignRight)
	total := time.Duration(0)
	for _, s := range d.steps {
		fmt.Fprintf(w, "%s\t  %s\n", s.took.Round(time.Millisecond), s.what)
		total += s.took
	}
	fmt.Fprintf(w, "%s\t  in all\n", total.Round(time.Millisecond))
	_ = w.Flush()
}

// Show sends a request, prints where to look, and follows it until ctx ends or the request does.
func (d *Demo) Show(ctx context.Context) error {
	d.watch = clock.Stopwatch()
	id, err := d.send(ctx, "standard")
	if err != nil {
		return err
	}
	fmt.Fprintf(d.Out, "\nA request to sign an offer letter was sent to %s.\n\n  open the mailbox   %s\n  the request        %s/v1/requests/%s\n\nPress Ctrl-C to stop. What happens:\n",
		email, d.Addresses.Mailbox, d.Addresses.HTTP, id)
	return d.follow(ctx, id)
}

// follow prints the events of a request as they come.
func (d *Demo) follow(ctx context.Context, id string) error {
	shown := 0
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		answer, _, err := call(ctx, http.MethodGet, d.Addresses.HTTP+"/v1/requests/"+id+"/events", nil)
		if err == nil {
			var trail struct {
				Events []struct{ Type, Actor, At string }
			}
			if json.Unmarshal(answer, &trail) == nil {
				for _, e := range trail.Events[min(shown, len(trail.Events)):] {
					fmt.Fprintf(d.Out, "  %s  %-28s %s\n", e.At, strings.TrimPrefix(e.Type, "cs."), e.Actor)
				}
				shown = max(shown, len(trail.Events))
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
