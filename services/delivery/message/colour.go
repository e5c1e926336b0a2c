package message

import (
	"fmt"
	"math"
	"strconv"
)

// rgb is a colour of sRGB.
type rgb [3]float64 // 0 to 255

func parseColour(hex string) rgb {
	var c rgb
	for i := range c {
		n, err := strconv.ParseUint(hex[1+2*i:3+2*i], 16, 8)
		if err != nil {
			return rgb{} // clean let only #rrggbb pass
		}
		c[i] = float64(n)
	}
	return c
}

func (c rgb) String() string {
	return fmt.Sprintf("#%02x%02x%02x", int(math.Round(c[0])), int(math.Round(c[1])), int(math.Round(c[2])))
}

// luminance and contrast follow WCAG 2.2.
func (c rgb) luminance() float64 {
	linear := func(v float64) float64 {
		v /= 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(c[0]) + 0.7152*linear(c[1]) + 0.0722*linear(c[2])
}

func contrast(a, b rgb) float64 {
	x, y := a.luminance(), b.luminance()
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

var (
	white = rgb{255, 255, 255}
	black = rgb{0, 0, 0}
)

// over returns the text colour, white or black, that reads better on c: at least 4.5 to 1 on any colour.
func over(c rgb) rgb {
	if contrast(white, c) >= 4.5 || contrast(white, c) >= contrast(black, c) {
		return white
	}
	return black
}

// visible moves c towards black or white until it stands out from back by at least ratio.
func (c rgb) visible(back rgb, ratio float64) rgb {
	towards := black
	if back.luminance() < 0.18 {
		towards = white
	}
	for step := 0; step < 20 && contrast(c, back) < ratio; step++ {
		for i := range c {
			c[i] += (towards[i] - c[i]) * 0.12
		}
	}
	if contrast(c, back) < ratio {
		return towards
	}
	return c
}
