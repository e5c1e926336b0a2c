package mailbox

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

func (m *Mailbox) smtpServer() *smtp.Server {
	s := smtp.NewServer(smtp.BackendFunc(m.begin))
	s.Domain = "mailbox.localhost"
	s.AllowInsecureAuth = true
	s.EnableSMTPUTF8 = true
	s.MaxMessageBytes = maxMessage
	s.MaxRecipients = maxRecipients
	s.ReadTimeout, s.WriteTimeout = idleLimit, idleLimit
	s.ErrorLog = slog.NewLogLogger(m.config.Logger.Handler(), slog.LevelWarn)
	return s
}

// session is one SMTP connection. busy is guarded by the mailbox's mutex.
type session struct {
	box  *Mailbox
	conn *smtp.Conn
	busy bool // between MAIL and its end
	env  envelope
}

// envelope is what SMTP says about a mail besides the mail.
type envelope struct {
	From string
	To   []string
	Helo string
	Peer string
}

func (m *Mailbox) begin(c *smtp.Conn) (smtp.Session, error) {
	s := &session{box: m, conn: c}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.draining {
		return nil, &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "Stopping, please come back"}
	}
	m.sessions[s] = struct{}{}
	return s, nil
}

// Logout forgets the session.
func (s *session) Logout() error {
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	delete(s.box.sessions, s)
	return nil
}

// Reset ends the mail that was under way. While the mailbox drains it ends the connection too.
func (s *session) Reset() {
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	s.busy, s.env = false, envelope{}
	if s.box.draining {
		_ = s.conn.Conn().Close()
	}
}

// AuthMechanisms names what the mailbox pretends to check.
func (s *session) AuthMechanisms() []string { return []string{sasl.Plain} }

// Auth accepts any user and password, unless chaos says no.
func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, _, _ string) error {
		return s.box.chaos.strike(authentication)
	}), nil
}

// Mail begins a mail.
func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if err := s.box.chaos.strike(sender); err != nil {
		return err
	}
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	s.busy = true
	s.env = envelope{From: from, Helo: s.conn.Hostname(), Peer: peer(s.conn.Conn())}
	return nil
}

// Rcpt adds a recipient.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if err := s.box.chaos.strike(recipient); err != nil {
		return err
	}
	s.env.To = append(s.env.To, to)
	return nil
}

// Data stores the mail; the client hears 250 when it is on disk.
func (s *session) Data(body io.Reader) error {
	raw, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	id, err := s.box.store.add(s.env, raw, s.box.config.Now())
	if err != nil {
		s.box.config.Logger.ErrorContext(context.Background(), "mail not stored", slog.Any("error", err))
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "Could not store the mail"}
	}
	s.box.config.Logger.InfoContext(context.Background(), "mail received", slog.String("id", id), slog.Int("bytes", len(raw)), slog.Int("recipients", len(s.env.To)))
	return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: "Ok: queued as " + id}
}

func peer(c net.Conn) string {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return "unknown"
	}
	return host
}

// trace writes the fields that a final delivery puts before a mail (RFC 5321 4.4): they are where the envelope lives.
func (e envelope) trace(id, date string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Return-Path: <%s>\r\n", printable(e.From))
	for _, to := range e.To {
		fmt.Fprintf(&b, "Delivered-To: %s\r\n", printable(to))
	}
	fmt.Fprintf(&b, "Received: from %s ([%s])\r\n\tby mailbox.localhost with ESMTP id %s;\r\n\t%s\r\n", printable(e.Helo), printable(e.Peer), id, date)
	return b.String()
}

// printable drops what could end a field or start another.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}
