package pages

import (
	"fmt"
	"html"
	"net/http"
	"slices"
	"strings"
	"time"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/failure/words"
)

// What one page takes of a long document; the rest is on Reading pages, so that no page passes Budget.
const (
	MaxSheets     = 50     // pictures on one page, of all papers together
	maxSheetsText = 12_000 // bytes of reading text on one page, as HTML
	maxReading    = 24_000 // the same on a Reading page
)

// Sheet is one page of a document: a picture and its reading text.
type Sheet struct {
	Src           string // path of the picture, at Width
	Wide          string // path of a larger one for dense screens; empty is none
	WideWidth     int    // pixels
	Width, Height int    // pixels; they keep the page from jumping while it loads
	Text          string // reading text; empty has none
}

// Paper is one document of a request.
type Paper struct {
	Title    string
	Sheets   []Sheet // all of them: what is too much for one page is left to Reading
	Download string  // GET: the PDF
	Size     int64   // bytes of the PDF; 0 is not shown
	Reading  string  // GET: the Reading page of this paper; needed when all papers together have more than MaxSheets
}

// Document shows what is to be signed, what signing electronically means, and takes the signature.
type Document struct {
	Frame
	Sender    string
	Signer    string // name on record; the suggestion beside the field
	Papers    []Paper
	Presented string    // SHA-256 of the revision shown, hexadecimal; comes back as FieldPresented
	FinishBy  time.Time // set in grace: the link has expired, the session may finish until then
	AgreedAt  time.Time // set when consent was given before and still holds: no box is shown
	Sign      string    // POST
	Decline   string    // POST; empty is not offered
	Delegate  string    // GET; empty is not offered
	Failure   *failure.Error
	Agreed    bool   // what was posted, when the page is shown again
	Name      string // what was posted, when the page is shown again
}

// Status is the failure's, or 200.
func (p Document) Status() int {
	if p.Failure != nil && p.Failure.HTTP != 0 {
		return p.Failure.HTTP
	}
	return http.StatusOK
}

// sheetView is a Sheet made ready.
type sheetView struct {
	Sheet
	Number, Of int
	Srcset     string
	First      bool
}

// paperView is a Paper made ready.
type paperView struct {
	Paper
	Shown  []sheetView
	Total  int
	More   bool // sheets are missing here
	Unread bool // reading text is missing here
	Only   bool // the request has no other paper
}

type documentView struct {
	Document
	Views      []paperView
	Disclosure Statement
	Parts      []part
	Intent     Statement
	Problem    words.Words
	AtBox      bool
	AtName     bool
}

// Render returns the page.
func (p Document) Render() ([]byte, error) {
	complaints := []error{need("sender", p.Sender, "path to sign", p.Sign, "signer", p.Signer), local(p.Sign, p.Decline, p.Delegate)}
	if len(p.Papers) == 0 {
		complaints = append(complaints, fmt.Errorf("%w: no document", ErrModel))
	}
	for _, paper := range p.Papers {
		complaints = append(complaints, need("title", paper.Title, "download path", paper.Download), local(paper.Download, paper.Reading), sheetPaths(paper.Sheets))
	}
	views := lay(p.Papers)
	for _, v := range views {
		if v.More {
			complaints = append(complaints, need("reading path", v.Reading))
		}
	}
	if err := p.check(complaints...); err != nil {
		return nil, err
	}
	t := speaker(p.Locale)
	v := documentView{Document: p, Views: views, Disclosure: Disclosure(t.tag), Intent: Intent(t.tag)}
	v.Parts = v.Disclosure.parts()
	if p.Failure != nil {
		v.Problem = words.For(p.Failure.Code, t.tag)
		v.AtBox = p.Failure.Code == failure.ConsentRequired.Code
		v.AtName = p.Failure.Code == failure.SignatureInvalid.Code
	}
	heading := shown(p.Papers[0].Title)
	if len(p.Papers) > 1 {
		var err error
		if heading, err = t.say("document.several", "N", len(p.Papers)); err != nil {
			return nil, err
		}
	}
	return render("document", p.Frame, heading, p.Failure != nil, v)
}

