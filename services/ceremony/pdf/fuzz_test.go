package pdf

import (
	"bytes"
	"testing"
)

// FuzzReadXRefs looks for inputs that make the strict reader panic, hang, or accept a file without a catalog.
func FuzzReadXRefs(f *testing.F) {
	f.Add([]byte("%PDF-1.7\n1 0 obj\n<</Type/XRef/Size 2/W[1 1 1]/Root 1 0 R/Length 6>>\nstream\n\x00\x00\x00\x01\x09\x00\nendstream\nendobj\nstartxref\n9\n%%EOF"))
	f.Add([]byte("%PDF-1.7\nxref\n0 1\n0000000000 65535 f \ntrailer<</Root 1 0 R/Prev 9>>\nstartxref\n9\n%%EOF"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := readXRefs(b)
		if err == nil && x.trailer.IndirectRefEntry("Root") == nil {
			t.Error("accepted without a catalog")
		}
	})
}

// FuzzReadMessage looks for frames that make a helper or its service panic or allocate beyond the limits.
func FuzzReadMessage(f *testing.F) {
	var b bytes.Buffer
	if err := writeMessage(&b, request{Op: "draw", Page: 1, Width: 720}, []byte("%PDF-")); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		var req request
		body, err := readMessage(bytes.NewReader(b), &req)
		if err == nil && len(body) > len(b) {
			t.Error("a body from nowhere")
		}
	})
}

// Every reason has words that tell the sender what to do, and the two lists do not drift apart.
func TestReasonsHaveWords(t *testing.T) {
	all := []Reason{
		TooLarge, NotPDF, Broken, BrokenSigned, Encrypted, JavaScript, ActiveContent, DynamicForm, Attachment,
		Multimedia, NoPages, TooManyPages, PageSize, Locked, TooComplex, Undrawable,
	}
	if len(all) != len(texts) {
		t.Errorf("%d reasons, %d texts", len(all), len(texts))
	}
	for _, r := range all {
		if Refuse(r).Text == "" {
			t.Errorf("%s has no words", r)
		}
	}
}
