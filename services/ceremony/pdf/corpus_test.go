package pdf_test

import (
	"bytes"
	"compress/zlib"
	"crypto/md5" //nolint:gosec // the standard security handler of PDF 1.4 is built on it
	"crypto/rc4" //nolint:gosec // the same
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"codeberg.org/go-pdf/fpdf"
)

// raw builds a PDF from the bodies of its objects, number 1 first; object 1 is the catalog.
func raw(objects ...string) []byte { return rawWith("", objects...) }

func rawWith(trailer string, objects ...string) []byte {
	var b bytes.Buffer
	b.WriteString("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
	offsets := make([]int, len(objects))
	for i, o := range objects {
		offsets[i] = b.Len()
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, o)
	}
	start := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(objects)+1)
	for _, o := range offsets {
		fmt.Fprintf(&b, "%010d 00000 n \n", o)
	}
	fmt.Fprintf(&b, "trailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n", len(objects)+1, trailer, start)
	return b.Bytes()
}

func stream(dict string, data []byte) string {
	return fmt.Sprintf("<<%s/Length %d>>\nstream\n%s\nendstream", dict, len(data), data)
}

func deflate(data []byte) []byte {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = w.Write(data)
	_ = w.Close()
	return b.Bytes()
}

const (
	pagesOf1 = "<</Type/Pages/Kids[3 0 R]/Count 1>>"
	page3    = "<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<<>>>>"
	text4    = "BT /F1 24 Tf 72 720 Td (Rental agreement) Tj ET"
	font     = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
	drawn3   = "<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F1 5 0 R>>>>/Contents 4 0 R>>"
)

// plain is a clean document of one page.
func plain() []byte {
	return raw("<</Type/Catalog/Pages 2 0 R>>", pagesOf1, drawn3, stream("", []byte(text4)), font)
}

// withCatalog is a document of one page with more in its catalog and more objects from number 4 on.
func withCatalog(more string, objects ...string) []byte {
	return raw(append([]string{"<</Type/Catalog/Pages 2 0 R" + more + ">>", pagesOf1, page3}, objects...)...)
}

// pagesSized is a document of n pages with the given media box.
func pagesSized(n int, box string) []byte {
	var kids strings.Builder
	objects := []string{"<</Type/Catalog/Pages 2 0 R>>", ""}
	for i := range n {
		fmt.Fprintf(&kids, "%d 0 R ", i+3)
		objects = append(objects, "<</Type/Page/Parent 2 0 R/MediaBox"+box+"/Resources<<>>>>")
	}
	objects[1] = fmt.Sprintf("<</Type/Pages/Kids[%s]/Count %d>>", kids.String(), n)
	return raw(objects...)
}

// flateBomb draws from a content stream that inflates to 250 MiB, twice what PDFium may hold.
var flateBomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	w, _ := zlib.NewWriterLevel(&b, zlib.BestSpeed)
	chunk := bytes.Repeat([]byte("0 0 1 1 re f\n"), 80_000)
	for range 250 {
		_, _ = w.Write(chunk)
	}
	_ = w.Close()
	return raw("<</Type/Catalog/Pages 2 0 R>>", pagesOf1, drawn3, stream("/Filter/FlateDecode", b.Bytes()), font)
})

// doubleFlateBomb is small enough to be mailed: the bomb itself is deflated.
func doubleFlateBomb() []byte {
	var b bytes.Buffer
	w, _ := zlib.NewWriterLevel(&b, zlib.BestSpeed)
	chunk := bytes.Repeat([]byte(" "), 1<<20)
	for range 250 {
		_, _ = w.Write(chunk)
	}
	_ = w.Close()
	return raw("<</Type/Catalog/Pages 2 0 R>>", pagesOf1, drawn3, stream("/Filter[/FlateDecode/FlateDecode]", deflate(b.Bytes())), font)
}

// formBomb draws 10^12 times: each of twelve forms draws the next one ten times.
func formBomb() []byte {
	objects := []string{
		"<</Type/Catalog/Pages 2 0 R>>", pagesOf1,
		"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</XObject<</X 5 0 R>>>>/Contents 4 0 R>>", stream("", []byte("/X Do")),
	}
	for i := range 12 {
		objects = append(objects, stream(fmt.Sprintf("/Type/XObject/Subtype/Form/BBox[0 0 595 842]/Resources<</XObject<</X %d 0 R>>>>", 6+i), bytes.Repeat([]byte("/X Do "), 10)))
	}
	objects = append(objects, stream("/Type/XObject/Subtype/Form/BBox[0 0 595 842]", []byte("0 0 10 10 re f")))
	return raw(objects...)
}

