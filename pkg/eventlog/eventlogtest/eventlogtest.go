// Package eventlogtest gives tests a real NATS server that can be restarted, and waits without sleeping.
package eventlogtest

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/natsserver"
)

// Server is a NATS server on a directory of the test.
type Server struct {
	t      testing.TB
	opts   natsserver.Options
	server *natsserver.Server
}

// Start starts a server that syncs always; it stops with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, opts: natsserver.Options{Listen: "127.0.0.1:0", Dir: t.TempDir()}}
	s.start()
	// It stays on its port when it is restarted, as a server of one's own does.
	s.opts.Listen = s.server.URL()[len("nats://"):]
	t.Cleanup(func() { s.server.Stop() })
	return s
}

func (s *Server) start() {
	s.t.Helper()
	server, err := natsserver.Start(s.opts)
	if err != nil {
		s.t.Fatal(err)
	}
	s.server = server
}

// Restart stops the server and starts it again on the same files and port.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.start()
}

// Stop stops the server; Restart brings it back.
func (s *Server) Stop() { s.server.Stop() }

// URL returns the server's address.
func (s *Server) URL() string { return s.server.URL() }

// Connect returns a connection that comes back after a restart and closes with the test.
func (s *Server) Connect() *nats.Conn {
	s.t.Helper()
	nc, err := nats.Connect(s.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(nc.Close)
	return nc
}

// Provision makes a topology on the server.
func (s *Server) Provision(nc *nats.Conn, t eventlog.Topology) jetstream.JetStream {
	s.t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	stamp := func(string) map[string]string {
		return map[string]string{eventlog.BirthKey: s.t.Name(), eventlog.SyncKey: eventlog.SyncAlways}
	}
	if _, err := eventlog.Provision(ctx, js, t, 1, stamp); err != nil {
		s.t.Fatal(err)
	}
	return js
}

// Eventually polls until check returns true, and fails the test when it does not within a minute.
func Eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if check() {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
