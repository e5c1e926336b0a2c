// Package channeltest holds the suite that every channel adapter passes.
package channeltest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"countersign.dev/services/delivery/channel"
)

// Answer is what a provider does with the messages that reach it.
type Answer int

// The answers. A refusal shall repeat the recipient's address and name, and Token, in its words, as careless
// providers do.
const (
	Accept    Answer = iota // takes responsibility and says so
	Temporary               // refuses for now
	Permanent               // refuses this recipient for good
	Hang                    // says nothing more, for as long as the caller stays
	Drop                    // cuts the connection before it has the message
	DropAfter               // takes the message, then cuts the connection instead of answering
)

// Token is a secret that providers of the suite echo.
const Token = "cs1_Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6"

// Received is what reached the provider.
type Received struct {
	ID      string // as the channel carries it, the same string at every attempt
	To      string // where it went: address or number
	Subject string // empty on channels without one
	Text    string // the plain text
}

// Provider is the far end of the adapter under test: a real server on loopback.
type Provider interface {
	Set(a Answer)         // from now on
	Received() []Received // all that it took responsibility for, in order
	Stop()                // from now on nobody listens
}

// Message is a valid message for tests; each n has its own id.
func Message(n int) channel.Message {
	return channel.Message{
		ID:      fmt.Sprintf("dlv_suite.%d", n),
		To:      channel.Address{Name: "Jane Roe", Email: "jane.roe@signer.test", Phone: "+4930123456"},
		From:    channel.Address{Name: "Acme Ltd", Email: "sign@acme.test", Phone: "+4930654321"},
		Subject: "Please sign: Offer letter",
		Text:    "Please sign the offer letter.\n",
		Locale:  "en",
	}
}

// Run runs the suite. open returns a fresh adapter and its provider, which answers Accept; both end with the test.
func Run(t *testing.T, open func(t *testing.T) (channel.Sender, Provider)) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, channel.Sender, Provider){
		"accepted":              accepted,
		"refused for now":       refusedForNow,
		"refused for good":      refusedForGood,
		"recovers":              recovers,
		"time limit":            timeLimit,
		"cancelled":             cancelled,
		"dropped":               dropped,
		"unknown outcome folds": unknownOutcome,
		"nobody there":          nobodyThere,
		"forged header":         forgedHeader,
		"many at once":          manyAtOnce,
	} {
		t.Run(name, func(t *testing.T) {
			sender, provider := open(t)
			test(t, sender, provider)
		})
	}
}

func accepted(t *testing.T, sender channel.Sender, provider Provider) {
	receipt, err := sender.Send(t.Context(), Message(1))
	if err != nil {
		t.Fatal(err)
	}
	if receipt.Provider == "" {
		t.Error("the receipt names no provider")
	}
	clean(t, receipt.Response)
	got := provider.Received()
	if len(got) != 1 || !strings.Contains(got[0].ID, Message(1).ID) || !strings.Contains(got[0].Text, "offer letter") {
		t.Errorf("provider received %+v", got)
	}
}

func refusedForNow(t *testing.T, sender channel.Sender, provider Provider) {
	provider.Set(Temporary)
	if f := fails(t, t.Context(), sender, Message(1)); !f.Temporary || f.Code == 0 {
		t.Errorf("got %v, want a temporary failure with the provider's code", f)
	}
}

func refusedForGood(t *testing.T, sender channel.Sender, provider Provider) {
	provider.Set(Permanent)
	f := fails(t, t.Context(), sender, Message(1))
	if f.Temporary || f.Code == 0 || f.Scope != channel.ScopeRecipient {
		t.Errorf("got %v, want a permanent failure of the recipient with the provider's code", f)
	}
	if len(provider.Received()) != 0 {
		t.Error("the provider has a message that it refused")
	}
}

// recovers: a refusal must leave nothing behind that spoils the next message.
func recovers(t *testing.T, sender channel.Sender, provider Provider) {
	for n, answer := range []Answer{Temporary, Permanent, Drop} {
		provider.Set(answer)
		fails(t, t.Context(), sender, Message(n))
		provider.Set(Accept)
		if _, err := sender.Send(t.Context(), Message(10+n)); err != nil {
			t.Fatalf("after answer %d: %v", answer, err)
		}
	}
	if got := provider.Received(); len(got) != 3 {
		t.Errorf("provider received %d messages, want 3", len(got))
	}
}

func timeLimit(t *testing.T, sender channel.Sender, provider Provider) {
	provider.Set(Hang)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	f := within(t, 3*time.Second, func() *channel.Failure { return fails(t, ctx, sender, Message(1)) })
	if !f.Temporary || !errors.Is(f, context.DeadlineExceeded) {
		t.Errorf("got %v, want a temporary failure caused by the deadline", f)
	}
}

func cancelled(t *testing.T, sender channel.Sender, _ Provider) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := within(t, 3*time.Second, func() *channel.Failure { return fails(t, ctx, sender, Message(1)) })
	if !f.Temporary || !errors.Is(f, context.Canceled) {
		t.Errorf("got %v, want a temporary failure caused by the cancellation", f)
	}
}

