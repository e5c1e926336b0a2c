package pades

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

func TestSignEveryShape(t *testing.T) {
	for name, pdf := range corpus() {
		for _, shown := range []bool{false, true} {
			label := map[bool]string{false: " invisible", true: " visible"}[shown]
			t.Run(name+label, func(t *testing.T) {
				o := options(0)
				if shown {
					o = visible(o, 1, 100, 100, 260, 160)
				}
				if strings.HasPrefix(name, "empty field") {
					o.FieldName = "Approve"
				}
				before := bytes.Clone(pdf)
				out := mustSign(t, pdf, o)
				if !bytes.Equal(pdf, before) || !bytes.HasPrefix(out, before) {
					t.Fatal("the source was touched")
				}
				sigs := mustVerify(t, out)
				if len(sigs) != 1 || !sigs[0].Valid() || !sigs[0].CoversWholeFile || len(sigs[0].Problems) != 0 {
					t.Fatalf("signatures: %+v", sigs)
				}
				s := sigs[0]
				if s.Name != "Ada Lovelace" || s.Location != "Zürich, 東京" || s.Reason != "I agree" || !s.Time.Equal(o.At) || s.SubFilter != "ETSI.CAdES.detached" {
					t.Errorf("stated: %+v", s)
				}
				wantField := o.FieldName
				if wantField == "" {
					wantField = "Signature1"
				}
				if s.Field != wantField || !s.Certificate.Equal(o.Chain[0]) || len(s.Chain) != 1 {
					t.Errorf("field %q, certificate of %q", s.Field, s.Certificate.Subject.CommonName)
				}
				checkForm(t, pdf, out)
			})
		}
	}
}

// checkForm looks at the bytes that were appended: same kind of section, lines of 20 bytes, the agreed flags.
func checkForm(t *testing.T, pdf, out []byte) {
	t.Helper()
	source, err := open(pdf)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := open(out)
	if err != nil {
		t.Fatal(err)
	}
	if doc.stream != source.stream {
		t.Error("the kind of cross-reference section changed")
	}
	added := string(out[len(pdf):])
	if !doc.stream {
		table := added[strings.LastIndex(added, "\nxref\n")+6 : strings.Index(added, "trailer")]
		for _, line := range strings.SplitAfter(table, "\n") {
			if len(line) > 8 && len(line) != 20 {
				t.Errorf("a line of %d bytes in the table: %q", len(line), line)
			}
		}
	}
	if strings.Contains(added, "NeedAppearances") || strings.Count(added, "/Contents") != 1+strings.Count(added, "/Contents 5 0 R") {
		t.Error("unexpected entries")
	}
	form := doc.dict(doc.root["AcroForm"])
	if flags, _ := doc.integer(form["SigFlags"]); flags != 3 {
		t.Errorf("SigFlags %d", flags)
	}
	w := doc.signed()[0].widgets[0]
	if flags, _ := doc.integer(w.dict["F"]); flags != 132 {
		t.Errorf("F %d", flags)
	}
	if doc.pageOf(w) != 0 {
		t.Error("the widget does not stand on page 1")
	}
	if old := source.ctx.ID; len(old) == 2 && !bytes.Equal(source.bytes(old[0]), doc.bytes(doc.ctx.ID[0])) {
		t.Error("the first half of ID changed")
	}
	if source.ctx.Info != nil && !strings.Contains(added, fmt.Sprintf("/Info %d 0 R", source.ctx.Info.ObjectNumber.Value())) {
		t.Error("Info was lost")
	}
}

func TestSignRSA(t *testing.T) {
	o := options(0)
	o.Signer, o.Chain = rsaSigner()
	out := mustSign(t, letter(tableKind, "1.7", "", "", ""), o)
	if s := mustVerify(t, out)[0]; !s.Valid() {
		t.Errorf("%+v", s)
	}
}

func TestThreeSignersInARow(t *testing.T) {
	for _, kind := range []pdfKind{tableKind, streamKind} {
		out := letter(kind, "1.7", "", "", "")
		var ends []int
		for i := range 3 {
			o := visible(options(i), 2, 72, float64(500-100*i), 232, float64(560-100*i))
			out = mustSign(t, out, o)
			ends = append(ends, len(out))
		}
		sigs := mustVerify(t, out)
		if len(sigs) != 3 {
			t.Fatalf("%d signatures", len(sigs))
		}
		for i, s := range sigs {
			if !s.Valid() || s.CoversWholeFile != (i == 2) || s.covered != ends[i] || len(s.Changes) != 2-i {
				t.Errorf("signature %d: %+v", i, s)
			}
			if want := options(i).Name; s.Certificate.Subject.CommonName != want {
				t.Errorf("signature %d by %s, want %s", i, s.Certificate.Subject.CommonName, want)
			}
		}
	}
}

