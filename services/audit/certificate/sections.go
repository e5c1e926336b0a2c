package certificate

import (
	"fmt"
	"strings"
)

const (
	labelColumn = 150.0 // of the rows of a document or signer
	timeColumn  = 108.0
	whoColumn   = 112.0
	leafColumn  = 92.0
	leafDigits  = 16 // shown of a leaf hash
	rowLead     = 12.5
)

func (p *pen) documents(documents []Document) {
	p.section(p.words.documents, 60)
	for i, d := range documents {
		if i > 0 {
			p.y += 7
		}
		p.room(50)
		p.font("sans", "B", 10.5, ink)
		p.block(margin, width-70, 15, show(d.Name))
		if d.Pages > 0 {
			text := fmt.Sprintf(p.words.pages, d.Pages)
			if d.Pages == 1 {
				text = p.words.onePage
			}
			p.font("sans", "", 9, quiet)
			p.right(margin+width, p.y-4, text)
		}
		p.hash(p.words.presented, d.Presented)
		if d.Signed == "" {
			p.font("sans", "", 9, quiet)
			p.Text(margin, p.y+10, p.words.signed)
			p.Text(margin+labelColumn-30, p.y+10, p.words.unsigned)
			p.y += 14
		} else {
			p.hash(p.words.signed, d.Signed)
		}
	}
}

// hash writes a labelled hash on one line.
func (p *pen) hash(label, value string) {
	p.room(14)
	p.font("sans", "", 9, quiet)
	p.Text(margin, p.y+10, label)
	p.font("mono", "", 8.6, ink)
	p.Text(margin+labelColumn-30, p.y+10, strings.ToLower(value))
	p.y += 14
}

// row writes a label and a wrapped value; an empty value leaves the row out.
func (p *pen) row(label, value string) {
	if value == "" {
		return
	}
	p.SetFont("sans", "", 9)
	lines := p.lines(value, width-labelColumn-12)
	p.room(float64(len(lines)) * 13)
	p.font("sans", "", 9, quiet)
	p.Text(margin+12, p.y+9.5, label)
	p.font("sans", "", 9, ink)
	for _, l := range lines {
		p.Text(margin+12+labelColumn, p.y+9.5, l)
		p.y += 13
	}
}

func (p *pen) signers(signers []Signer) {
	p.section(p.words.signers, 110)
	for i, s := range signers {
		if i > 0 {
			p.y += 12
		}
		p.room(112) // a signer's card is not torn apart for a line or two
		p.signer(s)
	}
}

func (p *pen) signer(s Signer) {
	top, page := p.y, p.PageNo()
	p.font("sans", "B", 11.5, ink)
	p.block(margin+12, width-200, 16, show(s.Name))
	state, when, c := p.words.signedAt, stamp(s.Signed), green
	switch {
	case !s.Declined.IsZero():
		state, when, c = p.words.declinedAt, stamp(s.Declined), amber
	case s.Signed.IsZero():
		state, when, c = p.words.notSigned, "", amber
	}
	p.font("sans", "B", 9.5, c)
	p.right(margin+width, top+11, strings.TrimSpace(state+" "+when))
	under := show(s.Email)
	if s.Role != "" {
		under = strings.Trim(show(s.Role)+" · "+under, " ·")
	}
	p.font("sans", "", 9.5, quiet)
	p.block(margin+12, width-180, 14, under)
	if s.Zone != nil && !s.Signed.IsZero() {
		local := s.Signed.In(s.Zone)
		p.font("sans", "", 8.5, quiet)
		p.right(margin+width, top+25, local.Format("2006-01-02 15:04:05 ")+zone(local.Format("MST"), local.Format("-07:00")))
	}
	p.y += 3
	if s.Erased {
		p.row("", p.words.erased)
	}
	if !s.Opened.IsZero() || !s.Signed.IsZero() || !s.Declined.IsZero() || len(s.Verified) > 0 {
		p.verifications(s.Verified)
	}
	p.row(p.words.opened, stamp(s.Opened))
	p.row(p.words.consented, stamp(s.Consented))
	if !s.Signed.IsZero() {
		kind, known := p.words.kinds[s.Signature]
		if !known {
			kind = show(s.Signature)
		}
		p.row(p.words.signature, kind)
	}
	p.row(p.words.address, show(s.Address))
	p.row(p.words.device, show(s.Device))
	p.bar(top, page, c)
}

// bar marks the left edge of a signer's card, if it stands on one page.
func (p *pen) bar(top float64, page int, c rgb) {
	if p.PageNo() == page {
		p.fill(c)
		p.Rect(margin, top, 2.5, p.y-top-1, "F")
	}
}

// zone names an offset, with the abbreviation where there is one: CET (+01:00).
func zone(name, offset string) string {
	if name == "" || strings.ContainsAny(name[:1], "+-0123456789") {
		return offset
	}
	return name + " (" + offset + ")"
}

