package pdf

import (
	"fmt"
	"unicode/utf8"
)

// SignatureAspect is width / height of every Box and of the pictures that Signature draws, so that one fills the other.
const SignatureAspect = 10.0 / 3

// prepare appends the signature pages to an unsigned document; a signed one comes back as it is, without boxes.
// The error is a *Refusal or ErrOptions.
func prepare(b []byte, o PrepareOptions) (out []byte, boxes []Box, err error) {
	defer func() {
		if recover() != nil { // pdfcpu panics on some damaged files
			out, boxes, err = nil, nil, Refuse(Broken)
		}
	}()
	if err := o.validate(); err != nil {
		return nil, nil, err
	}
	if err := checkBytes(b, maxPrepared); err != nil {
		return nil, nil, err
	}
	ctx, err := readAll(b, false)
	if err != nil {
		return nil, nil, err
	}
	var report Report
	if _, _, err := check(ctx, &report); err != nil {
		return nil, nil, err
	}
	if report.Signed {
		return b, nil, nil
	}
	extra, boxes, err := drawSignaturePages(o, pageFormat(report.Pages[0]))
	if err != nil {
		return nil, nil, err
	}
	out, first, err := appendPages(b, extra)
	if err != nil {
		return nil, nil, err
	}
	for i := range boxes {
		boxes[i].Page += first - 1
	}
	if err := recheck(out, len(report.Pages)+boxes[len(boxes)-1].Page-first+1); err != nil {
		return nil, nil, fmt.Errorf("pdf: the prepared document fails its own check: %w", err)
	}
	return out, boxes, nil
}

func (o PrepareOptions) validate() error {
	switch {
	case o.Seats < 1 || o.Seats > MaxSeats:
		return fmt.Errorf("%w: seats %d, accepted are 1..%d", ErrOptions, o.Seats, MaxSeats)
	case o.Reference == "" || utf8.RuneCountInString(o.Reference) > 100:
		return fmt.Errorf("%w: reference, accepted are 1..100 characters", ErrOptions)
	case utf8.RuneCountInString(o.Title) > 200:
		return fmt.Errorf("%w: title, accepted are up to 200 characters", ErrOptions)
	case len(o.URL) > 200:
		return fmt.Errorf("%w: url, accepted are up to 200 bytes", ErrOptions)
	case len(o.Labels) > o.Seats:
		return fmt.Errorf("%w: more labels than seats", ErrOptions)
	}
	for _, l := range o.Labels {
		if utf8.RuneCountInString(l) > 100 {
			return fmt.Errorf("%w: label, accepted are up to 100 characters", ErrOptions)
		}
	}
	return nil
}

// pageFormat is the paper of the signature pages: US Letter for a document on US Letter, else A4.
func pageFormat(first Page) Page {
	if near(first.Width, 612) && near(first.Height, 792) || near(first.Width, 792) && near(first.Height, 612) {
		return Page{Width: 612, Height: 792}
	}
	return Page{Width: 595.28, Height: 841.89}
}

func near(a, b float64) bool { return a-b < 3 && b-a < 3 }
