package certificate_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"countersign.dev/services/audit/certificate"
)

func hash(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }

// lease is a request of two signers with n more events than its fourteen.
func lease(language string, n int) certificate.Certificate {
	berlin := time.FixedZone("CET", 3600)
	at := func(minute int) time.Time {
		return time.Date(2026, time.November, 24, 9, 0, 7, 0, time.UTC).Add(time.Duration(minute) * time.Minute)
	}
	c := certificate.Certificate{
		Language: language, Reference: "LEASE-2026-0117", RequestID: "req_7c1d2e3f4a5b6c7d", Title: "Room rental, Lindenstraße 12",
		Sender: "Nordhaus Immobilien", Created: at(0), Ended: at(61), Issued: at(62),
		Documents: []certificate.Document{
			{Name: "Lease.pdf", Pages: 7, Presented: hash("p"), Signed: hash("s")},
			{Name: "House rules.pdf", Pages: 1, Presented: hash("q"), Signed: hash("t")},
		},
		Signers: []certificate.Signer{
			{
				Name: "Zoë Łukasiewicz", Email: certificate.MaskEmail("zoe@example.com"), Role: "Tenant", Signature: "SES", Zone: berlin,
				Verified: []certificate.Verification{{Level: 1, At: at(20)}, {Level: 2, Method: "code by SMS to ••• 42", At: at(21)}},
				Opened:   at(20), Consented: at(22), Signed: at(25), Address: "203.0.113.24", Device: "Firefox 145 on Android",
			},
			{
				Name: "Αλέξανδρος 山田", Email: "a@example.com", Role: "Landlord, for Анна Щербакова", Signature: "AES",
				Opened: at(50), Consented: at(55), Signed: at(60),
			},
		},
		Head: hash("head"), Log: "countersign.example/audit/prod-2026", Checkpoint: 81204, Evidence: "evidence-req_7c1d2e3f4a5b6c7d.zip",
	}
	what := []string{
		"Request created", "Link issued to Zoë Łukasiewicz", "Email handed to the mail server", "Email accepted by the receiving server",
		"Link opened", "Mailbox confirmed", "Code sent by SMS", "Code accepted (level 2)", "Consent text shown", "Agreed to sign electronically",
		"Document shown, 7 of 7 pages", "Signature applied to Lease.pdf and House rules.pdf with the intent “I agree to be bound by this lease”",
		"Link issued to Αλέξανδρος", "Request completed",
	}
	for i := range len(what) + n {
		c.Events = append(c.Events, certificate.Event{At: at(i * 4), What: what[i%len(what)], Actor: []string{"Countersign", "Zoë Łukasiewicz"}[i%2], Leaf: hash(fmt.Sprint(i))})
	}
	return c
}

func TestRender(t *testing.T) {
	for name, tt := range map[string]struct {
		certificate certificate.Certificate
		pages       int
		want        []string
	}{
		"English": {lease("en-GB", 0), 2, []string{
			"Certificate of completion", "LEASE-2026-0117", "req_7c1d2e3f4a5b6c7d", hash("p"), hash("s"), hash("q"), hash("t"), hash("head"), "Zoë Łukasiewicz",
			"z•••@example.com", "2026-11-24 09:25:07 UTC", "2026-11-24 10:25:07 CET (+01:00)", "code by SMS to ••• 42, level 2", "203.0.113.24",
			"Αλέξανδρος \\u{5C71}\\u{7530}", "Анна Щербакова", "possession of the link alone", hash("3")[:16], "signed checkpoint of size 81204", "Page 2 of 2",
		}},
		"German": {lease("de", 0), 2, []string{"Abschlussbescheinigung", "Unterzeichner", "Einmalcode", "Seite 1 von 2", "countersign verify evidence-req_7c1d2e3f4a5b6c7d.zip"}},
		"long":   {lease("en", 300), 10, []string{"Page 10 of 10", hash("313")[:16]}},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "German" {
				tt.certificate.Signers[0].Verified[1].Method = ""
			}
			b, err := certificate.Render(tt.certificate)
			if err != nil {
				t.Fatal(err)
			}
			again, err := certificate.Render(tt.certificate)
			if err != nil || !bytes.Equal(b, again) {
				t.Error("the same certificate gives other bytes")
			}
			text := read(t, b)
			for _, w := range tt.want {
				if !strings.Contains(text, w) {
					t.Errorf("%q is missing", w)
				}
			}
			if pages := strings.Count(text, "\f"); pages != tt.pages {
				t.Errorf("%d pages, want %d", pages, tt.pages)
			}
			if t.Failed() {
				t.Log(text)
			}
		})
	}
}

