// Package pdf does everything that means reading a stranger's PDF: inspection at intake, the signature page, page images, text.
//
// None of it runs in the service itself. A Sandbox starts the same binary again as a helper (RunHelperIfAsked), with limits on
// time and memory and without the service's environment, and talks to it over pipes; a helper that hangs, traps or outgrows its
// limits is killed and replaced, and the document is refused. PDFium, which draws the pages, runs inside the helper as WebAssembly
// with no file system and a memory limit of its own, in a fresh instance for each job.
package pdf

import (
	"errors"
	"fmt"
)

// Limits of what is taken in. They are part of the product's promise to platforms, so they are constants.
const (
	MaxBytes    = 25 << 20 // of a document
	MaxPages    = 500
	MinPageSide = 72.0     // points; 1 inch
	MaxPageSide = 14_400.0 // points; the limit of PDF 1.7 itself
	MaxSeats    = 50       // signers of one request
	MinWidth    = 16       // pixels of a page image
	MaxWidth    = 2160     // pixels of a page image
)

// Reason says in one word why a document was refused. Reasons never change once released.
type Reason string

// The reasons for a refusal.
const (
	TooLarge      Reason = "too-large"      // more than MaxBytes
	NotPDF        Reason = "not-a-pdf"      // empty, or something else
	Broken        Reason = "broken"         // cannot be read
	BrokenSigned  Reason = "broken-signed"  // needs repair, and repair would break the signatures in it
	Encrypted     Reason = "encrypted"      // any encryption, an empty password too
	JavaScript    Reason = "javascript"     // scripts
	ActiveContent Reason = "active-content" // starts programs, sends forms, opens attachments, acts on events
	DynamicForm   Reason = "dynamic-form"   // XFA: what is shown is computed by the viewer
	Attachment    Reason = "attachment"     // embedded files
	Multimedia    Reason = "multimedia"     // film, sound, 3D
	NoPages       Reason = "no-pages"       // nothing to sign
	TooManyPages  Reason = "too-many-pages" // more than MaxPages
	PageSize      Reason = "page-size"      // a side outside MinPageSide..MaxPageSide
	Locked        Reason = "locked"         // certified so that nobody may sign any more (DocMDP P=1)
	TooComplex    Reason = "too-complex"    // the helper ran out of time or memory, or fell over
	Undrawable    Reason = "undrawable"     // the page cannot be drawn
)

var texts = map[Reason]string{
	TooLarge:      "The document is larger than 25 MB. Please send a smaller file.",
	NotPDF:        "This is not a PDF file. Please send the document as a PDF.",
	Broken:        "The PDF file is damaged and cannot be read. Please export it again.",
	BrokenSigned:  "The PDF file is damaged, and mending it would break the signatures it already has. Please send the undamaged original.",
	Encrypted:     "The PDF file is encrypted. Please send it without a password or restrictions.",
	JavaScript:    "The PDF file contains JavaScript. Please send it without scripts, for example printed to a new PDF.",
	ActiveContent: "The PDF file contains actions that run by themselves. Please send it without them, for example printed to a new PDF.",
	DynamicForm:   "The PDF file is a dynamic form (XFA), whose content depends on the viewer. Please print it to a new PDF.",
	Attachment:    "The PDF file has other files attached. Please send them as documents of their own.",
	Multimedia:    "The PDF file contains film, sound or 3D content. Please send it without.",
	NoPages:       "The PDF file has no pages.",
	TooManyPages:  "The document has more than 500 pages. Please send a shorter document.",
	PageSize:      "A page of the document is too small or too large. Pages may measure between 1 and 200 inches a side.",
	Locked:        "The document was certified by its author so that no further signature is allowed. Please ask for a copy that may be signed.",
	TooComplex:    "The PDF file takes too much time or memory to read. Please print it to a new PDF.",
	Undrawable:    "A page of the PDF file cannot be shown. Please export it again.",
}

// Refusal is the expected answer to a document that cannot be signed safely.
type Refusal struct {
	Reason Reason
	Text   string // plain English words with the next step, fit to show the sender; no content of the document
}

// Error returns reason and words.
func (r *Refusal) Error() string { return fmt.Sprintf("pdf: refused (%s): %s", r.Reason, r.Text) }

// Is makes errors.Is match by reason.
func (r *Refusal) Is(target error) bool {
	t, ok := target.(*Refusal)
	return ok && t.Reason == r.Reason
}

// Refuse returns the refusal for a reason.
func Refuse(reason Reason) *Refusal { return &Refusal{Reason: reason, Text: texts[reason]} }

// Errors that are not the document's fault.
var (
	ErrClosed  = errors.New("pdf: sandbox is closed")
	ErrOptions = errors.New("pdf: options out of range") // the caller's mistake
	ErrNoPage  = errors.New("pdf: no such page")
)

// Report says what an accepted document is.
type Report struct {
	PDF        []byte `json:"-"`          // what to go on with: the input itself, or its repaired form if Normalised
	Received   string `json:"received"`   // SHA-256 of the input, lower-case hex
	Digest     string `json:"digest"`     // SHA-256 of PDF, lower-case hex; equals Received unless Normalised
	Normalised bool   `json:"normalised"` // its structure was damaged and has been written anew; content and order of pages are the same
	Signed     bool   `json:"signed"`     // holds at least one signature: only incremental updates from now on
	DocMDP     int    `json:"docmdp"`     // what its certification allows: 0 not certified, 2 forms and signing, 3 annotations too
	Pages      []Page `json:"pages"`      // in order
	Links      bool   `json:"links"`      // has links to the web or to other files
	Form       bool   `json:"form"`       // has form fields
}

// Page is the size of a page as a reader sees it, in points (1/72 inch): cropped and turned.
type Page struct {
	Width  float64 `json:"width"`
	Height float64 `json:"height"`
}

// Box is the place of a visible signature: points from the lower left corner of an unturned page.
type Box struct {
	Page   int     `json:"page"` // from 1
	X      float64 `json:"x"`
	Y      float64 `json:"y"`
	Width  float64 `json:"width"`
	Height float64 `json:"height"`
}

// PrepareOptions says what the signature page shows.
type PrepareOptions struct {
	Reference string   `json:"reference"` // of the request; at most 100 characters
	Title     string   `json:"title"`     // of the document; may be empty; at most 200 characters
	Seats     int      `json:"seats"`     // signers, 1..MaxSeats
	Labels    []string `json:"labels"`    // by seat, e.g. a role or a name; may be shorter than Seats; at most 100 characters each
	Language  string   `json:"language"`  // BCP 47; en, de, fr, es and pt are known, anything else is English
	URL       string   `json:"url"`       // shown as a QR code if given; must carry no secret; at most 200 bytes
}

// Image is the picture of a page.
type Image struct {
	Bytes  []byte `json:"-"`
	Type   string `json:"type"` // image/png (few colours) or image/jpeg
	Width  int    `json:"width"`
	Height int    `json:"height"`
}
