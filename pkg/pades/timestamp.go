package pades

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

var errTimeStamp = errors.New("the time stamp is malformed or of other bytes")

// verifyTimeStamp checks a token (RFC 3161) over the bytes that digest hashes, and returns the time it states.
func (s *signedData) verifyTimeStamp(digest func(crypto.Hash) []byte) (time.Time, error) {
	if !s.contentType.Equal(oidTSTInfo) || s.content == nil {
		return time.Time{}, errTimeStamp
	}
	hash, imprint, at, ok := readTSTInfo(s.content)
	if !ok || !bytes.Equal(imprint, digest(hash)) {
		return time.Time{}, errTimeStamp
	}
	h := s.digest.New()
	h.Write(s.content)
	if err := s.verify(h.Sum(nil), false); err != nil {
		return time.Time{}, err
	}
	if !slices.Contains(s.signer().ExtKeyUsage, x509.ExtKeyUsageTimeStamping) {
		return time.Time{}, errCMSCert
	}
	return at, nil
}

// readTSTInfo reads the head of a TSTInfo: version, policy, imprint, serial number, time. What follows does not matter here.
func readTSTInfo(der []byte) (hash crypto.Hash, imprint []byte, at time.Time, ok bool) {
	input := cryptobyte.String(der)
	var info, message, digest cryptobyte.String
	var version int
	if !input.ReadASN1(&info, casn1.SEQUENCE) || !input.Empty() || !info.ReadASN1Integer(&version) || version != 1 ||
		!info.SkipASN1(casn1.OBJECT_IDENTIFIER) || !info.ReadASN1(&message, casn1.SEQUENCE) {
		return 0, nil, at, false
	}
	id, ok := readAlgorithm(&message)
	if hash, ok = hashIf(id, ok); !ok || !message.ReadASN1(&digest, casn1.OCTET_STRING) || !message.Empty() {
		return 0, nil, at, false
	}
	if !info.SkipASN1(casn1.INTEGER) || !info.ReadASN1GeneralizedTime(&at) {
		return 0, nil, at, false
	}
	return hash, digest, at.UTC(), true
}
