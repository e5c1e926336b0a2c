package pades

import (
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"strings"
	"testing"
)

// TestPictureStandsUpright renders each page and looks for the picture's four coloured corners where the reader asked for them.
func TestPictureStandsUpright(t *testing.T) {
	const dpi = 100
	for name, pdf := range corpus() {
		if !strings.HasPrefix(name, "rotated") && name != "crop" && name != "table" && name != "empty field apart" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			box := [4]float64{60, 100, 240, 160}
			o := options(0)
			o.Appearance = &Appearance{Page: 1, Rect: box, PNG: scrawl()}
			if name == "empty field apart" { // the field's own place, on a page turned by 90 degrees: 200 wide, 60 high as shown
				o.FieldName, box = "Approve", [4]float64{500, 595 - 132, 700, 595 - 72}
			}
			path := write(t, "look.pdf", mustSign(t, pdf, o))
			if keep := os.Getenv("PADES_LOOK"); keep != "" {
				data, _ := os.ReadFile(path)
				_ = os.WriteFile(keep+"/"+strings.ReplaceAll(name, " ", "-")+".pdf", data, 0o600)
			}
			if out, err := run(t, "pdftoppm", "-png", "-singlefile", "-cropbox", "-r", "100", "-f", "1", "-l", "1", path, path); err != nil {
				t.Fatalf("pdftoppm: %v\n%s", err, out)
			}
			f, err := os.Open(path + ".png")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			img, err := png.Decode(f)
			if err != nil {
				t.Fatal(err)
			}
			checkCorners(t, img, box, dpi/72.0)
		})
	}
}

// checkCorners expects the picture (3 : 1) centred in box, in points from the lower left of img.
func checkCorners(t *testing.T, img image.Image, box [4]float64, scale float64) {
	t.Helper()
	unit := math.Min((box[2]-box[0])/3, box[3]-box[1])
	midX, midY := (box[0]+box[2])/2, (box[1]+box[3])/2
	height := float64(img.Bounds().Dy())
	for _, c := range []struct {
		what string
		dx   float64
		dy   float64
		want color.NRGBA
	}{
		{"upper left", -1.5*unit + unit*0.15, 0.5*unit - unit*0.15, color.NRGBA{255, 0, 0, 255}},
		{"upper right", 1.5*unit - unit*0.15, 0.5*unit - unit*0.15, color.NRGBA{0, 160, 0, 255}},
		{"lower left", -1.5*unit + unit*0.15, -0.5*unit + unit*0.15, color.NRGBA{0, 0, 255, 255}},
		{"lower right", 1.5*unit - unit*0.15, -0.5*unit + unit*0.15, color.NRGBA{0, 0, 0, 255}},
		{"transparent ground", 1.2 * unit, 0, color.NRGBA{255, 255, 255, 255}},
	} {
		x, y := int((midX+c.dx)*scale), int(height-(midY+c.dy)*scale)
		r, g, b, _ := img.At(x, y).RGBA()
		got := color.NRGBA{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8), 255}
		if c.what != "transparent ground" && got != c.want {
			t.Errorf("%s at %d,%d: %v, want %v", c.what, x, y, got, c.want)
		}
	}
}

func TestViewMapsBothWays(t *testing.T) {
	shown := rect{50, 40, 545, 800}
	for _, turn := range []int{0, 90, 180, 270} {
		v := view{shown: shown, turn: turn, unit: 1}
		w, h := v.size()
		area, err := v.userRect([4]float64{0, 0, w, h})
		if err != nil || area != shown {
			t.Errorf("turned by %d: the whole page maps to %v, %v", turn, area, err)
		}
	}
	if v := (view{shown: rect{0, 0, 100, 200}, unit: 2}); func() bool { w, h := v.size(); return w != 200 || h != 400 }() {
		t.Error("UserUnit does not count")
	}
	for _, r := range [][4]float64{{math.NaN(), 0, 10, 10}, {0, 0, math.Inf(1), 10}, {0, 0, 0.5, 10}, {-5, 0, 10, 10}} {
		if _, err := (view{shown: shown, unit: 1}).userRect(r); err == nil {
			t.Errorf("%v accepted", r)
		}
	}
}
