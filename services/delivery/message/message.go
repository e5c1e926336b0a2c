// Package message writes what signers and their helpers read: subject, plain text and HTML of every mail we send, in
// the reader's language (spec 4.8).
//
// A message says who asks, what document, what to do next, and until when in the reader's own time zone. It loads
// nothing from outside and tracks nobody.
package message

import (
	"fmt"
	"log/slog"
	"time"
	_ "time/tzdata" // zones of signers, where the machine has no database of its own (slim images)
)

// Kind says what a message is about.
type Kind string

// The kinds.
const (
	Link           Kind = "link"            // please sign
	Reminder       Kind = "reminder"        // please sign, again
	ReminderLast   Kind = "reminder-last"   // please sign, or others are asked
	Reissued       Kind = "reissued"        // your new link; the old one no longer works
	Code           Kind = "code"            // a one-time code
	Partial        Kind = "partial"         // you began and did not finish
	Completed      Kind = "completed"       // all have signed; the copy is attached
	Declined       Kind = "declined"        // somebody will not sign
	Cancelled      Kind = "cancelled"       // the request was withdrawn
	ManagerNotice  Kind = "manager-notice"  // somebody on your team has not signed
	Alternate      Kind = "alternate"       // sign in place of somebody
	AddressChanged Kind = "address-changed" // to the old address: it is no longer used
)

// Kinds returns all kinds, in the order in which a request meets them.
func Kinds() []Kind {
	return []Kind{Link, Reminder, ReminderLast, Reissued, Code, Partial, Completed, Declined, Cancelled, ManagerNotice, Alternate, AddressChanged}
}

// Brand is how a tenant looks to its signers.
type Brand struct {
	Name    string // shown as the wordmark; required
	Colour  string // #rrggbb of the wordmark and the button; default #2f5bea. Tones too faint to read are adjusted
	Support string // how to reach support: mail address, phone number or web address; may be empty
}

// Data is what a message tells. What a kind does not need is ignored; what it needs and lacks is refused.
// Texts are one line each: line breaks and control characters are refused, invisible and direction-changing
// characters are dropped (security.md T27, T29). It holds personal data and secrets, and formats as "[redacted]".
type Data struct {
	Brand    Brand
	Reader   string    // who reads the message; empty = not known; at most 200 characters
	Sender   string    // who asks for the signature; required
	Person   string    // whom it is about: who declined, has not signed, or is stood in for
	Document string    // title; required; at most 300 characters
	Link     string    // https URL (http on loopback) of at most 2048 bytes
	Code     string    // 4 to 10 digits
	Expires  time.Time // when the link or the code ends
	Zone     string    // IANA name of the reader's time zone; default UTC
	Reason   string    // in somebody's own words; at most 1000 characters; may have line breaks, which become spaces
	Done     int       // steps done, of Total; 0 of 0 = not shown
	Total    int
	Steps    []string // what is still to do, at most 10, as Reason
}

// Rendered is a message in one language. It holds a link or a code, and formats as "[redacted]".
type Rendered struct {
	Subject string // one line without hidden characters, at most 300 characters
	Text    string // lines of at most 72 characters, links on lines of their own
	HTML    string
	Locale  string // the language used: en or de
}

const redacted = "[redacted]"

// Format keeps personal data out of careless prints.
func (Data) Format(w fmt.State, _ rune) { _, _ = w.Write([]byte(redacted)) }

// LogValue keeps personal data out of logs.
func (Data) LogValue() slog.Value { return slog.StringValue(redacted) }

// Format keeps links and codes out of careless prints.
func (Rendered) Format(w fmt.State, _ rune) { _, _ = w.Write([]byte(redacted)) }

// LogValue keeps links and codes out of logs.
func (Rendered) LogValue() slog.Value { return slog.StringValue(redacted) }

// needs says which fields a kind cannot do without.
type needs struct{ link, code, expires, person, reason bool }

var needed = map[Kind]needs{
	Link:           {link: true, expires: true},
	Reminder:       {link: true, expires: true},
	ReminderLast:   {link: true, expires: true},
	Reissued:       {link: true, expires: true},
	Code:           {code: true, expires: true},
	Partial:        {link: true, expires: true},
	Completed:      {},
	Declined:       {person: true},
	Cancelled:      {},
	ManagerNotice:  {person: true},
	Alternate:      {link: true, expires: true, person: true, reason: true},
	AddressChanged: {},
}
