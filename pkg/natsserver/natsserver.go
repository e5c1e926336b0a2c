// Package natsserver runs a NATS server with JetStream inside the process, on disk, as safe as a server of its own.
package natsserver

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	// The server itself: the same code as the nats-server binary, so that one process has all of its promises.
	"github.com/nats-io/nats-server/v2/server"

	"countersign.dev/pkg/mutant"
)

// MaxPayload lets a request carry a document of 5 MiB in base64 (decisions 20).
const MaxPayload = 8 << 20

// Options of a server.
type Options struct {
	// Listen is host:port; port 0 takes a free one.
	Listen string
	// Dir is where JetStream keeps its files.
	Dir string
	// Key encrypts the files (AES-GCM); empty leaves them in clear.
	Key string
	// SyncEvery writes behind acknowledgements; 0 syncs before each one, which is the only setting that survives a power cut.
	SyncEvery time.Duration
	// Accounts is a file that says who may do what, as package natsaccess writes it; empty lets everybody do everything.
	Accounts string
}

// Server is a running server. Where a write to its disk failed, it begins anew by itself once there is space again.
type Server struct {
	options *server.Options
	stop    chan struct{}
	stopped chan struct{}
	end     sync.Once

	mu sync.Mutex
	ns *server.Server
}

// Start starts a server and returns when clients can connect.
func Start(o Options) (*Server, error) {
	host, port, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return nil, fmt.Errorf("natsserver: listen address %q: %w", o.Listen, err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("natsserver: listen address %q: port is no number", o.Listen)
	}
	if number == 0 {
		number = server.RANDOM_PORT
	}
	opts := &server.Options{}
	if o.Accounts != "" {
		if opts, err = server.ProcessConfigFile(o.Accounts); err != nil {
			return nil, fmt.Errorf("natsserver: accounts: %w", err)
		}
	}
	opts.ServerName, opts.Host, opts.Port, opts.NoSigs, opts.NoLog, opts.MaxPayload = "countersign", host, number, true, true, MaxPayload
	opts.JetStream, opts.StoreDir, opts.SyncAlways, opts.SyncInterval = true, o.Dir, o.SyncEvery == 0 && !mutant.LazySync, o.SyncEvery
	if o.Key != "" {
		opts.JetStreamCipher, opts.JetStreamKey = server.AES, o.Key
	}
	ns, err := run(opts)
	if err != nil {
		return nil, err
	}
	opts.Port = ns.Addr().(*net.TCPAddr).Port //nolint:errcheck,forcetypeassert // it listens on TCP; clients know this port from now on
	s := &Server{options: opts, ns: ns, stop: make(chan struct{}), stopped: make(chan struct{})}
	go s.watch()
	return s, nil
}

// run returns a server that takes connections, on its files.
func run(opts *server.Options) (*server.Server, error) {
	ns, err := server.NewServer(opts.Clone())
	if err != nil {
		return nil, fmt.Errorf("natsserver: %w", err)
	}
	ns.Start()
	if !ns.ReadyForConnections(30 * time.Second) {
		ns.Shutdown()
		return nil, errors.New("natsserver: not ready within 30 s; is another process using the same directory or port?")
	}
	if !ns.JetStreamEnabled() {
		ns.Shutdown()
		return nil, fmt.Errorf("natsserver: JetStream did not start on %s; is the directory writable, and the key the one it was made with?", opts.StoreDir)
	}
	return ns, nil
}

// URL returns the address that clients connect to.
func (s *Server) URL() string { return s.current().ClientURL() }

func (s *Server) current() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ns
}

// Stop shuts the server down and returns when its files are closed. Stopping twice is fine.
func (s *Server) Stop() {
	s.end.Do(func() { close(s.stop) })
	<-s.stopped
	ns := s.current()
	ns.Shutdown()
	ns.WaitForShutdown()
}
