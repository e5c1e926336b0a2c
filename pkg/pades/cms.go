package pades

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	// Chosen for DER: from the Go project, and it builds and parses by hand what encoding/asn1 cannot express (SET OF order, implicit tags).
	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningCertV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidTSTInfo       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}

	oidSHA256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA384 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
	oidSHA512 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}

	oidRSA         = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidRSASHA256   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	oidRSASHA384   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}
	oidRSASHA512   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}
	oidECDSASHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidECDSASHA384 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
	oidECDSASHA512 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}
)

const (
	tagContext0 = casn1.Tag(0xA0)
	tagContext1 = casn1.Tag(0xA1)
)

// checkKey refuses keys that PDF readers do not verify (Ed25519) or that are too weak, and chains that do not hold together at the
// claimed time: such a signature could be made, but nobody could accept it.
func checkKey(signer crypto.Signer, chain []*x509.Certificate, at time.Time) error {
	switch key := signer.Public().(type) {
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return errors.New("the ECDSA key is not on P-256")
		}
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < 3072 || bits > 4096 {
			return errors.New("the RSA key has not 3072 to 4096 bits")
		}
	default:
		return errors.New("the key is neither ECDSA nor RSA")
	}
	if slices.Contains(chain, nil) {
		return errors.New("a certificate of the chain is missing")
	}
	own, ok := chain[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !own.Equal(signer.Public()) {
		return errors.New("the certificate is for another key")
	}
	if !maySign(chain[0]) {
		return errors.New("the certificate is not for signing")
	}
	for i, cert := range chain {
		if at.Before(cert.NotBefore) || at.After(cert.NotAfter) {
			return errors.New("a certificate of the chain is not valid at the time of signing")
		}
		if i+1 < len(chain) && cert.CheckSignatureFrom(chain[i+1]) != nil {
			return errors.New("a certificate is not issued by the next of the chain")
		}
	}
	return nil
}

// maySign reports whether the key usage, where there is one, allows signatures on documents.
func maySign(cert *x509.Certificate) bool {
	return !cert.IsCA && (cert.KeyUsage == 0 || cert.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) != 0)
}

// buildCMS returns a detached CMS SignedData (RFC 5652) over content with that SHA-256 digest.
//
// Signed attributes are content type, message digest and signing certificate alone: PAdES forbids signing-time, since M of the signature
// dictionary is signed already (EN 319 142-1, 6.3).
func buildCMS(signer crypto.Signer, chain []*x509.Certificate, digest []byte) ([]byte, error) {
	attributes, err := signedAttributes(chain[0], digest)
	if err != nil {
		return nil, err
	}
	toSign, err := wrap(casn1.SET, attributes) // signed under the tag of a SET, stored under [0] (RFC 5652, 5.4)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(toSign)
	signature, err := signer.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign with the key: %w", err)
	}
	algorithm := algorithmID(oidECDSASHA256, false)
	if _, isRSA := signer.Public().(*rsa.PublicKey); isRSA {
		algorithm = algorithmID(oidRSASHA256, true)
	}
	var certificates []byte
	for _, cert := range chain {
		certificates = append(certificates, cert.Raw...)
	}
	leaf := chain[0]
	var b cryptobyte.Builder
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { // ContentInfo
		b.AddASN1ObjectIdentifier(oidSignedData)
		b.AddASN1(tagContext0, func(b *cryptobyte.Builder) {
			b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { // SignedData
				b.AddASN1Int64(1)
				b.AddASN1(casn1.SET, algorithmID(oidSHA256, false))
				b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidData) }) // detached
				b.AddASN1(tagContext0, func(b *cryptobyte.Builder) { b.AddBytes(certificates) })
				b.AddASN1(casn1.SET, func(b *cryptobyte.Builder) {
					b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { // SignerInfo
						b.AddASN1Int64(1)
						b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddBytes(leaf.RawIssuer)
							b.AddASN1BigInt(leaf.SerialNumber)
						})
						algorithmID(oidSHA256, false)(b)
						b.AddASN1(tagContext0, func(b *cryptobyte.Builder) { b.AddBytes(attributes) })
						algorithm(b)
						b.AddASN1OctetString(signature)
					})
				})
			})
		})
	})
	return b.Bytes()
}

// signedAttributes is the content of the SET OF attributes in DER order.
func signedAttributes(cert *x509.Certificate, digest []byte) ([]byte, error) {
	hash := sha256.Sum256(cert.Raw)
	values := []struct {
		id    asn1.ObjectIdentifier
		value cryptobyte.BuilderContinuation
	}{
		{oidContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidData) }},
		{oidMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest) }},
		{oidSigningCertV2, func(b *cryptobyte.Builder) { // SigningCertificateV2, one ESSCertIDv2 with the default hash SHA-256 (RFC 5035)
			b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1OctetString(hash[:]) })
				})
			})
		}},
	}
	encoded := make([][]byte, 0, len(values))
	for _, v := range values {
		var b cryptobyte.Builder
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(v.id)
			b.AddASN1(casn1.SET, v.value)
		})
		der, err := b.Bytes()
		if err != nil {
			return nil, fmt.Errorf("encode a signed attribute: %w", err)
		}
		encoded = append(encoded, der)
	}
	slices.SortFunc(encoded, bytes.Compare)
	return bytes.Join(encoded, nil), nil
}

func algorithmID(id asn1.ObjectIdentifier, null bool) cryptobyte.BuilderContinuation {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(id)
			if null {
				b.AddASN1NULL()
			}
		})
	}
}

func wrap(tag casn1.Tag, content []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(content) })
	return b.Bytes()
}
