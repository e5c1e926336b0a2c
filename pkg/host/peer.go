package host

import (
	"context"
	"crypto/hmac"
	"encoding/hex"
	"strings"
	"sync"

	"google.golang.org/grpc"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/rpc"
	"countersign.dev/pkg/telemetry"
)

// peerToken is how a service proves to another over TCP that it holds the same keys: csp_<service>_<mac>.
func peerToken(ring *keys.Ring, service string) string {
	return "csp_" + service + "_" + hex.EncodeToString(ring.MAC("cs.peer.v1", []byte(service)))
}

// PeerAuth lets in the services of the same deployment: over memory by who dialled, over TCP by a token that only the holder of the
// keys can make. A service may pass on the platform for which it asks.
func PeerAuth(ring *keys.Ring) auth.Authenticator {
	return auth.OnBehalf(auth.FirstOf(auth.InProcess(), auth.Func(func(_ context.Context, e auth.Evidence) (auth.Caller, error) {
		token, bearer := strings.CutPrefix(e.Authorization, "Bearer ")
		if !bearer || !strings.HasPrefix(token, "csp_") {
			return auth.Caller{}, auth.ErrAbsent
		}
		service, _, _ := strings.Cut(strings.TrimPrefix(token, "csp_"), "_")
		if !hmac.Equal([]byte(token), []byte(peerToken(ring, service))) {
			return auth.Caller{}, failure.Unauthenticated
		}
		return auth.Caller{ID: service, Kind: auth.Internal}, nil
	})))
}

// peers dials other services for one service and keeps the connections.
type peers struct {
	self      string
	network   *rpc.Network
	ring      *keys.Ring
	telemetry *telemetry.Telemetry

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

func newPeers(self string, network *rpc.Network, ring *keys.Ring, t *telemetry.Telemetry) *peers {
	return &peers{self: self, network: network, ring: ring, telemetry: t, conns: map[string]*grpc.ClientConn{}}
}

// Dial returns the one connection to a service.
func (p *peers) Dial(service string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.conns[service]; c != nil {
		return c, nil
	}
	token := peerToken(p.ring, p.self)
	c, err := rpc.Dial(service, rpc.DialOptions{
		Self: p.self, Network: p.network, Telemetry: p.telemetry, OnBehalf: true, Plaintext: true,
		Token: func() string { return token },
	})
	if err != nil {
		return nil, err
	}
	p.conns[service] = c
	return c, nil
}

// close ends all connections.
func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
}
