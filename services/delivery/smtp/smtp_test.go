package smtp_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim" // verifies what another library signed
	gosmtp "github.com/emersion/go-smtp"

	"countersign.dev/services/delivery/channel"
	"countersign.dev/services/delivery/channel/channeltest"
	"countersign.dev/services/delivery/smtp"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func newSender(t *testing.T, addr string, change ...func(*smtp.Config)) *smtp.Sender {
	t.Helper()
	c := smtp.Config{Name: "primary", Address: addr, TLS: smtp.Plain, Timeout: 10 * time.Second, Now: func() time.Time { return noon }}
	for _, f := range change {
		f(&c)
	}
	s, err := smtp.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// provider lets the suite speak to the relay.
type provider struct {
	t     *testing.T
	relay *relay
}

func (p provider) Set(a channeltest.Answer) {
	echo := " <jane.roe@signer.test> Jane Roe " + channeltest.Token + " https://x.test/" + channeltest.Token
	p.relay.on("nowhere", reply{})
	switch a {
	case channeltest.Accept:
	case channeltest.Temporary:
		p.relay.on(rcpt, reply{err: &gosmtp.SMTPError{Code: 450, EnhancedCode: gosmtp.EnhancedCode{4, 2, 0}, Message: "Mailbox busy:" + echo}})
	case channeltest.Permanent:
		p.relay.on(rcpt, reply{err: &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "User jane.roe unknown:" + echo}})
	case channeltest.Hang:
		p.relay.on(rcpt, reply{hang: true})
	case channeltest.Drop:
		p.relay.on(rcpt, reply{cut: true})
	case channeltest.DropAfter:
		p.relay.on(after, reply{cut: true})
	}
}

func (p provider) Stop() { p.relay.stop() }

func (p provider) Received() []channeltest.Received {
	var all []channeltest.Received
	for _, e := range p.relay.envelopes() {
		m := e.parse(p.t)
		text, err := io.ReadAll(quotedprintable.NewReader(m.Body))
		if err != nil {
			p.t.Error(err)
		}
		all = append(all, channeltest.Received{ID: m.Header.Get("Message-Id"), To: e.To, Subject: m.Header.Get("Subject"), Text: string(text)})
	}
	return all
}

func TestSuite(t *testing.T) {
	channeltest.Run(t, func(t *testing.T) (channel.Sender, channeltest.Provider) {
		r := startRelay(t)
		return newSender(t, r.Addr), provider{t, r}
	})
}

