package pades

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

// noon is the time of signing in tests. It is near enough to today for tools that check certificates against the real clock.
var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

const years = 10 * 365 * 24 * time.Hour

// people are made once: an authority and three signers.
var people = sync.OnceValue(func() (p struct {
	ca      *Identity
	signers [3]*Identity
},
) {
	must := func(id *Identity, err error) *Identity {
		if err != nil {
			panic(err)
		}
		return id
	}
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	p.ca = must(NewAuthority(Subject{"Countersign Test CA", "Example"}, years, start))
	for i, name := range []string{"Ada Lovelace", "Grace Hopper", "Mary Jackson"} {
		p.signers[i] = must(p.ca.Issue(Subject{name, "Example"}, years, start))
	}
	return p
})

func roots() *x509.CertPool { return people().ca.Roots() }

// rsaSigner has a 3072-bit key under the same ECDSA authority.
var rsaSigner = sync.OnceValues(func() (crypto.Signer, []*x509.Certificate) {
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		panic(err)
	}
	ca := people().ca
	template := *people().signers[0].Certificate()
	template.SerialNumber = big.NewInt(4711)
	template.SubjectKeyId = nil
	template.PublicKey = nil
	der, err := x509.CreateCertificate(rand.Reader, &template, ca.Certificate(), &key.PublicKey, ca.Signer())
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return key, []*x509.Certificate{cert, ca.Certificate()}
})

// options are those of signer i, invisible, in a new field.
func options(i int) Options {
	id := people().signers[i]
	return Options{
		Signer: id.Signer(), Chain: id.Chain(), Name: id.Certificate().Subject.CommonName, Reason: "I agree", Location: "Zürich, 東京",
		At: noon.Add(time.Duration(i) * time.Hour),
	}
}

func visible(o Options, page int, box ...float64) Options {
	o.Appearance = &Appearance{Page: page, Rect: [4]float64(box), PNG: scrawl()}
	return o
}

// scrawl is a picture with a transparent ground, whose four corners tell which way up it is.
var scrawl = sync.OnceValue(func() []byte {
	img := image.NewNRGBA(image.Rect(0, 0, 120, 40))
	fill := func(x0, y0, x1, y1 int, c color.NRGBA) {
		for y := y0; y < y1; y++ {
			for x := x0; x < x1; x++ {
				img.SetNRGBA(x, y, c)
			}
		}
	}
	fill(0, 0, 12, 12, color.NRGBA{255, 0, 0, 255})    // upper left: red
	fill(108, 0, 120, 12, color.NRGBA{0, 160, 0, 255}) // upper right: green
	fill(0, 28, 12, 40, color.NRGBA{0, 0, 255, 255})   // lower left: blue
	fill(108, 28, 120, 40, color.NRGBA{0, 0, 0, 255})  // lower right: black
	for x := 12; x < 108; x++ {
		y := 20 + (x*7%23-11)/2
		fill(x, y, x+1, y+3, color.NRGBA{20, 20, 90, 200})
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic(err)
	}
	return b.Bytes()
})

// pdfKind is how a generated file keeps its cross-reference.
type pdfKind int

const (
	tableKind pdfKind = iota
	streamKind
)

// build writes objects 1, 2, ... (the first is the catalog) as a PDF. trailer is added to the trailer dictionary.
func build(kind pdfKind, version, trailer string, objects ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%%PDF-%s\n%%\xe2\xe3\xcf\xd3\n", version)
	offsets := make([]int, len(objects))
	for i, body := range objects {
		offsets[i] = b.Len()
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, body)
	}
	start := b.Len()
	if kind == tableKind {
		fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(objects)+1)
		for _, at := range offsets {
			fmt.Fprintf(&b, "%010d 00000 n \n", at)
		}
		fmt.Fprintf(&b, "trailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n", len(objects)+1, trailer, start)
		return b.Bytes()
	}
	data := []byte{0, 0, 0, 0xff}
	for _, at := range slices.Concat(offsets, []int{start}) {
		data = append(data, 1, byte(at>>8), byte(at), 0)
	}
	fmt.Fprintf(&b, "%d 0 obj\n<</Type/XRef/Size %d/W[1 2 1]/Root 1 0 R/Length %d%s>>\nstream\n%s\nendstream\nendobj\nstartxref\n%d\n%%%%EOF\n",
		len(objects)+1, len(objects)+2, len(data), trailer, data, start)
	return b.Bytes()
}

func stream(data string) string {
	return fmt.Sprintf("<</Length %d>>\nstream\n%s\nendstream", len(data), data)
}

const (
	helvetica = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
	agreement = "BT /F1 18 Tf 72 700 Td (Agreement: the price is 100 EUR) Tj ET"
)

// letter is a file of two pages. Object 3 is page 1, 4 page 2, 5 the content of both, 6 the font; more objects count from 7.
func letter(kind pdfKind, version, catalog, page1, trailer string, more ...string) []byte {
	page := func(extra string) string {
		return "<</Type/Page/Parent 2 0 R/Contents 5 0 R" + extra + ">>"
	}
	return build(kind, version, trailer, append([]string{
		"<</Type/Catalog/Pages 2 0 R/Lang(en\\055GB)" + catalog + ">>",
		"<</Type/Pages/Kids[3 0 R 4 0 R]/Count 2/MediaBox[0 0 595 842]/Resources<</Font<</F1 6 0 R>>>>>>",
		page(page1), page(""), stream(agreement), helvetica,
	}, more...)...)
}

