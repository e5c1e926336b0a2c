package smtp_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"

	"countersign.dev/pkg/clock"
)

// stages at which the relay can be told to misbehave.
const (
	hello = "hello"
	auth  = "auth"
	from  = "from"
	rcpt  = "rcpt"
	data  = "data"
	after = "after" // the message is complete
)

// reply is what the relay does at a stage: says err, cuts the connection, or hangs until the client is gone.
type reply struct {
	err       *gosmtp.SMTPError
	cut, hang bool
}

// envelope is a message that the relay took, or held complete when it cut the connection.
type envelope struct {
	From, To string
	Raw      []byte
}

func (e envelope) parse(t *testing.T) *mail.Message {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(e.Raw))
	if err != nil {
		t.Fatalf("what arrived is not a message: %v", err)
	}
	return m
}

// relay is a real SMTP server whose answers are programmed.
type relay struct {
	Addr string

	mu      sync.Mutex
	replies map[string]reply
	got     []envelope
	opened  int
	server  *gosmtp.Server
	port    net.Listener
	ended   chan struct{} // closed with the test; releases what hangs
	login   string        // user name of the last authentication
}

func startRelay(t *testing.T, prepare ...func(*gosmtp.Server)) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveRelay(t, listener, prepare...)
}

func serveRelay(t *testing.T, listener net.Listener, prepare ...func(*gosmtp.Server)) *relay {
	t.Helper()
	r := &relay{Addr: listener.Addr().String(), replies: map[string]reply{}, ended: make(chan struct{}), port: listener}
	r.server = gosmtp.NewServer(gosmtp.BackendFunc(r.session))
	r.server.Domain = "relay.test"
	r.server.AllowInsecureAuth = true
	r.server.ErrorLog = log.New(io.Discard, "", 0)
	for _, p := range prepare {
		p(r.server)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = r.server.Serve(listener)
	}()
	t.Cleanup(func() {
		close(r.ended)
		r.stop()
		<-served
	})
	return r
}

// stop closes the port itself as well: a server closed before it began to serve would not know it.
func (r *relay) stop() {
	_ = r.server.Close()
	_ = r.port.Close()
}

func (r *relay) on(stage string, rep reply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replies = map[string]reply{stage: rep}
}

func (r *relay) envelopes() []envelope {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]envelope(nil), r.got...)
}

func (r *relay) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opened
}

// act does what was programmed for a stage.
func (r *relay) act(stage string, c *gosmtp.Conn) error {
	r.mu.Lock()
	rep, set := r.replies[stage]
	r.mu.Unlock()
	switch {
	case !set:
		return nil
	case rep.cut:
		_ = c.Conn().Close()
		return nil
	case rep.hang:
		<-r.ended
		return nil
	}
	return rep.err
}

func (r *relay) session(c *gosmtp.Conn) (gosmtp.Session, error) {
	r.mu.Lock()
	r.opened++
	r.mu.Unlock()
	return &relaySession{relay: r, conn: c}, r.act(hello, c)
}

type relaySession struct {
	relay *relay
	conn  *gosmtp.Conn
	env   envelope
}

func (s *relaySession) Reset()        { s.env = envelope{} }
func (s *relaySession) Logout() error { return nil }

func (s *relaySession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *relaySession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		s.relay.mu.Lock()
		s.relay.login = user + ":" + password
		s.relay.mu.Unlock()
		return s.relay.act(auth, s.conn)
	}), nil
}

func (s *relaySession) Mail(path string, _ *gosmtp.MailOptions) error {
	s.env.From = path
	return s.relay.act(from, s.conn)
}

func (s *relaySession) Rcpt(path string, _ *gosmtp.RcptOptions) error {
	s.env.To = path
	return s.relay.act(rcpt, s.conn)
}

func (s *relaySession) Data(body io.Reader) error {
	if err := s.relay.act(data, s.conn); err != nil {
		return err
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	s.env.Raw = raw
	s.relay.mu.Lock()
	rep, set := s.relay.replies[after]
	if !set || rep.cut {
		s.relay.got = append(s.relay.got, s.env)
	}
	s.relay.mu.Unlock()
	if err := s.relay.act(after, s.conn); err != nil {
		return err
	}
	return &gosmtp.SMTPError{Code: 250, EnhancedCode: gosmtp.EnhancedCode{2, 0, 0}, Message: "OK: queued as 4ZqX1y0Kz for <" + s.env.To + ">"}
}

// certificate makes a CA with a certificate for 127.0.0.1, and writes the CA to a file.
func certificate(t *testing.T) (config *tls.Config, caFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "relay.test"},
		NotBefore: clock.System().Now("").Add(-time.Hour), NotAfter: clock.System().Now("").Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, caFile
}