func TestCertification(t *testing.T) {
	pdf := letter(tableKind, "1.7", "", "", "")
	certify := func(p Permission) []byte {
		o := options(0)
		o.Certify = p
		return mustSign(t, pdf, o)
	}
	approved := mustSign(t, certify(FillAndSign), options(1))
	sigs := mustVerify(t, approved)
	if len(sigs) != 2 || sigs[0].Kind != CertificationSignature || sigs[0].Permission != FillAndSign || !sigs[0].Valid() || !sigs[1].Valid() {
		t.Errorf("certified, then approved: %+v", sigs)
	}
	if _, err := Sign(certify(NoChanges), options(1)); !errors.Is(err, ErrForbidden) {
		t.Errorf("signing what is certified against changes: %v", err)
	}
	late := options(1)
	late.Certify = FillAndSign
	if _, err := Sign(approved, late); !errors.Is(err, ErrForbidden) {
		t.Errorf("a certification that comes late: %v", err)
	}
}

func TestFieldRules(t *testing.T) {
	field := func(extra string) []byte {
		return letter(tableKind, "1.7", "/AcroForm<</Fields[7 0 R]>>", "/Annots[7 0 R]", "", strings.Replace(emptyField, ">>", extra+">>", 1))
	}
	for name, tt := range map[string]struct {
		pdf   []byte
		field string
		want  error
	}{
		"empty":                       {field(""), "Approve", nil},
		"new beside it":               {field(""), "Witness", nil},
		"already signed":              {mustSign(t, field(""), named("Approve")), "Approve", ErrFieldTaken},
		"a text field":                {corpus()["form"], "Total", ErrFieldTaken},
		"a full stop in a new name":   {field(""), "a.b", ErrOptions},
		"demands a kind of signer":    {field("/SV<</Ff 1/Filter/Other>>"), "Approve", ErrFieldRules},
		"wishes without demanding":    {field("/SV<</Reasons[(a)]>>"), "Approve", nil},
		"locks fields":                {field("/Lock<</Type/SigFieldLock/Action/Include/Fields[(Total)]>>"), "Approve", nil},
		"locks the whole document":    {field("/Lock<</Type/SigFieldLock/Action/All/P 1>>"), "Approve", ErrFieldRules},
		"name of a group of fields":   {letter(tableKind, "1.7", "/AcroForm<</Fields[7 0 R]>>", "", "", "<</T(g)/Kids[8 0 R]>>", "<</T(s)/FT/Sig/Parent 7 0 R>>"), "g", ErrFieldTaken},
		"a field inside a group":      {letter(tableKind, "1.7", "/AcroForm<</Fields[7 0 R]>>", "", "", "<</T(g)/FT/Sig/Kids[8 0 R]>>", "<</T(s)/Parent 7 0 R>>"), "g.s", nil},
		"already signed by free name": {mustSign(t, field(""), named("Signature1")), "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := Sign(tt.pdf, named(tt.field))
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if tt.want != nil {
				return
			}
			for _, s := range mustVerify(t, out) {
				if !s.Valid() {
					t.Errorf("%+v", s)
				}
			}
		})
	}
	out := mustSign(t, field("/Lock<</Type/SigFieldLock/Action/Include/Fields[(Total)]>>"), named("Approve"))
	if !bytes.Contains(out, []byte("/TransformMethod /FieldMDP")) {
		t.Error("the lock of the field is not in the signature")
	}
}

func named(field string) Options {
	o := options(0)
	o.FieldName = field
	return o
}

func TestRefusesUncleanFiles(t *testing.T) {
	clean := letter(tableKind, "1.7", "", "", "")
	edit := func(old, with string) []byte { return bytes.Replace(clean, []byte(old), []byte(with), 1) }
	for name, tt := range map[string]struct {
		pdf  []byte
		want error
	}{
		"empty":                {nil, ErrUnclean},
		"no PDF":               {[]byte("<html></html>"), ErrUnclean},
		"junk before":          {append([]byte("junk\n"), clean...), ErrUnclean},
		"junk after":           {append(bytes.Clone(clean), "junk"...), ErrUnclean},
		"cut":                  {clean[:len(clean)-20], ErrUnclean},
		"no EOF":               {bytes.TrimSuffix(clean, []byte("%%EOF\n")), ErrUnclean},
		"startxref off by one": {regexp.MustCompile(`startxref\n\d+`).ReplaceAll(clean, []byte("startxref\n11")), ErrUnclean},
		"shifted offsets":      {edit("/Type/Catalog", "  /Type/Catalog"), ErrUnclean},
		"no catalog":           {edit("/Root 1 0 R", "/Root 9 0 R"), ErrUnclean},
		"page tree loop":       {edit("/Kids[3 0 R 4 0 R]", "/Kids[3 0 R 2 0 R]"), ErrUnclean},
		"no pages":             {edit("/Kids[3 0 R 4 0 R]", "/Kids[             ]"[:18]), ErrUnclean},
		"encrypted": {letter(tableKind, "1.7", "", "", "/Encrypt 7 0 R/ID[<00><00>]",
			"<</Filter/Standard/V 1/R 2/O<"+strings.Repeat("00", 32)+">/U<"+strings.Repeat("00", 32)+">/P -4>>"), ErrEncrypted},
		"too large": {make([]byte, MaxSize+1), ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Sign(tt.pdf, options(0)); !errors.Is(err, tt.want) {
				t.Errorf("Sign: %v, want %v", err, tt.want)
			}
			if _, err := Verify(tt.pdf, roots()); !errors.Is(err, tt.want) {
				t.Errorf("Verify: %v, want %v", err, tt.want)
			}
		})
	}
}

