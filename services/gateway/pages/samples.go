package pages

import (
	"fmt"
	"time"

	"countersign.dev/pkg/failure"
)

// Sample is a page with made-up content, for looking at and for tests.
type Sample struct {
	Name string // fit for a file name
	Page Page
}

// Samples returns every kind of page, and every state of a link, in a language.
func Samples(locale string) []Sample {
	s := sampler{locale: Match(locale), at: time.Date(2026, time.December, 2, 13, 30, 0, 0, time.UTC)}
	all := []Sample{{"open", s.open()}}
	all = append(all, s.states()...)
	all = append(all, s.verifications()...)
	all = append(all, s.documents()...)
	return append(all, s.outcomes()...)
}

type sampler struct {
	locale string
	at     time.Time
}

// pick chooses between made-up content in English and German.
func (s sampler) pick(en, de string) string {
	if s.locale == "de" {
		return de
	}
	return en
}

func (s sampler) frame() Frame {
	return Frame{
		Locale: s.locale, Zone: time.FixedZone("CET", 3600), Nonce: "sample-nonce", Self: "/s/sample",
		Tenant: Tenant{
			Name: "Larkspur Motors", Accent: "#1f6f5c",
			Support: Support{
				Email: "signing@larkspur.example", Phone: "+49 30 555 0142",
				Hours: s.pick("Monday to Friday, 9:00 to 17:00", "Montag bis Freitag, 9 bis 17 Uhr"),
			},
			DelegationPolicy: s.pick("A member of your household with power of attorney may sign for you.", "Wer in Ihrem Haushalt eine Vollmacht hat, darf für Sie unterschreiben."),
		},
	}
}

func (s sampler) title() string {
	return s.pick("Vehicle purchase offer", "Kaufangebot für ein Fahrzeug")
}

func (s sampler) open() Open {
	return Open{
		Frame: s.frame(), Sender: "Larkspur Motors", Title: s.title(), Recipient: MaskEmail("jana.weiss@mail.example"),
		Until: s.at, Review: "/s/sample", NotMe: "/s/sample/not-me",
	}
}

// states are the states of spec 2.7, each with the remedies that are usual for it.
func (s sampler) states() []Sample {
	var all []Sample
	for _, one := range []struct {
		name     string
		failure  *failure.Error
		remedies Remedies
	}{
		{"expired", failure.LinkExpired, Remedies{Reissue: "/s/sample/new", Other: "/s/sample/other", InPerson: "/s/sample/person"}},
		{"soft-expired", failure.LinkExpired, Remedies{Verify: "/s/sample/verify", Other: "/s/sample/other"}},
		{"superseded", failure.LinkSuperseded, Remedies{Reissue: "/s/sample/new"}},
		{"used", failure.LinkUsed, Remedies{Verify: "/s/sample/verify", Reissue: "/s/sample/new"}},
		{"delegated", failure.LinkDelegated, Remedies{}},
		{"readdressed", failure.LinkReaddressed, Remedies{}},
		{"deadline-passed", failure.RequestExpired, Remedies{}},
		{"already-signed", failure.LinkSigned, Remedies{Copy: "/sign/copy.pdf", Proof: "/sign/certificate.pdf"}},
		{"already-declined", failure.LinkDeclined, Remedies{}},
		{"cancelled", failure.LinkCancelled, Remedies{}},
		{"not-your-turn", failure.LinkNotYet, Remedies{Retry: "/s/sample"}},
		{"on-hold", failure.LinkOnHold, Remedies{Retry: "/s/sample"}},
		{"provider-down", failure.ProviderDown, Remedies{Retry: "/s/sample", InPerson: "/s/sample/person"}},
		{"unavailable", failure.Unavailable, Remedies{Retry: "/s/sample"}},
		{"unknown", failure.LinkUnknown, Remedies{}},
		{"revoked", failure.LinkRevoked, Remedies{}},
		{"session-expired", failure.SessionExpired, Remedies{Reissue: "/s/sample/new"}},
		{"rate-limited", failure.RateLimited.After(48 * time.Second), Remedies{Retry: "/s/sample"}},
		{"reissue-limit", failure.ReissueLimit, Remedies{InPerson: "/s/sample/person", Delegate: "/s/sample/delegate"}},
		{"busy", failure.LinkBusy, Remedies{Retry: "/s/sample"}},
	} {
		p := State{Frame: s.frame(), Failure: one.failure, Remedies: one.remedies, Sender: "Larkspur Motors", Recipient: MaskEmail("jana.weiss@mail.example")}
		switch one.name {
		case "soft-expired":
			p.Soft = true
		case "delegated":
			p.Stand = "Tomasz Weiss"
		case "unknown", "rate-limited", "unavailable":
			p.Sender, p.Recipient = "", ""
		}
		all = append(all, Sample{"state-" + one.name, p})
	}
	return append(all, Sample{"error", Broken(s.frame(), "7f3c-19ab")})
}