func TestRepliesByStage(t *testing.T) {
	says := func(code int, enhanced gosmtp.EnhancedCode, text string) reply {
		return reply{err: &gosmtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: text}}
	}
	none := gosmtp.NoEnhancedCode
	for name, tt := range map[string]struct {
		stage     string
		reply     reply
		temporary bool
		code      int
		enhanced  string
		scope     channel.Scope
		wait      time.Duration
	}{
		"busy at hello":         {hello, says(421, gosmtp.EnhancedCode{4, 3, 2}, "too busy"), true, 421, "4.3.2", channel.ScopeProvider, 0},
		"refused at hello":      {hello, says(554, gosmtp.EnhancedCode{5, 7, 1}, "no service for you"), true, 554, "5.7.1", channel.ScopeProvider, 0},
		"sender refused":        {from, says(553, gosmtp.EnhancedCode{5, 1, 8}, "sender address"), false, 553, "5.1.8", channel.ScopeProvider, 0},
		"421 at sender":         {from, says(421, none, "closing"), true, 421, "4.3.2", channel.ScopeProvider, 0},
		"busy mailbox":          {rcpt, says(450, gosmtp.EnhancedCode{4, 2, 1}, "busy"), true, 450, "4.2.1", channel.ScopeRecipient, 0},
		"greylisted":            {rcpt, says(451, gosmtp.EnhancedCode{4, 7, 1}, "Greylisted, try again in 300 seconds"), true, 451, "4.7.1", channel.ScopeProvider, 5 * time.Minute},
		"greylisted, bare":      {rcpt, says(451, none, "Please come back later"), true, 451, "4.7.1", channel.ScopeProvider, 0},
		"mailbox full":          {rcpt, says(552, gosmtp.EnhancedCode{5, 2, 2}, "over quota"), false, 552, "5.2.2", channel.ScopeRecipient, 0},
		"no such user":          {rcpt, says(550, gosmtp.EnhancedCode{5, 1, 1}, "no such user"), false, 550, "5.1.1", channel.ScopeRecipient, 0},
		"no such user, bare":    {rcpt, says(550, none, "no such user"), false, 550, "5.1.1", channel.ScopeRecipient, 0},
		"no mail (null MX)":     {rcpt, says(556, gosmtp.EnhancedCode{5, 1, 10}, "null MX"), false, 556, "5.1.10", channel.ScopeRecipient, 0},
		"relay denied":          {rcpt, says(554, gosmtp.EnhancedCode{5, 7, 1}, "relay access denied"), false, 554, "5.7.1", channel.ScopeProvider, 0},
		"data refused":          {data, says(451, gosmtp.EnhancedCode{4, 3, 0}, "try later"), true, 451, "4.3.0", channel.ScopeProvider, 0},
		"full after data":       {after, says(552, gosmtp.EnhancedCode{5, 2, 2}, "over quota"), false, 552, "5.2.2", channel.ScopeRecipient, 0},
		"too large":             {after, says(552, none, "too big"), false, 552, "5.3.4", channel.ScopeMessage, 0},
		"content refused":       {after, says(554, gosmtp.EnhancedCode{5, 6, 0}, "bad MIME"), false, 554, "5.6.0", channel.ScopeMessage, 0},
		"spam":                  {after, says(550, gosmtp.EnhancedCode{5, 7, 1}, "looks like spam"), false, 550, "5.7.1", channel.ScopeProvider, 0},
		"dropped at hello":      {hello, reply{cut: true}, true, 0, "4.4.2", channel.ScopeProvider, 0},
		"dropped at sender":     {from, reply{cut: true}, true, 0, "4.4.2", channel.ScopeProvider, 0},
		"dropped at recipient":  {rcpt, reply{cut: true}, true, 0, "4.4.2", channel.ScopeProvider, 0},
		"dropped at data":       {data, reply{cut: true}, true, 0, "4.4.2", channel.ScopeProvider, 0},
		"dropped after data":    {after, reply{cut: true}, true, 0, "4.4.2", channel.ScopeProvider, 0},
		"slow at hello":         {hello, reply{hang: true}, true, 0, "4.4.7", channel.ScopeProvider, 0},
		"slow after data":       {after, reply{hang: true}, true, 0, "4.4.7", channel.ScopeProvider, 0},
		"words contradict code": {rcpt, says(550, none, "2.0.0 fine"), false, 550, "5.1.1", channel.ScopeRecipient, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startRelay(t)
			r.on(tt.stage, tt.reply)
			ctx := t.Context()
			if tt.reply.hang {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
				defer cancel()
			}
			_, err := newSender(t, r.Addr).Send(ctx, channeltest.Message(1))
			var f *channel.Failure
			if !errors.As(err, &f) {
				t.Fatalf("got %v, want a failure", err)
			}
			if f.Temporary != tt.temporary || f.Code != tt.code || f.Enhanced != tt.enhanced || f.Scope != tt.scope || f.RetryAfter != tt.wait {
				t.Errorf("got temporary=%t code=%d enhanced=%s scope=%s wait=%s %q, want %t %d %s %s %s",
					f.Temporary, f.Code, f.Enhanced, f.Scope, f.RetryAfter, f.Diagnostic, tt.temporary, tt.code, tt.enhanced, tt.scope, tt.wait)
			}
		})
	}
}

// TestOwnTimeout: the sender's own time-out ends a conversation that the caller set no limit to.
func TestOwnTimeout(t *testing.T) {
	r := startRelay(t)
	r.on(after, reply{hang: true})
	s := newSender(t, r.Addr, func(c *smtp.Config) { c.Timeout = time.Second })
	_, err := s.Send(context.Background(), channeltest.Message(1))
	var f *channel.Failure
	if !errors.As(err, &f) || !f.Temporary || f.Enhanced != "4.4.7" || !strings.Contains(f.Diagnostic, "not known") {
		t.Errorf("got %v, want 4.4.7 that says the outcome is not known", err)
	}
}

