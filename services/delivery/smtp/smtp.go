// Package smtp hands messages to a mail relay.
package smtp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/wneessen/go-mail" // kept well, all SASL mechanisms and DKIM; net/smtp is frozen

	"countersign.dev/services/delivery/channel"
)

// Sender sends mail through one relay. It implements channel.Sender.
type Sender struct {
	config Config
	tls    *tls.Config
	dkim   *mail.DKIMSigner // nil = not signed here
	idle   chan *session
}

// New returns a sender for the relay of c. It reads certificates and keys, and connects only when something is sent.
func New(c Config) (*Sender, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	s := &Sender{
		config: c,
		tls:    &tls.Config{ServerName: c.ServerName, MinVersion: tls.VersionTLS12},
		idle:   make(chan *session, c.Capacity),
	}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("smtp.ca_file: %w", err)
		}
		s.tls.RootCAs = x509.NewCertPool()
		if !s.tls.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("smtp.ca_file: holds no certificate")
		}
	}
	if c.DKIM != (DKIM{}) {
		pem, err := os.ReadFile(c.DKIM.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("smtp.dkim.key_file: %w", err)
		}
		key, err := mail.PrivKeyFromPEM(pem)
		if err != nil {
			return nil, fmt.Errorf("smtp.dkim.key_file: %w", err)
		}
		s.dkim = mail.NewDKIMSigner(c.DKIM.Domain, c.DKIM.Selector, key)
		if err := s.dkim.ValidateConfig(); err != nil {
			return nil, fmt.Errorf("smtp.dkim: %w", err)
		}
	}
	return s, nil
}

// Send implements channel.Sender. The whole exchange ends within Config.Timeout and the deadline of ctx.
func (s *Sender) Send(ctx context.Context, m channel.Message) (channel.Receipt, error) {
	if m.To.Email == "" || m.From.Email == "" {
		return channel.Receipt{}, &channel.Failure{Enhanced: "5.6.0", Scope: channel.ScopeMessage, Diagnostic: "to and from need a mail address"}
	}
	if err := m.Validate(); err != nil {
		return channel.Receipt{}, err
	}
	composed, err := s.compose(m)
	if err != nil {
		return channel.Receipt{}, &channel.Failure{Enhanced: "5.6.0", Scope: channel.ScopeMessage, Diagnostic: "the message could not be composed", Cause: err}
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()

	conn, err := s.connect(ctx)
	if err != nil {
		return channel.Receipt{}, s.failure(ctx, m, atConnect, err)
	}
	reply, stage, err := conn.converse(ctx, m, composed)
	if err != nil {
		s.afterError(conn, err)
		return channel.Receipt{}, s.failure(ctx, m, stage, err)
	}
	s.keep(conn)
	return channel.Receipt{
		Provider: s.config.Name,
		Response: channel.Scrub(reply, m.To.Private()...),
		QueueID:  channel.QueueIDIn(reply),
	}, nil
}

// Close ends the connections that are kept idle. The sender stays usable.
func (s *Sender) Close() error {
	for {
		select {
		case conn := <-s.idle:
			conn.quit()
		default:
			return nil
		}
	}
}
