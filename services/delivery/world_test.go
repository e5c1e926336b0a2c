package delivery_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/config"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/host/hosttest"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/delivery"
	"countersign.dev/services/delivery/channel"
	"countersign.dev/services/delivery/smtp"
	"countersign.dev/services/mailbox"
)

const (
	tenant  = "acme"
	request = "req_lease"
	linkID  = "lnk_seat1"
	site    = "https://sign.acme.test"
)

// What must stand in a mail at most, and in no stream or log.
const (
	adaName, adaMail     = "Ada Lovelace", "ada@lovelace.example"
	graceName, graceMail = "Grace Hopper", "grace@hopper.example"
	bossName, bossMail   = "Charles Babbage", "cb@babbage.example"
	title, fileName      = "Lease of the mill", "mill.pdf"
	reason, code         = "The mill burned down", "271828"
)

// world is delivery over a real server of the record and a real mail server.
type world struct {
	*hosttest.World
	t     *testing.T
	peers *peers
	box   *mailbox.Mailbox
	line  *line
	mail  channel.Sender
	// config may be changed before the next start.
	config      delivery.Config
	stop        func()
	connections *nats.Conn // of the newest process
}

func start(t *testing.T, change ...func(*world)) *world {
	t.Helper()
	t.Parallel()
	neighbours := eventlog.Topology{}
	for _, name := range []string{"token", "identity", "reminder", "escalation"} {
		neighbours.Streams = append(neighbours.Streams, eventlog.FactsConfig(name))
	}
	w := &world{t: t, peers: newPeers(), config: delivery.Config{
		PublicURL: site, MailFrom: "sign@acme.test", RetryBase: 50 * time.Millisecond, RetryCap: time.Second, Attempts: 20, GiveUp: time.Hour,
	}}
	w.World = hosttest.New(t, clock.System(), neighbours, delivery.Topology())
	for name, register := range w.peers.services() {
		w.Serve(name, register)
	}
	w.openMailbox()
	for _, f := range change {
		f(w)
	}
	w.start()
	return w
}

