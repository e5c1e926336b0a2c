package channel

import (
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"
)

const maxDiagnostic = 200

var (
	linkForm   = regexp.MustCompile(`(?i)\b[a-z][a-z0-9+.-]{1,20}://\S+`)
	emailForm  = regexp.MustCompile(`("[^"]*"|[^\s<>"'(),;:=]+)@[^\s<>"'(),;]+`)
	tokenForm  = regexp.MustCompile(`\bcs[0-9]+_[A-Za-z0-9_-]+`)
	numberForm = regexp.MustCompile(`\+[0-9][0-9 ()./-]{5,}[0-9]`)
	opaqueForm = regexp.MustCompile(`[A-Za-z0-9_+/=-]{32,}`)
)

// Scrub makes a provider's words fit for facts and logs: one line, at most 200 characters, without mail addresses,
// phone numbers, links, tokens and long opaque strings, and without the private strings given (the recipient's name
// or local part, as in "User jane.doe unknown"), which are matched without regard to case where they have three
// characters or more.
func Scrub(text string, private ...string) string {
	text = Clean(strings.ToValidUTF8(text, "?"))
	text = linkForm.ReplaceAllString(text, "[link]")
	text = emailForm.ReplaceAllString(text, "[address]")
	text = tokenForm.ReplaceAllString(text, "[token]")
	text = numberForm.ReplaceAllString(text, "[number]")
	sort.Slice(private, func(i, j int) bool { return len(private[i]) > len(private[j]) })
	for _, p := range private {
		if len(p) >= 3 {
			text = regexp.MustCompile(`(?i)`+regexp.QuoteMeta(p)).ReplaceAllLiteralString(text, "[private]")
		}
	}
	text = opaqueForm.ReplaceAllString(text, "[opaque]")
	if runes := []rune(text); len(runes) > maxDiagnostic {
		text = string(runes[:maxDiagnostic-1]) + "…"
	}
	return text
}

// Private returns the strings of an address that Scrub shall keep out of a diagnostic.
func (a Address) Private() []string {
	local, _, _ := strings.Cut(a.Email, "@")
	return []string{a.Name, a.Email, local, a.Phone, strings.TrimPrefix(a.Phone, "+")}
}

var (
	enhancedForm = regexp.MustCompile(`(?:^|[^0-9.])([245]\.\d{1,3}\.\d{1,3})(?:[^0-9.]|$)`)
	waitForm     = regexp.MustCompile(`(?i)\b(?:in|for|after|within|wait)\s+(\d{1,5})\s*(s|secs?|seconds?|m|mins?|minutes?)\b`)
	queueForm    = regexp.MustCompile(`(?i)\b(?:queued as|queue id:?|id=|message accepted as)\s*([A-Za-z0-9._-]{4,64})`)
)

// EnhancedIn finds the RFC 3463 status in a reply whose basic code is code; "" where there is none, or where it says
// something else than the code does (a 5xx with a 2.0.0).
func EnhancedIn(code int, text string) string {
	for _, m := range enhancedForm.FindAllStringSubmatch(text, -1) {
		if int(m[1][0]-'0') == code/100 {
			return m[1]
		}
	}
	return ""
}

// WaitIn finds how long a reply asks to wait, as greylisting servers say it ("try again in 300 seconds"): 0 where it
// does not say, never more than an hour.
func WaitIn(text string) time.Duration {
	m := waitForm.FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0
	}
	unit := time.Second
	if strings.HasPrefix(strings.ToLower(m[2]), "m") {
		unit = time.Minute
	}
	return min(time.Duration(n)*unit, time.Hour)
}

// QueueIDIn finds the id under which a server queued a message, "" where its reply names none.
func QueueIDIn(text string) string {
	if m := queueForm.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// ScopeOf reads from an RFC 3463 status whom it is about, in the registry's terms (RFC 3463 3, RFC 5248); "" where the
// status does not tell (x.0.0, x.1.0).
func ScopeOf(enhanced string) Scope {
	parts := strings.Split(enhanced, ".")
	if len(parts) != 3 {
		return ""
	}
	subject, detail := parts[1], parts[2]
	switch subject {
	case "1": // addressing: .7 to .9 are about the sender's address
		switch detail {
		case "0":
			return ""
		case "7", "8", "9":
			return ScopeProvider
		}
		return ScopeRecipient
	case "2": // mailbox: .3 message longer than its owner allows
		if detail == "3" {
			return ScopeMessage
		}
		return ScopeRecipient
	case "3": // mail system: .4 message too big
		if detail == "4" {
			return ScopeMessage
		}
		return ScopeProvider
	case "6": // content
		return ScopeMessage
	case "4", "5", "7": // network, protocol, policy
		return ScopeProvider
	}
	return ""
}
