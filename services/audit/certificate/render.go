package certificate

import (
	"bytes"
	"fmt"
	"time"

	"codeberg.org/go-pdf/fpdf"
	"golang.org/x/image/font/gofont/gomono" // chosen for hashes: fixed width, BSD licence, nothing to add to the repository

	"countersign.dev/pkg/typeface"
)

// The layout of an A4 page, in points.
const (
	pageWidth  = 595.28
	pageHeight = 841.89
	margin     = 46.0
	width      = pageWidth - 2*margin
	bottom     = pageHeight - 62 // below it stands the foot
)

type rgb struct{ r, g, b int }

var (
	ink    = rgb{23, 32, 54}
	quiet  = rgb{98, 108, 128}
	line   = rgb{214, 219, 229}
	tint   = rgb{246, 247, 250}
	brand  = rgb{36, 62, 140}
	green  = rgb{20, 110, 72}
	amber  = rgb{150, 88, 10}
	white  = rgb{255, 255, 255}
	stamps = "2006-01-02 15:04:05 UTC"
)

// Render draws c as a PDF of A4 pages. The same c always gives the same bytes. The error is ErrInvalid unless the writer fails.
// Characters that the embedded fonts lack (Latin, Greek and Cyrillic are there) are written as \u{...}: the JSON beside the
// certificate is the machine's copy.
func Render(c Certificate) ([]byte, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	f := fpdf.NewCustom(&fpdf.InitType{UnitStr: "pt", Size: fpdf.SizeType{Wd: pageWidth, Ht: pageHeight}})
	p := &pen{Fpdf: f, words: wordsFor(c.Language)}
	f.SetCatalogSort(true)
	f.SetCreationDate(c.Issued.UTC())
	f.SetModificationDate(c.Issued.UTC())
	f.SetTitle(p.words.title(c.Outcome)+" "+typeface.Regular.Show(c.Reference), true)
	f.SetProducer("Countersign", true)
	f.SetLang(p.words.language)
	f.SetMargins(margin, 50, margin)
	f.SetCellMargin(0)
	f.SetAutoPageBreak(false, 0)
	f.AddUTF8FontFromBytes("sans", "", typeface.Regular.TTF())
	f.AddUTF8FontFromBytes("sans", "B", typeface.Bold.TTF())
	f.AddUTF8FontFromBytes("mono", "", append([]byte(nil), gomono.TTF...))

	f.AddPage()
	p.y = 50
	p.head(c)
	p.documents(c.Documents)
	p.signers(c.Signers)
	p.timeline(c.Events)
	p.check(c)
	p.feet(c)
	var buf bytes.Buffer
	if err := f.Output(&buf); err != nil {
		return nil, fmt.Errorf("certificate: write: %w", err)
	}
	return buf.Bytes(), nil
}

// pen draws downwards from y; the origin is the upper left corner of the page.
type pen struct {
	*fpdf.Fpdf
	words words
	y     float64
}

func (p *pen) font(family, style string, size float64, c rgb) {
	p.SetFont(family, style, size)
	p.SetTextColor(c.r, c.g, c.b)
}

func (p *pen) fill(c rgb) { p.SetFillColor(c.r, c.g, c.b) }

func (p *pen) rule(y float64) {
	p.SetDrawColor(line.r, line.g, line.b)
	p.SetLineWidth(0.6)
	p.Line(margin, y, margin+width, y)
}

// room starts a new page unless height points are left on this one.
func (p *pen) room(height float64) bool {
	if p.y+height <= bottom {
		return false
	}
	p.AddPage()
	p.y = 54
	return true
}

// show makes a string fit to be set in the present face.
func show(s string) string { return typeface.Regular.Show(s) }

// lines breaks text into lines of the present font; an empty text has none.
func (p *pen) lines(text string, wide float64) []string {
	if text == "" {
		return nil
	}
	return p.SplitText(text, wide)
}

// block writes wrapped text at x and moves down.
func (p *pen) block(x, wide, lead float64, text string) {
	for _, l := range p.lines(text, wide) {
		p.room(lead)
		p.Text(x, p.y+lead*0.72, l)
		p.y += lead
	}
}

func (p *pen) right(x, y float64, text string) { p.Text(x-p.GetStringWidth(text), y, text) }

// section writes a heading and makes sure that at least next points of its content stay with it.
func (p *pen) section(title string, next float64) {
	p.y += 20
	p.room(26 + next)
	p.font("sans", "B", 13, ink)
	p.Text(margin, p.y+12, title)
	p.y += 20
	p.rule(p.y)
	p.y += 9
}

func (p *pen) head(c Certificate) {
	p.fill(brand)
	p.Rect(0, 0, pageWidth, 7, "F")
	p.font("sans", "B", 10, brand)
	p.Text(margin, p.y+2, "Countersign")
	p.badge(c.Outcome)
	p.y += 22
	p.font("sans", "B", 25, ink)
	p.Text(margin, p.y+20, p.words.title(c.Outcome))
	p.y += 36
	if c.Title != "" {
		p.font("sans", "", 13, ink)
		p.block(margin, width, 19, show(c.Title))
	}
	p.y += 2
	p.font("sans", "", 9.5, quiet)
	p.block(margin, width-40, 14, p.words.intro[c.Outcome])
	p.y += 12
	p.facts([][2]string{
		{p.words.reference, show(c.Reference)},
		{p.words.created, stamp(c.Created)},
		{p.words.request, show(c.RequestID)},
		{p.words.ended[c.Outcome], stamp(c.Ended)},
		{p.words.sender, show(c.Sender)},
		{p.words.issued, stamp(c.Issued)},
	})
}

// badge shows the outcome at the upper right.
func (p *pen) badge(o Outcome) {
	text, c := p.words.outcomes[o], green
	if o != Completed {
		c = amber
	}
	p.SetFont("sans", "B", 10)
	wide := p.GetStringWidth(text) + 24
	p.fill(c)
	p.RoundedRect(margin+width-wide, p.y-13, wide, 22, 11, "1234", "F")
	p.font("sans", "B", 10, white)
	p.Text(margin+width-wide+12, p.y+1.5, text)
}

// facts is a tinted grid of two columns of labels and values; pairs without a value are left out.
func (p *pen) facts(pairs [][2]string) {
	const gap, label = 16.0, 9.0
	half := (width - 2*gap) / 2
	type cell struct {
		name  string
		lines []string
	}
	var rows [][2]cell
	height := 0.0
	p.SetFont("sans", "", 10)
	for i := 0; i+1 < len(pairs); i += 2 {
		var row [2]cell
		most := 0
		for j := range row {
			if v := pairs[i+j][1]; v != "" {
				row[j] = cell{pairs[i+j][0], p.lines(v, half-gap)}
				most = max(most, len(row[j].lines))
			}
		}
		if most == 0 {
			continue
		}
		rows = append(rows, row)
		height += label + 7 + float64(most)*14 + 5
	}
	p.fill(tint)
	p.RoundedRect(margin, p.y, width, height+12, 6, "1234", "F")
	p.y += 8
	for _, row := range rows {
		most := 0
		for j, c := range row {
			x := margin + gap + float64(j)*(half+gap/2)
			p.font("sans", "", 8, quiet)
			p.Text(x, p.y+label, c.name)
			p.font("sans", "", 10, ink)
			for k, l := range c.lines {
				p.Text(x, p.y+label+15+float64(k)*14, l)
			}
			most = max(most, len(c.lines))
		}
		p.y += label + 7 + float64(most)*14 + 5
	}
	p.y += 4
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(stamps)
}
