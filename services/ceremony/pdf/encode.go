package pdf

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
)

const (
	greys       = 16 // of a colourless page; enough for text, a quarter of the size
	tint        = 6  // how far the channels of a grey pixel may lie apart
	maxPalette  = 256
	jpegQuality = 75
)

// encode picks the smallest form that keeps text sharp: 16 greys for a page without colour, a palette for one with few
// colours (a logo, links), JPEG for photographs.
func encode(img image.Image) (Image, error) {
	rgba, ok := img.(*image.RGBA)
	if !ok {
		rgba = image.NewRGBA(img.Bounds())
		draw.Draw(rgba, rgba.Bounds(), img, img.Bounds().Min, draw.Src)
	}
	size := rgba.Bounds().Size()
	out := Image{Type: "image/png", Width: size.X, Height: size.Y}
	var picture image.Image
	if isGrey(rgba) {
		picture = toGrey(rgba)
	} else if p := toPalette(rgba); p != nil {
		picture = p
	}
	var buf bytes.Buffer
	var err error
	if picture != nil {
		e := png.Encoder{CompressionLevel: png.DefaultCompression}
		err = e.Encode(&buf, picture)
	} else {
		out.Type = "image/jpeg"
		err = jpeg.Encode(&buf, rgba, &jpeg.Options{Quality: jpegQuality})
	}
	if err != nil {
		return Image{}, fmt.Errorf("pdf: encode page: %w", err)
	}
	out.Bytes = buf.Bytes()
	return out, nil
}

func isGrey(img *image.RGBA) bool {
	for i := 0; i+3 < len(img.Pix); i += 4 {
		r, g, b := int(img.Pix[i]), int(img.Pix[i+1]), int(img.Pix[i+2])
		if r-g > tint || g-r > tint || g-b > tint || b-g > tint || r-b > tint || b-r > tint {
			return false
		}
	}
	return true
}

func toGrey(img *image.RGBA) *image.Paletted {
	palette := make(color.Palette, greys)
	for i := range palette {
		palette[i] = color.Gray{Y: uint8(i * 255 / (greys - 1))}
	}
	out := image.NewPaletted(image.Rectangle{Max: img.Bounds().Size()}, palette)
	for y := range out.Rect.Max.Y {
		from := img.Pix[y*img.Stride:]
		to := out.Pix[y*out.Stride:]
		for x := range out.Rect.Max.X {
			to[x] = uint8((int(from[4*x+1])*(greys-1) + 127) / 255) // green carries most of the luminance
		}
	}
	return out
}

// toPalette returns nil when the page has more than 256 colours (told apart by 5 bits a channel; each is shown as the mean of
// the pixels it stands for, so that a large tinted area keeps its tint).
func toPalette(img *image.RGBA) *image.Paletted {
	type mean struct{ r, g, b, n int }
	index := map[uint16]uint8{}
	var means []mean
	out := image.NewPaletted(image.Rectangle{Max: img.Bounds().Size()}, nil)
	for y := range out.Rect.Max.Y {
		from := img.Pix[y*img.Stride:]
		to := out.Pix[y*out.Stride:]
		for x := range out.Rect.Max.X {
			r, g, b := from[4*x], from[4*x+1], from[4*x+2]
			key := uint16(r>>3)<<10 | uint16(g>>3)<<5 | uint16(b>>3)
			i, ok := index[key]
			if !ok {
				if len(means) == maxPalette {
					return nil
				}
				i = uint8(len(means))
				index[key] = i
				means = append(means, mean{})
			}
			m := &means[i]
			m.r, m.g, m.b, m.n = m.r+int(r), m.g+int(g), m.b+int(b), m.n+1
			to[x] = i
		}
	}
	out.Palette = make(color.Palette, len(means))
	for i, m := range means {
		half := m.n / 2
		out.Palette[i] = color.RGBA{R: uint8((m.r + half) / m.n), G: uint8((m.g + half) / m.n), B: uint8((m.b + half) / m.n), A: 255}
	}
	return out
}
