package proof

import (
	"io"
	"net"
	"sync"
	"testing"
)

// wire stands between clients and a server and cuts their connections, as a network does: what was under way may have been done.
type wire struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	conns []net.Conn // of clients
	ended bool
}

func newWire(t *testing.T, target string) *wire {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, target: target}
	go w.accept()
	t.Cleanup(func() {
		_ = l.Close()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended = true
		for _, c := range w.conns {
			_ = c.Close()
		}
	})
	return w
}

func (w *wire) address() string { return w.listener.Addr().String() }

// cut resets one connection, and tells whether there was one.
func (w *wire) cut(which int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.conns) == 0 {
		return false
	}
	i := which % len(w.conns)
	c := w.conns[i]
	w.conns = append(w.conns[:i], w.conns[i+1:]...)
	if tcp, is := c.(*net.TCPConn); is {
		_ = tcp.SetLinger(0) // what was not sent yet never is
	}
	return c.Close() == nil
}

func (w *wire) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", w.target) //nolint:noctx // loopback; it ends with the connection it is made for
		if err != nil {
			_ = client.Close()
			continue
		}
		w.mu.Lock()
		if w.ended {
			_ = client.Close()
		}
		w.conns = append(w.conns, client)
		w.mu.Unlock()
		// Either end being gone ends the other.
		go func() { _, _ = io.Copy(server, client); _ = server.Close(); _ = client.Close() }()
		go func() { _, _ = io.Copy(client, server); _ = server.Close(); _ = client.Close() }()
	}
}
