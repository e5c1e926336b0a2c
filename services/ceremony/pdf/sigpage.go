package pdf

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"codeberg.org/go-pdf/fpdf" // chosen as the maintained writer that embeds font subsets and gives the same bytes every time
	"rsc.io/qr"                // chosen because it is small, frozen and has no dependencies

	"countersign.dev/pkg/typeface"
)

const (
	seatsPerPage = 6
	margin       = 48.0 // points
	seatHeight   = 90.0
	seatGap      = 11.0
	boxHeight    = 66.0
	boxWidth     = boxHeight * SignatureAspect
	firstSeatY   = 152.0
)

type rgb struct{ r, g, b int }

var (
	ink   = rgb{23, 32, 54}
	quiet = rgb{98, 108, 128}
	line  = rgb{205, 211, 222}
	paper = rgb{247, 248, 251}
	brand = rgb{36, 62, 140}
)

// sheet is one set of signature pages being drawn; the origin is the upper left corner, in points.
type sheet struct {
	*fpdf.Fpdf
	words signatureWords
	size  Page
}

// drawSignaturePages returns a PDF of the signature pages and the box of each seat, pages counted from 1.
func drawSignaturePages(o PrepareOptions, size Page) ([]byte, []Box, error) {
	f := fpdf.NewCustom(&fpdf.InitType{UnitStr: "pt", Size: fpdf.SizeType{Wd: size.Width, Ht: size.Height}})
	f.SetCatalogSort(true)
	f.SetCreationDate(time.Unix(0, 0).UTC()) // never reaches the document; fixed, so that the bytes depend on the options alone
	f.SetModificationDate(time.Unix(0, 0).UTC())
	f.SetAutoPageBreak(false, 0)
	f.SetCellMargin(0)
	f.AddUTF8FontFromBytes("sans", "", typeface.Regular.TTF())
	f.AddUTF8FontFromBytes("sans", "B", typeface.Bold.TTF())
	s := &sheet{Fpdf: f, words: wordsFor(o.Language), size: size}
	pages := (o.Seats + seatsPerPage - 1) / seatsPerPage
	boxes := make([]Box, 0, o.Seats)
	for seat := range o.Seats {
		if seat%seatsPerPage == 0 {
			s.AddPage()
			if err := s.head(o); err != nil {
				return nil, nil, err
			}
			s.foot(o, seat/seatsPerPage+1, pages)
		}
		label := ""
		if seat < len(o.Labels) {
			label = o.Labels[seat]
		}
		boxes = append(boxes, s.seat(seat, label))
	}
	var buf bytes.Buffer
	if err := f.Output(&buf); err != nil {
		return nil, nil, fmt.Errorf("pdf: draw signature pages: %w", err)
	}
	return buf.Bytes(), boxes, nil
}

func (s *sheet) font(style string, size float64, c rgb) {
	s.SetFont("sans", style, size)
	s.SetTextColor(c.r, c.g, c.b)
}

// put writes one line of text with its base line at y, shortened to width.
func (s *sheet) put(x, y, width float64, style, text string) {
	face := typeface.Regular
	if style == "B" {
		face = typeface.Bold
	}
	s.Text(x, y, s.fit(face.Show(text), width))
}

// fit shortens text to width with an ellipsis.
func (s *sheet) fit(text string, width float64) string {
	if s.GetStringWidth(text) <= width {
		return text
	}
	runes := []rune(text)
	for len(runes) > 1 && s.GetStringWidth(string(runes)+"…") > width {
		runes = runes[:len(runes)-1]
	}
	return string(runes) + "…"
}

func (s *sheet) head(o PrepareOptions) error {
	s.SetFillColor(brand.r, brand.g, brand.b)
	s.Rect(margin, 46, 34, 3.5, "F")
	width := s.size.Width - 2*margin
	if o.URL != "" {
		if err := s.qr(o.URL, s.size.Width-margin-62, 46, 62); err != nil {
			return err
		}
		width -= 80
	}
	s.font("B", 25, ink)
	s.put(margin, 80, width, "B", s.words.title)
	y := 100.0
	if o.Title != "" && typeface.Regular.Covers(o.Title) { // in other scripts the document's own pages say it better
		s.font("", 11.5, ink)
		s.put(margin, y, width, "", o.Title)
		y += 16
	}
	s.font("", 9.5, quiet)
	s.put(margin, y, width, "", s.words.reference+" "+o.Reference)
	s.font("", 9.5, quiet)
	s.put(margin, firstSeatY-14, s.size.Width-2*margin, "", s.words.how)
	return nil
}

