package pdf

import (
	"bytes"
	"image"
	"image/color"
	_ "image/jpeg"
	_ "image/png"
	"testing"
)

func TestEncode(t *testing.T) {
	tinted := color.RGBA{247, 248, 253, 255}
	for name, tt := range map[string]struct {
		at   func(x, y int) color.RGBA
		kind string
		size int // bytes at most
		near int // how far a channel may be off
	}{
		"text":      {func(x, y int) color.RGBA { v := uint8(255 * (x / 7 % 2)); return color.RGBA{v, v, v, 255} }, "image/png", 4000, 0},
		"grey fade": {func(x, _ int) color.RGBA { return color.RGBA{uint8(x), uint8(x), uint8(x), 255} }, "image/png", 8000, 9},
		"a tint": {func(x, y int) color.RGBA {
			if x < 20 && y < 20 {
				return color.RGBA{200, 0, 0, 255}
			}
			return tinted
		}, "image/png", 4000, 1},
		"photograph": {func(x, y int) color.RGBA { return color.RGBA{uint8(x), uint8(y), uint8(x * y), 255} }, "image/jpeg", 60_000, 255},
	} {
		t.Run(name, func(t *testing.T) {
			img := image.NewRGBA(image.Rect(0, 0, 256, 256))
			for y := range 256 {
				for x := range 256 {
					img.SetRGBA(x, y, tt.at(x, y))
				}
			}
			got, err := encode(img)
			if err != nil || got.Type != tt.kind || len(got.Bytes) > tt.size || got.Width != 256 {
				t.Fatalf("%s, %d bytes, %v", got.Type, len(got.Bytes), err)
			}
			back, _, err := image.Decode(bytes.NewReader(got.Bytes))
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range []image.Point{{0, 0}, {100, 100}, {250, 3}} {
				r, g, b, _ := back.At(p.X, p.Y).RGBA()
				want := tt.at(p.X, p.Y)
				for i, d := range []int{int(r>>8) - int(want.R), int(g>>8) - int(want.G), int(b>>8) - int(want.B)} {
					if abs(d) > tt.near {
						t.Errorf("channel %d at %v is off by %d", i, p, d)
					}
				}
			}
		})
	}
}
