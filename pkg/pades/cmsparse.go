package pades

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// What can be wrong with a signature. The words are fixed: nothing of the signed file is repeated.
var (
	errCMSShape    = errors.New("the signature is not a CMS SignedData in DER with one signer")
	errCMSAlgo     = errors.New("the signature uses an algorithm that is not accepted")
	errCMSCert     = errors.New("the signer's certificate is missing or not usable")
	errCMSAttrs    = errors.New("the signed attributes are missing, doubled or contradict each other")
	errCMSDigest   = errors.New("the signed bytes were changed: the digest does not match")
	errCMSSign     = errors.New("the signature value does not match the certificate's key")
	errCMSCertID   = errors.New("the signed certificate reference does not match the certificate")
	errCMSTrailing = errors.New("something other than padding follows the signature")
)

const maxCertificates = 32

// signedData is a CMS SignedData with exactly one signer.
type signedData struct {
	contentType  asn1.ObjectIdentifier
	content      []byte // nil: detached
	certificates []*x509.Certificate

	issuer     []byte // DER of the issuer's name; nil: the signer is named by subjectKey
	serial     *big.Int
	subjectKey []byte

	digestID   asn1.ObjectIdentifier
	digest     crypto.Hash
	attributes []byte // content of the SET; nil: none
	algorithm  asn1.ObjectIdentifier
	signature  []byte
}

// parseCMS reads der, which may be padded with zero bytes. It takes DER alone: no indefinite lengths.
func parseCMS(der []byte) (*signedData, error) {
	input := cryptobyte.String(der)
	var info, explicit, sd cryptobyte.String
	var id asn1.ObjectIdentifier
	if !input.ReadASN1(&info, casn1.SEQUENCE) || !info.ReadASN1ObjectIdentifier(&id) || !id.Equal(oidSignedData) ||
		!info.ReadASN1(&explicit, tagContext0) || !info.Empty() || !explicit.ReadASN1(&sd, casn1.SEQUENCE) || !explicit.Empty() {
		return nil, errCMSShape
	}
	if len(bytes.TrimRight(input, "\x00")) != 0 {
		return nil, errCMSTrailing
	}
	s := &signedData{}
	var version int
	var digests, signers cryptobyte.String
	if !sd.ReadASN1Integer(&version) || version < 1 || version > 5 || !sd.ReadASN1(&digests, casn1.SET) || !s.readContent(&sd) {
		return nil, errCMSShape
	}
	if err := s.readCertificates(&sd); err != nil {
		return nil, err
	}
	if !sd.SkipOptionalASN1(tagContext1) || !sd.ReadASN1(&signers, casn1.SET) || !sd.Empty() { // [1]: revocation lists
		return nil, errCMSShape
	}
	if err := s.readSigner(&signers); err != nil {
		return nil, err
	}
	if id, ok := readAlgorithm(&digests); !ok || !digests.Empty() || !signers.Empty() || !id.Equal(s.digestID) {
		return nil, errCMSShape
	}
	return s, nil
}

func (s *signedData) readContent(sd *cryptobyte.String) bool {
	var encap, explicit, content cryptobyte.String
	var present bool
	if !sd.ReadASN1(&encap, casn1.SEQUENCE) || !encap.ReadASN1ObjectIdentifier(&s.contentType) ||
		!encap.ReadOptionalASN1(&explicit, &present, tagContext0) || !encap.Empty() {
		return false
	}
	if !present {
		return true
	}
	if !explicit.ReadASN1(&content, casn1.OCTET_STRING) || !explicit.Empty() {
		return false
	}
	s.content = append([]byte{}, content...)
	return true
}

func (s *signedData) readCertificates(sd *cryptobyte.String) error {
	var set cryptobyte.String
	var present bool
	if !sd.ReadOptionalASN1(&set, &present, tagContext0) {
		return errCMSShape
	}
	for !set.Empty() {
		var raw cryptobyte.String
		var tag casn1.Tag
		if !set.ReadAnyASN1Element(&raw, &tag) || len(s.certificates) >= maxCertificates {
			return errCMSShape
		}
		if tag != casn1.SEQUENCE { // attribute certificates and the like
			continue
		}
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			return errCMSCert
		}
		s.certificates = append(s.certificates, cert)
	}
	return nil
}