// TestSilentServer: a port that accepts and then closes, or never greets.
func TestSilentServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	_, err = newSender(t, listener.Addr().String()).Send(t.Context(), channeltest.Message(1))
	var f *channel.Failure
	if !errors.As(err, &f) || !f.Temporary || f.Enhanced != "4.4.2" {
		t.Errorf("got %v, want 4.4.2", err)
	}
}

func TestWhatIsSent(t *testing.T) {
	r := startRelay(t)
	m := channeltest.Message(1)
	m.To.Name, m.Subject = "Zoë Müller, Dr.", "Bitte unterschreiben: Kündigung für Zoë"
	m.From.Name = `Acme "Real" Estate`
	m.ReplyTo = channel.Address{Email: "help@acme.test"}
	m.ReturnPath = "bounce+dlv1=signer.test@mx.acme.test"
	m.Text = "Grüße\n.\nfrom a line with a dot\n"
	m.HTML = "<p>Grüße</p>"
	m.Headers = map[string]string{"X-Countersign-Request": "req_1"}
	pdf := bytes.Repeat([]byte("%PDF-1.7\r\n.\r\n"), 1000)
	m.Attached = []channel.Attachment{{Name: "Vertrag für Zoë.pdf", ContentType: "application/pdf", Content: pdf}}
	receipt, err := newSender(t, r.Addr).Send(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if receipt.Provider != "primary" || receipt.QueueID != "4ZqX1y0Kz" || strings.Contains(receipt.Response, "@") {
		t.Errorf("receipt %+v", receipt)
	}
	got := r.envelopes()[0]
	if got.From != m.ReturnPath || got.To != m.To.Email {
		t.Errorf("envelope from %s to %s", got.From, got.To)
	}
	msg := got.parse(t)
	decoded := func(field string) string {
		text, err := new(mime.WordDecoder).DecodeHeader(msg.Header.Get(field))
		if err != nil {
			t.Error(err)
		}
		return text
	}
	for field, want := range map[string]string{
		"Message-Id":            "<dlv_suite.1@acme.test>",
		"Date":                  "Mon, 02 Mar 2026 12:00:00 +0000",
		"Subject":               m.Subject,
		"Reply-To":              "<help@acme.test>",
		"Auto-Submitted":        "auto-generated",
		"X-Countersign-Request": "req_1",
		"Content-Language":      "en",
		"User-Agent":            "",
		"X-Mailer":              "",
		"Bcc":                   "",
	} {
		if got := decoded(field); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	if to, err := msg.Header.AddressList("To"); err != nil || len(to) != 1 || to[0].Name != m.To.Name || to[0].Address != m.To.Email {
		t.Errorf("To: %v %v", to, err)
	}
	if from, err := msg.Header.AddressList("From"); err != nil || from[0].Name != m.From.Name {
		t.Errorf("From: %v %v", from, err)
	}
	parts := leaves(t, msg.Header.Get("Content-Type"), msg.Body)
	if len(parts) != 3 {
		t.Fatalf("%d parts, want text, HTML and a file", len(parts))
	}
	if text := strings.ReplaceAll(parts[0].body, "\r\n", "\n"); !strings.HasPrefix(parts[0].media, "text/plain") || text != m.Text {
		t.Errorf("first part %s %q", parts[0].media, text)
	}
	if !strings.HasPrefix(parts[1].media, "text/html") || parts[1].body != m.HTML {
		t.Errorf("second part %s %q", parts[1].media, parts[1].body)
	}
	if parts[2].file != m.Attached[0].Name || parts[2].body != string(pdf) {
		t.Errorf("file %q, %d bytes", parts[2].file, len(parts[2].body))
	}
}

type leaf struct{ media, file, body string }

func leaves(t *testing.T, contentType string, body io.Reader) []leaf {
	t.Helper()
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		t.Fatalf("%q: %v", contentType, err)
	}
	if !strings.HasPrefix(media, "multipart/") {
		t.Fatalf("not multipart: %s", media)
	}
	var all []leaf
	reader := multipart.NewReader(body, params["boundary"])
	for {
		part, err := reader.NextPart() // decodes quoted-printable
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		inner := part.Header.Get("Content-Type")
		if strings.HasPrefix(inner, "multipart/") {
			all = append(all, leaves(t, inner, part)...)
			continue
		}
		var content io.Reader = part
		if part.Header.Get("Content-Transfer-Encoding") == "base64" {
			content = base64.NewDecoder(base64.StdEncoding, part)
		}
		raw, err := io.ReadAll(content)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, leaf{inner, part.FileName(), string(raw)})
	}
}