func TestRenderWithLittle(t *testing.T) {
	b, err := certificate.Render(certificate.Certificate{
		Reference: "R", RequestID: "req_1", Outcome: certificate.Declined, Issued: time.Unix(0, 0), Head: hash("h"),
		Documents: []certificate.Document{{Name: strings.Repeat("verylongname", 30), Presented: hash("p")}},
		Signers: []certificate.Signer{
			{Name: strings.Repeat("W", 300), Declined: time.Unix(60, 0)},
			{Name: "sgn_12", Erased: true},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	text := read(t, b)
	for _, w := range []string{"Record of the request", "Declined 1970-01-01 00:01:00 UTC", "Has not signed", "was not signed", "No events.", "erased on request", "Ask the sender for the trail"} {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in\n%s", w, text)
		}
	}
	// What does not exist is not spoken of.
	for _, w := range []string{"countersign verify", "evidence", "checkpoint", "Log "} {
		if strings.Contains(text, w) {
			t.Errorf("%q is named in\n%s", w, text)
		}
	}
}

func TestRenderRefuses(t *testing.T) {
	for name, break_ := range map[string]func(*certificate.Certificate){
		"no reference":     func(c *certificate.Certificate) { c.Reference = "" },
		"no documents":     func(c *certificate.Certificate) { c.Documents = nil },
		"no signers":       func(c *certificate.Certificate) { c.Signers = nil },
		"short hash":       func(c *certificate.Certificate) { c.Documents[0].Presented = "abcd" },
		"no head":          func(c *certificate.Certificate) { c.Head = "" },
		"leaf is no hash":  func(c *certificate.Certificate) { c.Events[3].Leaf = "leaf" },
		"no time of issue": func(c *certificate.Certificate) { c.Issued = time.Time{} },
		"unknown outcome":  func(c *certificate.Certificate) { c.Outcome = 9 },
	} {
		t.Run(name, func(t *testing.T) {
			c := lease("en", 0)
			break_(&c)
			if _, err := certificate.Render(c); !errors.Is(err, certificate.ErrInvalid) {
				t.Errorf("Render: %v", err)
			}
		})
	}
}

func TestMaskEmail(t *testing.T) {
	for address, want := range map[string]string{"jane@example.com": "j•••@example.com", "é@x": "é•••@x", "@x": "•••", "nobody": "•••", "": "•••"} {
		if got := certificate.MaskEmail(address); got != want {
			t.Errorf("MaskEmail(%q) = %q, want %q", address, got, want)
		}
	}
}

// read checks the file with qpdf and returns its text.
func read(t *testing.T, b []byte) string {
	t.Helper()
	file := t.TempDir() + "/certificate.pdf"
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool(t, "qpdf"), "--check", file).CombinedOutput(); err != nil {
		t.Errorf("qpdf --check: %v\n%s", err, out)
	}
	text, err := exec.Command(tool(t, "pdftotext"), "-layout", file, "-").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("COUNTERSIGN_REQUIRE_TOOLS") != "" {
		t.Fatalf("%s is required and not installed", name)
	}
	t.Skipf("%s is not installed", name)
	return ""
}
