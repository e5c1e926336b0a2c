package channel

import (
	"errors"
	"fmt"
	"mime"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna" // the lookup profile of browsers; the only kept implementation of UTS 46
)

// Limits of a message.
const (
	MaxName        = 200      // characters of a name
	MaxSubject     = 300      // characters of a subject
	MaxHeader      = 900      // characters of a further header field
	MaxBody        = 1 << 20  // bytes of the text, and of the HTML
	MaxAttachments = 20       // files
	MaxAttached    = 20 << 20 // bytes of all files together
	maxFileName    = 150      // characters
	maxFields      = 30       // further header fields
)

var (
	idForm    = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
	fieldForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,63}$`)
	phoneForm = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)
	localForm = regexp.MustCompile(`^[^\s\x00-\x20\x7f()<>\[\]:;@\\,."]+(\.[^\s\x00-\x20\x7f()<>\[\]:;@\\,."]+)*$`)
)

// ours are the fields that an adapter writes itself, or that would change who sent the message and who gets it.
var ours = map[string]bool{
	"from": true, "to": true, "cc": true, "bcc": true, "sender": true, "reply-to": true, "subject": true, "date": true,
	"message-id": true, "mime-version": true, "return-path": true, "received": true, "dkim-signature": true,
	"auto-submitted": true, "delivered-to": true, "user-agent": true,
}

// Validate returns a permanent Failure (5.6.0, ScopeMessage) that names every field that is wrong, or nil. Adapters
// call it first, so that nothing with a forged header ever leaves the house (security.md T27, T29).
func (m Message) Validate() error {
	var wrong []string
	check := func(field, problem string) {
		if problem != "" {
			wrong = append(wrong, field+" "+problem)
		}
	}
	if len(m.ID) == 0 || len(m.ID) > 64 || !idForm.MatchString(m.ID) {
		check("id", "must match [A-Za-z0-9_-.], at most 64 characters")
	}
	check("to", m.To.problem())
	check("from", m.From.problem())
	check("reply-to", m.ReplyTo.problem())
	if m.ReturnPath != "" {
		check("return-path", emailProblem(m.ReturnPath))
	}
	check("subject", Problem(m.Subject, MaxSubject))
	if m.Text == "" {
		check("text", "is missing")
	}
	check("text", bodyProblem(m.Text))
	check("html", bodyProblem(m.HTML))
	check("locale", Problem(m.Locale, 35))
	check("headers", m.headersProblem())
	check("attachments", m.attachedProblem())
	if len(wrong) == 0 {
		return nil
	}
	text := strings.Join(wrong, "; ")
	return &Failure{Enhanced: "5.6.0", Scope: ScopeMessage, Diagnostic: Scrub(text), Cause: errors.New(text)}
}

func (a Address) problem() string {
	if p := Problem(a.Name, MaxName); p != "" {
		return "name " + p
	}
	if a.Email != "" {
		if p := emailProblem(a.Email); p != "" {
			return p
		}
	}
	if a.Phone != "" && !phoneForm.MatchString(a.Phone) {
		return "phone must be E.164"
	}
	return ""
}

// emailProblem holds addr to the dot-atom form of RFC 5321 (RFC 6531 letters included) and to a host name.
func emailProblem(addr string) string {
	if p := Problem(addr, 254); p != "" {
		return "address " + p
	}
	local, domain, found := strings.Cut(addr, "@")
	if !found || len(local) > 64 || !localForm.MatchString(local) {
		return "address is not valid"
	}
	if _, err := asciiDomain(domain); err != nil {
		return "domain is not valid"
	}
	return ""
}

func asciiDomain(domain string) (string, error) {
	ascii, err := idna.Lookup.ToASCII(domain)
	switch {
	case err != nil:
		return "", fmt.Errorf("domain to ASCII: %w", err)
	case ascii == "" || len(ascii) > 253 || strings.HasSuffix(ascii, "."):
		return "", errors.New("domain to ASCII: not a host name")
	}
	for _, label := range strings.Split(ascii, ".") {
		if label == "" || len(label) > 63 {
			return "", errors.New("domain to ASCII: not a host name")
		}
	}
	return ascii, nil
}

// Envelope returns addr with its domain in the form that goes over the wire (xn--...), and whether the local part
// needs SMTPUTF8 (RFC 6531). addr must have passed Validate.
func Envelope(addr string) (wire string, needsUTF8 bool, err error) {
	local, domain, _ := strings.Cut(addr, "@")
	ascii, err := asciiDomain(domain)
	if err != nil {
		return "", false, err
	}
	for _, r := range local {
		needsUTF8 = needsUTF8 || r > 0x7e
	}
	return local + "@" + ascii, needsUTF8, nil
}

// bodyProblem allows lines and tabs, and the isolates that keep a right-to-left name from turning the words around it.
func bodyProblem(s string) string {
	if len(s) > MaxBody {
		return "is larger than 1 MiB"
	}
	if !utf8.ValidString(s) {
		return "must be valid UTF-8"
	}
	for _, r := range s {
		if unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t' {
			return "must not contain control characters"
		}
	}
	return ""
}

func (m Message) headersProblem() string {
	if len(m.Headers) > maxFields {
		return "are too many"
	}
	for name, value := range m.Headers {
		lower := strings.ToLower(name)
		if !fieldForm.MatchString(name) || ours[lower] || strings.HasPrefix(lower, "content-") || strings.HasPrefix(lower, "resent-") {
			return "hold a field that is not allowed here"
		}
		if p := Problem(value, MaxHeader); p != "" {
			return "value " + p
		}
	}
	return ""
}

func (m Message) attachedProblem() string {
	if len(m.Attached) > MaxAttachments {
		return "are too many"
	}
	total := 0
	for _, a := range m.Attached {
		total += len(a.Content)
		if p := Problem(a.Name, maxFileName); p != "" {
			return "name " + p
		}
		if a.Name == "" || strings.ContainsAny(a.Name, `/\`) {
			return "name must be a file name without folders"
		}
		if media, params, err := mime.ParseMediaType(a.ContentType); err != nil || len(params) > 0 || !strings.EqualFold(media, a.ContentType) {
			return "content type is not valid"
		}
	}
	if total > MaxAttached {
		return "are larger than 20 MiB together"
	}
	return ""
}