func TestConnectionsAreReused(t *testing.T) {
	r := startRelay(t)
	now := noon
	s := newSender(t, r.Addr, func(c *smtp.Config) { c.Now = func() time.Time { return now } })
	send := func(n int) {
		t.Helper()
		if _, err := s.Send(t.Context(), channeltest.Message(n)); err != nil {
			t.Fatal(err)
		}
	}
	send(1)
	send(2)
	if n := r.connections(); n != 1 {
		t.Errorf("%d connections for two messages, want 1", n)
	}
	now = now.Add(time.Minute)
	send(3)
	if n := r.connections(); n != 2 {
		t.Errorf("%d connections after the idle limit, want 2", n)
	}
	r.on(rcpt, reply{err: &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "no"}})
	if _, err := s.Send(t.Context(), channeltest.Message(4)); err == nil {
		t.Fatal("accepted")
	}
	r.on("nowhere", reply{})
	send(5)
	if n := r.connections(); n != 2 {
		t.Errorf("%d connections after a refusal, want the same 2", n)
	}
}

func TestTLSAndAuthentication(t *testing.T) {
	config, ca := certificate(t)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	secure := func(s *gosmtp.Server) { s.TLSConfig, s.AllowInsecureAuth = config, false }
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	implicit := serveRelay(t, tls.NewListener(plain, config), func(s *gosmtp.Server) { s.AllowInsecureAuth = false })
	for name, tt := range map[string]struct {
		relay    *relay
		change   func(*smtp.Config)
		enhanced string // of the failure; empty = accepted
	}{
		"STARTTLS":               {startRelay(t, secure), func(c *smtp.Config) { c.TLS, c.CAFile = "", ca }, ""},
		"implicit":               {implicit, func(c *smtp.Config) { c.TLS, c.CAFile = smtp.Implicit, ca }, ""},
		"unknown CA, STARTTLS":   {startRelay(t, secure), func(c *smtp.Config) { c.TLS = smtp.StartTLS }, "4.7.5"},
		"unknown CA, implicit":   {implicit, func(c *smtp.Config) { c.TLS = smtp.Implicit }, "4.7.5"},
		"wrong name":             {startRelay(t, secure), func(c *smtp.Config) { c.TLS, c.CAFile, c.ServerName = smtp.StartTLS, ca, "other.test" }, "4.7.5"},
		"STARTTLS not offered":   {startRelay(t), func(c *smtp.Config) { c.TLS = smtp.StartTLS }, "4.7.10"},
		"implicit to plain port": {startRelay(t), func(c *smtp.Config) { c.TLS = smtp.Implicit }, "4.7.5"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSender(t, tt.relay.Addr, tt.change, func(c *smtp.Config) { c.Username, c.PasswordFile = "relay-user", password })
			_, err := s.Send(t.Context(), channeltest.Message(1))
			var f *channel.Failure
			switch {
			case tt.enhanced == "" && err != nil:
				t.Fatalf("%v (%v)", err, errors.Unwrap(err))
			case tt.enhanced == "" && tt.relay.login != "relay-user:s3cret":
				t.Errorf("logged in as %q", tt.relay.login)
			case tt.enhanced != "" && (!errors.As(err, &f) || !f.Temporary || f.Enhanced != tt.enhanced || f.Scope != channel.ScopeProvider):
				t.Errorf("got %v (%v), want %s of the provider", err, errors.Unwrap(err), tt.enhanced)
			case tt.enhanced != "" && len(tt.relay.envelopes()) > 0 && tt.relay != implicit:
				t.Error("the message went out all the same")
			}
		})
	}
}

