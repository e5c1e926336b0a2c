// Package channel is what every way to reach a person has in common: a message goes in, and out comes either a
// receipt or a Failure that says whether trying again can help, and whose fault it was.
//
// An adapter never decides about retries, suppression or fallback; it reports faithfully and lets the rules decide.
// Package channeltest holds the suite that every adapter passes.
package channel

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// Sender hands messages to one provider.
//
// Send returns a receipt once the provider has taken responsibility for the message, and otherwise a *Failure; it
// returns nothing else. Accepted is not delivered (spec 4.4). Where the connection is lost after the message was
// handed over and before the answer, the outcome is not known: Send reports a temporary failure, and a second Send of
// the same Message carries the same id, so that the reader's client shows it once.
//
// Send honours the deadline of ctx and a time-out of its own. It is safe for concurrent use.
type Sender interface {
	Send(ctx context.Context, m Message) (Receipt, error)
}

// Address is where a message goes or comes from. It is personal data: it formats as "[redacted]".
type Address struct {
	Name  string // as shown to the reader; may be empty; at most 200 characters
	Email string // addr-spec without angle brackets; empty where the channel does not use it
	Phone string // E.164, for channels that reach a phone; empty elsewhere
}

// Attachment is a file that travels with an email.
type Attachment struct {
	Name        string // file name without folders, at most 150 characters
	ContentType string // media type without parameters, such as application/pdf
	Content     []byte
}

// Message is one message to one person, rendered and ready. It carries a link or a code, so it formats as "[redacted]".
type Message struct {
	ID         string            // the same at every attempt: local part of the Message-ID, idempotency key elsewhere
	To         Address           // the one recipient
	From       Address           // who the reader sees as the sender
	ReplyTo    Address           // where an answer goes; zero = to From
	ReturnPath string            // envelope sender, where bounces go; empty = From.Email
	Subject    string            // one line, at most 300 characters
	Text       string            // plain text, always present
	HTML       string            // the same as HTML; may be empty
	Attached   []Attachment      // at most 20, at most 20 MiB together
	Headers    map[string]string // further header fields; those that Send sets itself are refused
	Locale     string            // BCP 47 tag of the text; empty = not said
}

// Receipt says that a provider took responsibility for a message.
type Receipt struct {
	Provider string // which one: the configured name of the relay or account
	Response string // its own words, scrubbed as a Diagnostic is
	QueueID  string // its id of the message, to correlate later events; empty where it gave none
}

// Scope says whom a failure is about, and so what it may be held against.
type Scope string

// The scopes. Only ScopeRecipient may ever suppress an address (spec 4.5).
const (
	ScopeRecipient Scope = "recipient" // this address: unknown, disabled, full
	ScopeMessage   Scope = "message"   // this message: too large, refused content, not valid
	ScopeProvider  Scope = "provider"  // the relay, its policy, our account or the way there: another provider may do better
)

// Failure is the only error a Sender returns. Its text carries no personal data and no secret.
type Failure struct {
	Temporary  bool          // the same message may be accepted later
	Code       int           // the provider's own code (SMTP reply, HTTP status); 0 where there was no answer
	Enhanced   string        // RFC 3463, given by the provider or derived here; never empty
	Diagnostic string        // the provider's words or ours, scrubbed, at most 200 characters
	RetryAfter time.Duration // how long the provider asks to wait, at most 1 h; 0 = it did not say
	Scope      Scope         // whom it is about
	Cause      error         // for errors.Is (context.Canceled ...); never part of Error, since it may hold personal data
}

// Error gives the codes and the scrubbed diagnostic.
func (f *Failure) Error() string {
	kind := "permanent"
	if f.Temporary {
		kind = "temporary"
	}
	return fmt.Sprintf("%s failure of the %s: %d %s %s", kind, f.Scope, f.Code, f.Enhanced, f.Diagnostic)
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Cause }

const redacted = "[redacted]"

// Format writes "[redacted]" for every verb, so that no careless %v prints a person's address.
func (Address) Format(w fmt.State, _ rune) { _, _ = w.Write([]byte(redacted)) }

// LogValue keeps the address out of logs.
func (Address) LogValue() slog.Value { return slog.StringValue(redacted) }

// Format writes the id alone for every verb.
func (m Message) Format(w fmt.State, _ rune) {
	_, _ = w.Write([]byte("message " + m.ID + " " + redacted))
}

// LogValue keeps all but the id out of logs.
func (m Message) LogValue() slog.Value { return slog.StringValue("message " + m.ID + " " + redacted) }
