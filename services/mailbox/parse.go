package mailbox

import (
	"bytes"
	"crypto/md5"  //nolint:gosec // Mailpit's API shows it; nothing relies on it
	"crypto/sha1" //nolint:gosec // likewise
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html"
	"io"
	"net/mail"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset" // reads mails in other character sets than UTF-8
	gomail "github.com/emersion/go-message/mail"
)

// Summary is a mail in a list; the JSON is Mailpit's.
type Summary struct {
	ID          string
	MessageID   string // without angle brackets
	Read        bool   // since the mailbox was opened
	From        *mail.Address
	To          []*mail.Address
	Cc          []*mail.Address
	Bcc         []*mail.Address // who got it without being named in it
	ReplyTo     []*mail.Address
	Subject     string
	Created     time.Time
	Username    string
	Tags        []string
	Size        int // bytes
	Attachments int
	Snippet     string // at most 250 characters of the text
}

// Message is a whole mail without its files; the JSON is Mailpit's, and Headers besides.
type Message struct {
	ID          string
	MessageID   string
	From        *mail.Address
	To          []*mail.Address
	Cc          []*mail.Address
	Bcc         []*mail.Address
	ReplyTo     []*mail.Address
	ReturnPath  string
	Subject     string
	Date        time.Time // of the mail, else of its arrival
	Tags        []string
	Username    string
	Text        string
	HTML        string
	Size        int
	Inline      []Attachment
	Attachments []Attachment
	Headers     map[string][]string
}

// Attachment is a file in a mail.
type Attachment struct {
	PartID      string
	FileName    string
	ContentType string
	ContentID   string
	Size        int
	Checksums   struct{ MD5, SHA1, SHA256 string }
}

// parsed is a mail with its files.
type parsed struct {
	Message
	created time.Time
	files   map[string][]byte // by part id
}

// Bounds of what a hostile mail can make us do.
const (
	maxDepth = 10
	maxParts = 200
)

// parse reads as much of a mail as can be read; it never fails, since a mailbox must also show what is broken.
func parse(id string, raw []byte) parsed {
	p := parsed{created: time.UnixMilli(millis(id)).UTC(), files: map[string][]byte{}}
	p.ID, p.Size = id, len(raw)
	p.Tags, p.Inline, p.Attachments = []string{}, []Attachment{}, []Attachment{}
	p.Date, p.Headers = p.created, map[string][]string{}
	entity, err := message.Read(bytes.NewReader(raw))
	if entity == nil {
		p.Text = fmt.Sprintf("This mail could not be read: %v\n\n%s", err, strings.ToValidUTF8(string(raw), "?"))
		p.To, p.Cc, p.Bcc, p.ReplyTo = noAddresses(), noAddresses(), noAddresses(), noAddresses()
		return p
	}
	p.readHeader(gomail.Header{Header: entity.Header})
	parts := 0
	p.walk(entity, nil, &parts)
	return p
}

func noAddresses() []*mail.Address { return []*mail.Address{} }