func dropped(t *testing.T, sender channel.Sender, provider Provider) {
	provider.Set(Drop)
	if f := fails(t, t.Context(), sender, Message(1)); !f.Temporary {
		t.Errorf("got %v, want a temporary failure", f)
	}
}

func unknownOutcome(t *testing.T, sender channel.Sender, provider Provider) {
	provider.Set(DropAfter)
	if f := fails(t, t.Context(), sender, Message(1)); !f.Temporary {
		t.Errorf("got %v, want a temporary failure", f)
	}
	provider.Set(Accept)
	if _, err := sender.Send(t.Context(), Message(1)); err != nil {
		t.Fatal(err)
	}
	got := provider.Received()
	if len(got) != 2 || got[0].ID != got[1].ID || got[0].ID == "" {
		t.Errorf("want the same id twice, so that a reader sees one: %+v", got)
	}
}

func nobodyThere(t *testing.T, sender channel.Sender, provider Provider) {
	provider.Stop()
	if f := fails(t, t.Context(), sender, Message(1)); !f.Temporary || f.Code != 0 || f.Scope != channel.ScopeProvider {
		t.Errorf("got %v, want a temporary failure of the provider without a code", f)
	}
}

// forgedHeader: what could forge a header or hide its meaning is refused before anything goes out (T27, T29).
func forgedHeader(t *testing.T, sender channel.Sender, provider Provider) {
	for name, spoil := range map[string]func(*channel.Message){
		"newline in name":      func(m *channel.Message) { m.To.Name = "Jane\r\nBcc: eve@evil.test" },
		"newline in subject":   func(m *channel.Message) { m.Subject = "Hello\nBcc: eve@evil.test" },
		"NUL in sender's name": func(m *channel.Message) { m.From.Name = "Ac\x00me" },
		"bidi override":        func(m *channel.Message) { m.Subject = "invoice \u202egnp.exe" },
		"tag character":        func(m *channel.Message) { m.To.Name = "Jane\U000E0041" },
		"endless name":         func(m *channel.Message) { m.To.Name = strings.Repeat("x", 10_000) },
		"no id":                func(m *channel.Message) { m.ID = "" },
		"id breaks out":        func(m *channel.Message) { m.ID = "a@b>\r\nX: y" },
	} {
		m := Message(1)
		spoil(&m)
		if f := fails(t, t.Context(), sender, m); f.Temporary || f.Scope != channel.ScopeMessage || f.Enhanced != "5.6.0" {
			t.Errorf("%s: got %v, want a permanent failure of the message, 5.6.0", name, f)
		}
	}
	if len(provider.Received()) != 0 {
		t.Error("a forged message reached the provider")
	}
}

func manyAtOnce(t *testing.T, sender channel.Sender, provider Provider) {
	const n = 16
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if _, err := sender.Send(t.Context(), Message(i)); err != nil {
				t.Errorf("message %d: %v", i, err)
			}
		})
	}
	all.Wait()
	seen := map[string]bool{}
	for _, r := range provider.Received() {
		seen[r.ID] = true
	}
	if len(seen) != n {
		t.Errorf("provider received %d different messages, want %d", len(seen), n)
	}
}

// fails sends m, which must fail, and holds the failure to what all failures promise.
func fails(t *testing.T, ctx context.Context, sender channel.Sender, m channel.Message) *channel.Failure {
	t.Helper()
	receipt, err := sender.Send(ctx, m)
	if err == nil {
		t.Fatalf("accepted (%+v), want a failure", receipt)
	}
	f, ok := err.(*channel.Failure) //nolint:errorlint // the interface promises the type itself
	if !ok {
		t.Fatalf("got a %T, want a *channel.Failure: %v", err, err)
	}
	if f.Enhanced == "" || f.Scope == "" {
		t.Errorf("failure without status or scope: %+v", f)
	}
	if !f.Temporary && !strings.HasPrefix(f.Enhanced, "5.") {
		t.Errorf("permanent, but %s", f.Enhanced)
	}
	if f.Temporary && !strings.HasPrefix(f.Enhanced, "4.") && f.Scope != channel.ScopeProvider {
		t.Errorf("temporary, but %s of the %s", f.Enhanced, f.Scope)
	}
	clean(t, f.Error())
	clean(t, f.Diagnostic)
	return f
}

// clean fails the test where text holds personal data, a secret, or is longer than a diagnostic may be.
func clean(t *testing.T, text string) {
	t.Helper()
	for _, private := range []string{"@", "jane", "Jane", "Roe", "cs1_", "4930123456", "\n"} {
		if strings.Contains(text, private) {
			t.Errorf("%q is in the open: %s", private, text)
		}
	}
	if len([]rune(text)) > 300 {
		t.Errorf("%d characters", len([]rune(text)))
	}
}

func within(t *testing.T, limit time.Duration, do func() *channel.Failure) *channel.Failure {
	t.Helper()
	done := make(chan *channel.Failure, 1)
	go func() {
		defer close(done) // also when do ends the test
		done <- do()
	}()
	select {
	case f := <-done:
		if f == nil {
			t.FailNow()
		}
		return f
	case <-time.After(limit):
		t.Fatal("still waiting")
		return nil
	}
}