// qr draws a QR code as filled squares, so that it prints sharp.
func (s *sheet) qr(text string, x, y, side float64) error {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return fmt.Errorf("%w: url: %w", ErrOptions, err)
	}
	module := side / float64(code.Size)
	s.SetFillColor(ink.r, ink.g, ink.b)
	for row := range code.Size {
		for col := 0; col < code.Size; col++ {
			run := 0
			for col+run < code.Size && code.Black(col+run, row) {
				run++
			}
			if run > 0 {
				s.Rect(x+float64(col)*module, y+float64(row)*module, float64(run)*module, module, "F")
				col += run
			}
		}
	}
	return nil
}

// seat draws one signer's frame and returns the place of the signature in it.
func (s *sheet) seat(seat int, label string) Box {
	y := firstSeatY + float64(seat%seatsPerPage)*(seatHeight+seatGap)
	width := s.size.Width - 2*margin
	s.SetLineWidth(0.75)
	s.SetDrawColor(line.r, line.g, line.b)
	s.SetFillColor(255, 255, 255)
	s.RoundedRect(margin, y, width, seatHeight, 7, "1234", "FD")

	x := margin + width - boxWidth - 14
	top := y + 10
	s.SetFillColor(paper.r, paper.g, paper.b)
	s.RoundedRect(x, top, boxWidth, boxHeight+4, 4, "1234", "F")
	s.SetDrawColor(brand.r, brand.g, brand.b)
	s.SetLineWidth(0.9)
	s.Line(x+8, top+boxHeight+4, x+boxWidth-8, top+boxHeight+4)

	s.SetFillColor(brand.r, brand.g, brand.b)
	s.Circle(margin+26, y+28, 12, "F")
	s.font("B", 11.5, rgb{255, 255, 255})
	n := strconv.Itoa(seat + 1)
	s.Text(margin+26-s.GetStringWidth(n)/2, y+32.2, n)

	left := margin + 48
	room := x - left - 12
	s.font("", 9, quiet)
	if label == "" || !typeface.Bold.Covers(label) {
		s.put(left, y+31, room, "", fmt.Sprintf(s.words.signer, seat+1))
		label = ""
	} else {
		s.put(left, y+25, room, "", fmt.Sprintf(s.words.signer, seat+1))
	}
	s.font("B", 11.5, ink)
	for i, l := range s.wrap(typeface.Bold.Show(label), room, 3) {
		s.Text(left, y+41+float64(i)*14.5, l)
	}
	return Box{Page: seat/seatsPerPage + 1, X: x, Y: s.size.Height - top - boxHeight, Width: boxWidth, Height: boxHeight}
}

// wrap breaks text at spaces into at most max lines of the present font; the last one is shortened if need be.
func (s *sheet) wrap(text string, width float64, limit int) []string {
	if text == "" {
		return nil
	}
	lines := s.SplitText(text, width)
	if len(lines) > limit {
		lines = lines[:limit]
		lines[limit-1] = s.fit(lines[limit-1]+"…", width)
	}
	for i, l := range lines {
		lines[i] = s.fit(l, width)
	}
	return lines
}

func (s *sheet) foot(o PrepareOptions, page, pages int) {
	y := s.size.Height - 38
	s.SetDrawColor(line.r, line.g, line.b)
	s.SetLineWidth(0.5)
	s.Line(margin, y-13, s.size.Width-margin, y-13)
	s.font("", 8, quiet)
	room := s.size.Width - 2*margin
	if pages > 1 {
		number := fmt.Sprintf("%d / %d", page, pages)
		s.Text(s.size.Width-margin-s.GetStringWidth(number), y, number)
		room -= 60
	}
	for i, l := range s.wrap(fmt.Sprintf(s.words.foot, typeface.Regular.Show(o.Reference)), room, 2) {
		s.Text(margin, y+float64(i)*10.5, l)
	}
}
