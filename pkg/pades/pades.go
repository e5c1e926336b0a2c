// Package pades signs PDF files by incremental update with PAdES baseline B-B signatures (ETSI EN 319 142-1), and verifies them.
//
// Signing appends and never rewrites: the bytes of the source are a prefix of the result, so signatures that a file already holds stay valid.
// A file whose structure is not clean (a reader would have to repair it) is refused rather than signed, since two viewers could then show two
// different documents under one signature. Verifying compares what each signature covers with what the file shows now, object by object: an intact
// signature says nothing about content that was appended after it.
//
// The package knows no product: keys come in as crypto.Signer, time comes in as an argument, and nothing is logged.
package pades

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// What a caller can meet when signing or verifying; match with errors.Is. None of them repeats anything from the document.
var (
	ErrUnclean     = errors.New("pades: the file is not a cleanly built PDF")
	ErrEncrypted   = errors.New("pades: the file is encrypted")
	ErrTooLarge    = errors.New("pades: the file exceeds a size limit")
	ErrForbidden   = errors.New("pades: an earlier signature permits no further one")
	ErrFieldTaken  = errors.New("pades: the field is not an empty signature field")
	ErrFieldRules  = errors.New("pades: the field demands what this signer does not offer")
	ErrUnsupported = errors.New("pades: the form of this file is not supported")
	ErrOptions     = errors.New("pades: the signing options are not valid")
	ErrSelfCheck   = errors.New("pades: the signed file failed verification and was thrown away")
)

// TooLongError says that the signature did not fit into the room kept for it. Nothing was written: sign the source again with
// Options.Reserve of at least Need.
type TooLongError struct {
	Need, Reserve int // bytes of the CMS object, bytes kept for it
}

func (e *TooLongError) Error() string {
	return fmt.Sprintf("pades: the signature takes %d bytes, %d were reserved", e.Need, e.Reserve)
}

// Permission is what a certification signature lets happen afterwards (ISO 32000-1 table 254).
type Permission int

// The values of P in a DocMDP transform. The zero value makes an approval signature.
const (
	Approval      Permission = 0 // an ordinary signature
	NoChanges     Permission = 1 // nothing but time stamps and validation data
	FillAndSign   Permission = 2 // filling in forms and signing
	AlsoAnnotate  Permission = 3 // the same, and annotations
	defaultPermit            = FillAndSign
)

// Options say who signs, what the signature states, and how it looks.
type Options struct {
	Signer crypto.Signer       // ECDSA P-256, or RSA of 3072 to 4096 bits; only SHA-256 digests are signed
	Chain  []*x509.Certificate // the signer's own first, each issued by the next; all are embedded

	Name, Reason, Location string    // shown by viewers; any Unicode text, up to 1024 bytes each; empty = left out
	At                     time.Time // claimed time of signing, required; written in UTC to the second

	// FieldName names the signature field. One that exists and is empty is used, one that does not exist is made
	// (then without a full stop). Empty: a new field under the first free name Signature1, Signature2, ...
	FieldName string

	Appearance *Appearance // nil: invisible
	Certify    Permission  // not zero: certification signature; it must be the first signature of the file
	Reserve    int         // bytes kept for the CMS object, up to 65536; 0: from the chain, at least 4096
}

// Appearance is the picture of a visible signature.
type Appearance struct {
	Page int        // 1 is the first page
	Rect [4]float64 // left, bottom, right, top in points; the origin is the lower left corner of the page as shown, after crop and rotation
	PNG  []byte     // drawn as large as fits, keeping its proportions, in the middle of Rect; up to 2 MiB and 4 million pixels
}

const (
	minReserve = 4096
	maxReserve = 64 << 10
	maxText    = 1024
)

// Sign returns pdf with one more signature appended. The result begins with the bytes of pdf, and has been opened and verified again.
//
// A field that exists keeps its page and rectangle: Appearance.Page and Rect then do not count, and a field without area stays invisible.
func Sign(pdf []byte, opts Options) (out []byte, err error) {
	defer rescue(&err)
	return sign(pdf, opts)
}

func sign(pdf []byte, opts Options) ([]byte, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	doc, err := open(pdf)
	if err != nil {
		return nil, err
	}
	if err := doc.admits(opts); err != nil {
		return nil, err
	}
	u := newUpdate(doc)
	value := u.alloc()
	if err := u.placeField(opts, value); err != nil {
		return nil, err
	}
	if err := u.amendCatalog(opts, value); err != nil {
		return nil, err
	}
	hole := u.putSignature(value, opts)
	out, err := u.finish()
	if err != nil {
		return nil, err
	}
	if err := hole.fill(out, func(digest []byte) ([]byte, error) { return buildCMS(opts.Signer, opts.Chain, digest) }); err != nil {
		return nil, err
	}
	if err := selfCheck(doc, out, opts); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSelfCheck, err)
	}
	return out, nil
}

func (o Options) validate() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrOptions, what) }
	for _, text := range []string{o.Name, o.Reason, o.Location, o.FieldName} {
		if len(text) > maxText {
			return bad("a text is longer than 1024 bytes")
		}
	}
	switch {
	case o.Signer == nil || len(o.Chain) == 0:
		return bad("signer or certificate chain missing")
	case o.At.Year() < 1970 || o.At.Year() > 9999:
		return bad("time of signing missing")
	case o.Certify < Approval || o.Certify > AlsoAnnotate:
		return bad("unknown certification permission")
	case o.Reserve < 0 || o.Reserve > maxReserve:
		return bad("reserve out of range")
	}
	if err := checkKey(o.Signer, o.Chain, o.At); err != nil {
		return bad(err.Error())
	}
	return nil
}

// reserve is how many bytes to keep for the CMS object: what the chain needs, plus room for the signature and its attributes.
func (o Options) reserve() int {
	if o.Reserve > 0 {
		return o.Reserve
	}
	need := 1536
	for _, cert := range o.Chain {
		need += len(cert.Raw)
	}
	return max(minReserve, need)
}

// selfCheck opens the result like a stranger would: the new signature must be intact, cover the whole file, and have changed nothing
// of what the source shows.
func selfCheck(src *document, out []byte, opts Options) error {
	if len(out) < len(src.raw) || string(out[:len(src.raw)]) != string(src.raw) {
		return errors.New("the source is not a prefix of the result")
	}
	doc, err := open(out)
	if err != nil {
		return err
	}
	for _, f := range doc.signed() {
		sig := doc.inspect(f, nil)
		if sig.covered != len(out) {
			continue
		}
		if !sig.Intact {
			return fmt.Errorf("the new signature is not intact: %v", sig.Problems)
		}
		if !sig.Certificate.Equal(opts.Chain[0]) {
			return errors.New("the new signature names another certificate")
		}
		for _, c := range compare(src, doc) {
			if !c.Harmless {
				return fmt.Errorf("the document changed: %s", c.What)
			}
		}
		return nil
	}
	return errors.New("no signature covers the whole file")
}
