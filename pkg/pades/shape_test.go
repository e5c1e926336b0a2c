package pades

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

// TestByteRangeShape tries ranges that a dishonest signer could sign truly: only their shape gives them away.
func TestByteRangeShape(t *testing.T) {
	for name, tt := range map[string]struct {
		dict  string // the gap is the string between the stars
		start int    // of the range
		ok    bool
	}{
		"as it should be":         {"<</Contents*<AB00>*/X 1", 0, true},
		"with a space":            {"<</Contents *<ab00>*", 0, true},
		"not from the first byte": {"<</Contents*<AB00>*", 9, false},
		"another entry's string":  {"<</Contents<AB00>/Hidden*<AB00>*", 0, false},
		"an entry given twice":    {"<</Contents*<AB00>*/Contents<CD00>", 0, false},
		"more than the string":    {"<</Contents*<AB00>/X<AB00>*", 0, false},
		"no hexadecimal string":   {"<</Contents*(AB00)*", 0, false},
		"an odd digit":            {"<</Contents*<AB0>*", 0, false},
		"nothing":                 {"<</Contents*<>*", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			pdf := letter(tableKind, "1.7", "", "", "", strings.ReplaceAll(tt.dict, "*", "")+"/ByteRange[00000 00000 00000 00001]>>")
			at := bytes.Index(pdf, []byte("7 0 obj\n")) + len("7 0 obj\n")
			from := at + strings.Index(tt.dict, "*")
			to := at + strings.LastIndex(tt.dict, "*") - 1
			copy(pdf[bytes.Index(pdf, []byte("[00000")):], fmt.Sprintf("[%05d %05d %05d %05d]", tt.start, from, to, len(pdf)-to))
			doc, err := open(pdf)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := doc.byteRange(doc.dict(*types.NewIndirectRef(7, 0))); (err == nil) != tt.ok {
				t.Errorf("error %v", err)
			}
		})
	}
}

// A signature lent to a field that was empty in the revision which that signature covers.
func TestSignatureLentToAnotherField(t *testing.T) {
	signed := signedForm(t)
	doc, err := open(signed)
	if err != nil {
		t.Fatal(err)
	}
	value := doc.signed()[0].dict["V"].(types.IndirectRef)
	lent := strings.Replace(emptyField, ">>", fmt.Sprintf("/V %d 0 R>>", value.ObjectNumber.Value()), 1)
	sigs := mustVerify(t, amend(t, signed, map[int]string{9: lent, 7: "<</SigFlags 3/Fields[8 0 R 9 0 R]/DA(/F1 0 Tf)>>"}))
	if len(sigs) != 1 || sigs[0].Field != "Approve" || sigs[0].Intact {
		t.Errorf("%+v", sigs)
	}
}

// The certification counts wherever it is found: in Perms, or in the signature alone.
func TestCertificationWithoutPerms(t *testing.T) {
	o := options(0)
	o.Certify = NoChanges
	certified := mustSign(t, letter(tableKind, "1.7", "", "", ""), o)
	doc, err := open(certified)
	if err != nil {
		t.Fatal(err)
	}
	root := copyOf(doc.root)
	delete(root, "Perms")
	text, err := appendObject(nil, root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(amend(t, certified, map[int]string{1: string(text)}), options(1)); !errors.Is(err, ErrForbidden) {
		t.Errorf("error %v", err)
	}
}

func TestSelfCheck(t *testing.T) {
	pdf := letter(tableKind, "1.7", "", "", "")
	src, err := open(pdf)
	if err != nil {
		t.Fatal(err)
	}
	good := mustSign(t, pdf, options(0))
	for name, tt := range map[string]struct {
		out []byte
		ok  bool
	}{
		"good":                 {good, true},
		"another source":       {mustSign(t, letter(tableKind, "1.6", "", "", ""), options(0)), false},
		"changed on the way":   {mustSign(t, amend(t, pdf, map[int]string{5: stream("BT (900) Tj ET")}), options(0)), false},
		"not signed":           {amend(t, pdf, nil), false},
		"signed by another":    {mustSign(t, pdf, options(1)), false},
		"something behind":     {amend(t, good, nil), false},
		"not the whole source": {pdf[:100], false},
	} {
		if err := selfCheck(src, tt.out, options(0)); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNoTimeNoTrust(t *testing.T) {
	s := Signature{Certificate: people().signers[0].Certificate()}
	if err := s.trust(roots()); err == nil || s.Trusted { // the verifier has no clock to fall back on
		t.Error("trusted without a time")
	}
	s.Time = noon.AddDate(20, 0, 0)
	if err := s.trust(roots()); err == nil || s.Trusted {
		t.Error("trusted after the certificate's end")
	}
}
