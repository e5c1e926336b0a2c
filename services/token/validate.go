package token

import (
	"bytes"
	"fmt"
	"net/mail"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/currency"
	"golang.org/x/text/language"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/rpc"
	signingv1 "countersign.dev/proto/countersign/signing/v1"

	_ "time/tzdata" // a signer's zone is known on every machine, whatever it has installed
)

// highestAssurance is the level that the ways of verifying which exist can reach (decisions 11).
const highestAssurance = 1

// pdfHeaderWithin is how far from its beginning a PDF says that it is one (ISO 32000-2 7.5.2 and what readers bear).
const pdfHeaderWithin = 1024

// validate names every field of a request that is wrong. No problem repeats a value. profile is what is wrong with that field, if
// anything. late is what is wrong with its deadline by now: it is named with the others, and alone it is no reason to refuse what was
// made in time.
func validate(r *signingv1.SigningRequest, contract *rpc.Validator, profile, late string) error {
	if r == nil {
		return failure.RequestInvalid.WithFields(failure.Field{Path: "request", Problem: "is missing"})
	}
	v := &problems{}
	if err := v.contract(contract, r); err != nil {
		return err
	}
	v.words("reference", r.GetReference())
	v.words("title", r.GetTitle())
	if profile != "" {
		v.add("profile", profile)
	}
	if m := r.GetValue(); m != nil {
		if _, err := currency.ParseISO(m.GetCurrencyCode()); err != nil {
			v.add("value.currency_code", "is no currency of ISO 4217, for example EUR")
		}
		if m.GetNanos() < 0 || m.GetNanos() > 999_999_999 || m.GetUnits() < 0 {
			v.add("value", "is negative or has nanos beyond 999999999")
		}
	}
	for i, d := range r.GetDocuments() {
		v.words(fmt.Sprintf("documents[%d].name", i), d.GetName())
		// Told together with the other fields; what is inside is for ceremony to judge, once they are right.
		if c := d.GetContent(); len(c) > 0 && !bytes.Contains(c[:min(len(c), pdfHeaderWithin)], []byte("%PDF-")) {
			v.add(fmt.Sprintf("documents[%d].content", i), "is no PDF")
		}
	}
	for key, value := range r.GetMetadata() {
		v.words("metadata", key)
		v.words(fmt.Sprintf("metadata[%q]", printable(key)), value)
	}
	for i, signer := range r.GetSigners() {
		path := fmt.Sprintf("signers[%d]", i)
		v.person(path, &signingv1.Person{Name: signer.GetName(), Email: signer.GetEmail(), Locale: signer.GetLocale(), TimeZone: signer.GetTimeZone()})
		for j, a := range signer.GetAlternates() {
			v.person(fmt.Sprintf("%s.alternates[%d]", path, j), a)
			if strings.EqualFold(a.GetEmail(), signer.GetEmail()) && a.GetEmail() != "" {
				v.add(fmt.Sprintf("%s.alternates[%d].email", path, j), "is the signer's own address: an alternate is somebody else")
			}
		}
		if m := signer.GetManager(); m != nil {
			v.person(path+".manager", m)
		}
	}
	if late != "" && len(v.fields) > 0 {
		v.add("deadline", late)
	}
	return v.refusal()
}

type problems struct{ fields []failure.Field }

func (v *problems) add(path, problem string) {
	v.fields = append(v.fields, failure.Field{Path: path, Problem: problem})
}

// contract adds what the contract forbids.
func (v *problems) contract(contract *rpc.Validator, m proto.Message) error {
	if err := contract.Validate(m); err != nil {
		refusal := failure.From(err)
		if refusal == nil {
			return fmt.Errorf("token: validate: %w", err)
		}
		v.fields = append(v.fields, refusal.Fields...)
	}
	return nil
}

// validateReason refuses a platform's reason that people could not read as it is meant.
func validateReason(reason string) error {
	v := &problems{}
	v.words("reason", reason)
	return v.refusal()
}

// refusal names all problems; nil when there are none.
func (v *problems) refusal() error {
	if len(v.fields) == 0 {
		return nil
	}
	return failure.RequestInvalid.WithFields(v.distinct()...)
}

// distinct keeps the first problem of each field.
func (v *problems) distinct() []failure.Field {
	seen := map[string]bool{}
	var out []failure.Field
	for _, f := range v.fields {
		if !seen[f.Path] {
			seen[f.Path] = true
			out = append(out, f)
		}
	}
	return out
}

// words refuses what would change lines, headers or the direction of text around it (security.md T27, T29).
func (v *problems) words(path, s string) {
	if !utf8.ValidString(s) {
		v.add(path, "is no valid UTF-8")
		return
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) || (unicode.Is(unicode.Cf, r) && r != '\u200c' && r != '\u200d') {
			v.add(path, fmt.Sprintf("holds the invisible character U+%04X, which is not allowed", r))
			return
		}
	}
	if s != "" && strings.TrimSpace(s) == "" {
		v.add(path, "is only white space")
	}
}

// mailbox is the address itself, without a name, with a domain of at least two labels or localhost.
var mailbox = regexp.MustCompile(`^[^\s@<>"(),:;\\\[\]]{1,64}@[^\s@<>"(),:;\\\[\]]+$`)

func (v *problems) person(path string, p *signingv1.Person) {
	if p.GetName() == "" {
		v.add(path+".name", "is missing")
	}
	v.words(path+".name", p.GetName())
	v.words(path+".email", p.GetEmail())
	if parsed, err := mail.ParseAddress(p.GetEmail()); err != nil || parsed.Name != "" || !mailbox.MatchString(p.GetEmail()) {
		v.add(path+".email", "is no mail address, for example ada@example.com")
	}
	if p.GetLocale() != "" {
		if _, err := language.Parse(p.GetLocale()); err != nil {
			v.add(path+".locale", "is no language tag of BCP 47, for example en or de-CH")
		}
	}
	if p.GetTimeZone() != "" {
		if _, err := time.LoadLocation(p.GetTimeZone()); err != nil || p.GetTimeZone() == "Local" {
			v.add(path+".time_zone", "is no time zone of the IANA database, for example Europe/Berlin")
		}
	}
}

// printable shortens a metadata key to what may stand in a path.
func printable(key string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-", r) {
			return r
		}
		return '?'
	}, key)
}
