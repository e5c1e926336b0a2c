// Package sample makes documents for demonstrations and tests: believable ones, made when asked for, always the same bytes.
package sample

import (
	"bytes"
	"time"

	"codeberg.org/go-pdf/fpdf"

	"countersign.dev/pkg/typeface"
)

// The letter's layout in points; large type, since most people will read it on a telephone.
const (
	pageWidth  = 595.28
	pageHeight = 841.89
	margin     = 50.0
	body       = 13.5
	lead       = 20.5
	column     = 116.0 // of the table's left half
)

var written = time.Date(2026, time.November, 2, 9, 0, 0, 0, time.UTC)

type rgb struct{ r, g, b int }

var (
	ink   = rgb{28, 33, 43}
	quiet = rgb{105, 113, 126}
	brand = rgb{13, 99, 92}
	tint  = rgb{238, 245, 244}
	line  = rgb{205, 221, 218}
)

// Offer returns an offer of employment to the person named: a PDF of two pages in English, without fields or signatures.
// The same name always gives the same bytes.
func Offer(name string) []byte {
	f := fpdf.NewCustom(&fpdf.InitType{UnitStr: "pt", Size: fpdf.SizeType{Wd: pageWidth, Ht: pageHeight}})
	f.SetCatalogSort(true)
	f.SetCreationDate(written)
	f.SetModificationDate(written)
	f.SetTitle("Offer of employment", true)
	f.SetAuthor("Alder & Finch Ltd", true)
	f.SetLang("en-GB")
	f.SetCellMargin(0)
	f.SetMargins(margin, 128, margin)
	f.SetAutoPageBreak(true, 82)
	f.AddUTF8FontFromBytes("sans", "", typeface.Regular.TTF())
	f.AddUTF8FontFromBytes("sans", "B", typeface.Bold.TTF())
	f.AddUTF8FontFromBytes("hand", "", typeface.Script.TTF())
	l := &letter{f}
	f.SetHeaderFunc(l.head)
	f.SetFooterFunc(l.foot)
	l.write(typeface.Regular.Show(name))
	var buf bytes.Buffer
	if err := f.Output(&buf); err != nil {
		panic("sample: " + err.Error()) // nothing but the embedded fonts and the words below goes in
	}
	return buf.Bytes()
}

type letter struct{ *fpdf.Fpdf }

func (l *letter) font(style string, size float64, c rgb) {
	l.SetFont("sans", style, size)
	l.SetTextColor(c.r, c.g, c.b)
}

// head draws the mark (a leaf and a beak, more or less) and the company's name.
func (l *letter) head() {
	l.SetFillColor(brand.r, brand.g, brand.b)
	l.RoundedRect(margin, 48, 36, 36, 8, "1234", "F")
	l.SetFillColor(255, 255, 255)
	l.Polygon([]fpdf.PointType{{X: margin + 9, Y: 74}, {X: margin + 18, Y: 55}, {X: margin + 22, Y: 63.5}, {X: margin + 16, Y: 74}}, "F")
	l.SetFillColor(155, 211, 202)
	l.Polygon([]fpdf.PointType{{X: margin + 19.5, Y: 74}, {X: margin + 24, Y: 65}, {X: margin + 28, Y: 74}}, "F")
	l.font("B", 16, ink)
	l.Text(margin+47, 64, "Alder & Finch")
	l.font("", 9.5, quiet)
	l.Text(margin+47, 79, "Furniture made to be mended")
	for i, t := range []string{"14 Weaver Street", "Bristol BS1 4QT", "people@alderfinch.example"} {
		l.Text(pageWidth-margin-l.GetStringWidth(t), 58+float64(i)*13, t)
	}
	l.SetY(128)
}

