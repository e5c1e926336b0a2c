package message

import (
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"countersign.dev/pkg/failure"
	"countersign.dev/services/delivery/channel"
)

// Limits in characters.
const (
	maxName     = 200
	maxDocument = 300
	maxReason   = 1000
	maxSteps    = 10
	maxLink     = 2048 // bytes
)

const defaultColour = "#2f5bea"

var (
	colourForm = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)
	codeForm   = regexp.MustCompile(`^[0-9]{4,10}$`)
)

// clean returns data fit to be shown, or failure.RequestInvalid that names every wrong field and repeats no value.
// Fields that kind does not use come back empty.
func clean(kind Kind, d Data) (Data, *time.Location, error) {
	need, known := needed[kind]
	c := checker{}
	c.check("kind", known, "is not known")
	d.Brand.Name = c.line("brand.name", d.Brand.Name, maxName, true)
	d.Brand.Support = c.line("brand.support", d.Brand.Support, maxName, false)
	if d.Brand.Colour == "" {
		d.Brand.Colour = defaultColour
	}
	c.check("brand.colour", colourForm.MatchString(d.Brand.Colour), "must be #rrggbb")
	d.Reader = c.line("reader", d.Reader, maxName, false)
	d.Sender = c.line("sender", d.Sender, maxName, true)
	d.Person = c.line("person", d.Person, maxName, need.person)
	d.Document = c.line("document", d.Document, maxDocument, true)
	d.Reason = c.line("reason", flat(d.Reason), maxReason, need.reason)
	c.check("steps", len(d.Steps) <= maxSteps, "must be at most 10")
	steps := make([]string, 0, len(d.Steps))
	for i, s := range d.Steps {
		steps = append(steps, c.line("steps["+strconv.Itoa(i)+"]", flat(s), maxReason, true))
	}
	d.Steps = steps
	c.check("done", d.Done >= 0 && d.Done <= d.Total && d.Total <= 1000, "must be between 0 and total, total at most 1000")
	c.check("code", !need.code || codeForm.MatchString(d.Code), "must be 4 to 10 digits")
	if d.Link != "" || need.link {
		c.check("link", validLink(d.Link), "must be an https address")
	}
	c.check("expires", !need.expires || !d.Expires.IsZero(), "is required")
	zone, err := time.LoadLocation(d.Zone) // "" is UTC
	c.check("zone", err == nil && d.Zone != "Local", "must be a time zone such as Europe/Berlin")
	if !need.code {
		d.Code = ""
	}
	if !need.expires {
		d.Expires = time.Time{}
	}
	if kind == Code || kind == AddressChanged {
		d.Link = "" // a message with a secret gives nobody a place to be lured to
	}
	if kind != Partial {
		d.Steps, d.Done, d.Total = nil, 0, 0
	}
	if len(c.wrong) > 0 {
		return Data{}, nil, failure.RequestInvalid.WithFields(c.wrong...)
	}
	return d, zone, nil
}

type checker struct{ wrong []failure.Field }

func (c *checker) check(path string, ok bool, problem string) {
	if !ok {
		c.wrong = append(c.wrong, failure.Field{Path: path, Problem: problem})
	}
}

// line returns text without hidden characters, and notes what cannot be mended.
func (c *checker) line(path, text string, limit int, required bool) string {
	if !utf8.ValidString(text) {
		c.check(path, false, "must be valid UTF-8")
		return ""
	}
	c.check(path, utf8.RuneCountInString(text) <= limit, "must have at most "+strconv.Itoa(limit)+" characters")
	c.check(path, !strings.ContainsFunc(text, breaks), "must not contain line breaks or control characters")
	text = channel.Clean(text)
	c.check(path, text != "" || !required, "is required")
	return text
}

func breaks(r rune) bool { return unicode.IsControl(r) || r == 0x2028 || r == 0x2029 }

// flat makes one line of what may have been written as several.
func flat(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == '\t' || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, s)
}

// validLink accepts absolute https URLs, and http on loopback for development.
func validLink(link string) bool {
	if len(link) > maxLink || strings.ContainsFunc(link, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"<>\\^`{|}", r) }) {
		return false
	}
	u, err := url.Parse(link)
	if err != nil || u.Host == "" || u.User != nil || u.Opaque != "" {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname())
}

func loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