func (p *parsed) readHeader(h gomail.Header) {
	for fields := h.Fields(); fields.Next(); {
		text, err := fields.Text()
		if err != nil {
			text = fields.Value()
		}
		p.Headers[fields.Key()] = append(p.Headers[fields.Key()], text)
	}
	list := func(field string) []*mail.Address {
		addresses, err := h.AddressList(field)
		if err != nil || addresses == nil {
			return noAddresses()
		}
		return addresses
	}
	p.To, p.Cc, p.Bcc, p.ReplyTo = list("To"), list("Cc"), list("Bcc"), list("Reply-To")
	if from := list("From"); len(from) > 0 {
		p.From = from[0]
	}
	named := map[string]bool{}
	for _, a := range append(append(append(noAddresses(), p.To...), p.Cc...), p.Bcc...) {
		named[strings.ToLower(a.Address)] = true
	}
	for _, to := range p.Headers["Delivered-To"] {
		if !named[strings.ToLower(to)] {
			p.Bcc = append(p.Bcc, &mail.Address{Address: to})
		}
	}
	p.ReturnPath = strings.Trim(h.Get("Return-Path"), "<>")
	p.Subject = first(p.Headers["Subject"])
	p.MessageID = strings.Trim(h.Get("Message-Id"), "<> ")
	if date, err := h.Date(); err == nil && !date.IsZero() {
		p.Date = date
	}
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// walk takes in a part and those inside it. Part ids are as in IMAP: 1, 2, 2.1 ...
func (p *parsed) walk(e *message.Entity, path []int, parts *int) {
	*parts++
	if len(path) > maxDepth || *parts > maxParts {
		return
	}
	if inner := e.MultipartReader(); inner != nil {
		for n := 1; ; n++ {
			part, err := inner.NextPart()
			if part == nil || (err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err)) {
				return
			}
			p.walk(part, append(path[:len(path):len(path)], n), parts)
		}
	}
	body, err := io.ReadAll(io.LimitReader(e.Body, maxMessage))
	if err != nil {
		body = append(body, []byte("\n[the rest of this part could not be read]")...)
	}
	media, _, err := e.Header.ContentType()
	if err != nil || media == "" {
		media = "text/plain"
	}
	disposition, _, _ := e.Header.ContentDisposition()
	name, _ := (&gomail.AttachmentHeader{Header: e.Header}).Filename()
	switch {
	case disposition != "attachment" && name == "" && media == "text/plain":
		p.Text += strings.ToValidUTF8(string(body), "�")
	case disposition != "attachment" && name == "" && media == "text/html":
		p.HTML += strings.ToValidUTF8(string(body), "�")
	default:
		p.file(e, partID(path), media, disposition, name, body)
	}
}

func (p *parsed) file(e *message.Entity, id, media, disposition, name string, body []byte) {
	a := Attachment{PartID: id, FileName: name, ContentType: media, ContentID: strings.Trim(e.Header.Get("Content-Id"), "<> "), Size: len(body)}
	sums := md5.Sum(body) //nolint:gosec // see the import
	a.Checksums.MD5 = hex.EncodeToString(sums[:])
	sum1 := sha1.Sum(body) //nolint:gosec // see the import
	a.Checksums.SHA1 = hex.EncodeToString(sum1[:])
	sum256 := sha256.Sum256(body)
	a.Checksums.SHA256 = hex.EncodeToString(sum256[:])
	if a.FileName == "" {
		a.FileName = "part-" + id
	}
	p.files[id] = body
	if disposition != "attachment" && a.ContentID != "" {
		p.Inline = append(p.Inline, a)
		return
	}
	p.Attachments = append(p.Attachments, a)
}

func partID(path []int) string {
	if len(path) == 0 {
		return "1"
	}
	numbers := make([]string, len(path))
	for i, n := range path {
		numbers[i] = strconv.Itoa(n)
	}
	return strings.Join(numbers, ".")
}

var (
	unseen = regexp.MustCompile(`(?is)<(style|script|head|title)\b.*?</(style|script|head|title)>`)
	tags   = regexp.MustCompile(`(?s)<[^>]*>`)
)

func (p parsed) summary() Summary {
	text := p.Text
	if strings.TrimSpace(text) == "" {
		text = html.UnescapeString(tags.ReplaceAllString(unseen.ReplaceAllString(p.HTML, " "), " "))
	}
	snippet := []rune(strings.Join(strings.Fields(text), " "))
	if len(snippet) > 250 {
		snippet = append(snippet[:249], '…')
	}
	return Summary{
		ID: p.ID, MessageID: p.MessageID, From: p.From, To: p.To, Cc: p.Cc, Bcc: p.Bcc, ReplyTo: p.ReplyTo,
		Subject: p.Subject, Created: p.created, Tags: []string{}, Size: p.Size,
		Attachments: len(p.Attachments), Snippet: string(snippet),
	}
}
