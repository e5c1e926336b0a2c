// Package redisserver starts a Redis of one's own on loopback, for one process that is to run without being given one: the
// real redis-server as a child where it is installed, an embedded stand-in otherwise. Neither keeps anything: it is a cache.
package redisserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"sync"
	"time"
)

// Binary is the program looked for in PATH.
const Binary = "redis-server"

// Kind tells what answers at the address.
type Kind string

// The two kinds.
const (
	Real     Kind = "redis-server"                                                                // a child process
	Embedded Kind = "miniredis (embedded stand-in without Redis's speed and all of its commands)" // in this process
)

// Limits of starting and stopping. A redis-server without data does both in some 20 ms.
const (
	startTimeout = 10 * time.Second
	pollEvery    = 5 * time.Millisecond
	stopTimeout  = 3 * time.Second // then it is killed; there is nothing to lose
	portTries    = 5               // a free port may be taken by another before the child binds it
)

// ErrNotLoopback refuses to listen where others could reach a server without a password.
var ErrNotLoopback = errors.New("redisserver: only a loopback address such as 127.0.0.1:6379")

// Options say what to start; the zero Options are fine.
type Options struct {
	Addr     string       // loopback host:port; port 0 or "" = a free one
	Binary   string       // path of redis-server; "" = the one in PATH, or embedded where there is none
	Embedded bool         // start the stand-in even where redis-server is installed
	Log      *slog.Logger // nil = silent
	// Args are the real one's settings beside its address, such as a node of a Cluster or a Sentinel needs; nil = nothing is kept.
	// A name of a configuration file comes first.
	Args []string
	Dir  string // where the real one keeps what Args have it keep; "" = nowhere
}

// Server is a running Redis. Its methods are safe for concurrent use.
type Server struct {
	addr    string
	kind    Kind
	version string
	pid     int // of the child; 0 = embedded

	stop func()
	once sync.Once
	done chan struct{}
}

// Start returns a server that answers, or why there is none. ctx bounds the start alone; end the server with Stop. A child
// is killed by the system when this process dies without calling it (Linux).
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	addr, err := loopback(o.Addr)
	if err != nil {
		return nil, err
	}
	binary, err := find(o)
	if err != nil {
		return nil, err
	}
	var s *Server
	if binary == "" {
		s, err = startEmbedded(addr)
	} else {
		s, err = startReal(ctx, o, binary, addr)
	}
	if err != nil {
		return nil, err
	}
	o.Log.InfoContext(ctx, "Redis is up", "addr", s.addr, "kind", string(s.kind), "version", s.version)
	return s, nil
}

// Addr returns the host:port to connect to.
func (s *Server) Addr() string { return s.addr }

// Kind tells which of the two it is, in words fit to show.
func (s *Server) Kind() Kind { return s.kind }

// Version returns redis-server's version; "" for the stand-in.
func (s *Server) Version() string { return s.version }

// PID returns the child's process id, 0 for the stand-in.
func (s *Server) PID() int { return s.pid }

// Done is closed when the server is gone, be it by Stop or by an accident.
func (s *Server) Done() <-chan struct{} { return s.done }

// Stop ends the server and returns when it is gone. Stopping twice is fine.
func (s *Server) Stop() {
	s.once.Do(s.stop)
	<-s.done
}

// find returns the program to run, "" for the stand-in.
func find(o Options) (string, error) {
	if o.Embedded {
		return "", nil
	}
	if o.Binary != "" {
		path, err := exec.LookPath(o.Binary)
		if err != nil {
			return "", fmt.Errorf("redisserver: %w", err)
		}
		return path, nil
	}
	path, err := exec.LookPath(Binary)
	if err != nil {
		o.Log.Warn("no redis-server in PATH, using the embedded stand-in: fit for a try, not for load")
		return "", nil
	}
	return path, nil
}

// loopback returns addr complete, with port 0 where a free one is wanted.
func loopback(addr string) (netip.AddrPort, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %w", ErrNotLoopback, err)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsLoopback() {
		return netip.AddrPort{}, fmt.Errorf("%w, not %s", ErrNotLoopback, addr)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w, not %s", ErrNotLoopback, addr)
	}
	return netip.AddrPortFrom(ip, uint16(n)), nil
}