func TestWrongPassword(t *testing.T) {
	r := startRelay(t)
	r.on(auth, reply{err: gosmtp.ErrAuthFailed})
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSender(t, r.Addr, func(c *smtp.Config) { c.Username, c.PasswordFile = "relay-user", password })
	_, err := s.Send(t.Context(), channeltest.Message(1))
	var f *channel.Failure
	if !errors.As(err, &f) || !f.Temporary || f.Code != 535 || f.Enhanced != "5.7.8" || f.Scope != channel.ScopeProvider {
		t.Errorf("got %v, want 535 5.7.8 of the provider, temporary: the recipient is not to blame", err)
	}
}

func TestDKIM(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "dkim.pem")
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startRelay(t)
	s := newSender(t, r.Addr, func(c *smtp.Config) { c.DKIM = smtp.DKIM{Domain: "acme.test", Selector: "s1", KeyFile: key} })
	m := channeltest.Message(1)
	m.HTML, m.Subject = "<p>Grüße</p>", "Grüße "+strings.Repeat("lang ", 30)
	if _, err := s.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	lookup := func(domain string) ([]string, error) {
		if domain != "s1._domainkey.acme.test" {
			return nil, errors.New("asked for " + domain)
		}
		return []string{"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public)}, nil
	}
	raw := r.envelopes()[0].Raw
	for name, tt := range map[string]struct {
		raw  []byte
		good bool
	}{"as sent": {raw, true}, "changed body": {bytes.Replace(raw, []byte("offer letter"), []byte("offer better"), 1), false}} {
		found, err := dkim.VerifyWithOptions(bytes.NewReader(tt.raw), &dkim.VerifyOptions{LookupTXT: lookup})
		if err != nil || len(found) != 1 || (found[0].Err == nil) != tt.good {
			t.Errorf("%s: %v %+v", name, err, found)
		}
	}
}

func TestConfig(t *testing.T) {
	now := func() time.Time { return noon }
	for name, tt := range map[string]struct {
		config smtp.Config
		wrong  string // empty = accepted
	}{
		"minimal":                 {smtp.Config{Address: "smtp.acme.test:587", Now: now}, ""},
		"plain on loopback":       {smtp.Config{Address: "127.0.0.1:1025", TLS: smtp.Plain, Now: now}, ""},
		"plain on IPv6 loopback":  {smtp.Config{Address: "[::1]:1025", TLS: smtp.Plain, Now: now}, ""},
		"plain elsewhere":         {smtp.Config{Address: "10.0.0.7:25", TLS: smtp.Plain, Now: now}, "smtp.tls"},
		"plain elsewhere, wanted": {smtp.Config{Address: "10.0.0.7:25", TLS: smtp.Plain, AllowPlain: true, Now: now}, ""},
		"plain by name":           {smtp.Config{Address: "relay:25", TLS: smtp.Plain, Now: now}, "smtp.tls"},
		"no port":                 {smtp.Config{Address: "smtp.acme.test", Now: now}, "smtp.address"},
		"user without password":   {smtp.Config{Address: "a:25", Username: "u", Now: now}, "smtp.username"},
		"half a DKIM key":         {smtp.Config{Address: "a:25", DKIM: smtp.DKIM{Domain: "a"}, Now: now}, "smtp.dkim"},
		"no clock":                {smtp.Config{Address: "a:25"}, "smtp.now"},
		"endless":                 {smtp.Config{Address: "a:25", Timeout: time.Hour, Now: now}, "smtp.timeout"},
	} {
		err := tt.config.Validate()
		if (err == nil) != (tt.wrong == "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
			t.Errorf("%s: %v, want %q", name, err, tt.wrong)
		}
	}
}
