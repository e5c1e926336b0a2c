package pades

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"testing"
)

func testCMS(t testing.TB) (der, digest []byte) {
	t.Helper()
	sum := sha256.Sum256([]byte("content"))
	o := options(0)
	der, err := buildCMS(o.Signer, o.Chain, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return der, sum[:]
}

func TestCMS(t *testing.T) {
	der, digest := testCMS(t)
	s, err := parseCMS(append(bytes.Clone(der), make([]byte, 100)...)) // padded
	if err != nil {
		t.Fatal(err)
	}
	if err := s.verify(digest, true); err != nil {
		t.Fatal(err)
	}
	if !s.signer().Equal(people().signers[0].Certificate()) || len(s.certificates) != 2 {
		t.Error("wrong certificates")
	}
	if err := s.verify(make([]byte, 32), true); !errors.Is(err, errCMSDigest) {
		t.Errorf("another digest: %v", err)
	}
	if _, err := parseCMS(append(bytes.Clone(der), 0, 1)); !errors.Is(err, errCMSTrailing) {
		t.Errorf("something behind: %v", err)
	}
	attributes, err := readAttributes(s.attributes)
	if err != nil || len(attributes) != 3 {
		t.Errorf("%d signed attributes, %v; PAdES wants three and no signing time", len(attributes), err)
	}
}

func TestCMSForgeries(t *testing.T) {
	der, digest := testCMS(t)
	parse := func() *signedData {
		s, err := parseCMS(der)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, tt := range map[string]struct {
		forge func(*signedData)
		want  error
	}{
		"another signature value":  {func(s *signedData) { s.signature = bytes.Clone(s.signature); s.signature[12] ^= 1 }, errCMSSign},
		"no attributes":            {func(s *signedData) { s.attributes = nil }, errCMSAttrs},
		"doubled attributes":       {func(s *signedData) { s.attributes = append(bytes.Clone(s.attributes), s.attributes...) }, errCMSAttrs},
		"attributes out of a list": {func(s *signedData) { s.attributes = s.attributes[:len(s.attributes)-1] }, errCMSAttrs},
		"no certificate":           {func(s *signedData) { s.certificates = nil }, errCMSCert},
		"an authority's signature": {func(s *signedData) {
			s.issuer, s.serial = people().ca.Certificate().RawIssuer, people().ca.Certificate().SerialNumber
		}, errCMSCert},
		"an algorithm of another kind": {func(s *signedData) { s.algorithm = oidRSASHA256 }, errCMSAlgo},
		"another hash in the name":     {func(s *signedData) { s.algorithm = oidECDSASHA384 }, errCMSAlgo},
		// the attack that signing-certificate-v2 stops: the same key in another certificate of the same name and number
		"a substitute certificate": {func(s *signedData) {
			twin := *s.certificates[0]
			twin.Raw = append(bytes.Clone(twin.Raw), 0)
			s.certificates = []*x509.Certificate{&twin}
		}, errCMSCertID},
	} {
		t.Run(name, func(t *testing.T) {
			s := parse()
			tt.forge(s)
			if err := s.verify(digest, true); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

func TestCMSEveryFlippedBit(t *testing.T) {
	der, digest := testCMS(t)
	leaf := people().signers[0].Certificate()
	for i := range der {
		bad := bytes.Clone(der)
		bad[i] ^= 1 << (i % 8)
		s, err := parseCMS(bad)
		if err != nil || s.verify(digest, true) != nil {
			continue
		}
		// What stays verifiable may differ only outside what is signed: versions, the authority's certificate.
		if !s.signer().Equal(leaf) {
			t.Errorf("byte %d flipped: verifies for another certificate", i)
		}
	}
}

func FuzzParseCMS(f *testing.F) {
	der, digest := testCMS(f)
	f.Add(der)
	f.Add(der[:40])
	f.Add([]byte{0x30, 0x80})
	leaf := people().signers[0].Certificate()
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := parseCMS(in)
		if err != nil {
			return
		}
		if s.verify(digest, true) == nil && s.signer().Equal(leaf) && !bytes.Contains(in, s.signature) {
			t.Error("verifies with a signature that is not in the input")
		}
	})
}