// brokenSigner does its work badly in one way or another.
type brokenSigner struct {
	crypto.Signer
	sign func(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

func (s brokenSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.sign(rand, digest, opts)
}

func TestOptionsAreChecked(t *testing.T) {
	pdf := letter(tableKind, "1.7", "", "", "")
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	for name, change := range map[string]func(*Options){
		"no signer":            func(o *Options) { o.Signer = nil },
		"no chain":             func(o *Options) { o.Chain = nil },
		"a hole in the chain":  func(o *Options) { o.Chain[1] = nil },
		"Ed25519":              func(o *Options) { o.Signer = edKey },
		"P-384":                func(o *Options) { o.Signer = p384 },
		"another's key":        func(o *Options) { o.Signer = people().signers[1].Signer() },
		"another's issuer":     func(o *Options) { o.Chain[1] = people().signers[1].Certificate() },
		"an authority signs":   func(o *Options) { o.Signer, o.Chain = people().ca.Signer(), people().ca.Chain() },
		"no time":              func(o *Options) { o.At = time.Time{} },
		"before the validity":  func(o *Options) { o.At = noon.AddDate(-10, 0, 0) },
		"after the validity":   func(o *Options) { o.At = noon.AddDate(20, 0, 0) },
		"endless text":         func(o *Options) { o.Reason = strings.Repeat("x", 1025) },
		"unknown permission":   func(o *Options) { o.Certify = 4 },
		"reserve out of range": func(o *Options) { o.Reserve = 1 << 20 },
		"no such page":         func(o *Options) { *o = visible(*o, 3, 0, 0, 100, 100) },
		"outside the page":     func(o *Options) { *o = visible(*o, 1, 500, 0, 600, 100) },
		"no area":              func(o *Options) { *o = visible(*o, 1, 10, 10, 10, 100) },
		"no picture":           func(o *Options) { *o = visible(*o, 1, 0, 0, 100, 100); o.Appearance.PNG = []byte("GIF89a") },
	} {
		t.Run(name, func(t *testing.T) {
			o := options(0)
			change(&o)
			if _, err := Sign(pdf, o); !errors.Is(err, ErrOptions) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestReserve(t *testing.T) {
	pdf := letter(tableKind, "1.7", "", "", "")
	o := options(0)
	o.Reserve = 256
	_, err := Sign(pdf, o)
	var long *TooLongError
	if !errors.As(err, &long) || long.Reserve != 256 || long.Need <= 256 {
		t.Fatalf("error %v", err)
	}
	o.Reserve = long.Need + 16 // ECDSA signatures differ by a few bytes
	if s := mustVerify(t, mustSign(t, pdf, o)); !s[0].Valid() {
		t.Errorf("%+v", s)
	}
}

func TestBrokenSigner(t *testing.T) {
	pdf := letter(tableKind, "1.7", "", "", "")
	down := errors.New("key service down")
	for name, tt := range map[string]struct {
		sign func(io.Reader, []byte, crypto.SignerOpts) ([]byte, error)
		want error
	}{
		"fails":     {func(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, down }, down},
		"lies":      {func(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return []byte("signed"), nil }, ErrSelfCheck},
		"wrong key": {people().signers[1].Signer().Sign, ErrSelfCheck},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(0)
			o.Signer = brokenSigner{o.Signer, tt.sign}
			out, err := Sign(pdf, o)
			if !errors.Is(err, tt.want) || out != nil {
				t.Errorf("error %v, %d bytes", err, len(out))
			}
		})
	}
}

func TestObjectsSurviveTheRoundTrip(t *testing.T) {
	source := "<</A [1 -2.5 .000012 true null /N#20m (a\\(b\\)\\\\ \\055) <FEFF00E4> 7 0 R <</B()>>]>>"
	pdf := letter(tableKind, "1.7", "/Private "+source, "", "")
	doc, err := open(pdf)
	if err != nil {
		t.Fatal(err)
	}
	text, err := appendObject(nil, doc.root["Private"])
	if err != nil {
		t.Fatal(err)
	}
	again, err := open(letter(tableKind, "1.7", "/Private "+string(text), "", ""))
	if err != nil {
		t.Fatal(err)
	}
	if !newComparison(doc, again).equal(doc.root["Private"], again.root["Private"]) {
		t.Errorf("%s became %s", source, text)
	}
	if _, err := appendObject(nil, types.StreamDict{}); err == nil {
		t.Error("a stream inside an object was written")
	}
}
