package pdf_test

import (
	"bytes"
	"testing"
	"time"

	"countersign.dev/pkg/pades"
	"countersign.dev/services/ceremony/pdf"
)

// What Prepare makes must take signatures: one after the other, in the boxes it named, each staying valid.
func TestPreparedTakesSignatures(t *testing.T) {
	now := time.Date(2026, time.November, 24, 10, 31, 0, 0, time.UTC)
	authority, err := pades.NewAuthority(pades.Subject{CommonName: "Test authority"}, 24*time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := authority.Issue(pades.Subject{CommonName: "Test signer"}, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"Jane Doe", "Анна Щербакова"}
	for name, document := range map[string][]byte{"table": letter(t, 2), "stream": objectStreamed("null", "")} {
		t.Run(name, func(t *testing.T) {
			out, boxes, err := box.Prepare(t.Context(), document, pdf.PrepareOptions{Reference: "REQ-1", Seats: 2, Labels: names})
			if err != nil {
				t.Fatal(err)
			}
			blank, err := box.RenderPage(t.Context(), out, boxes[0].Page, 360)
			if err != nil {
				t.Fatal(err)
			}
			for i, who := range names {
				picture, err := pdf.Signature(who, now.Format("2006-01-02 15:04 UTC"))
				if err != nil {
					t.Fatal(err)
				}
				b := boxes[i]
				out, err = pades.Sign(out, pades.Options{
					Signer: signer.Signer(), Chain: signer.Chain(), Name: who, At: now,
					Appearance: &pades.Appearance{Page: b.Page, Rect: [4]float64{b.X, b.Y, b.X + b.Width, b.Y + b.Height}, PNG: picture},
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			qpdfCheck(t, out)
			signatures, err := pades.Verify(out, authority.Roots())
			if err != nil || len(signatures) != 2 || !signatures[0].Intact || !signatures[1].CoversWholeFile {
				t.Errorf("Verify: %v, %+v", err, signatures)
			}
			inked, err := box.RenderPage(t.Context(), out, boxes[0].Page, 360)
			if err != nil || bytes.Equal(blank.Bytes, inked.Bytes) {
				t.Errorf("the signatures do not show (%v)", err)
			}
			if report, err := box.Inspect(t.Context(), out); err != nil || !report.Signed || report.Normalised {
				t.Errorf("Inspect: %v, %+v", err, report.Signed)
			}
		})
	}
}
