package smtp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"syscall"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"countersign.dev/services/delivery/channel"
)

var errNoUTF8 = errors.New("the relay does not offer SMTPUTF8")

// replyIn finds the relay's own answer in err; code 0 means that there was none.
func replyIn(err error) (code int, text string) {
	var reply *textproto.Error
	if errors.As(err, &reply) && reply.Code >= 200 && reply.Code < 600 {
		return reply.Code, reply.Msg
	}
	return 0, ""
}

// failure turns err into what the interface promises. A reply of the relay is reported as it is; where there is none,
// the status follows RFC 3463 from what happened, always as temporary, since the next attempt may find the relay well.
func (s *Sender) failure(ctx context.Context, m channel.Message, at stage, err error) *channel.Failure {
	if code, text := replyIn(err); code != 0 {
		return answered(m, at, code, text, err)
	}
	f := &channel.Failure{Temporary: true, Scope: channel.ScopeProvider, Cause: err}
	if cause := context.Cause(ctx); cause != nil {
		f.Cause = errors.Join(cause, err)
	}
	f.Enhanced, f.Diagnostic = silent(ctx, at, err)
	if errors.Is(err, errNoUTF8) {
		f.Temporary = false // this relay will not learn it; another may know it
	}
	return f
}

// answered reports a reply. 4yz is temporary and 5yz permanent, with one exception: what a relay refuses before it has
// heard of the message (greeting, TLS, authentication) is our account's or its own trouble and says nothing about it.
func answered(m channel.Message, at stage, code int, text string, err error) *channel.Failure {
	f := &channel.Failure{
		Temporary:  code < 500 || at == atConnect,
		Code:       code,
		Enhanced:   channel.EnhancedIn(code, text),
		Diagnostic: channel.Scrub(strings.TrimSpace(text), m.To.Private()...),
		Cause:      err,
	}
	if f.Temporary {
		f.RetryAfter = channel.WaitIn(text)
	}
	if f.Enhanced == "" {
		f.Enhanced = derived(at, code)
	}
	f.Scope = scope(at, code, f.Enhanced)
	return f
}

func scope(at stage, code int, enhanced string) channel.Scope {
	if at == atConnect || at == atSender || code == 421 {
		return channel.ScopeProvider
	}
	if found := channel.ScopeOf(enhanced); found != "" {
		return found
	}
	switch at {
	case atRcpt:
		return channel.ScopeRecipient
	case atConnect, atSender, atData, atEnd:
	}
	return channel.ScopeMessage
}

// derived gives the RFC 3463 status that a bare RFC 5321 code stands for at a stage.
func derived(at stage, code int) string {
	detail := ".0.0"
	switch code {
	case 421:
		detail = ".3.2" // system not accepting network messages
	case 450, 451:
		detail = ".7.1" // at RCPT nearly always greylisting
		if at != atRcpt {
			detail = ".3.0"
		}
	case 452, 552:
		detail = ".2.2" // mailbox full
		if at == atSender || at == atEnd {
			detail = ".3.4" // too large
		}
	case 535:
		detail = ".7.8"
	case 550:
		detail = ".1.1"
		if at != atRcpt {
			detail = ".7.1"
		}
	case 551:
		detail = ".1.6"
	case 553:
		detail = ".1.3"
		if at != atRcpt {
			detail = ".1.8"
		}
	case 554:
		detail = ".7.1"
	}
	return strconv.Itoa(code/100) + detail
}

// silent describes an end without an answer.
func silent(ctx context.Context, at stage, err error) (enhanced, diagnostic string) {
	lost := "the connection was lost before the relay had the message"
	if at == atEnd {
		lost = "the connection was lost after the message was handed over; whether it was accepted is not known"
	}
	var netErr net.Error
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var unknownCA x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return "4.4.2", "we stopped waiting"
	case ctx.Err() != nil, errors.As(err, &netErr) && netErr.Timeout():
		return "4.4.7", "the relay did not answer in time" + unknown(at)
	case errors.As(err, &dns):
		return "4.4.3", "the relay's host name could not be resolved"
	case errors.Is(err, syscall.ECONNREFUSED), at == atConnect && errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "4.4.1", "nobody answers at the relay's address"
	case errors.As(err, &certificate), errors.As(err, &unknownCA), errors.As(err, &record):
		return "4.7.5", "the relay's TLS certificate was refused"
	case errors.Is(err, smtp.ErrUnencrypted), strings.Contains(err.Error(), "does not support STARTTLS"):
		return "4.7.10", "the relay does not offer the encryption that is required"
	case errors.Is(err, mail.ErrNoSupportedAuthDiscovered), strings.Contains(err.Error(), "SMTP AUTH"):
		return "4.7.8", "the relay offers no usable authentication"
	case errors.Is(err, errNoUTF8):
		return "5.6.7", "the relay cannot carry an address with letters beyond ASCII"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "4.4.2", lost
	}
	return "4.4.0", "the conversation with the relay failed" + unknown(at)
}

func unknown(at stage) string {
	if at == atEnd {
		return " after the message was handed over; whether it was accepted is not known"
	}
	return ""
}
