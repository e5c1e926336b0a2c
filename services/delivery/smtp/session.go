package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"countersign.dev/services/delivery/channel"
)

// perConnection bounds the messages of one connection, so that a relay behind a balancer gets its share back.
const perConnection = 100

// session is one connection to the relay, used by one Send at a time.
type session struct {
	client *smtp.Client
	raw    net.Conn // below TLS: closing it ends any read or write at once
	sent   int
	idleAt time.Time
}

// stage is how far a conversation had come.
type stage int

const (
	atConnect stage = iota // dial, greeting, TLS, authentication
	atSender               // MAIL
	atRcpt                 // RCPT
	atData                 // DATA, before the message was complete
	atEnd                  // the final dot is out: the relay may have the message
)

// connect returns an idle connection that still answers, or a new one.
func (s *Sender) connect(ctx context.Context) (*session, error) {
	for {
		select {
		case conn := <-s.idle:
			if s.config.Now().Sub(conn.idleAt) < s.config.Idle && conn.alive(ctx, s.config.Timeout) {
				return conn, nil
			}
			conn.quit()
		default:
			return s.dial(ctx)
		}
	}
}

// keep puts a connection aside for the next message, or ends it.
func (s *Sender) keep(conn *session) {
	conn.sent++
	conn.idleAt = s.config.Now()
	if conn.sent < perConnection && s.config.Idle > 0 {
		select {
		case s.idle <- conn:
			return
		default:
		}
	}
	conn.quit()
}

// afterError keeps a connection on which the relay refused in good order, and drops any other.
func (s *Sender) afterError(conn *session, err error) {
	if code, _ := replyIn(err); code == 0 || code == 421 || conn.client.Reset() != nil {
		_ = conn.raw.Close()
		return
	}
	s.keep(conn)
}

func (s *Sender) dial(ctx context.Context) (*session, error) {
	host, portText, _ := net.SplitHostPort(s.config.Address)
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("port of the relay: %w", err)
	}
	conn, stop := &session{}, func() bool { return true }
	defer func() { stop() }()
	options := []mail.Option{
		mail.WithPort(port), mail.WithHELO(s.config.Helo), mail.WithTimeout(s.config.Timeout),
		mail.WithTLSConfig(s.tls), mail.WithTLSPolicy(s.policy()),
		mail.WithDialContextFunc(func(dialing context.Context, network, address string) (net.Conn, error) {
			raw, err := (&net.Dialer{}).DialContext(dialing, network, address)
			if err != nil {
				return nil, err
			}
			conn.raw = raw
			stop = context.AfterFunc(ctx, conn.abort) // not dialing, which the library cancels once connected
			return s.secured(dialing, raw)
		}),
	}
	if s.config.Username != "" {
		password, err := os.ReadFile(s.config.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("smtp.password_file: %w", err)
		}
		// PLAIN and LOGIN refuse by themselves to speak on an unencrypted connection that is not loopback.
		options = append(options, mail.WithUsername(s.config.Username), mail.WithPassword(strings.TrimRight(string(password), "\r\n")),
			mail.WithOpportunisticSMTPAuth(mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthSCRAMSHA1, mail.SMTPAuthPlain, mail.SMTPAuthLogin))
	}
	client, err := mail.NewClient(host, options...)
	if err != nil {
		return nil, fmt.Errorf("prepare connection: %w", err)
	}
	conn.client, err = client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		conn.abort()
		return nil, fmt.Errorf("connect to the relay: %w", err)
	}
	return conn, nil
}

func (s *Sender) policy() mail.TLSPolicy {
	if s.config.TLS == StartTLS {
		return mail.TLSMandatory
	}
	return mail.NoTLS
}

// secured shakes hands where TLS is implicit.
func (s *Sender) secured(ctx context.Context, raw net.Conn) (net.Conn, error) {
	if s.config.TLS != Implicit {
		return raw, nil
	}
	conn := tls.Client(raw, s.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}

// converse sends one message and returns the relay's last reply, or how far it came and why it ended.
func (c *session) converse(ctx context.Context, m channel.Message, msg *mail.Msg) (string, stage, error) {
	stop := context.AfterFunc(ctx, c.abort)
	defer stop()
	returnPath := m.ReturnPath
	if returnPath == "" {
		returnPath = m.From.Email
	}
	from, utf8From, err := channel.Envelope(returnPath)
	if err != nil {
		return "", atSender, err
	}
	to, utf8To, err := channel.Envelope(m.To.Email)
	if err != nil {
		return "", atRcpt, err
	}
	international := utf8From || utf8To
	if offered, _ := c.client.Extension("SMTPUTF8"); international && !offered {
		return "", atRcpt, errNoUTF8
	}
	c.client.SkipSMTPUTF8(!international) // an ordinary address must not need it at the next hop
	if err := c.client.Mail("<" + from + ">"); err != nil {
		return "", atSender, err
	}
	if err := c.client.Rcpt("<" + to + ">"); err != nil {
		return "", atRcpt, err
	}
	body, err := c.client.Data()
	if err != nil {
		return "", atData, err
	}
	if _, err := msg.WriteTo(body); err != nil {
		c.abort() // closing the writer now would end half a message with a dot
		return "", atData, err
	}
	if err := body.Close(); err != nil {
		return "", atEnd, err
	}
	closer, ok := body.(*smtp.DataCloser)
	if !ok {
		return "", atEnd, nil
	}
	return closer.ServerResponse(), atEnd, nil
}

// alive asks whether the relay still holds the connection.
func (c *session) alive(ctx context.Context, timeout time.Duration) bool {
	stop := context.AfterFunc(ctx, c.abort)
	defer stop()
	return c.client.UpdateDeadline(timeout) == nil && c.client.Noop() == nil
}

// abort ends the connection without a word.
func (c *session) abort() {
	if c.raw != nil {
		_ = c.raw.Close()
	}
}

// quit says goodbye and ends the connection; it does not wait for a relay that is gone.
func (c *session) quit() {
	_ = c.client.UpdateDeadline(time.Second)
	_ = c.client.Quit()
	c.abort()
}
