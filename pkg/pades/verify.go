package pades

import (
	"bytes"
	"crypto"
	_ "crypto/sha256" // the digests that signatures may name
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

// maxSignatures bounds the work of Verify: every signature's revision is read on its own.
const maxSignatures = 64

// Kind is what a signature is for.
type Kind int

// The kinds of signature.
const (
	ApprovalSignature Kind = iota
	CertificationSignature
	DocumentTimeStamp
)

// Signature is what Verify found out about one signature, oldest first. Accept one only if Valid says so and Later holds nothing that
// the reader minds.
type Signature struct {
	Field                  string // fully qualified name
	Kind                   Kind
	Permission             Permission // of a certification: what it lets happen later
	SubFilter              string
	Name, Reason, Location string
	Time                   time.Time // claimed by the signer (M); of a document time stamp: stated by its authority. UTC; zero where missing
	Certificate            *x509.Certificate
	Chain                  []*x509.Certificate // every certificate embedded beside it

	Intact          bool     // the signed bytes are unchanged and signed by Certificate
	Trusted         bool     // Certificate leads to one of the roots at Time; whether Time is true only a time stamp or a ledger can say
	CoversWholeFile bool     // nothing follows what is signed
	Changes         []Change // how the file differs from the revision that is signed; empty if CoversWholeFile
	Problems        []string // why it is not intact or not trusted, in fixed words

	covered int // bytes of the file up to the end of the signed revision
}

// Change is one difference between a signed revision and the file as it is now.
type Change struct {
	What     string // such as "page 1: content" or "field 2: value"; never text from the document
	Harmless bool   // a further signature, time stamp or validation data that the signature permits
}

// Altered reports whether the file shows something other than what was signed.
func (s Signature) Altered() bool {
	for _, c := range s.Changes {
		if !c.Harmless {
			return true
		}
	}
	return false
}

// Valid reports whether the signature holds in every respect that the file can prove: intact, trusted, and not altered afterwards.
func (s Signature) Valid() bool { return s.Intact && s.Trusted && !s.Altered() }

// Verify reports on every signature of pdf, oldest first; none is no error. An error means that the file cannot be judged at all:
// ErrUnclean, ErrEncrypted, ErrTooLarge. Without roots nothing is trusted.
//
// It does not look for revocations, and trusts certificates for any extended key usage.
func Verify(pdf []byte, roots *x509.CertPool) (out []Signature, err error) {
	defer rescue(&err)
	return verify(pdf, roots)
}

func verify(pdf []byte, roots *x509.CertPool) ([]Signature, error) {
	doc, err := open(pdf)
	if err != nil {
		return nil, err
	}
	fields := doc.signed()
	if len(fields) > maxSignatures {
		return nil, fmt.Errorf("%w: more than %d signatures", ErrTooLarge, maxSignatures)
	}
	out := make([]Signature, 0, len(fields))
	for _, f := range fields {
		s := doc.inspect(f, roots)
		if s.covered > 0 {
			s.CoversWholeFile = s.covered == len(pdf)
			if !s.CoversWholeFile {
				doc.compareRevision(f, &s)
			}
		}
		out = append(out, s)
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].covered < out[j].covered })
	crossCheck(out)
	return out, nil
}

// crossCheck finds what only shows between signatures: one range claimed twice, a certification that is not the first.
func crossCheck(sigs []Signature) {
	for i := range sigs {
		if i > 0 && sigs[i].covered > 0 && sigs[i].covered == sigs[i-1].covered {
			sigs[i].fail("two fields hold the same signature")
			sigs[i-1].fail("two fields hold the same signature")
		}
		if i > 0 && sigs[i].Kind == CertificationSignature {
			sigs[i].fail("a certification that is not the first signature")
		}
	}
}

// fail records why a signature is not intact.
func (s *Signature) fail(problem string) {
	s.Intact = false
	s.Problems = append(s.Problems, problem)
}

