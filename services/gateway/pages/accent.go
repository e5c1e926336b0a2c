package pages

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// houseAccent is the colour of a tenant that has none.
const houseAccent = "2456c9"

// Contrast WCAG 2.2 AA asks for: text (1.4.3), and shapes such as buttons and focus rings (1.4.11).
const (
	contrastText  = 4.5
	contrastShape = 3.0
)

// rgb is a colour with each part in 0..255.
type rgb [3]float64

var (
	white = rgb{255, 255, 255}
	black = rgb{0, 0, 0}

	// The surfaces of style.css that the accent stands on.
	lightGround, lightSurface = rgb{243, 245, 248}, white
	darkGround, darkSurface   = rgb{14, 17, 22}, rgb{24, 29, 36}
)

// hexColour returns the six lower case digits of #rrggbb, or those of the house colour.
func hexColour(accent string) string {
	digits := strings.ToLower(strings.TrimPrefix(strings.TrimSpace(accent), "#"))
	if len(digits) != 6 {
		return houseAccent
	}
	if _, err := strconv.ParseUint(digits, 16, 32); err != nil {
		return houseAccent
	}
	return digits
}

func parseHex(digits string) rgb {
	n, _ := strconv.ParseUint(digits, 16, 32) // hexColour has looked at it
	return rgb{float64(n >> 16), float64(n >> 8 & 0xff), float64(n & 0xff)}
}

func (c rgb) String() string {
	return fmt.Sprintf("#%02x%02x%02x", int(math.Round(c[0])), int(math.Round(c[1])), int(math.Round(c[2])))
}

func (c rgb) mix(other rgb, share float64) rgb {
	var m rgb
	for i := range c {
		m[i] = math.Round(c[i]*(1-share) + other[i]*share)
	}
	return m
}

// luminance is the relative luminance of WCAG 2.2.
func (c rgb) luminance() float64 {
	var lin [3]float64
	for i, v := range c {
		v /= 255
		if v <= 0.04045 {
			lin[i] = v / 12.92
		} else {
			lin[i] = math.Pow((v+0.055)/1.055, 2.4)
		}
	}
	return 0.2126*lin[0] + 0.7152*lin[1] + 0.0722*lin[2]
}

// contrast is the contrast ratio of WCAG 2.2, 1 to 21.
func contrast(a, b rgb) float64 {
	la, lb := a.luminance(), b.luminance()
	return (math.Max(la, lb) + 0.05) / (math.Min(la, lb) + 0.05)
}

// toward mixes c with end in small steps until ok holds. It ends at end at the latest.
func (c rgb) toward(end rgb, ok func(rgb) bool) rgb {
	for share := 0.0; share < 1; share += 0.02 {
		if m := c.mix(end, share); ok(m) {
			return m
		}
	}
	return end
}

// palette is the accent made readable for one colour scheme.
type palette struct {
	Text rgb // links, icons, focus rings: readable on ground, surface and tint
	Fill rgb // buttons
	On   rgb // text on Fill
	Edge rgb // border of buttons: seen against the surface where Fill is not
	Tint rgb // quiet background
}

func lightPalette(accent rgb) palette {
	p := palette{Tint: accent.mix(lightSurface, 0.9), Fill: accent, On: white}
	p.Text = accent.toward(black, func(c rgb) bool {
		return contrast(c, lightGround) >= contrastText && contrast(c, lightSurface) >= contrastText && contrast(c, p.Tint) >= contrastText
	})
	switch c := contrast(accent, white); {
	case c >= contrastText:
	case c >= contrastShape: // a little darker is still the brand's colour, and white text reads better on it than black
		p.Fill = accent.toward(black, func(c rgb) bool { return contrast(c, white) >= contrastText })
	default:
		p.On = black
	}
	p.Edge = edge(p, lightSurface)
	return p
}

func darkPalette(accent rgb) palette {
	p := palette{Tint: accent.mix(darkSurface, 0.82), On: white}
	p.Text = accent.toward(white, func(c rgb) bool {
		return contrast(c, darkGround) >= contrastText && contrast(c, darkSurface) >= contrastText && contrast(c, p.Tint) >= contrastText
	})
	p.Fill = accent.toward(white, func(c rgb) bool { return contrast(c, darkSurface) >= contrastShape })
	if contrast(p.Fill, white) < contrastText {
		p.On = black
	}
	p.Edge = edge(p, darkSurface)
	return p
}

func edge(p palette, surface rgb) rgb {
	if contrast(p.Fill, surface) >= contrastShape {
		return p.Fill
	}
	return p.Text
}

func (p palette) css() string {
	return fmt.Sprintf("--accent:%s;--fill:%s;--on-fill:%s;--edge:%s;--tint:%s", p.Text, p.Fill, p.On, p.Edge, p.Tint)
}

// accentCSS sets the colours of a tenant for both schemes.
func accentCSS(digits string) string {
	accent := parseHex(digits)
	return ":root{" + lightPalette(accent).css() + "}\n@media (prefers-color-scheme:dark){:root{" + darkPalette(accent).css() + "}}\n"
}