func (s sampler) verifications() []Sample {
	sms := Destination{Channel: BySMS, Masked: MaskPhone("+49 170 5550167"), Send: "/sign/code/sms"}
	email := Destination{Channel: ByEmail, Masked: MaskEmail("jana.weiss@mail.example"), Send: "/sign/code/email"}
	ask := Verify{Frame: s.frame(), Sender: "Larkspur Motors", Sent: true, To: sms, Also: []Destination{email}, Submit: "/sign/code", ValidFor: 10 * time.Minute, InPerson: "/sign/person"}

	first := ask
	first.Sent, first.Purpose = false, ToSign
	sent := ask
	sent.ResendIn = 30 * time.Second
	wrong := ask
	wrong.Failure, wrong.TriesLeft, wrong.Purpose = failure.CodeWrong, 2, ToComeBack
	expired := ask
	expired.Failure, expired.To, expired.Also, expired.Purpose = failure.CodeExpired, email, []Destination{sms}, ToRenew
	soon := ask
	soon.Failure = failure.CodeTooSoon.After(20 * time.Second)
	locked := ask
	locked.Failure = failure.IdentityLocked.After(14 * time.Minute)
	delegate := ask
	delegate.Purpose, delegate.Cancel, delegate.Digits = ToDelegate, "/sign", 8
	return []Sample{
		{"verify-send", first},
		{"verify-code", sent},
		{"verify-wrong", wrong},
		{"verify-expired", expired},
		{"verify-too-soon", soon},
		{"verify-locked", locked},
		{"verify-delegate", delegate},
	}
}

// sheets are made-up pages; their pictures are written by Preview.
func (s sampler) sheets(n int) []Sheet {
	var all []Sheet
	for i := 1; i <= n; i++ {
		src := fmt.Sprintf("/sign/doc/1/%d.svg", min(i, 3))
		all = append(all, Sheet{Src: src, Wide: src, WideWidth: 1080, Width: 720, Height: 1018, Text: s.pick(
			"1. Subject\n\nThe seller offers the vehicle described below. The buyer may accept the offer within fourteen days.\n\n2. Price\n\nEUR 24,900 including value added tax.",
			"1. Gegenstand\n\nDer Verkäufer bietet das unten beschriebene Fahrzeug an. Der Käufer kann das Angebot innerhalb von vierzehn Tagen annehmen.\n\n2. Preis\n\n24.900 EUR einschließlich Umsatzsteuer.")})
	}
	return all
}

func (s sampler) documents() []Sample {
	base := Document{
		Frame: s.frame(), Sender: "Larkspur Motors", Signer: "Jana Weiss", Presented: fmt.Sprintf("%064x", 1),
		Papers: []Paper{{Title: s.title(), Sheets: s.sheets(3), Download: "/sign/doc/1.pdf", Size: 184_320, Reading: "/sign/doc/1/read"}},
		Sign:   "/sign", Decline: "/sign/decline", Delegate: "/sign/delegate",
	}
	untouched := base
	nobox := base
	nobox.Failure, nobox.Name = failure.ConsentRequired, "Jana Weiss"
	noname := base
	noname.Failure, noname.Agreed = failure.SignatureInvalid, true
	grace := base
	grace.FinishBy, grace.AgreedAt, grace.Name = s.at, s.at.Add(-time.Hour), "Jana Weiss"
	long := base
	long.Papers = []Paper{
		{Title: s.title(), Sheets: s.sheets(120), Download: "/sign/doc/1.pdf", Size: 3_480_000, Reading: "/sign/doc/1/read"},
		{Title: s.pick("Terms of warranty", "Garantiebedingungen"), Sheets: s.sheets(4), Download: "/sign/doc/2.pdf", Reading: "/sign/doc/2/read"},
	}
	reading := Reading{
		Frame: s.frame(), Title: s.title(), Sheet: s.sheets(2)[1], Number: 2, Of: 120, Back: "/sign",
		Before: "/sign/doc/1/read?page=1", After: "/sign/doc/1/read?page=3", Download: "/sign/doc/1.pdf",
	}
	return []Sample{
		{"document", untouched},
		{"document-no-consent", nobox},
		{"document-no-name", noname},
		{"document-grace", grace},
		{"document-long", long},
		{"reading", reading},
	}
}

func (s sampler) outcomes() []Sample {
	signed := Signed{
		Frame: s.frame(), Title: s.title(), Sender: "Larkspur Motors", Name: "Jana Weiss", At: s.at,
		CopyTo: MaskEmail("jana.weiss@mail.example"), Refresh: "/sign",
	}
	waiting := signed
	waiting.Waiting = 2
	complete := signed
	complete.Complete, complete.Copy, complete.Proof = true, "/sign/copy.pdf", "/sign/certificate.pdf"
	return []Sample{
		{"sent", Sent{Frame: s.frame(), To: Destination{Masked: MaskEmail("jana.weiss@mail.example"), Send: "/s/sample/new"}, ResendIn: time.Minute, Remedies: Remedies{InPerson: "/s/sample/person"}}},
		{"signed-waiting", waiting},
		{"signed-sealing", signed},
		{"signed-complete", complete},
		{"declined", Declined{Frame: s.frame(), Title: s.title(), Sender: "Larkspur Motors", At: s.at, Reason: s.pick("The price is not the one we agreed on.", "Der Preis ist nicht der vereinbarte.")}},
	}
}
