// Package certificate draws the certificate of completion (spec 10): one PDF that tells a person who signed what, when, how each
// of them was verified, and how to check all of it. It only draws: what it is given is what the ledger holds.
package certificate

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Limits of one certificate.
const (
	MaxDocuments = 100
	MaxSigners   = 50
	MaxEvents    = 5000
)

// ErrInvalid says that a certificate cannot be drawn as asked.
var ErrInvalid = errors.New("certificate: invalid")

// Certificate is what is drawn. All times are shown in UTC.
type Certificate struct {
	Language  string    // BCP 47: en and de are known, anything else is English
	Outcome   Outcome   // how the request ended
	Reference string    // the platform's own; 1..200 characters
	RequestID string    // ours; 1..100 characters
	Title     string    // of the request; may be empty
	Sender    string    // who asked for the signatures; may be empty
	Created   time.Time // when the request was accepted
	Ended     time.Time // when it came to its outcome
	Issued    time.Time // when this certificate is made; stands in the file, so that the same input gives the same bytes

	Documents []Document // 1..MaxDocuments
	Signers   []Signer   // 1..MaxSigners
	Events    []Event    // in the order of the ledger, at most MaxEvents

	Head       string // hash of the newest leaf of this request, 64 hex digits
	Log        string // origin of the log; may be empty
	Checkpoint int64  // size of the log at the checkpoint that covers Head; 0 = none yet
	Evidence   string // file name of the evidence bundle, which `countersign verify` checks; empty = there is none
}

// Outcome is how a request ended.
type Outcome int

// The outcomes.
const (
	Completed Outcome = iota
	Declined
	Cancelled
	Expired
)

// Document is one file that was signed.
type Document struct {
	Name      string
	Pages     int    // 0 = not shown
	Presented string // SHA-256 of the bytes the signers were shown, 64 hex digits
	Signed    string // SHA-256 of the signed file, 64 hex digits; empty if it was never signed
}

// Signer is one person.
type Signer struct {
	Name      string
	Email     string         // full, or masked by MaskEmail; may be empty
	Role      string         // e.g. Tenant, or whom the person stood in for; may be empty
	Verified  []Verification // in order
	Signature string         // level under eIDAS: SES, AES or QES; never claim more than the evidence shows
	Opened    time.Time      // zero = not
	Consented time.Time      // zero = not
	Signed    time.Time      // zero = not
	Declined  time.Time      // zero = not
	Zone      *time.Location // of the signer; the time of signing is shown in it too; nil = not shown
	Address   string         // network address; may be empty
	Device    string         // browser and system; may be empty
	Erased    bool           // personal data has been erased on request; the proofs stand
}

// Verification is one passed check of who somebody is.
type Verification struct {
	Level  int    // 0 link, 1 mailbox, 2 one-time code, 3 sign-in or passkey, 4 records or in person (spec 5.1)
	Method string // in plain words of the certificate's language, e.g. "code by SMS to ••• 42"; may be empty
	At     time.Time
}

// Event is one leaf of the request's chain.
type Event struct {
	At    time.Time
	What  string // in plain words of the certificate's language
	Actor string // who did it; may be empty
	Leaf  string // leaf hash, 64 hex digits
}

// validate names the first thing that is wrong, without repeating personal values.
func (c Certificate) validate() error {
	switch {
	case c.Reference == "" || len(c.Reference) > 800 || c.RequestID == "" || len(c.RequestID) > 400:
		return fmt.Errorf("%w: reference and request id are needed, up to 200 and 100 characters", ErrInvalid)
	case len(c.Documents) < 1 || len(c.Documents) > MaxDocuments:
		return fmt.Errorf("%w: %d documents, accepted are 1..%d", ErrInvalid, len(c.Documents), MaxDocuments)
	case len(c.Signers) < 1 || len(c.Signers) > MaxSigners:
		return fmt.Errorf("%w: %d signers, accepted are 1..%d", ErrInvalid, len(c.Signers), MaxSigners)
	case len(c.Events) > MaxEvents:
		return fmt.Errorf("%w: %d events, accepted are up to %d", ErrInvalid, len(c.Events), MaxEvents)
	case !isHash(c.Head):
		return fmt.Errorf("%w: head is no SHA-256", ErrInvalid)
	case c.Issued.IsZero():
		return fmt.Errorf("%w: issued is not set", ErrInvalid)
	case c.Outcome < Completed || c.Outcome > Expired:
		return fmt.Errorf("%w: outcome %d", ErrInvalid, c.Outcome)
	}
	for i, d := range c.Documents {
		if !isHash(d.Presented) || d.Signed != "" && !isHash(d.Signed) {
			return fmt.Errorf("%w: documents[%d] has no SHA-256", ErrInvalid, i)
		}
	}
	for i, e := range c.Events {
		if !isHash(e.Leaf) {
			return fmt.Errorf("%w: events[%d] has no leaf hash", ErrInvalid, i)
		}
	}
	return nil
}

func isHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32
}

// MaskEmail hides all of a mailbox name but its first character: j•••@example.com.
func MaskEmail(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 1 {
		return "•••"
	}
	for _, first := range address {
		return string(first) + "•••" + address[at:]
	}
	return "•••"
}
