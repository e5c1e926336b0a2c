package pades

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/model"
	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

const (
	subFilterCAdES = "ETSI.CAdES.detached"
	subFilterPKCS7 = "adbe.pkcs7.detached"
	subFilterTSA   = "ETSI.RFC3161"
)

// hole is the room kept for a signature in the written file.
type hole struct {
	byteRange int // offset of the placeholder for the four numbers
	from, to  int // offsets of "<" and of the byte behind ">"
}

const byteRangeBlank = "[0 0000000000 0000000000 0000000000]"

// putSignature writes the signature dictionary with blank ByteRange and Contents.
func (u *update) putSignature(ref types.IndirectRef, opts Options) hole {
	dict := types.Dict{
		"Type": types.Name("Sig"), "Filter": types.Name("Adobe.PPKLite"), "SubFilter": types.Name(subFilterCAdES),
		"M": types.StringLiteral(dateString(opts.At)),
	}
	for key, text := range map[string]string{"Name": opts.Name, "Reason": opts.Reason, "Location": opts.Location} {
		if text != "" {
			dict[key] = textString(text)
		}
	}
	if refs := u.transforms(opts); len(refs) > 0 {
		dict["Reference"] = refs
	}
	u.begin(ref)
	out, err := appendDict(u.out, dict)
	if err != nil {
		u.err = err
		return hole{}
	}
	out = append(bytes.TrimSuffix(out, []byte(">>")), "/ByteRange"...)
	h := hole{byteRange: len(out)}
	out = append(append(out, byteRangeBlank...), "/Contents"...)
	h.from = len(out)
	out = append(out, '<')
	out = append(out, bytes.Repeat([]byte{'0'}, 2*opts.reserve())...)
	out = append(out, '>')
	h.to = len(out)
	u.out = append(out, ">>"...)
	u.end()
	return h
}

// transforms says what the signature lets change: DocMDP for a certification, FieldMDP where the field carries a lock.
func (u *update) transforms(opts Options) types.Array {
	var refs types.Array
	if opts.Certify != Approval {
		refs = append(refs, types.Dict{
			"Type": types.Name("SigRef"), "TransformMethod": types.Name("DocMDP"),
			"TransformParams": types.Dict{"Type": types.Name("TransformParams"), "P": types.Integer(opts.Certify), "V": types.Name("1.2")},
		})
	}
	f := u.doc.find(opts.FieldName)
	if opts.FieldName == "" || f == nil {
		return refs
	}
	if lock := u.doc.dict(f.dict["Lock"]); lock != nil {
		params := types.Dict{"Type": types.Name("TransformParams"), "Action": types.Name(u.doc.name(lock["Action"])), "V": types.Name("1.2")}
		if names := u.doc.array(lock["Fields"]); names != nil {
			params["Fields"] = names
		}
		refs = append(refs, types.Dict{
			"Type": types.Name("SigRef"), "TransformMethod": types.Name("FieldMDP"), "TransformParams": params, "Data": *u.doc.ctx.Root,
		})
	}
	return refs
}

// amendCatalog points Perms at a certification. The first signature of a file below PDF 2.0 also declares the ETSI extension that brings its
// SubFilter; once there is a signature the catalog's extensions are left alone.
func (u *update) amendCatalog(opts Options, value types.IndirectRef) error {
	if opts.Certify != Approval {
		perms := copyOf(u.doc.dict(u.catalog["Perms"]))
		perms["DocMDP"] = value
		u.catalog["Perms"], u.dirty = perms, true
	}
	if len(u.doc.signed()) > 0 || u.doc.ctx.XRefTable.Version() >= model.V20 {
		return nil
	}
	extensions := copyOf(u.doc.dict(u.catalog["Extensions"]))
	if _, declared := extensions["ESIC"]; declared {
		return nil
	}
	extensions["ESIC"] = types.Dict{"BaseVersion": types.Name("1.7"), "ExtensionLevel": types.Integer(2)}
	u.catalog["Extensions"], u.dirty = extensions, true
	return nil
}

// fill writes the byte range into out, digests all but the hole, and puts what sign makes of the digest into it.
// On an error out is spoilt.
func (h hole) fill(out []byte, sign func(digest []byte) ([]byte, error)) error {
	numbers := fmt.Sprintf("[0 %d %d %d]", h.from, h.to, len(out)-h.to)
	if len(numbers) > len(byteRangeBlank) {
		return ErrTooLarge
	}
	n := copy(out[h.byteRange:], numbers)
	copy(out[h.byteRange+n:], bytes.Repeat([]byte{' '}, len(byteRangeBlank)-n))

	hash := sha256.New()
	hash.Write(out[:h.from])
	hash.Write(out[h.to:])
	cms, err := sign(hash.Sum(nil))
	if err != nil {
		return fmt.Errorf("pades: make the signature: %w", err)
	}
	room := h.to - h.from - 2
	if 2*len(cms) > room {
		return &TooLongError{Need: len(cms), Reserve: room / 2}
	}
	hex.Encode(out[h.from+1:], cms)
	return nil
}