func (s *signedData) readSigner(signers *cryptobyte.String) error {
	var si, sid, set, signature cryptobyte.String
	var version int
	var present bool
	if !signers.ReadASN1(&si, casn1.SEQUENCE) || !si.ReadASN1Integer(&version) {
		return errCMSShape
	}
	switch {
	case version == 1 && si.ReadASN1(&sid, casn1.SEQUENCE):
		var issuer cryptobyte.String
		s.serial = new(big.Int)
		if !sid.ReadASN1Element(&issuer, casn1.SEQUENCE) || !sid.ReadASN1Integer(s.serial) || !sid.Empty() {
			return errCMSShape
		}
		s.issuer = issuer
	case version == 3 && si.ReadASN1(&sid, casn1.Tag(0x80)):
		s.subjectKey = sid
	default:
		return errCMSShape
	}
	digest, ok := readAlgorithm(&si)
	if !ok || !si.ReadOptionalASN1(&set, &present, tagContext0) {
		return errCMSShape
	}
	if present {
		s.attributes = set
	}
	if s.algorithm, ok = readAlgorithm(&si); !ok || !si.ReadASN1(&signature, casn1.OCTET_STRING) ||
		!si.SkipOptionalASN1(tagContext1) || !si.Empty() { // [1]: unsigned attributes
		return errCMSShape
	}
	s.signature, s.digestID = signature, digest
	if s.digest, ok = hashOf(digest); !ok {
		return errCMSAlgo
	}
	return nil
}

// readAlgorithm reads an AlgorithmIdentifier whose parameters are absent or NULL: no accepted algorithm has others. It goes on behind it.
func readAlgorithm(in *cryptobyte.String) (asn1.ObjectIdentifier, bool) {
	var seq cryptobyte.String
	var id asn1.ObjectIdentifier
	if !in.ReadASN1(&seq, casn1.SEQUENCE) || !seq.ReadASN1ObjectIdentifier(&id) || !seq.SkipOptionalASN1(casn1.NULL) || !seq.Empty() {
		return nil, false
	}
	return id, true
}

func hashOf(id asn1.ObjectIdentifier) (crypto.Hash, bool) {
	switch {
	case id.Equal(oidSHA256):
		return crypto.SHA256, true
	case id.Equal(oidSHA384):
		return crypto.SHA384, true
	case id.Equal(oidSHA512):
		return crypto.SHA512, true
	}
	return 0, false
}

// signer finds the certificate that the SignerInfo names; nil where it is not embedded.
func (s *signedData) signer() *x509.Certificate {
	for _, cert := range s.certificates {
		if s.issuer != nil && bytes.Equal(cert.RawIssuer, s.issuer) && cert.SerialNumber.Cmp(s.serial) == 0 {
			return cert
		}
		if s.issuer == nil && len(s.subjectKey) > 0 && bytes.Equal(cert.SubjectKeyId, s.subjectKey) {
			return cert
		}
	}
	return nil
}

// verify checks that the embedded certificate signed content with that digest. withCertID demands the signed certificate reference of CAdES.
// Whether the certificate is trusted is another question.
func (s *signedData) verify(digest []byte, withCertID bool) error {
	cert := s.signer()
	if cert == nil || !maySign(cert) {
		return errCMSCert
	}
	if s.attributes == nil {
		return errCMSAttrs
	}
	attributes, err := readAttributes(s.attributes)
	if err != nil {
		return err
	}
	var contentType asn1.ObjectIdentifier
	value := attributes[oidContentType.String()]
	if !value.ReadASN1ObjectIdentifier(&contentType) || !value.Empty() || !contentType.Equal(s.contentType) {
		return errCMSAttrs
	}
	var signed cryptobyte.String
	value = attributes[oidMessageDigest.String()]
	if !value.ReadASN1(&signed, casn1.OCTET_STRING) || !value.Empty() {
		return errCMSAttrs
	}
	if subtle.ConstantTimeCompare(signed, digest) != 1 {
		return errCMSDigest
	}
	if err := checkCertID(attributes[oidSigningCertV2.String()], cert, withCertID); err != nil {
		return err
	}
	return s.checkSignature(cert)
}

