package pades

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Subject names whom a certificate is for.
type Subject struct{ CommonName, Organization string }

// Identity is a private key with its certificate: a signer, or an authority that issues signers' certificates.
// It is a secret; it has no String and must not be logged.
type Identity struct {
	key   *ecdsa.PrivateKey
	chain []*x509.Certificate
}

// oidDocumentSigning is the extended key usage for signing documents (RFC 9336).
var oidDocumentSigning = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 36}

// clockSlack dates certificates back a little, so that a reader whose clock is slow accepts them at once.
const clockSlack = 5 * time.Minute

// NewAuthority makes a self-signed authority on P-256, valid from shortly before now for validity. It may issue signers, not authorities.
// Meant for development and tests: nothing here revokes a certificate.
func NewAuthority(subject Subject, validity time.Duration, now time.Time) (*Identity, error) {
	template, err := newTemplate(subject, validity, now)
	if err != nil {
		return nil, err
	}
	template.IsCA, template.MaxPathLenZero = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("pades: make the authority's key: %w", err)
	}
	cert, err := certify(template, template, key, &key.PublicKey)
	if err != nil {
		return nil, err
	}
	return &Identity{key, []*x509.Certificate{cert}}, nil
}

// Issue makes a new P-256 key and a certificate to sign documents with. It never outlives the authority's own.
func (a *Identity) Issue(subject Subject, validity time.Duration, now time.Time) (*Identity, error) {
	issuer := a.chain[0]
	if !issuer.IsCA {
		return nil, errors.New("pades: only an authority issues certificates")
	}
	template, err := newTemplate(subject, validity, now)
	if err != nil {
		return nil, err
	}
	if template.NotBefore.Before(issuer.NotBefore) {
		template.NotBefore = issuer.NotBefore
	}
	if template.NotAfter.After(issuer.NotAfter) {
		template.NotAfter = issuer.NotAfter
	}
	if !template.NotBefore.Before(template.NotAfter) {
		return nil, errors.New("pades: the authority is not valid at that time")
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} // what most PDF readers look for
	template.UnknownExtKeyUsage = []asn1.ObjectIdentifier{oidDocumentSigning}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("pades: make the signer's key: %w", err)
	}
	cert, err := certify(template, issuer, a.key, &key.PublicKey)
	if err != nil {
		return nil, err
	}
	return &Identity{key, append([]*x509.Certificate{cert}, a.chain...)}, nil
}

// Signer is the private key.
func (a *Identity) Signer() crypto.Signer { return a.key }

// Chain is the certificate, followed by its issuers.
func (a *Identity) Chain() []*x509.Certificate { return append([]*x509.Certificate(nil), a.chain...) }

// Certificate is the identity's own certificate.
func (a *Identity) Certificate() *x509.Certificate { return a.chain[0] }

// Roots is a pool of the last certificate of the chain, to verify with.
func (a *Identity) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.chain[len(a.chain)-1])
	return pool
}

// PEM returns the chain and the private key (PKCS #8), for a file that only its owner reads.
func (a *Identity) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, errors.New("pades: the key cannot be encoded")
	}
	return append(a.CertificatePEM(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...), nil
}

// CertificatePEM returns the chain alone. It is public.
func (a *Identity) CertificatePEM() []byte {
	var out []byte
	for _, cert := range a.chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return out
}

// ParseIdentity reads what PEM returned: one private key and the chain of its certificate. Errors do not repeat the input.
func ParseIdentity(data []byte) (*Identity, error) {
	id := &Identity{}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, errors.New("pades: a certificate cannot be read")
			}
			id.chain = append(id.chain, cert)
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			own, ok := key.(*ecdsa.PrivateKey)
			if err != nil || !ok || id.key != nil {
				return nil, errors.New("pades: the private key is missing, doubled, or not ECDSA in PKCS #8")
			}
			id.key = own
		default:
			return nil, errors.New("pades: something other than a certificate or a private key")
		}
	}
	if id.key == nil || len(id.chain) == 0 || !id.key.PublicKey.Equal(id.chain[0].PublicKey) {
		return nil, errors.New("pades: key and certificate do not belong together")
	}
	return id, nil
}

func newTemplate(subject Subject, validity time.Duration, now time.Time) (*x509.Certificate, error) {
	if subject.CommonName == "" || len(subject.CommonName) > 64 || len(subject.Organization) > 64 {
		return nil, errors.New("pades: a subject has a common name, and both its names have at most 64 bytes")
	}
	if validity <= 0 {
		return nil, errors.New("pades: the validity must be positive")
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("pades: draw a serial number: %w", err)
	}
	name := pkix.Name{CommonName: subject.CommonName}
	if subject.Organization != "" {
		name.Organization = []string{subject.Organization}
	}
	return &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), Subject: name, BasicConstraintsValid: true,
		NotBefore: now.Add(-clockSlack).UTC(), NotAfter: now.Add(validity).UTC(),
	}, nil
}

func certify(template, issuer *x509.Certificate, issuerKey *ecdsa.PrivateKey, public *ecdsa.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, public, issuerKey)
	if err != nil {
		return nil, fmt.Errorf("pades: issue a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("pades: issue a certificate: %w", err)
	}
	return cert, nil
}
