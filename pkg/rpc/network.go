package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	// bufconn is gRPC's own in-memory connection, with flow control and half-close like a socket's.
	"google.golang.org/grpc/test/bufconn"

	"countersign.dev/pkg/auth"
)

// pipeBytes is how much one direction of an in-memory connection holds before its writer waits.
const pipeBytes = 256 << 10

// Network is where the services of one process find each other, and those apart, by name. Make one a process and give
// it to every server and Dial. It is safe for concurrent use.
type Network struct {
	mu      sync.Mutex
	places  map[string]place
	changed chan struct{} // closed and made anew whenever places changes
}

// place is where a name is served: over memory, or elsewhere at an address.
type place struct {
	memory  *memoryListener
	address string
	stopped bool
}

// NewNetwork returns a network on which nobody listens.
func NewNetwork() *Network {
	return &Network{places: map[string]place{}, changed: make(chan struct{})}
}

// Listen returns a listener for name that only this process can reach. Each of its connections carries the name of the
// service that dialled (auth.Addr). After its Close the name may be listened on again.
func (n *Network) Listen(name string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p, taken := n.places[name]; taken && !p.stopped {
		return nil, fmt.Errorf("rpc: %q is served already", name)
	}
	l := &memoryListener{network: n, name: name, accepted: make(chan net.Conn), closed: make(chan struct{}), pipes: map[string]*bufconn.Listener{}}
	n.set(name, place{memory: l})
	return l, nil
}

// At says that name is served elsewhere, at host:port. It overrides what was said before.
func (n *Network) At(name, address string) error {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("rpc: %q is no address for %q, give host:port: %w", address, name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.set(name, place{address: address})
	return nil
}

func (n *Network) set(name string, p place) {
	n.places[name] = p
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *Network) find(name string) (place, bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, ok := n.places[name]
	return p, ok, n.changed
}

// dial connects caller to name. A service that has not begun to listen is waited for, until ctx ends.
func (n *Network) dial(ctx context.Context, caller, name string) (net.Conn, error) {
	for {
		p, ok, changed := n.find(name)
		switch {
		case ok && p.stopped:
			return nil, fmt.Errorf("rpc: %s has stopped", name)
		case ok && p.memory != nil:
			return p.memory.dial(ctx, caller)
		case ok:
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.address)
			if err != nil {
				return nil, fmt.Errorf("rpc: reach %s: %w", name, err)
			}
			return conn, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("rpc: nobody listens as %s: %w", name, context.Cause(ctx))
		}
	}
}

func (n *Network) stopped(l *memoryListener) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.places[l.name].memory == l {
		n.set(l.name, place{stopped: true})
	}
}

// memoryListener joins one pipe listener for each service that dials, so that the dialler of every connection is known.
type memoryListener struct {
	network  *Network
	name     string
	accepted chan net.Conn
	closed   chan struct{}

	mu    sync.Mutex
	pipes map[string]*bufconn.Listener
	done  bool
	wg    sync.WaitGroup
}

func (l *memoryListener) dial(ctx context.Context, caller string) (net.Conn, error) {
	pipe, err := l.pipe(caller)
	if err != nil {
		return nil, err
	}
	conn, err := pipe.DialContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("rpc: reach %s in memory: %w", l.name, err)
	}
	return conn, nil
}

func (l *memoryListener) pipe(caller string) (*bufconn.Listener, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return nil, fmt.Errorf("rpc: %s has stopped", l.name)
	}
	pipe, ok := l.pipes[caller]
	if !ok {
		pipe = bufconn.Listen(pipeBytes)
		l.pipes[caller] = pipe
		l.wg.Go(func() { l.forward(caller, pipe) })
	}
	return pipe, nil
}

func (l *memoryListener) forward(caller string, pipe *bufconn.Listener) {
	for {
		conn, err := pipe.Accept()
		if err != nil {
			return // closed
		}
		select {
		case l.accepted <- namedConn{conn, caller, l.name}:
		case <-l.closed:
			_ = conn.Close() // nobody takes it any more
		}
	}
}

// Accept waits for the next connection.
func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the listener; connections go on. A second Close returns net.ErrClosed.
func (l *memoryListener) Close() error {
	l.mu.Lock()
	if l.done {
		l.mu.Unlock()
		return net.ErrClosed
	}
	l.done = true
	close(l.closed)
	var err error
	for _, p := range l.pipes {
		err = errors.Join(err, p.Close())
	}
	l.mu.Unlock()
	l.wg.Wait()
	l.network.stopped(l)
	return err
}

// Addr returns the address, named after the service itself.
func (l *memoryListener) Addr() net.Addr { return auth.Addr{Service: l.name} }

// namedConn is the server's end of an in-memory connection.
type namedConn struct {
	net.Conn
	caller, service string
}

func (c namedConn) RemoteAddr() net.Addr { return auth.Addr{Service: c.caller} }
func (c namedConn) LocalAddr() net.Addr  { return auth.Addr{Service: c.service} }

// isName tells a service's name from an address.
func isName(target string) bool { return target != "" && !strings.ContainsAny(target, ":/") }
