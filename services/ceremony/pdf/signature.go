package pdf

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/image/font"
	"golang.org/x/image/font/opentype" // chosen because it is the Go project's own glyph renderer
	"golang.org/x/image/math/fixed"
	"golang.org/x/text/unicode/norm"

	"countersign.dev/pkg/typeface"
)

const (
	signatureHeight = 240 // pixels
	signatureWidth  = 800 // signatureHeight * SignatureAspect
	maxNameLength   = 100 // characters
	maxCaption      = 2   // lines
	captionSize     = 24.0
	captionLead     = 30
)

// Errors of Signature.
var (
	ErrName     = errors.New("pdf: a signature needs a name of 1 to 100 printable characters")
	ErrNoGlyphs = errors.New("pdf: no embedded font can write this name") // sign without a picture, or with a drawn one
)

var signatureInk = color.NRGBA{R: 24, G: 38, B: 104, A: 255}

// Signature draws name as if written by hand: a PNG of 800 x 240 pixels (SignatureAspect) with a transparent background.
// Names that the hand lacks letters for (Greek, for one) are set in print; what print lacks too is ErrNoGlyphs.
// Up to two lines of caption (who and when, say) stand below in small print; characters of theirs without a glyph are
// written as \u{...}. The same input always gives the same bytes. It reads no document, so it needs no sandbox.
func Signature(name string, caption ...string) ([]byte, error) {
	name = norm.NFC.String(strings.Join(strings.Fields(name), " "))
	if name == "" || utf8.RuneCountInString(name) > maxNameLength || len(caption) > maxCaption || !printable(name) {
		return nil, ErrName
	}
	face, largest := typeface.Script, 150.0
	if !face.Covers(name) {
		face, largest = typeface.Regular, 96
	}
	if !face.Covers(name) {
		return nil, ErrNoGlyphs
	}
	canvas := image.NewNRGBA(image.Rect(0, 0, signatureWidth, signatureHeight))
	room := signatureHeight
	if len(caption) > 0 {
		room -= captionLead*len(caption) + 4
	}
	if err := writeName(canvas, face, name, largest, room); err != nil {
		return nil, err
	}
	for i, text := range caption {
		if err := writeCaption(canvas, text, room+captionLead*(i+1)-8); err != nil {
			return nil, err
		}
	}
	var buf bytes.Buffer
	if err := png.Encode(&buf, canvas); err != nil {
		return nil, fmt.Errorf("pdf: encode signature: %w", err)
	}
	return buf.Bytes(), nil
}

func printable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return utf8.ValidString(s)
}

// writeName draws name into the upper room pixels, as large as it fits, left and low like a hand on a line.
func writeName(canvas draw.Image, face *typeface.Face, name string, largest float64, room int) error {
	const pad = 8
	for size := largest; size >= 12; size *= 0.94 {
		drawn, err := opentype.NewFace(face.SFNT(), &opentype.FaceOptions{Size: size, DPI: 72, Hinting: font.HintingNone})
		if err != nil {
			return fmt.Errorf("pdf: signature font: %w", err)
		}
		bounds, _ := font.BoundString(drawn, name)
		wide, high := (bounds.Max.X - bounds.Min.X).Ceil(), (bounds.Max.Y - bounds.Min.Y).Ceil()
		if wide > signatureWidth-2*pad || high > room-2*pad {
			continue
		}
		x := fixed.I(pad+16) - bounds.Min.X
		if wide > signatureWidth-2*pad-32 {
			x = fixed.I(pad) - bounds.Min.X
		}
		y := fixed.I(room-pad) - bounds.Max.Y
		if slack := room - 2*pad - high; slack > 0 {
			y -= fixed.I(int(math.Round(float64(slack) * 0.4)))
		}
		pen := font.Drawer{Dst: canvas, Src: image.NewUniform(signatureInk), Face: drawn, Dot: fixed.Point26_6{X: x, Y: y}}
		pen.DrawString(name)
		return nil
	}
	return ErrName
}

func writeCaption(canvas draw.Image, text string, baseline int) error {
	text = typeface.Regular.Show(text)
	for size := captionSize; ; size *= 0.94 {
		drawn, err := opentype.NewFace(typeface.Regular.SFNT(), &opentype.FaceOptions{Size: size, DPI: 72, Hinting: font.HintingNone})
		if err != nil {
			return fmt.Errorf("pdf: caption font: %w", err)
		}
		if font.MeasureString(drawn, text).Ceil() > signatureWidth-32 && size > 10 {
			continue
		}
		pen := font.Drawer{Dst: canvas, Src: image.NewUniform(color.NRGBA{R: 70, G: 80, B: 100, A: 255}), Face: drawn, Dot: fixed.P(24, baseline)}
		pen.DrawString(text)
		return nil
	}
}