const (
	link       = "<</Type/Annot/Subtype/Link/Rect[72 72 172 92]/Border[0 0 1]/A<</S/URI/URI(https://example.com/a\\(b\\))>>>>"
	emptyField = "<</Type/Annot/Subtype/Widget/FT/Sig/T(Approve)/Rect[72 500 272 560]/F 4/P 3 0 R>>"
	textField  = "<</Type/Annot/Subtype/Widget/FT/Tx/T(Total)/V(100)/DA(/F1 12 Tf 0 g)/Rect[72 600 272 620]/F 4/P 3 0 R>>"
)

// corpus is one file of each shape that signing treats differently.
func corpus() map[string][]byte {
	return map[string][]byte{
		"table":             letter(tableKind, "1.7", "", "", ""),
		"stream":            letter(streamKind, "1.7", "", "", ""),
		"old version":       letter(tableKind, "1.4", "", "", ""),
		"PDF 2.0":           letter(streamKind, "2.0", "", "", "/ID[<00112233445566778899AABBCCDDEEFF><00>]"),
		"info and id":       letter(tableKind, "1.7", "", "", "/Info 7 0 R/ID[(a\\)b)(c)]", "<</Title(T\\(x)>>"),
		"no final line end": bytes.TrimRight(letter(tableKind, "1.7", "", "", ""), "\n"),
		"annots direct":     letter(tableKind, "1.7", "", "/Annots["+link+" 7 0 R]", "", link),
		"annots indirect":   letter(streamKind, "1.7", "", "/Annots 7 0 R", "", "[8 0 R]", link),
		"form":              letter(tableKind, "1.7", "/AcroForm 7 0 R", "/Annots[9 0 R]", "", "<</Fields 8 0 R/DA(/F1 0 Tf)>>", "[9 0 R]", textField),
		"form direct":       letter(streamKind, "1.7", "/AcroForm<</Fields[7 0 R]/DR<</Font<</F1 6 0 R>>>>>>", "/Annots[7 0 R]", "", textField),
		"rotated 90":        letter(tableKind, "1.7", "", "/Rotate 90", ""),
		"rotated 180":       letter(tableKind, "1.7", "", "/Rotate 180", ""),
		"rotated 270 crop":  letter(tableKind, "1.7", "", "/Rotate -90/CropBox[50 40 545 800]", ""),
		"crop":              letter(tableKind, "1.7", "", "/CropBox[545 800 50 40]", ""),
		"empty field":       letter(tableKind, "1.7", "/AcroForm<</Fields[7 0 R]>>", "/Annots[7 0 R]", "", emptyField),
		"empty field apart": letter(streamKind, "1.7", "/AcroForm<</Fields[7 0 R]/SigFlags 3>>", "/Rotate 90/Annots[8 0 R]", "",
			"<</FT/Sig/T(Approve)/Kids[8 0 R]>>", "<</Type/Annot/Subtype/Widget/Rect[72 500 132 700]/Parent 7 0 R/P 3 0 R>>"),
		"extensions": letter(tableKind, "1.7", "/Extensions<</ADBE<</BaseVersion/1.7/ExtensionLevel 3>>>>", "", ""),
	}
}

// tool finds a program. A test that lacks it is skipped, unless COUNTERSIGN_REQUIRE_TOOLS is set.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("COUNTERSIGN_REQUIRE_TOOLS") != "" {
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("%s is not installed", name)
	return ""
}

// run runs a tool and returns all that it prints.
func run(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command(tool(t, name), args...).CombinedOutput()
	return string(out), err
}

func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), strings.ReplaceAll(name, " ", "-"))
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// qpdf rewrites a file by the given flags.
func qpdf(t testing.TB, pdf []byte, flags ...string) []byte {
	t.Helper()
	in := write(t, "in.pdf", pdf)
	if out, err := run(t, "qpdf", append(flags, in, in+".out")...); err != nil {
		t.Fatalf("qpdf %v: %v\n%s", flags, err, out)
	}
	data, err := os.ReadFile(in + ".out")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func mustSign(t testing.TB, pdf []byte, o Options) []byte {
	t.Helper()
	out, err := Sign(pdf, o)
	if err != nil {
		t.Fatalf("Sign: %v", err)
	}
	return out
}

func mustVerify(t testing.TB, pdf []byte) []Signature {
	t.Helper()
	sigs, err := Verify(pdf, roots())
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	return sigs
}

// amend appends an update in which the given objects, by number, have new bodies: what an attacker or another program would do.
func amend(t testing.TB, pdf []byte, bodies map[int]string) []byte {
	t.Helper()
	doc, err := open(pdf)
	if err != nil {
		t.Fatal(err)
	}
	u := newUpdate(doc)
	for n, body := range bodies {
		u.next = max(u.next, n+1)
		u.begin(*types.NewIndirectRef(n, 0))
		u.out = append(u.out, body...)
		u.end()
	}
	out, err := u.finish()
	if err != nil {
		t.Fatal(err)
	}
	return out
}