// objectStreamed is a document whose catalog, pages and an extra object (number 4) stand in an object stream.
func objectStreamed(extra, catalog string) []byte {
	bodies := []string{"<</Type/Catalog/Pages 2 0 R" + catalog + ">>", pagesOf1, page3, extra}
	var index, data strings.Builder
	for i, o := range bodies {
		fmt.Fprintf(&index, "%d %d ", i+1, data.Len())
		data.WriteString(o + " ")
	}
	var b bytes.Buffer
	b.WriteString("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
	at5 := b.Len()
	fmt.Fprintf(&b, "5 0 obj\n%s\nendobj\n", stream(fmt.Sprintf("/Type/ObjStm/N 4/First %d/Filter/FlateDecode", index.Len()), deflate([]byte(index.String()+data.String()))))
	at6 := b.Len()
	rows := []byte{0, 0, 0, 0, 0}
	for i := range 4 {
		rows = append(rows, 2, 0, 0, 5, byte(i))
	}
	for _, o := range []int{at5, at6} {
		rows = append(rows, 1, byte(o>>16), byte(o>>8), byte(o), 0)
	}
	predicted := make([]byte, 0, len(rows)+7)
	prior := make([]byte, 5)
	for i := 0; i < len(rows); i += 5 { // PNG "up", as most producers write it
		predicted = append(predicted, 2)
		for j := range 5 {
			predicted = append(predicted, rows[i+j]-prior[j])
		}
		prior = rows[i : i+5]
	}
	fmt.Fprintf(&b, "6 0 obj\n%s\nendobj\nstartxref\n%d\n%%%%EOF\n",
		stream("/Type/XRef/Size 7/W[1 3 1]/Root 1 0 R/Filter/FlateDecode/DecodeParms<</Predictor 12/Columns 5>>", deflate(predicted)), at6)
	return b.Bytes()
}

// encrypted is RC4-encrypted with an empty user password: many readers open it without a word.
func encrypted() []byte {
	pad := []byte("\x28\xBF\x4E\x5E\x4E\x75\x8A\x41\x64\x00\x4E\x56\xFF\xFA\x01\x08\x2E\x2E\x00\xB6\xD0\x68\x3E\x80\x2F\x0C\xA9\xFE\x64\x53\x69\x7A")
	id := []byte("0123456789abcdef")
	rc := func(key, data []byte) []byte {
		c, _ := rc4.NewCipher(key) //nolint:gosec // as above
		out := make([]byte, len(data))
		c.XORKeyStream(out, data)
		return out
	}
	owner := md5.Sum(pad) //nolint:gosec // as above
	o := rc(owner[:5], pad)
	sum := md5.Sum(append(append(append(append([]byte{}, pad...), o...), 0xfc, 0xff, 0xff, 0xff), id...)) //nolint:gosec // as above
	u := rc(sum[:5], pad)
	return rawWith(fmt.Sprintf("/Encrypt 4 0 R/ID[<%x><%x>]", id, id), "<</Type/Catalog/Pages 2 0 R>>", pagesOf1, page3,
		fmt.Sprintf("<</Filter/Standard/V 1/R 2/P -4/O<%x>/U<%x>>>", o, u))
}

// shifted has every offset of its table off by three.
func shifted() []byte {
	b := plain()
	start := bytes.LastIndex(b, []byte("\nxref\n")) + 1
	table := string(b[start:])
	lines := strings.Split(table, "\n")
	for i, l := range lines {
		if strings.HasSuffix(l, " n ") {
			var offset int
			_, _ = fmt.Sscanf(l, "%d", &offset)
			lines[i] = fmt.Sprintf("%010d 00000 n ", offset+3)
		}
	}
	return append(b[:start:start], strings.Join(lines, "\n")...)
}

// signed holds a signature dictionary (an empty one: only its presence matters here).
func signed(p int) []byte {
	return withCatalog("/AcroForm<</SigFlags 3/Fields[4 0 R]>>/Perms<</DocMDP 5 0 R>>",
		"<</Type/Annot/Subtype/Widget/FT/Sig/T(s)/Rect[0 0 0 0]/P 3 0 R/V 5 0 R>>",
		fmt.Sprintf("<</Type/Sig/Filter/Adobe.PPKLite/SubFilter/ETSI.CAdES.detached/ByteRange[0 10 20 10]/Contents<00>"+
			"/Reference[<</Type/SigRef/TransformMethod/DocMDP/TransformParams<</Type/TransformParams/P %d/V/1.2>>>>]>>", p))
}

// letter is a document such as an office would send, with text and a little colour.
func letter(t testing.TB, pages int) []byte {
	t.Helper()
	f := fpdf.New("P", "mm", "A4", "")
	f.SetFont("Helvetica", "", 12)
	for i := range pages {
		f.AddPage()
		f.SetTextColor(20, 40, 120)
		f.Cell(0, 10, fmt.Sprintf("Agreement, page %d", i+1))
		f.Ln(12)
		f.SetTextColor(0, 0, 0)
		f.MultiCell(0, 6, strings.Repeat("The parties agree to what stands on this page. ", 40), "", "L", false)
	}
	var b bytes.Buffer
	if err := f.Output(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tool returns the path of a program, or skips the test where it is missing and not required.
func tool(t testing.TB, name string) string {
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

// qpdfCheck fails the test unless qpdf finds b clean, without a warning.
func qpdfCheck(t testing.TB, b []byte) {
	t.Helper()
	file := t.TempDir() + "/f.pdf"
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool(t, "qpdf"), "--check", file).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("WARNING")) {
		t.Errorf("qpdf --check: %v\n%s", err, out)
	}
}
