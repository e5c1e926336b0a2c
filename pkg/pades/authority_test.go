package pades

import (
	"bytes"
	"crypto/x509"
	"strings"
	"testing"
	"time"
)

func TestAuthority(t *testing.T) {
	ca, err := NewAuthority(Subject{"Example CA", "Example"}, 24*time.Hour, noon)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := ca.PEM()
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := ParseIdentity(saved)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := loaded.Issue(Subject{"Ada", "Example"}, years, noon)
	if err != nil {
		t.Fatal(err)
	}
	leaf := signer.Certificate()
	if leaf.NotAfter.After(ca.Certificate().NotAfter) || leaf.IsCA || leaf.Subject.CommonName != "Ada" {
		t.Errorf("certificate %v to %v, CA %v", leaf.Subject, leaf.NotAfter, leaf.IsCA)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: ca.Roots(), CurrentTime: noon, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}}); err != nil {
		t.Error(err)
	}
	if len(leaf.UnknownExtKeyUsage) != 1 || !leaf.UnknownExtKeyUsage[0].Equal(oidDocumentSigning) {
		t.Error("no extended key usage for signing documents")
	}
	if _, err := signer.Issue(Subject{"Eve", ""}, years, noon); err == nil {
		t.Error("a signer issued a certificate")
	}
	if _, err := ca.Issue(Subject{"Late", ""}, years, noon.AddDate(1, 0, 0)); err == nil {
		t.Error("an expired authority issued a certificate")
	}
	kept, err := signer.PEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseIdentity(kept)
	if err != nil || len(again.Chain()) != 2 || !again.Certificate().Equal(leaf) {
		t.Errorf("signer read back: %v", err)
	}
	if strings.Contains(string(signer.CertificatePEM()), "PRIVATE") {
		t.Error("the public part holds the key")
	}
}

func TestParseIdentityRefuses(t *testing.T) {
	ada, err := people().signers[0].PEM()
	if err != nil {
		t.Fatal(err)
	}
	other, err := people().signers[1].PEM()
	if err != nil {
		t.Fatal(err)
	}
	key := ada[bytes.Index(ada, []byte("-----BEGIN PRIVATE")):]
	for name, data := range map[string][]byte{
		"nothing":      nil,
		"key alone":    key,
		"no key":       people().signers[0].CertificatePEM(),
		"two keys":     append(bytes.Clone(ada), key...),
		"others' keys": append(people().signers[0].CertificatePEM(), other[bytes.Index(other, []byte("-----BEGIN PRIVATE")):]...),
		"other block":  append(bytes.Clone(ada), "-----BEGIN X-----\nAAAA\n-----END X-----\n"...),
	} {
		if _, err := ParseIdentity(data); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, s := range []Subject{{}, {strings.Repeat("x", 65), ""}, {"x", strings.Repeat("x", 65)}} {
		if _, err := NewAuthority(s, years, noon); err == nil {
			t.Errorf("subject %d bytes, %d bytes: accepted", len(s.CommonName), len(s.Organization))
		}
	}
	if _, err := NewAuthority(Subject{"x", ""}, 0, noon); err == nil {
		t.Error("no validity: accepted")
	}
}
