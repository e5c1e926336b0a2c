package pdf_test

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"strings"
	"testing"

	"countersign.dev/services/ceremony/pdf"
)

func TestPrepare(t *testing.T) {
	labels := []string{"Tenant", "Landlord"}
	inheriting := raw("<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids 4 0 R/Count 1/Rotate 90/CropBox[0 0 300 300]/MediaBox[0 0 612 792]>>",
		"<</Type/Page/Parent 2 0 R/Resources<<>>>>", "[3 0 R]")
	for name, tt := range map[string]struct {
		document []byte
		seats    int
		pages    int // in the end
	}{
		"table":             {plain(), 2, 2},
		"of an office":      {letter(t, 3), 6, 4},
		"three more pages":  {letter(t, 1), 14, 4},
		"object streams":    {objectStreamed("null", ""), 7, 3},
		"nothing inherited": {inheriting, 2, 2},
		"no newline at end": {bytes.TrimRight(plain(), "\n"), 2, 2},
		"fifty":             {plain(), pdf.MaxSeats, 10},
	} {
		t.Run(name, func(t *testing.T) {
			o := pdf.PrepareOptions{Reference: "REQ-1", Title: "Lease", Seats: tt.seats, Labels: labels, URL: "https://sign.example.com/r/1"}
			out, boxes, err := box.Prepare(t.Context(), tt.document, o)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(out, tt.document) {
				t.Error("the document itself was touched")
			}
			qpdfCheck(t, out)
			again, _, err := box.Prepare(t.Context(), tt.document, o)
			if err != nil || !bytes.Equal(out, again) {
				t.Errorf("the same input gives other bytes (%v)", err)
			}
			report, err := box.Inspect(t.Context(), out)
			if err != nil || report.Normalised || len(report.Pages) != tt.pages {
				t.Fatalf("inspected again: %v, %+v", err, report)
			}
			checkBoxes(t, boxes, report, tt.seats)
			last := boxes[len(boxes)-1].Page
			text, err := box.PageText(t.Context(), out, last)
			if err != nil || !strings.Contains(text, "Reference REQ-1") || !strings.Contains(text, fmt.Sprintf("Signer %d", tt.seats)) {
				t.Errorf("text of page %d: %q, %v", last, text, err)
			}
		})
	}
}

func checkBoxes(t *testing.T, boxes []pdf.Box, report pdf.Report, seats int) {
	t.Helper()
	if len(boxes) != seats {
		t.Fatalf("%d boxes for %d seats", len(boxes), seats)
	}
	for i, b := range boxes {
		p := report.Pages[b.Page-1]
		if b.X < 36 || b.Y < 36 || b.X+b.Width > p.Width-36 || b.Y+b.Height > p.Height-36 {
			t.Errorf("box %d leaves its page: %+v on %+v", i, b, p)
		}
		if r := b.Width / b.Height; r < pdf.SignatureAspect-0.01 || r > pdf.SignatureAspect+0.01 {
			t.Errorf("box %d has ratio %f", i, r)
		}
		for j := range i {
			if o := boxes[j]; o.Page == b.Page && o.Y < b.Y+b.Height && b.Y < o.Y+o.Height {
				t.Errorf("boxes %d and %d overlap", i, j)
			}
		}
	}
}

// The page tree, catalog and the pages before must read as they did, in a reader that is not ours.
func TestPreparedReadsTheSame(t *testing.T) {
	doc := letter(t, 2)
	out, _, err := box.Prepare(t.Context(), doc, pdf.PrepareOptions{Reference: "REQ-1", Seats: 1})
	if err != nil {
		t.Fatal(err)
	}
	before, after := pdftotext(t, doc, 2), pdftotext(t, out, 2)
	if before != after || !strings.Contains(before, "Agreement, page 2") {
		t.Errorf("text before\n%s\nafter\n%s", before, after)
	}
	if last := pdftotext(t, out, 3); !strings.Contains(last, "Signatures") {
		t.Errorf("last page: %s", last)
	}
}

func pdftotext(t *testing.T, b []byte, page int) string {
	t.Helper()
	file := t.TempDir() + "/f.pdf"
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	n := fmt.Sprint(page)
	out, err := exec.Command(tool(t, "pdftotext"), "-layout", "-f", n, "-l", n, file, "-").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestPrepareLeavesSigned(t *testing.T) {
	doc := signed(2)
	out, boxes, err := box.Prepare(t.Context(), doc, pdf.PrepareOptions{Reference: "REQ-1", Seats: 2})
	if err != nil || boxes != nil || !bytes.Equal(out, doc) {
		t.Errorf("got %d bytes, %v, %v", len(out), boxes, err)
	}
}

func TestPrepareRefuses(t *testing.T) {
	for name, o := range map[string]pdf.PrepareOptions{
		"no seats":        {Reference: "R"},
		"too many seats":  {Reference: "R", Seats: 51},
		"no reference":    {Seats: 1},
		"too many labels": {Reference: "R", Seats: 1, Labels: []string{"a", "b"}},
		"long title":      {Reference: "R", Seats: 1, Title: strings.Repeat("x", 201)},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := box.Prepare(t.Context(), plain(), o); !errors.Is(err, pdf.ErrOptions) {
				t.Errorf("Prepare: %v", err)
			}
		})
	}
	if _, _, err := box.Prepare(t.Context(), shifted(), pdf.PrepareOptions{Reference: "R", Seats: 1}); !errors.Is(err, pdf.Refuse(pdf.Broken)) {
		t.Errorf("a document that was never inspected: %v", err)
	}
}

func TestSignature(t *testing.T) {
	for name, tt := range map[string]struct {
		name    string
		caption []string
		want    error
	}{
		"Latin":          {"Zoë Łukasiewicz-Ångström", nil, nil},
		"captioned":      {"Jane Doe", []string{"Jane Doe", "2026-11-24 10:31 UTC"}, nil},
		"Cyrillic":       {"Анна Щербакова", nil, nil},
		"Greek":          {"Αλέξανδρος", nil, nil},
		"very long":      {strings.Repeat("Wolfeschlegel", 7), nil, nil},
		"one letter":     {"X", nil, nil},
		"Japanese":       {"山田太郎", nil, pdf.ErrNoGlyphs},
		"empty":          {" \t", nil, pdf.ErrName},
		"too long":       {strings.Repeat("a", 101), nil, pdf.ErrName},
		"control":        {"a\x00b", nil, pdf.ErrName},
		"reordering":     {"a\u202eb", nil, pdf.ErrName},
		"three captions": {"a", []string{"", "", ""}, pdf.ErrName},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := pdf.Signature(tt.name, tt.caption...)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Signature: %v, want %v", err, tt.want)
			}
			if tt.want != nil {
				return
			}
			img, err := png.Decode(bytes.NewReader(b))
			if err != nil || img.Bounds().Dx() != 800 || img.Bounds().Dy() != 240 {
				t.Fatalf("png: %v", err)
			}
			if inked := countInk(img.At, 800, 240); inked < 200 {
				t.Errorf("only %d pixels have ink", inked)
			}
			again, _ := pdf.Signature(tt.name, tt.caption...)
			if !bytes.Equal(b, again) {
				t.Error("the same name gives other bytes")
			}
		})
	}
}

// countInk counts the pixels that are not transparent.
func countInk(at func(x, y int) color.Color, w, h int) int {
	n := 0
	for y := range h {
		for x := range w {
			if _, _, _, a := at(x, y).RGBA(); a > 0 {
				n++
			}
		}
	}
	return n
}