func (p *pen) verifications(all []Verification) {
	if len(all) == 0 {
		p.row(p.words.verified, p.words.noCheck)
		return
	}
	for i, v := range all {
		text := show(v.Method)
		if v.Level >= 0 && v.Level < len(p.words.levels) {
			if text == "" {
				text = p.words.levels[v.Level]
			}
			text += ", " + fmt.Sprintf(p.words.level, v.Level)
		}
		if at := stamp(v.At); at != "" {
			text += ", " + at
		}
		label := p.words.verified
		if i > 0 {
			label = ""
		}
		p.row(label, text)
	}
}

func (p *pen) timeline(events []Event) {
	p.section(p.words.timeline, 60)
	if len(events) == 0 {
		p.font("sans", "", 9, quiet)
		p.block(margin, width, 13, p.words.noEvents)
		return
	}
	p.timelineHead()
	wide := width - timeColumn - whoColumn - leafColumn - 12
	for i, e := range events {
		p.SetFont("sans", "", 8.8)
		what, who := p.lines(show(e.What), wide), p.lines(show(e.Actor), whoColumn-10)
		height := float64(max(len(what), len(who), 1))*rowLead + 5
		if p.room(height) {
			p.timelineHead()
		}
		if i%2 == 1 {
			p.fill(tint)
			p.Rect(margin, p.y, width, height, "F")
		}
		base := p.y + 11.5
		p.font("mono", "", 7.8, ink)
		p.Text(margin+5, base, e.At.UTC().Format("2006-01-02 15:04:05"))
		p.font("sans", "", 8.8, ink)
		for j, l := range what {
			p.Text(margin+timeColumn, base+float64(j)*rowLead, l)
		}
		p.font("sans", "", 8.8, quiet)
		for j, l := range who {
			p.Text(margin+timeColumn+wide+12, base+float64(j)*rowLead, l)
		}
		p.font("mono", "", 7.8, quiet)
		p.Text(margin+width-leafColumn+8, base, strings.ToLower(e.Leaf[:leafDigits]))
		p.y += height
	}
	p.rule(p.y)
}

func (p *pen) timelineHead() {
	p.font("sans", "B", 8.5, quiet)
	wide := width - timeColumn - whoColumn - leafColumn - 12
	p.Text(margin+5, p.y+9, p.words.when)
	p.Text(margin+timeColumn, p.y+9, p.words.what)
	p.Text(margin+timeColumn+wide+12, p.y+9, p.words.who)
	p.Text(margin+width-leafColumn+8, p.y+9, p.words.leaf)
	p.y += 15
	p.rule(p.y)
	p.y++
}

func (p *pen) check(c Certificate) {
	p.section(p.words.check, 150)
	p.hash(p.words.head, c.Head)
	p.covered(c)
	p.y += 6
	for i, step := range p.steps(c) {
		p.room(30)
		p.font("sans", "B", 9.5, brand)
		p.Text(margin, p.y+10, fmt.Sprint(i+1))
		p.font("sans", "", 9.5, ink)
		p.block(margin+18, width-18, 14, step)
		p.y += 4
	}
	p.y += 4
	p.font("sans", "", 8.5, quiet)
	p.block(margin, width, 12.5, p.words.honest)
}

// covered says which log the chain stands in and which of its checkpoints covers it, as far as there are any.
func (p *pen) covered(c Certificate) {
	var proof []string
	if c.Log != "" {
		proof = append(proof, show(c.Log))
	}
	if c.Checkpoint > 0 {
		proof = append(proof, fmt.Sprintf(p.words.checkpoint, c.Checkpoint))
	}
	if len(proof) == 0 {
		return
	}
	p.font("sans", "", 9, quiet)
	p.Text(margin, p.y+10, p.words.log)
	p.font("sans", "", 9, ink)
	p.block(margin+labelColumn-30, width-labelColumn+30, 14, strings.Join(proof, ", "))
}

// steps are what a reader can do with what there is: without an evidence bundle no command is named that would need one.
func (p *pen) steps(c Certificate) []string {
	steps := p.words.steps[:]
	if c.Evidence == "" {
		return append(steps, p.words.trail)
	}
	return append(steps, fmt.Sprintf(p.words.verify, show(c.Evidence)))
}

// feet numbers the pages once it is known how many there are.
func (p *pen) feet(c Certificate) {
	pages := p.PageCount()
	for n := 1; n <= pages; n++ {
		p.SetPage(n)
		p.rule(pageHeight - 46)
		p.SetFont("sans", "B", 7) // a change, so that the next one is written into this page too
		p.font("sans", "", 8, quiet)
		number := fmt.Sprintf(p.words.page, n, pages)
		p.right(margin+width, pageHeight-32, number)
		left := p.lines(p.words.title(c.Outcome)+" · "+show(c.Reference)+" · "+show(c.RequestID), width-p.GetStringWidth(number)-20)
		p.Text(margin, pageHeight-32, left[0])
	}
}