// inspect checks one signature by itself: the byte range, the CMS object, the certificate's chain.
func (d *document) inspect(f field, roots *x509.CertPool) Signature {
	sig := d.dict(f.value)
	s := Signature{
		Field: f.name, SubFilter: d.name(sig["SubFilter"]),
		Name: d.text(sig["Name"]), Reason: d.text(sig["Reason"]), Location: d.text(sig["Location"]), Time: parseDate(d.text(sig["M"])),
	}
	if p := d.permission(sig); p != Approval {
		s.Kind, s.Permission = CertificationSignature, p
	}
	if s.SubFilter == subFilterTSA {
		s.Kind = DocumentTimeStamp
	}
	r, contents, err := d.byteRange(sig)
	if err != nil {
		s.fail(err.Error())
		return s
	}
	s.covered = r[2] + r[3]
	cms, err := parseCMS(contents)
	if err != nil {
		s.fail(err.Error())
		return s
	}
	s.Certificate = cms.signer()
	for _, cert := range cms.certificates {
		if cert != s.Certificate {
			s.Chain = append(s.Chain, cert)
		}
	}
	if err := d.checkCMS(cms, &s, r); err != nil {
		s.fail(err.Error())
		return s
	}
	s.Intact = true
	if err := s.trust(roots); err != nil {
		s.Problems = append(s.Problems, err.Error())
	}
	return s
}

// checkCMS verifies the CMS object over the byte range, as its SubFilter wants it.
func (d *document) checkCMS(cms *signedData, s *Signature, r [4]int) error {
	digest := func(h crypto.Hash) []byte {
		hash := h.New()
		hash.Write(d.raw[:r[1]])
		hash.Write(d.raw[r[2] : r[2]+r[3]])
		return hash.Sum(nil)
	}
	switch s.SubFilter {
	case subFilterCAdES, subFilterPKCS7:
		if cms.content != nil || !cms.contentType.Equal(oidData) {
			return errCMSShape
		}
		return cms.verify(digest(cms.digest), s.SubFilter == subFilterCAdES)
	case subFilterTSA:
		at, err := cms.verifyTimeStamp(digest)
		s.Time = at
		return err
	}
	return errors.New("the signature is of a kind that is not accepted")
}

// trust follows the chain to one of the roots, at the time the signature claims.
func (s *Signature) trust(roots *x509.CertPool) error {
	switch {
	case roots == nil:
		return errors.New("no trusted roots were given")
	case s.Time.IsZero():
		return errors.New("the signature states no time")
	}
	inner := x509.NewCertPool()
	for _, cert := range s.Chain {
		inner.AddCert(cert)
	}
	_, err := s.Certificate.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: inner, CurrentTime: s.Time, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return errors.New("the certificate does not lead to a trusted root at the claimed time")
	}
	s.Trusted = true
	return nil
}

var errByteRange = errors.New("the byte range does not leave out the signature value and nothing else")

// byteRange reads the signed range, [0 a b c]: from the first byte, leaving out exactly the string of Contents, to the end of a revision.
// Everything else would be room to hide something in.
func (d *document) byteRange(sig types.Dict) (r [4]int, contents []byte, err error) {
	a := d.array(sig["ByteRange"])
	if len(a) != 4 {
		return r, nil, errByteRange
	}
	for i := range r {
		n, ok := d.integer(a[i])
		if !ok || n < 0 || n > len(d.raw) {
			return r, nil, errByteRange
		}
		r[i] = n
	}
	from, to := r[1], r[2]
	if r[0] != 0 || from < 1 || to < from+4 || r[3] < 1 || to+r[3] > len(d.raw) || d.raw[from] != '<' || d.raw[to-1] != '>' {
		return r, nil, errByteRange
	}
	gap := d.raw[from+1 : to-1]
	contents = make([]byte, hex.DecodedLen(len(gap)))
	if n, err := hex.Decode(contents, gap); err != nil || 2*n != len(gap) {
		return r, nil, errByteRange
	}
	if !bytes.HasSuffix(bytes.TrimRight(d.raw[:from], " \t\r\n\f\x00"), []byte("/Contents")) || !bytes.Equal(contents, d.bytes(sig["Contents"])) {
		return r, nil, errByteRange
	}
	return r, contents, nil
}

// compareRevision opens the revision that the signature in f covers and notes what the file as it is now shows differently.
func (d *document) compareRevision(f field, s *Signature) {
	old, err := open(d.raw[:s.covered])
	if err != nil {
		s.fail("the signed part of the file is not a clean PDF")
		return
	}
	then := old.find(f.name)
	if then == nil || !sameSignature(old, d, then.value, f.value) {
		s.fail("the signature does not belong to the revision it signs")
		return
	}
	s.Changes = compare(old, d)
	if !old.certifiedAgainstChanges() {
		return
	}
	for i := range s.Changes { // P 1 leaves room for time stamps and validation data alone
		if what := s.Changes[i].What; what == signatureAdded || what == visibleAdded {
			s.Changes[i].Harmless = false
		}
	}
}

func (d *document) certifiedAgainstChanges() bool {
	for _, f := range d.signed() {
		if d.permission(d.dict(f.value)) == NoChanges {
			return true
		}
	}
	return false
}
