package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"countersign.dev/pkg/clock"
	"countersign.dev/services/mailbox"
)

// mood is how a relay treats who connects.
type mood int

const (
	works          mood = iota
	refusesByName       // answers 450 to each recipient, with their address in it, as relays do
	dropsAtOnce         // closes the connection before a word is said
	dropsAfterData      // takes one whole mail, and closes the connection before it says so; then works
)

// relay is an SMTP server of the test: a mailbox of its own behind a door that loses connections.
type relay struct {
	*mailbox.Mailbox
	address string // of SMTP
	page    string // URL of the mailbox
	behind  string // where the mailbox itself takes mail

	mu   sync.Mutex
	mood mood
}

// newRelay starts a relay that ends with the test.
func newRelay(t *testing.T) *relay {
	t.Helper()
	listen := func() net.Listener {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	door, smtp, page := listen(), listen(), listen()
	r := &relay{address: door.Addr().String(), page: "http://" + page.Addr().String(), behind: smtp.Addr().String()}
	var err error
	if r.Mailbox, err = mailbox.New(mailbox.Config{Dir: t.TempDir(), SMTP: smtp, HTTP: page, Now: func() time.Time { return clock.System().Now("") }}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	running.Go(func() { r.serve(door) })
	t.Cleanup(func() {
		cancel()
		_ = door.Close()
		running.Wait()
	})
	return r
}

// set changes the mood.
func (r *relay) set(m mood) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mood = m
}

func (r *relay) is(m mood) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mood == m
}

// drop tells whether to drop a connection, which is so in one mood only.
func (r *relay) drop(in mood) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mood != in {
		return false
	}
	if in == dropsAfterData {
		r.mood = works
	}
	return true
}

func (r *relay) serve(door net.Listener) {
	for {
		client, err := door.Accept()
		if err != nil {
			return
		}
		if r.drop(dropsAtOnce) {
			_ = client.Close()
			continue
		}
		go r.carry(client)
	}
}

// forward passes on what a client says, but for recipients that are refused here.
func (r *relay) forward(server io.Writer, client net.Conn) {
	commands := bufio.NewReader(client)
	for {
		line, err := commands.ReadString('\n')
		if err != nil {
			return
		}
		if to, found := strings.CutPrefix(line, "RCPT TO:"); found && r.is(refusesByName) {
			_, err = fmt.Fprintf(client, "450 4.2.1 %s (Testperson Nr1) is over quota, try again\r\n", strings.TrimSpace(to))
		} else {
			_, err = io.WriteString(server, line)
		}
		if err != nil {
			return
		}
	}
}

// carry passes on what both say, until one hangs up or the mood says so.
func (r *relay) carry(client net.Conn) {
	defer client.Close() //nolint:errcheck // over either way
	server, err := net.Dial("tcp", r.behind)
	if err != nil {
		return
	}
	defer server.Close() //nolint:errcheck // over either way
	go func() {
		r.forward(server, client)
		_ = server.Close()
	}()
	replies := bufio.NewReader(server)
	for {
		line, err := replies.ReadString('\n')
		if err != nil {
			return
		}
		// The mailbox has stored the mail when it says so: who does not hear it must send it again.
		if strings.HasPrefix(line, "250") && strings.Contains(line, "queued as") && r.drop(dropsAfterData) {
			return
		}
		if _, err := io.WriteString(client, line); err != nil {
			return
		}
	}
}