// openMailbox starts the mail server, at the end of a line that can be cut.
func (w *world) openMailbox() {
	w.t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			w.t.Fatal(err)
		}
		return l
	}
	incoming := listen()
	w.line = &line{Listener: incoming}
	box, err := mailbox.New(mailbox.Config{
		Dir: w.t.TempDir(), SMTP: w.line, HTTP: listen(), Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return w.Clock.Now("") },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() { done <- box.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	w.box = box
	sender, err := smtp.New(smtp.Config{
		Name: "primary", Address: incoming.Addr().String(), TLS: smtp.Plain, Timeout: 10 * time.Second, Now: func() time.Time { return w.Clock.Now("") },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = sender.Close() })
	w.mail = sender
}

// start runs a process of the service; stop ends it in order.
func (w *world) start() {
	w.t.Helper()
	h := w.Host(delivery.Name)
	s, err := delivery.New(w.t.Context(), h, w.config, config.Default(), w.mail)
	if err != nil {
		w.t.Fatal(err)
	}
	w.stop, w.connections = w.Run(s), h.NATS
}

// again lets a new process hear everything from the beginning.
func (w *world) again() {
	w.t.Helper()
	w.stop()
	w.Rewind(delivery.Topology())
	w.start()
	w.Settled(delivery.Topology())
}

// says has a service state a fact, with the state that it led to.
func (w *world) says(service, id string, fact, state proto.Message) {
	w.t.Helper()
	w.Publish(service, eventlog.Key{Tenant: tenant, ID: id}, request, fact, state)
}

// issued has token issue a link to Ada.
func (w *world) issued(id string) {
	w.t.Helper()
	l := w.peers.link(id, func(*tokenv1.Link) {})
	w.says("token", id, &tokenv1.LinkIssued{LinkId: id, Tenant: tenant, RequestId: request, HolderId: l.GetHolderId(), Position: 1}, l)
}

func (w *world) facts() []hosttest.Fact {
	w.t.Helper()
	return w.Facts(delivery.Name, "fact.delivery.>")
}

// until waits for n facts of a name and returns all facts.
func (w *world) until(name string, n int) []hosttest.Fact {
	w.t.Helper()
	var facts []hosttest.Fact
	eventlogtest.Eventually(w.t, name, func() bool {
		facts = w.facts()
		return count(facts, name) >= n
	})
	return facts
}

func count(facts []hosttest.Fact, name string) (n int) {
	for _, f := range facts {
		if f.Name() == name {
			n++
		}
	}
	return n
}

func (w *world) wantFacts(want ...string) {
	w.t.Helper()
	if diff := cmp.Diff(want, hosttest.Names(w.facts())); diff != "" {
		w.t.Errorf("facts (-want +got)\n%s", diff)
	}
}

// mails returns what came, oldest first.
func (w *world) mails() []mailbox.Message {
	w.t.Helper()
	var all []mailbox.Message
	for _, s := range w.box.Messages() {
		m, err := w.box.Message(s.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, m)
	}
	slices.Reverse(all)
	return all
}

// wantMails checks how many mails came, that all have one Message-ID, and returns them.
func (w *world) wantMails(n int, delivery string) []mailbox.Message {
	w.t.Helper()
	all := w.mails()
	if len(all) != n {
		w.t.Fatalf("%d mails came, want %d", len(all), n)
	}
	for _, m := range all {
		if want := delivery + "@acme.test"; m.MessageID != want {
			w.t.Errorf("Message-ID %s, want %s", m.MessageID, want)
		}
	}
	return all
}

// idOf returns the delivery that a fact is about.
func idOf(t *testing.T, f hosttest.Fact) string {
	t.Helper()
	_, _, k, err := eventlog.ParseSubject(f.Subject)
	if err != nil {
		t.Fatal(err)
	}
	return k.ID
}

// done checks what holds at the end of every test: nothing private was stated or logged, and nothing was given up.
func (w *world) done() {
	w.t.Helper()
	w.Private(append(w.peers.tokens(), adaName, adaMail, graceName, graceMail, bossName, bossMail, title, fileName, reason, code)...)
	if dead := w.Dead(); len(dead) > 0 {
		w.t.Errorf("dead letters: %v", dead)
	}
}

// refuse has the mail server answer a code to every recipient; 0 ends that.
func (w *world) refuse(code int) {
	w.t.Helper()
	trigger := mailbox.Trigger{}
	if code != 0 {
		trigger = mailbox.Trigger{ErrorCode: code, Probability: 100}
	}
	if err := w.box.SetChaos(mailbox.Triggers{Recipient: trigger}); err != nil {
		w.t.Fatal(err)
	}
}

// line leads to the mail server and can be cut when the server is about to say something.
type line struct {
	net.Listener
	cutAt atomic.Pointer[string] // what the server is about to say then; nil: the line holds
	cuts  atomic.Int64
}

// Accept waits for the next connection.
func (l *line) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return wire{c, l}, nil
}

type wire struct {
	net.Conn
	line *line
}

// Write sends, or cuts the line.
func (c wire) Write(p []byte) (int, error) {
	if at := c.line.cutAt.Load(); at != nil && bytes.Contains(p, []byte(*at)) {
		c.line.cuts.Add(1)
		return 0, errors.Join(io.ErrClosedPipe, c.Close())
	}
	return c.Conn.Write(p)
}

// hook is a sender after whose hand-over something happens.
type hook struct {
	channel.Sender
	after func() error
}

// Send hands over for real.
func (h *hook) Send(ctx context.Context, m channel.Message) (channel.Receipt, error) {
	receipt, err := h.Sender.Send(ctx, m)
	if err == nil {
		err = h.after()
	}
	return receipt, err
}
