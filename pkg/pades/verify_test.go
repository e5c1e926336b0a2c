package pades

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

// signedForm is a signed file with a form, annotations and an empty field: 3 and 4 are the pages, 5 their content, 6 the font.
func signedForm(t testing.TB) []byte {
	t.Helper()
	pdf := letter(tableKind, "1.7", "/AcroForm 7 0 R/Metadata 12 0 R", "/Annots[8 0 R 9 0 R 10 0 R]", "",
		"<</Fields[8 0 R 9 0 R]/DA(/F1 0 Tf)>>", textField, emptyField, link, stream("unused"), stream("<x/>"))
	return mustSign(t, pdf, visible(options(0), 1, 300, 100, 460, 160))
}

func TestAlteredAfterSigning(t *testing.T) {
	signed := signedForm(t)
	doc, err := open(signed)
	if err != nil {
		t.Fatal(err)
	}
	source := func(n int) string { // an object's source, to change a part of it
		text, err := appendObject(nil, doc.resolve(*types.NewIndirectRef(n, 0)))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	edit := func(n int, old, with string) string {
		text := source(n)
		if !strings.Contains(text, old) {
			t.Fatalf("object %d has no %q: %s", n, old, text)
		}
		return strings.Replace(text, old, with, 1)
	}
	own := doc.signed()[0]
	field, look := own.number(), doc.dict(own.dict["AP"])["N"].(types.IndirectRef).ObjectNumber.Value()
	extra := *doc.ctx.Size
	ref := fmt.Sprintf("%d 0 R", extra)
	_ = ref

	for name, tt := range map[string]struct {
		bodies map[int]string
		want   string
	}{
		"content replaced":            {map[int]string{5: stream("BT (900) Tj ET")}, "page 1: content"},
		"content swapped by the page": {map[int]string{4: edit(4, "/Contents 5 0 R", "/Contents 11 0 R")}, "page 2: content"},
		"content added":               {map[int]string{4: edit(4, "/Contents 5 0 R", "/Contents [5 0 R 11 0 R]")}, "page 2: content"},
		"font":                        {map[int]string{6: strings.Replace(helvetica, "Helvetica", "Symbol", 1)}, "page 1: fonts, images or other resources"},
		"crop":                        {map[int]string{4: edit(4, "/Type /Page", "/Type /Page/CropBox[0 0 10 10]")}, "page 2: size or rotation"},
		"inherited size":              {map[int]string{2: edit(2, "842", "400")}, "page 1: size or rotation"},
		"page removed":                {map[int]string{2: edit(2, "3 0 R 4 0 R", "3 0 R")}, "number of pages"},
		"pages swapped":               {map[int]string{2: edit(2, "3 0 R 4 0 R", "4 0 R 3 0 R")}, "page 1: another page in its place"},
		"page action":                 {map[int]string{4: edit(4, "/Type /Page", "/Type /Page/AA<</O<</S/JavaScript/JS(1)>>>>")}, "page 2: properties"},
		"open action":                 {map[int]string{1: edit(1, "/Type /Catalog", "/Type /Catalog/OpenAction[4 0 R/Fit]")}, "catalog: OpenAction"},
		"metadata":                    {map[int]string{12: stream("<y/>")}, "catalog: Metadata"},
		"a layer":                     {map[int]string{1: edit(1, "/Type /Catalog", "/Type /Catalog/OCProperties<</OCGs[]>>")}, "catalog: OCProperties"},
		"a secret in a key":           {map[int]string{1: edit(1, "/Type /Catalog", "/Type /Catalog/Secret 1")}, "catalog: another entry"},
		"permissions":                 {map[int]string{1: edit(1, "/Type /Catalog", "/Type /Catalog/Perms<</DocMDP 11 0 R>>")}, "catalog: Perms"},
		"field value":                 {map[int]string{8: edit(8, "/V (100)", "/V (900)")}, "field 1: value"},
		"field look":                  {map[int]string{8: edit(8, "/F1 12 Tf", "/F1 99 Tf")}, "field 1: look or properties"},
		"field removed":               {map[int]string{7: edit(7, "8 0 R ", "")}, "number of form fields"},
		"form default":                {map[int]string{7: edit(7, "/F1 0 Tf", "/F2 0 Tf")}, "form: properties"},
		"link target":                 {map[int]string{10: edit(10, "example.com", "example.org")}, "page 1: annotations"},
		"annotation removed":          {map[int]string{3: edit(3, " 10 0 R", "")}, "page 1: annotations"},
		"annotation added":            {map[int]string{4: edit(4, "/Type /Page", "/Type /Page/Annots[10 0 R]")}, "page 2: annotations"},
		"direct annotation added":     {map[int]string{4: edit(4, "/Type /Page", "/Type /Page/Annots["+link+"]")}, "page 2: annotations"},
		"signature moved":             {map[int]string{field: edit(field, "/Rect [300", "/Rect [200")}, "signature field 2: changed after it was signed"},
		"signature's look":            {map[int]string{look: stream("q Q")}, "signature field 2: changed after it was signed"},
		"signature hidden":            {map[int]string{3: edit(3, fmt.Sprintf(" %d 0 R", field), "")}, "page 1: annotations"},
		"signature copied to page 2":  {map[int]string{4: edit(4, "/Type /Page", fmt.Sprintf("/Type /Page/Annots[%d 0 R]", field))}, "page 2: annotations"},
		"empty field moved":           {map[int]string{9: edit(9, "272", "299")}, "signature field 1: moved or changed"},
		"empty field removed":         {map[int]string{7: edit(7, "9 0 R ", "")}, "a signature field was removed"},
		"empty field gets a picture":  {map[int]string{9: edit(9, "/F 4", fmt.Sprintf("/F 4/AP<</N %d 0 R>>", look))}, "signature field 1: a picture without a signature"},
		"unsigned picture of a field": {map[int]string{
			7: edit(7, "9 0 R ", "9 0 R "+ref+" "), 4: edit(4, "/Type /Page", "/Type /Page/Annots["+ref+"]"),
			extra: fmt.Sprintf("<</Type/Annot/Subtype/Widget/FT/Sig/T(X)/Rect[0 0 595 842]/AP<</N %d 0 R>>>>", look),
		}, "signature field 2: a picture without a signature"},
	} {
		t.Run(name, func(t *testing.T) {
			sigs := mustVerify(t, amend(t, signed, tt.bodies))
			if len(sigs) != 1 {
				t.Fatalf("%d signatures", len(sigs))
			}
			s := sigs[0]
			if !s.Intact || !s.Trusted { // the signed bytes are untouched: only the comparison tells
				t.Fatalf("intact %v, trusted %v: %v", s.Intact, s.Trusted, s.Problems)
			}
			if !s.Altered() || s.Valid() || s.CoversWholeFile || !slices.Contains(s.Changes, Change{What: tt.want}) {
				t.Errorf("changes %+v, want %q", s.Changes, tt.want)
			}
		})
	}
}

func TestHarmlessAfterSigning(t *testing.T) {
	signed := signedForm(t)
	doc, err := open(signed)
	if err != nil {
		t.Fatal(err)
	}
	root, err := appendObject(nil, doc.root)
	if err != nil {
		t.Fatal(err)
	}
	dss := strings.Replace(string(root), "/Type /Catalog", "/Type /Catalog/DSS<</Certs[11 0 R]>>", 1)
	for name, tt := range map[string]struct {
		pdf  []byte
		want []Change
	}{
		"nothing":                     {amend(t, signed, nil), nil},
		"same again":                  {amend(t, signed, map[int]string{1: string(root)}), nil},
		"validation data":             {amend(t, signed, map[int]string{1: dss}), []Change{{evidenceAdded, true}}},
		"signature in an empty field": {mustSign(t, signed, visible(named("Approve"), 1, 0, 0, 10, 10)), []Change{{signatureAdded, true}}},
		"invisible signature":         {mustSign(t, signed, options(1)), []Change{{signatureAdded, true}}},
		"visible signature":           {mustSign(t, signed, visible(options(1), 2, 10, 10, 90, 90)), []Change{{visibleAdded, true}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustVerify(t, tt.pdf)[0]
			if !s.Valid() || s.CoversWholeFile || !slices.Equal(s.Changes, tt.want) {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestSignatureOverAnother(t *testing.T) {
	signed := signedForm(t)
	over := visible(options(1), 1, 310, 110, 400, 150)
	if _, err := Sign(signed, over); !errors.Is(err, ErrOptions) {
		t.Errorf("Sign draws over an earlier signature: %v", err)
	}
	over.Appearance.Page = 2
	elsewhere := mustSign(t, signed, over)
	doc, err := open(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	f := doc.signed()[1]
	text := func(o types.Dict) string {
		b, err := appendObject(nil, o)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	ref := fmt.Sprintf("%d 0 R", f.number())
	page1 := strings.Replace(text(doc.pages[0].dict), "/Annots [", "/Annots ["+ref+" ", 1)
	page2 := strings.Replace(text(doc.pages[1].dict), "/Annots ["+ref+"]", "", 1)
	sigs := mustVerify(t, amend(t, elsewhere, map[int]string{3: page1, 4: page2}))
	if !sigs[0].Intact || !slices.Contains(sigs[0].Changes, Change{What: "a new signature hides an earlier one"}) {
		t.Errorf("%+v", sigs[0])
	}
}

func TestNoChangesMeansNone(t *testing.T) {
	o := options(0)
	o.Certify = NoChanges
	certified := mustSign(t, letter(tableKind, "1.7", "", "", ""), o)
	// Sign refuses this, so the second signature is made by hand.
	doc, err := open(certified)
	if err != nil {
		t.Fatal(err)
	}
	u := newUpdate(doc)
	value := u.alloc()
	if err := u.placeField(options(1), value); err != nil {
		t.Fatal(err)
	}
	h := u.putSignature(value, options(1))
	out, err := u.finish()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.fill(out, func(d []byte) ([]byte, error) { return buildCMS(options(1).Signer, options(1).Chain, d) }); err != nil {
		t.Fatal(err)
	}
	sigs := mustVerify(t, out)
	if !sigs[0].Intact || sigs[0].Valid() || !sigs[1].Valid() {
		t.Errorf("%+v", sigs)
	}
}

func TestEveryFlippedByteIsSeen(t *testing.T) {
	signed := mustSign(t, letter(tableKind, "1.7", "", "", ""), options(0))
	doc, err := open(signed)
	if err != nil {
		t.Fatal(err)
	}
	r, contents, err := doc.byteRange(doc.dict(doc.signed()[0].value))
	if err != nil {
		t.Fatal(err)
	}
	padding := r[1] + 1 + 2*len(derOnly(contents))
	for i := 0; i < len(signed); i++ {
		if i > r[1]+1 && i < r[2]-1 && i%101 != 0 {
			continue // thousands of digits of one kind
		}
		bad := bytes.Clone(signed)
		bad[i] ^= 0x01
		if i > padding && i < r[2]-1 { // padding must stay zero
			bad[i] = '7'
		}
		if r[1] < i && i <= padding { // the signature value does not sign itself: TestCMSEveryFlippedBit
			continue
		}
		sigs, err := Verify(bad, roots())
		if err != nil {
			continue
		}
		for _, s := range sigs {
			if s.Valid() {
				t.Fatalf("byte %d of %d flipped (%q), still valid", i, len(signed), signed[max(0, i-20):min(len(signed), i+20)])
			}
		}
	}
}

func TestByteRangeGames(t *testing.T) {
	signed := mustSign(t, letter(tableKind, "1.7", "", "", ""), options(0))
	pattern := regexp.MustCompile(`/ByteRange\[0 (\d+) (\d+) (\d+)\] *`)
	m := pattern.FindSubmatchIndex(signed)
	number := func(i int) int {
		var n int
		fmt.Sscan(string(signed[m[2*i]:m[2*i+1]]), &n)
		return n
	}
	a, b, c := number(1), number(2), number(3)
	with := func(text string) []byte {
		out := bytes.Clone(signed)
		room := m[1] - m[0]
		copy(out[m[0]:m[1]], text+strings.Repeat(" ", room-len(text)))
		return out
	}
	for name, pdf := range map[string][]byte{
		"gap too wide":        with(fmt.Sprintf("/ByteRange[0 %d %d %d]", a-1, b, c)),
		"gap too wide behind": with(fmt.Sprintf("/ByteRange[0 %d %d %d]", a, b+1, c-1)),
		"gap too narrow":      with(fmt.Sprintf("/ByteRange[0 %d %d %d]", a+1, b, c)),
		"late start":          with(fmt.Sprintf("/ByteRange[9 %d %d %d]", a-9, b, c)),
		"past the end":        with(fmt.Sprintf("/ByteRange[0 %d %d %d]", a, b, c+1)),
		"short of the end":    with(fmt.Sprintf("/ByteRange[0 %d %d %d]", a, b, c-1)),
		"negative":            with(fmt.Sprintf("/ByteRange[0 %d %d -1]", a, b)),
		"backwards":           with(fmt.Sprintf("/ByteRange[0 %d %d %d]", b, a, c)),
		"two numbers":         with(fmt.Sprintf("/ByteRange[0 %d]", a)),
		"six numbers":         with(fmt.Sprintf("/ByteRange[0 %d %d %d 9 1]", a, b, 9)),
		"no numbers":          with("/ByteRange[/A /B /C /D]"),
		"none":                with("/Nothing[0]"),
		"a name in the gap":   bytes.Replace(signed, []byte("00>>>"), []byte("/X>>>"), 1),
		"space in the gap":    bytes.Replace(signed, []byte("0000>>>"), []byte("0 00>>>"), 1),
		"another key's value": bytes.Replace(signed, []byte("/Contents<"), []byte("/Contentz<"), 1),
	} {
		t.Run(name, func(t *testing.T) {
			if bytes.Equal(pdf, signed) {
				t.Fatal("nothing changed")
			}
			sigs, err := Verify(pdf, roots())
			if err != nil {
				return
			}
			for _, s := range sigs {
				if s.Intact {
					t.Errorf("intact: %+v", s)
				}
			}
		})
	}
}

// The signature stays in its revision; the newest revision tells another story about it.
func TestSignatureMovedBetweenRevisions(t *testing.T) {
	signed := mustSign(t, letter(tableKind, "1.7", "", "", ""), options(0))
	doc, err := open(signed)
	if err != nil {
		t.Fatal(err)
	}
	f := doc.signed()[0]
	form := doc.root["AcroForm"].(types.IndirectRef).ObjectNumber.Value()
	value := f.dict["V"].(types.IndirectRef).ObjectNumber.Value()
	text, err := appendObject(nil, f.dict)
	if err != nil {
		t.Fatal(err)
	}
	twin := strings.Replace(string(text), "/T <", "/T (Twin)/X <", 1)
	next := *doc.ctx.Size
	forged, err := appendObject(nil, doc.dict(f.value))
	if err != nil {
		t.Fatal(err)
	}
	for name, bodies := range map[string]map[int]string{
		"two fields share it":  {next: twin, form: fmt.Sprintf("<</SigFlags 3/Fields[%d 0 R %d 0 R]>>", f.number(), next)},
		"another field has it": {next: twin, form: fmt.Sprintf("<</SigFlags 3/Fields[%d 0 R]>>", next)},
		"a changed reason":     {value: strings.Replace(string(forged), "/Reason <FEFF0049", "/Reason <FEFF0058", 1)},
		"field's name changed": {f.number(): twin},
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range mustVerify(t, amend(t, signed, bodies)) {
				if s.Valid() {
					t.Errorf("valid: %+v", s)
				}
			}
		})
	}
}

func TestTrust(t *testing.T) {
	out := mustSign(t, letter(tableKind, "1.7", "", "", ""), options(0))
	stranger, err := NewAuthority(Subject{"Countersign Test CA", "Example"}, years, noon.AddDate(-1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	for name, pool := range map[string]bool{"no roots": true, "another authority of that name": false} {
		t.Run(name, func(t *testing.T) {
			r := stranger.Roots()
			if pool {
				r = nil
			}
			sigs, err := Verify(out, r)
			if err != nil {
				t.Fatal(err)
			}
			if s := sigs[0]; !s.Intact || s.Trusted || s.Valid() || len(s.Problems) != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
	if sigs, err := Verify(letter(tableKind, "1.7", "", "", ""), roots()); err != nil || len(sigs) != 0 {
		t.Errorf("unsigned: %v, %v", sigs, err)
	}
}

func TestErrorsTellNothingOfTheDocument(t *testing.T) {
	pdf := bytes.Replace(letter(tableKind, "1.7", "", "", ""), []byte("/Type/Catalog"), []byte("/Secret(Ada) "), 1)
	pdf = bytes.Replace(pdf, []byte("/Pages 2 0 R"), []byte("/Secret 2 0 R"), 1)
	_, err := Verify(pdf, roots())
	if !errors.Is(err, ErrUnclean) || strings.Contains(err.Error(), "Secret") || strings.Contains(err.Error(), "Ada") {
		t.Errorf("error %v", err)
	}
}

func TestLongChainsOfReferences(t *testing.T) {
	const items = 2000
	more := []string{fmt.Sprintf("<</Type/Outlines/First 8 0 R/Last %d 0 R/Count %d>>", 7+items, items)}
	for i := range items {
		next := ""
		if i+1 < items {
			next = fmt.Sprintf("/Next %d 0 R", 9+i)
		}
		more = append(more, fmt.Sprintf("<</Title(%d)/Parent 7 0 R/Dest[3 0 R/Fit]%s>>", i, next))
	}
	out := mustSign(t, letter(tableKind, "1.7", "/Outlines 7 0 R", "", "", more...), options(0))
	out = mustSign(t, out, options(1))
	if s := mustVerify(t, out)[0]; !s.Valid() {
		t.Errorf("%+v", s)
	}
	last := 7 + items
	bad := amend(t, out, map[int]string{last: "<</Title(x)/Parent 7 0 R/Dest[3 0 R/Fit]>>"})
	if s := mustVerify(t, bad)[0]; !s.Altered() {
		t.Error("a change at the end of a long chain is not seen")
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(letter(tableKind, "1.7", "", "", ""))
	f.Add(letter(streamKind, "2.0", "", "", ""))
	signed := mustSign(f, letter(tableKind, "1.7", "/AcroForm<</Fields[7 0 R]>>", "/Annots[7 0 R]", "", emptyField), named("Approve"))
	f.Add(signed)
	f.Add(mustSign(f, letter(streamKind, "1.7", "", "", ""), options(1)))
	pool := roots()
	known := [][]byte{signed}
	f.Fuzz(func(t *testing.T, pdf []byte) {
		sigs, err := Verify(pdf, pool)
		if err != nil {
			return
		}
		for _, s := range sigs {
			// Only the holder of a key makes a valid signature over bytes that were never signed.
			if s.Valid() && s.Kind != DocumentTimeStamp && !slices.ContainsFunc(known, func(k []byte) bool { return bytes.HasPrefix(pdf, k[:len(k)/2]) }) &&
				!bytes.Contains(pdf, []byte(hex.EncodeToString(s.Certificate.RawTBSCertificate))) {
				t.Errorf("valid: %+v", s)
			}
		}
	})
}
