package eventlogtest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// Proxy stands between a client and the server and can swallow what the server answers: the write is stored, its acknowledgement is lost.
type Proxy struct {
	t        testing.TB
	listener net.Listener
	target   string
	deaf     atomic.Bool

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// Proxy starts a proxy before the server; it stops with the test.
func (s *Server) Proxy() *Proxy {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	p := &Proxy{t: s.t, listener: l, target: s.URL()[len("nats://"):], conns: map[net.Conn]bool{}}
	go p.accept()
	s.t.Cleanup(func() {
		_ = l.Close()
		p.cut()
	})
	return p
}

// Connect returns a connection through the proxy.
func (p *Proxy) Connect() *nats.Conn {
	p.t.Helper()
	nc, err := nats.Connect("nats://"+p.listener.Addr().String(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(nc.Close)
	return nc
}

// LoseAnswers swallows what the server sends from now on.
func (p *Proxy) LoseAnswers() { p.deaf.Store(true) }

// Heal cuts all connections, whose answers are lost for good, and lets new ones through.
func (p *Proxy) Heal() {
	p.cut()
	p.deaf.Store(false)
}

func (p *Proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		go func() { _, _ = io.Copy(server, client); _ = server.Close() }()
		go p.answers(client, server)
	}
}

func (p *Proxy) answers(client, server net.Conn) {
	defer client.Close() //nolint:errcheck // the test looks at what came through
	buffer := make([]byte, 32<<10)
	for {
		n, err := server.Read(buffer)
		if err != nil {
			return
		}
		if p.deaf.Load() {
			continue
		}
		if _, err := client.Write(buffer[:n]); err != nil {
			return
		}
	}
}
