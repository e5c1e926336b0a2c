// Package mailbox is the mailbox of development and demos: it takes any mail by SMTP, delivers none, and shows what
// came on a web page and through the part of Mailpit's HTTP API that tests use. Mails are files and survive a restart.
//
// It can also be told to fail now and then (see Triggers), which is how the rest of the product is shown what real
// relays do.
package mailbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/emersion/go-smtp" // the SMTP server that lets a backend choose each reply
	"golang.org/x/sync/errgroup"
)

// Limits.
const (
	maxMessage    = 30 << 20 // bytes of one mail
	maxRecipients = 100
	idleLimit     = time.Minute
	drainLimit    = 3 * time.Second
)

// Config says where a mailbox keeps its mails and where it listens. The listeners belong to the mailbox from then on.
type Config struct {
	Dir    string           // folder of the mails, made where it is missing
	SMTP   net.Listener     // where mail comes in; nothing is encrypted, any user and password are accepted
	HTTP   net.Listener     // page and API; on a loopback address only requests for a loopback host are answered
	Keep   int              // how many mails are kept, the oldest go first; default 1000, range 1 to 100000
	Logger *slog.Logger     // default: none
	Now    func() time.Time // the clock of the mails; required
}

// Validate names every wrong field.
func (c Config) Validate() error {
	var wrong []error
	for _, f := range []struct {
		bad  bool
		text string
	}{
		{c.Dir == "", "mailbox.dir is required"},
		{c.SMTP == nil, "mailbox.smtp is required"},
		{c.HTTP == nil, "mailbox.http is required"},
		{c.Now == nil, "mailbox.now is required"},
		{c.Keep < 0 || c.Keep > 100_000, "mailbox.keep must be between 1 and 100000"},
	} {
		if f.bad {
			wrong = append(wrong, errors.New(f.text))
		}
	}
	return errors.Join(wrong...)
}

// Mailbox receives and shows mails. Make one with New.
type Mailbox struct {
	config Config
	store  *store
	chaos  chaos

	mu       sync.Mutex
	draining bool
	sessions map[*session]struct{}

	connMu sync.Mutex // apart from mu, under which sessions close their connections
	conns  map[net.Conn]struct{}
}

// New opens the mailbox in c.Dir with the mails that are there. It serves nothing until Run.
func New(c Config) (*Mailbox, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Keep == 0 {
		c.Keep = 1000
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := openStore(c.Dir, c.Keep)
	if err != nil {
		return nil, fmt.Errorf("open mailbox: %w", err)
	}
	m := &Mailbox{config: c, store: s, sessions: map[*session]struct{}{}, conns: map[net.Conn]struct{}{}}
	m.chaos.set(Triggers{})
	return m, nil
}

// Run serves until ctx ends, then lets mails that are under way finish, for at most 3 s, and returns. A mail that was
// answered with 250 is on disk. It closes both listeners, and can be called once.
func (m *Mailbox) Run(ctx context.Context) error {
	mail := m.smtpServer()
	web := &http.Server{Handler: m.handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: idleLimit, ErrorLog: slog.NewLogLogger(m.config.Logger.Handler(), slog.LevelWarn)}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return named("serve smtp", mail.Serve(counted{m.config.SMTP, m})) })
	group.Go(func() error { return named("serve http", web.Serve(m.config.HTTP)) })
	group.Go(func() error {
		<-ctx.Done()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainLimit)
		defer cancel()
		m.drain(limit, mail)
		if err := web.Shutdown(limit); err != nil {
			return errors.Join(named("stop http", err), web.Close())
		}
		return nil
	})
	return group.Wait()
}

func named(what string, err error) error {
	if err == nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) || errors.Is(err, smtp.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("mailbox: %s: %w", what, err)
}

// drain ends the idle connections at once, and the others when their mail is in or limit is over.
func (m *Mailbox) drain(limit context.Context, server *smtp.Server) {
	_ = m.config.SMTP.Close() // the server does not know it yet when it is stopped before it began to serve
	m.mu.Lock()
	m.draining = true
	for s := range m.sessions {
		if !s.busy {
			_ = s.conn.Conn().Close()
		}
	}
	m.mu.Unlock()
	if server.Shutdown(limit) == nil {
		return
	}
	m.connMu.Lock()
	defer m.connMu.Unlock()
	for c := range m.conns {
		_ = c.Close()
	}
}

// Messages returns what is in the mailbox, newest first.
func (m *Mailbox) Messages() []Summary { return m.store.list() }

// Message returns one mail, or an error that is fs.ErrNotExist where there is none of that id.
func (m *Mailbox) Message(id string) (Message, error) { return m.store.message(id) }

// Await returns the newest mail that match accepts, waiting for it until ctx ends.
func (m *Mailbox) Await(ctx context.Context, match func(Summary) bool) (Message, error) {
	for {
		changed := m.store.changes()
		for _, s := range m.store.list() {
			if match(s) {
				return m.store.message(s.ID)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Message{}, fmt.Errorf("wait for a mail: %w", ctx.Err())
		}
	}
}

// counted lets drain end connections that have not yet said hello.
type counted struct {
	net.Listener
	box *Mailbox
}

// Accept waits for the next connection.
func (l counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.box.connMu.Lock()
	defer l.box.connMu.Unlock()
	l.box.conns[c] = struct{}{}
	return countedConn{c, l.box}, nil
}

type countedConn struct {
	net.Conn
	box *Mailbox
}

// Close closes the connection.
func (c countedConn) Close() error {
	c.box.connMu.Lock()
	delete(c.box.conns, c.Conn)
	c.box.connMu.Unlock()
	return c.Conn.Close()
}
