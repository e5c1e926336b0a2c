package pades

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"

	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

const (
	maxPNG    = 2 << 20
	maxPixels = 4_000_000
)

// draw makes the normal appearance of a widget from a picture.
//
// A page's Rotate turns the widget along with the page, so the form is turned the other way: its matrix brings a box of the size seen by
// the reader into the box of user space that the widget occupies.
func (u *update) draw(dict types.Dict, area rect, v view, picture []byte) error {
	img, err := u.putImage(picture)
	if err != nil {
		return err
	}
	w, h := area.width(), area.height()
	matrix := numbers(1, 0, 0, 1, 0, 0)
	switch v.turn {
	case 90:
		w, h = h, w
		matrix = numbers(0, 1, -1, 0, h, 0)
	case 180:
		matrix = numbers(-1, 0, 0, -1, w, h)
	case 270:
		w, h = h, w
		matrix = numbers(0, -1, 1, 0, 0, w)
	}
	scale := min(w/float64(img.width), h/float64(img.height))
	iw, ih := scale*float64(img.width), scale*float64(img.height)
	form := u.alloc()
	u.putStream(form, types.Dict{
		"Type": types.Name("XObject"), "Subtype": types.Name("Form"), "BBox": numbers(0, 0, w, h), "Matrix": matrix,
		"Resources": types.Dict{"XObject": types.Dict{"Im0": img.ref}},
	}, fmt.Appendf(nil, "q %.4f 0 0 %.4f %.4f %.4f cm /Im0 Do Q", iw, ih, (w-iw)/2, (h-ih)/2))
	dict["AP"] = types.Dict{"N": form}
	if v.turn != 0 {
		look := copyOf(u.doc.dict(dict["MK"]))
		look["R"] = types.Integer(v.turn)
		dict["MK"] = look
	}
	return nil
}

type imageObject struct {
	ref           types.IndirectRef
	width, height int // pixels
}

// putImage writes a PNG as an image, its transparency as a soft mask.
func (u *update) putImage(picture []byte) (imageObject, error) {
	bad := func(what string) (imageObject, error) {
		return imageObject{}, fmt.Errorf("%w: the picture %s", ErrOptions, what)
	}
	if len(picture) > maxPNG {
		return bad("is larger than 2 MiB")
	}
	size, err := png.DecodeConfig(bytes.NewReader(picture))
	if err != nil {
		return bad("is no PNG")
	}
	if size.Width < 1 || size.Height < 1 || size.Width*size.Height > maxPixels { // before decoding: a small file can unfold to a huge picture
		return bad("has no pixels or more than 4 million")
	}
	decoded, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		return bad("is no PNG")
	}
	colours, alpha, err := planes(decoded)
	if err != nil {
		return imageObject{}, err
	}
	dict := types.Dict{
		"Type": types.Name("XObject"), "Subtype": types.Name("Image"), "Width": types.Integer(size.Width), "Height": types.Integer(size.Height),
		"ColorSpace": types.Name("DeviceRGB"), "BitsPerComponent": types.Integer(8), "Filter": types.Name("FlateDecode"),
	}
	if alpha != nil {
		mask := u.alloc()
		softMask := copyOf(dict)
		softMask["ColorSpace"] = types.Name("DeviceGray")
		u.putStream(mask, softMask, alpha)
		dict["SMask"] = mask
	}
	img := imageObject{u.alloc(), size.Width, size.Height}
	u.putStream(img.ref, dict, colours)
	return img, nil
}

// planes splits a picture into deflated RGB and, unless it is opaque, deflated alpha.
func planes(src image.Image) (colours, alpha []byte, err error) {
	bounds := src.Bounds()
	flat := image.NewNRGBA(image.Rect(0, 0, bounds.Dx(), bounds.Dy()))
	if already, ok := src.(*image.NRGBA); ok && bounds.Min == (image.Point{}) {
		flat = already
	} else {
		draw.Draw(flat, flat.Bounds(), src, bounds.Min, draw.Src)
	}
	n := bounds.Dx() * bounds.Dy()
	rgb, a := make([]byte, 0, 3*n), make([]byte, 0, n)
	opaque := true
	for y := range bounds.Dy() {
		row := flat.Pix[y*flat.Stride:]
		for x := range bounds.Dx() {
			p := color.NRGBA{R: row[4*x], G: row[4*x+1], B: row[4*x+2], A: row[4*x+3]}
			if p.A == 0 {
				p = color.NRGBA{} // colour that nobody sees: one value compresses best
			}
			rgb, a = append(rgb, p.R, p.G, p.B), append(a, p.A)
			opaque = opaque && p.A == 0xFF
		}
	}
	if colours, err = deflate(rgb); err != nil || opaque {
		return colours, nil, err
	}
	alpha, err = deflate(a)
	return colours, alpha, err
}

func deflate(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := zlib.NewWriterLevel(&b, zlib.BestSpeed) // most of the time of a visible signature goes here
	if err != nil {
		return nil, fmt.Errorf("pades: compress the picture: %w", err)
	}
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("pades: compress the picture: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pades: compress the picture: %w", err)
	}
	return b.Bytes(), nil
}