func (l *letter) foot() {
	l.SetDrawColor(line.r, line.g, line.b)
	l.SetLineWidth(0.6)
	l.Line(margin, pageHeight-58, pageWidth-margin, pageHeight-58)
	l.font("", 8.5, quiet)
	l.Text(margin, pageHeight-42, "Alder & Finch Ltd · Registered in England and Wales, no. 00000000 · A sample document")
	n := []string{"", "1", "2", "3"}[min(l.PageNo(), 3)]
	l.Text(pageWidth-margin-l.GetStringWidth(n), pageHeight-42, n)
}

func (l *letter) write(name string) {
	l.AddPage()
	l.font("", body, ink)
	l.para("2 November 2026")
	l.font("B", 25, ink)
	l.MultiCell(0, 33, "Offer of employment", "", "L", false)
	l.Ln(9)
	l.font("", body, ink)
	l.para("Dear " + name + ",")
	l.para("Thank you for the time you spent with us. We enjoyed meeting you, and we are glad to offer you the position of " +
		"Product Designer in our workshop team in Bristol.")
	l.table([][2]string{
		{"Position", "Product Designer, full time"},
		{"Start", "Monday, 4 January 2027"},
		{"Salary", "£48,500 a year, paid on the 25th of each month"},
		{"Hours", "37.5 a week, Monday to Friday"},
		{"Place", "14 Weaver Street, Bristol; two days a week from home"},
		{"Holiday", "28 days a year and public holidays"},
		{"Pension", "We pay in 6 %, you pay in 4 %"},
	})
	l.font("", body, ink)
	l.para("The first three months are a probationary period. During it, either of us may end the employment with two weeks’ " +
		"notice; after it, the notice period is two months.")
	l.section("What we ask of you", "Please keep our designs, customers and prices to yourself, during your employment and after it. What you "+
		"design for us in working hours belongs to Alder & Finch; your name stays on it.")
	l.section("What you can expect", "A bench of your own, a budget of £1,200 a year for learning, and one afternoon in four for repairs of your choice. "+
		"We review salaries together every April.")
	l.section("How to accept", "This offer stands until 30 November 2026. To accept it, please sign electronically on the last page. "+
		"If anything is unclear, write to people@alderfinch.example before you sign; we are happy to explain or to change it.")
	l.Ln(4)
	l.para("We look forward to working with you.")
	l.para("Yours sincerely,")
	l.SetTextColor(38, 58, 120)
	l.SetFont("hand", "", 34)
	l.Text(margin, l.GetY()+26, "Rosalind Finch")
	l.Ln(48)
	l.font("B", body, ink)
	l.MultiCell(0, lead, "Rosalind Finch", "", "L", false)
	l.font("", body, quiet)
	l.MultiCell(0, lead, "Managing Director", "", "L", false)
}

func (l *letter) para(text string) {
	l.MultiCell(0, lead, text, "", "L", false)
	l.Ln(9)
}

func (l *letter) section(title, text string) {
	if l.GetY() > pageHeight-190 { // a heading stays with its text
		l.AddPage()
	}
	l.Ln(3)
	l.font("B", 15, brand)
	l.MultiCell(0, 24, title, "", "L", false)
	l.Ln(1)
	l.font("", body, ink)
	l.para(text)
}

func (l *letter) table(rows [][2]string) {
	l.Ln(2)
	l.SetDrawColor(line.r, line.g, line.b)
	l.SetLineWidth(0.6)
	width := pageWidth - 2*margin
	for _, row := range rows {
		l.font("", body-1, ink)
		lines := l.SplitText(row[1], width-column-28)
		height := float64(len(lines))*19 + 13
		y := l.GetY()
		l.SetFillColor(tint.r, tint.g, tint.b)
		l.Rect(margin, y, column, height, "F")
		l.Line(margin, y, margin+width, y)
		l.font("B", body-1, brand)
		l.Text(margin+12, y+20.5, row[0])
		l.font("", body-1, ink)
		for i, t := range lines {
			l.Text(margin+column+14, y+20.5+float64(i)*19, t)
		}
		l.SetY(y + height)
	}
	l.Line(margin, l.GetY(), margin+width, l.GetY())
	l.Ln(15)
}
