package smtp

import (
	"bytes"
	"fmt"
	"mime"
	netmail "net/mail"
	"strings"

	"github.com/wneessen/go-mail"

	"countersign.dev/services/delivery/channel"
)

// compose writes m as an RFC 5322 message. m must have passed Validate.
//
// The Message-ID depends on the id and the sender's domain alone, so that it is the same at every attempt and through
// every relay, and mail clients fold what arrives twice (spec 4.8).
func (s *Sender) compose(m channel.Message) (*mail.Msg, error) {
	from, err := header(m.From)
	if err != nil {
		return nil, err
	}
	to, err := header(m.To)
	if err != nil {
		return nil, err
	}
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	msg.FromMailAddress(from)
	msg.ToMailAddress(to)
	if m.ReplyTo.Email != "" {
		reply, err := header(m.ReplyTo)
		if err != nil {
			return nil, err
		}
		msg.ReplyToMailAddress(reply)
	}
	_, domain, _ := strings.Cut(from.Address, "@")
	msg.SetMessageIDWithValue(m.ID + "@" + domain)
	msg.SetDateWithValue(s.config.Now().UTC())
	msg.Subject(m.Subject)
	// RFC 3834: keeps vacation notices from answering; the second field says the same to Exchange.
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetGenHeader("X-Auto-Response-Suppress", "All")
	if m.Locale != "" {
		msg.SetGenHeader("Content-Language", m.Locale)
	}
	for name, value := range m.Headers {
		msg.SetGenHeader(mail.Header(name), value)
	}
	msg.SetBodyString(mail.TypeTextPlain, m.Text)
	if m.HTML != "" {
		msg.AddAlternativeString(mail.TypeTextHTML, m.HTML)
	}
	for _, file := range m.Attached {
		msg.AttachReadSeeker(file.Name, bytes.NewReader(file.Content), described(file))
	}
	if s.dkim != nil {
		msg.SetDKIM(s.dkim)
	}
	return msg, nil
}

// described writes a file's name as RFC 2231 wants it; the library's own form is an encoded word in quotes, which
// RFC 2047 5 forbids and some clients show raw.
func described(file channel.Attachment) mail.FileOption {
	return func(f *mail.File) {
		f.Header.Set("Content-Type", mime.FormatMediaType(file.ContentType, map[string]string{"name": file.Name}))
		f.Header.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": file.Name}))
	}
}

func header(a channel.Address) (*netmail.Address, error) {
	wire, _, err := channel.Envelope(a.Email)
	if err != nil {
		return nil, fmt.Errorf("address for the header: %w", err)
	}
	return &netmail.Address{Name: a.Name, Address: wire}, nil
}
