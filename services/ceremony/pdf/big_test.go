package pdf_test

import (
	"bytes"
	"image"
	"image/jpeg"
	"math/rand/v2"
	"testing"

	"codeberg.org/go-pdf/fpdf"

	"countersign.dev/services/ceremony/pdf"
)

// The largest honest documents must pass, damaged too: limits that only bombs should meet are not to meet scans.
func TestLargestScan(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a document of 24 MB")
	}
	scan := image.NewRGBA(image.Rect(0, 0, 1654, 2339)) // A4 at 200 dpi, with more grain than any paper
	_, _ = rand.NewChaCha8([32]byte{}).Read(scan.Pix)
	var picture bytes.Buffer
	if err := jpeg.Encode(&picture, scan, &jpeg.Options{Quality: 60}); err != nil {
		t.Fatal(err)
	}
	f := fpdf.New("P", "mm", "A4", "")
	for i := 0; (i+1)*picture.Len() < 24<<20; i++ {
		f.AddPage()
		f.RegisterImageOptionsReader(string(rune('a'+i)), fpdf.ImageOptions{ImageType: "JPG"}, bytes.NewReader(append(picture.Bytes(), byte(i))))
		f.ImageOptions(string(rune('a'+i)), 0, 0, 210, 297, false, fpdf.ImageOptions{ImageType: "JPG"}, 0, "")
	}
	var b bytes.Buffer
	if err := f.Output(&b); err != nil {
		t.Fatal(err)
	}
	if b.Len() < 15<<20 || b.Len() > pdf.MaxBytes {
		t.Fatalf("the test's document has %d bytes", b.Len())
	}
	report, err := box.Inspect(t.Context(), append(b.Bytes(), "junk"...))
	if err != nil || !report.Normalised {
		t.Fatalf("Inspect: %v, normalised %v", err, report.Normalised)
	}
	out, _, err := box.Prepare(t.Context(), report.PDF, pdf.PrepareOptions{Reference: "R", Seats: 2})
	if err != nil {
		t.Fatal(err)
	}
	img, err := box.RenderPage(t.Context(), out, 1, 1080)
	if err != nil || img.Type != "image/jpeg" {
		t.Errorf("RenderPage: %v, %s", err, img.Type)
	}
	t.Logf("%d bytes, %d pages, image of %d bytes", b.Len(), len(report.Pages), len(img.Bytes))
}