// readAttributes maps attribute types to their single value. Doubled attributes are refused: two readers could choose differently.
func readAttributes(set cryptobyte.String) (map[string]cryptobyte.String, error) {
	out := map[string]cryptobyte.String{}
	for !set.Empty() {
		var seq, values cryptobyte.String
		var id asn1.ObjectIdentifier
		if !set.ReadASN1(&seq, casn1.SEQUENCE) || !seq.ReadASN1ObjectIdentifier(&id) || !seq.ReadASN1(&values, casn1.SET) || !seq.Empty() {
			return nil, errCMSAttrs
		}
		if _, twice := out[id.String()]; twice {
			return nil, errCMSAttrs
		}
		out[id.String()] = values
	}
	return out, nil
}

// checkCertID compares signing-certificate-v2 (RFC 5035) with cert: only the first reference names the signer.
func checkCertID(value cryptobyte.String, cert *x509.Certificate, required bool) error {
	if len(value) == 0 {
		if required {
			return errCMSCertID
		}
		return nil
	}
	var outer, list, first, digest cryptobyte.String
	if !value.ReadASN1(&outer, casn1.SEQUENCE) || !value.Empty() || !outer.ReadASN1(&list, casn1.SEQUENCE) || !list.ReadASN1(&first, casn1.SEQUENCE) {
		return errCMSCertID
	}
	hash := crypto.SHA256
	if first.PeekASN1Tag(casn1.SEQUENCE) {
		id, ok := readAlgorithm(&first)
		if hash, ok = hashIf(id, ok); !ok {
			return errCMSCertID
		}
	}
	if !first.ReadASN1(&digest, casn1.OCTET_STRING) {
		return errCMSCertID
	}
	h := hash.New()
	h.Write(cert.Raw)
	if subtle.ConstantTimeCompare(h.Sum(nil), digest) != 1 {
		return errCMSCertID
	}
	return nil
}

func hashIf(id asn1.ObjectIdentifier, ok bool) (crypto.Hash, bool) {
	if !ok {
		return 0, false
	}
	return hashOf(id)
}

// checkSignature verifies the signature value over the attributes under the tag of a SET.
func (s *signedData) checkSignature(cert *x509.Certificate) error {
	toSign, err := wrap(casn1.SET, s.attributes)
	if err != nil {
		return errCMSAttrs
	}
	h := s.digest.New()
	h.Write(toSign)
	sum := h.Sum(nil)
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if !s.matches(oidECDSASHA256, oidECDSASHA384, oidECDSASHA512) || key.Curve == elliptic.P224() {
			return errCMSAlgo
		}
		if !ecdsa.VerifyASN1(key, sum, s.signature) {
			return errCMSSign
		}
	case *rsa.PublicKey:
		if !s.algorithm.Equal(oidRSA) && !s.matches(oidRSASHA256, oidRSASHA384, oidRSASHA512) || key.N.BitLen() < 2048 || key.N.BitLen() > 8192 {
			return errCMSAlgo
		}
		if rsa.VerifyPKCS1v15(key, s.digest, sum, s.signature) != nil {
			return errCMSSign
		}
	default:
		return errCMSAlgo
	}
	return nil
}

// matches reports whether the signature algorithm is the one of its kind for the digest in use.
func (s *signedData) matches(sha256, sha384, sha512 asn1.ObjectIdentifier) bool {
	switch s.digest {
	case crypto.SHA256:
		return s.algorithm.Equal(sha256)
	case crypto.SHA384:
		return s.algorithm.Equal(sha384)
	case crypto.SHA512:
		return s.algorithm.Equal(sha512)
	default:
		return false
	}
}
