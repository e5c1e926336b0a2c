package natsaccess_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/natsaccess"
	"countersign.dev/pkg/natsserver"
)

func ring(t *testing.T, fill byte) *keys.Ring {
	t.Helper()
	r, err := keys.NewRing(bytes.Repeat([]byte{fill}, keys.MasterSize))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// world is a server with accounts, its record, and the platforms of two tenants.
type world struct {
	url      string
	ring     *keys.Ring
	services *nats.Conn
	js       jetstream.JetStream
}

func start(t *testing.T, platforms ...natsaccess.Platform) *world {
	t.Helper()
	w := &world{ring: ring(t, 1)}
	text, err := natsaccess.Config(w.ring, platforms)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "accounts.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	server, err := natsserver.Start(natsserver.Options{Listen: "127.0.0.1:0", Dir: t.TempDir(), Accounts: file, SyncEvery: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	w.url = server.URL()
	if w.services, err = natsaccess.Connect(w.url, w.ring); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.services.Close)
	if w.js, err = jetstream.New(w.services); err != nil {
		t.Fatal(err)
	}
	for name, subjects := range map[string][]string{"INTAKE": {"intake.*"}, "OUTCOMES": {"outcome.>"}, "FACTS_TOKEN": {"fact.token.>"}} {
		if _, err := w.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: subjects}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// platform connects as one of a tenant; denied has what the server refused.
func (w *world) platform(t *testing.T, p natsaccess.Platform) (nc *nats.Conn, denied chan error) {
	t.Helper()
	denied = make(chan error, 100)
	pair := p.Key(w.ring)
	id, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	nc, err = nats.Connect(w.url, nats.Nkey(id, pair.Sign), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc, denied
}

func (w *world) messages(t *testing.T) (n uint64) {
	t.Helper()
	for info := range w.js.ListStreams(t.Context()).Info() {
		n += info.State.Msgs
	}
	return n
}

var acme, globex = natsaccess.Platform{Tenant: "acme", Number: 1}, natsaccess.Platform{Tenant: "globex", Number: 1}

// TestAPlatformDoesItsOwn: it publishes its intake and is told that it is stored, and hears its outcomes and answers.
func TestAPlatformDoesItsOwn(t *testing.T) {
	t.Parallel()
	w := start(t, acme, globex)
	nc, _ := w.platform(t, acme)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	m := nats.NewMsg("intake.acme")
	m.Data = []byte("a request")
	m.Header.Set("ce-type", "countersign.signing.v1.SigningRequest")
	for range 2 { // once is stored
		ack, err := js.PublishMsg(t.Context(), m, jetstream.WithMsgID("one"))
		if err != nil || ack.Stream != "INTAKE" || ack.Sequence != 1 {
			t.Fatalf("the platform is told %+v, %v", ack, err)
		}
	}
	stream, err := w.js.Stream(t.Context(), "INTAKE")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := stream.GetLastMsgForSubject(t.Context(), "intake.acme")
	if err != nil || string(stored.Data) != "a request" || stored.Header.Get("ce-type") == "" {
		t.Errorf("stored %v, %v", stored, err)
	}
	for _, subject := range []string{"outcome.acme.req_1", "reply.acme.1"} {
		sub, err := nc.SubscribeSync(strings.Replace(subject, "req_1", ">", 1))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(nc.Flush(), w.services.Publish(subject, []byte("told"))); err != nil {
			t.Fatal(err)
		}
		if got, err := sub.NextMsg(10 * time.Second); err != nil || string(got.Data) != "told" {
			t.Errorf("%s: %v", subject, err)
		}
	}
}

// TestAPlatformDoesNothingElse: neither for another tenant, nor with the record.
func TestAPlatformDoesNothingElse(t *testing.T) {
	t.Parallel()
	w := start(t, acme, globex)
	nc, denied := w.platform(t, acme)
	refused := func(what string) {
		t.Helper()
		select {
		case err := <-denied:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s is not refused", what)
		}
	}
	before := w.messages(t)
	for _, subject := range []string{
		"intake.globex", "intake.acme.more", "outcome.acme.req_1", "outcome.globex.req_1", "reply.globex.1", "fact.token.acme.req_1", "timer.token.acme.x", "dead.token",
		"$JS.API.INFO", "$JS.API.STREAM.INFO.FACTS_TOKEN", "$JS.API.STREAM.MSG.GET.FACTS_TOKEN", "$JS.API.STREAM.PURGE.INTAKE", "$JS.API.STREAM.DELETE.INTAKE",
		"$JS.API.CONSUMER.CREATE.INTAKE", "$JS.API.DIRECT.GET.FACTS_TOKEN", "$JS.ACK.INTAKE.token.1.1.1.1.0", "$SYS.REQ.SERVER.PING", "_INBOX.x", "anything",
	} {
		if err := errors.Join(nc.PublishRequest(subject, "_INBOX.mine", []byte("x")), nc.Flush()); err != nil {
			t.Fatal(err)
		}
		refused("to publish on " + subject)
	}
	heard := make(chan *nats.Msg, 100)
	for _, subject := range []string{
		">", "*.*", "intake.acme", "intake.globex", "outcome.>", "outcome.globex.>", "outcome.*.req_1", "reply.>", "reply.globex.>", "fact.>", "$JS.>", "$SYS.>", "_INBOX_x.>",
	} {
		if _, err := nc.ChanSubscribe(subject, heard); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		refused("to hear " + subject)
	}
	// Answers to somebody else are another world's: also where the subject may be heard.
	if _, err := nc.ChanSubscribe("_INBOX.>", heard); err != nil {
		t.Fatal(err)
	}
	other, _ := w.platform(t, globex)
	answers, err := jetstream.New(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := answers.Publish(t.Context(), "intake.globex", []byte("theirs")); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"outcome.globex.req_1", "fact.token.globex.req_1", "reply.globex.1", "_INBOX.somebody"} {
		if err := w.services.Publish(subject, []byte("theirs")); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.services.Flush(), other.Flush(), nc.Flush()); err != nil {
		t.Fatal(err)
	}
	for len(heard) > 0 {
		t.Errorf("acme heard %q", (<-heard).Subject)
	}
	if got := w.messages(t); got != before+3 { // globex's intake, and what the services said of it
		t.Errorf("%d messages are stored, want %d", got, before+3)
	}
}

// TestWhoIsLetIn: by a key of the file alone; a platform's next key takes the place of the one before.
func TestWhoIsLetIn(t *testing.T) {
	t.Parallel()
	second := natsaccess.Platform{Tenant: "acme", Number: 2}
	w := start(t, second)
	w.platform(t, second)
	for name, p := range map[string]natsaccess.Platform{"the key before": acme, "a tenant that is not there": globex} {
		pair := p.Key(w.ring)
		id, _ := pair.PublicKey()
		if nc, err := nats.Connect(w.url, nats.Nkey(id, pair.Sign)); err == nil {
			nc.Close()
			t.Errorf("%s is let in", name)
		}
	}
	if nc, err := nats.Connect(w.url); err == nil {
		nc.Close()
		t.Error("nobody is let in")
	}
	if nc, err := natsaccess.Connect(w.url, ring(t, 2)); err == nil {
		nc.Close()
		t.Error("another deployment is let in")
	}
	// A server that takes everybody takes us.
	open, err := natsserver.Start(natsserver.Options{Listen: "127.0.0.1:0", Dir: t.TempDir(), SyncEvery: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Stop()
	nc, err := natsaccess.Connect(open.URL(), w.ring)
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
}

func TestPlatformsRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "Acme", "a.b", "acme:", "acme:0", "acme:x", ">", "acme:1:2", strings.Repeat("a", 33)} {
		if p, err := natsaccess.ParsePlatform(text); err == nil {
			t.Errorf("%q is %v", text, p)
		}
	}
	if p, err := natsaccess.ParsePlatform("acme:3"); err != nil || p != (natsaccess.Platform{Tenant: "acme", Number: 3}) {
		t.Errorf("%v, %v", p, err)
	}
	if _, err := natsaccess.Config(ring(t, 1), []natsaccess.Platform{acme, acme}); err == nil {
		t.Error("a tenant may stand twice")
	}
}
