package pades_test

import (
	"bytes"
	"fmt"
	"log"
	"time"

	"codeberg.org/go-pdf/fpdf"

	"countersign.dev/pkg/pades"
)

func Example() {
	now := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	authority, err := pades.NewAuthority(pades.Subject{CommonName: "Example CA", Organization: "Example"}, 365*24*time.Hour, now)
	if err != nil {
		log.Fatal(err)
	}
	ada, err := authority.Issue(pades.Subject{CommonName: "Ada Lovelace"}, 24*time.Hour, now)
	if err != nil {
		log.Fatal(err)
	}

	page := fpdf.New("P", "mm", "A4", "")
	page.AddPage()
	var document bytes.Buffer
	if err := page.Output(&document); err != nil {
		log.Fatal(err)
	}

	signed, err := pades.Sign(document.Bytes(), pades.Options{
		Signer: ada.Signer(), Chain: ada.Chain(), Name: "Ada Lovelace", Reason: "I agree", At: now,
	})
	if err != nil {
		log.Fatal(err)
	}
	signatures, err := pades.Verify(signed, authority.Roots())
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range signatures {
		fmt.Println(s.Field, s.Certificate.Subject.CommonName, s.Valid(), s.CoversWholeFile)
	}
	// Output: Signature1 Ada Lovelace true true
}