func sheetPaths(sheets []Sheet) error {
	for _, s := range sheets {
		if err := local(s.Src, s.Wide); err != nil {
			return err
		}
	}
	return nil
}

// lay spreads the papers over one page: pictures up to MaxSheets, reading text up to its budget.
func lay(papers []Paper) []paperView {
	views := make([]paperView, 0, len(papers))
	rooms, budget := shares(papers), maxSheetsText
	for i, paper := range papers {
		v := paperView{Paper: paper, Total: len(paper.Sheets), Only: len(papers) == 1, More: rooms[i] < len(paper.Sheets)}
		cost := 0
		for n, s := range paper.Sheets[:rooms[i]] {
			s.Text = CleanLines(s.Text, maxNote)
			cost += len(html.EscapeString(s.Text))
			v.Shown = append(v.Shown, s.ready(n+1, v.Total))
		}
		if cost <= budget {
			budget -= cost
		} else { // all of the text or none: one that stops half way misleads
			v.Unread = paper.Reading != ""
			for n := range v.Shown {
				v.Shown[n].Text = ""
			}
		}
		views = append(views, v)
	}
	return views
}

// shares divides MaxSheets among papers: short ones are shown whole, long ones share what is left.
func shares(papers []Paper) []int {
	order := make([]int, len(papers))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(papers[a].Sheets) - len(papers[b].Sheets) })
	rooms, left := make([]int, len(papers)), MaxSheets
	for done, i := range order {
		rooms[i] = min(len(papers[i].Sheets), left/(len(papers)-done))
		left -= rooms[i]
	}
	return rooms
}

func (s Sheet) ready(number, of int) sheetView {
	v := sheetView{Sheet: s, Number: number, Of: of, First: number == 1}
	if s.Wide != "" && s.WideWidth > 0 {
		v.Srcset = fmt.Sprintf("%s %dw, %s %dw", s.Src, s.Width, s.Wide, s.WideWidth)
	}
	return v
}

// Reading shows one sheet of a document with its text, for long documents and for readers who prefer text.
type Reading struct {
	Frame
	Title    string
	Sheet    Sheet
	Number   int    // of this sheet, from 1
	Of       int    // sheets of the document
	Before   string // GET: the sheet before; empty on the first
	After    string // GET: the sheet after; empty on the last
	Back     string // GET: the Document page
	Download string // GET: the PDF
}

type readingView struct {
	Reading
	View       sheetView
	Paragraphs []string
	Cut        bool
}

// Status is 200.
func (Reading) Status() int { return http.StatusOK }

// Render returns the page.
func (p Reading) Render() ([]byte, error) {
	err := p.check(need("title", p.Title, "way back", p.Back), local(p.Before, p.After, p.Back, p.Download), sheetPaths([]Sheet{p.Sheet}))
	if err != nil {
		return nil, err
	}
	v := readingView{Reading: p, View: p.Sheet.ready(p.Number, p.Of)}
	v.View.First = true
	v.Paragraphs, v.Cut = paragraphs(CleanLines(p.Sheet.Text, maxNote), maxReading)
	return render("reading", p.Frame, shown(p.Title), false, v)
}

// paragraphs splits a text at its empty lines, and takes as many whole lines as fit into room bytes of HTML.
func paragraphs(text string, room int) (kept []string, cut bool) {
	const markup = 20 // bytes a paragraph costs besides its text
	for block := range strings.SplitSeq(text, "\n\n") {
		var lines []string
		room -= markup
		for line := range strings.SplitSeq(block, "\n") {
			if room -= len(html.EscapeString(line)) + 1; room < 0 {
				cut = true
				break
			}
			lines = append(lines, line)
		}
		if whole := strings.Join(lines, "\n"); whole != "" {
			kept = append(kept, whole)
		}
		if cut {
			break
		}
	}
	return kept, cut
}
